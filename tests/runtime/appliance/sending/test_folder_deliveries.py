"""Deliveries to a folder: tried again, refused, asked for after an unclear outcome, and kept from a missing folder."""

from __future__ import annotations

from itertools import pairwise

from helpers.appliance import OUT
from spinescore.runtime.appliance.seen.status import deliver_again, retry
from spinescore.runtime.appliance.sending.delivery import Outcome, note_destinations


def test_a_destination_is_tried_again_later_and_later_and_then_parked(make, files):
    appliance = make()
    tries = []

    def send(parcel):
        tries.append(appliance.clock.now())
        return Outcome("later", "no network")

    appliance.destinations[0].send = send
    appliance.receive(*files)
    appliance.run(60)
    gaps = [after - before for before, after in pairwise(tries)]
    assert gaps == sorted(gaps)
    assert gaps[0] >= 5.0
    for _ in range(40):
        appliance.clock.pass_s(450.0)
        appliance.step()
    assert appliance.study()["state"] == "delivering"
    assert all(after - before == 900.0 for before, after in pairwise(tries[-5:]))
    appliance.clock.pass_s(7 * 86400.0)
    for _ in range(5):
        appliance.clock.pass_s(1000.0)
        appliance.step()
    assert (appliance.study()["state"], appliance.study()["code"]) == ("parked", "delivery-expired")
    del appliance.destinations[0].send
    assert "has its results" in retry(appliance.index, appliance.clock, 1)
    appliance.clock.pass_s(1000.0)
    assert deliver_again(appliance.index, appliance.clock, 1).startswith("3 files")
    appliance.run(5)
    assert appliance.study()["state"] == "delivered"


def test_a_refusal_parks_at_once_and_costs_the_other_files_nothing(make, files):
    appliance = make()
    send = appliance.destinations[0].send
    appliance.destinations[0].send = lambda parcel: (
        Outcome("refused", "0x0122") if parcel.kind == "sr" else send(parcel)
    )
    appliance.receive(*files)
    appliance.run(5)
    assert appliance.delivered() == {"revision-1": ["report.json", "set.json"]}
    assert (appliance.study()["state"], appliance.study()["code"]) == ("parked", "delivery-refused")


def test_an_unclear_outcome_is_asked_before_anything_is_sent_again(make, files):
    appliance = make()
    appliance.receive(*files)
    appliance.run(5)
    sent, asked = [], []
    with appliance.index.transaction():
        appliance.index.change("UPDATE deliveries SET state = 'sending'")
    again = make(appliance.clock)
    send, holds = again.destinations[0].send, again.destinations[0].holds
    (again.root / OUT / "1.2.3.4/revision-1/sr.dcm").unlink()
    again.destinations[0].send = lambda parcel: (sent.append(parcel.kind), send(parcel))[1]
    again.destinations[0].holds = lambda parcel: (asked.append(parcel.kind), holds(parcel))[1]
    again.run(3)
    assert (sorted(asked), sent) == (["json", "set", "sr"], ["sr"])
    assert again.delivered() == {"revision-1": ["report.json", "set.json", "sr.dcm"]}


def test_results_are_as_open_as_their_folder(make, files):
    appliance = make()
    (appliance.root / OUT).chmod(0o750)
    appliance.receive(*files)
    appliance.run(5)
    folder = appliance.root / OUT / "1.2.3.4" / "revision-1"
    assert folder.stat().st_mode & 0o777 == 0o750
    assert (folder / "sr.dcm").stat().st_mode & 0o777 == 0o640


def test_results_wait_for_a_folder_that_is_not_mounted(make, files):
    appliance = make()
    (appliance.root / OUT).rmdir()
    appliance.receive(*files)
    appliance.run(5)
    assert appliance.study()["state"] == "delivering"
    assert not (appliance.root / OUT).exists()
    assert faults(appliance) == []  # not at the first attempt
    appliance.run(60)
    text = f"the destination out: there is no folder {appliance.root / OUT}; it is tried again"
    assert faults(appliance) == [("destination-unreachable", text)]
    (appliance.root / OUT).mkdir()
    appliance.clock.pass_s(60.0)
    appliance.run(5)
    assert appliance.delivered() == {"revision-1": ["report.json", "set.json", "sr.dcm"]}


def faults(appliance) -> list[tuple[str, str]]:
    return [tuple(row) for row in appliance.index.rows("SELECT code, message FROM faults")]


def test_results_for_a_destination_that_was_removed_wait_until_it_is_back(make, files):
    appliance = make()
    (appliance.root / OUT).rmdir()
    appliance.receive(*files)
    appliance.run(5)
    note_destinations(appliance.index, appliance.clock, ["renamed"])
    assert (appliance.study()["state"], appliance.study()["code"]) == ("parked", "destination-removed")
    assert appliance.study()["message"].startswith("the destination out is not in the configuration any more; add it")
    note_destinations(appliance.index, appliance.clock, ["renamed"])
    assert [code for code, _ in faults(appliance)] == ["destination-removed"]
    (appliance.root / OUT).mkdir()
    note_destinations(appliance.index, appliance.clock, [OUT])
    appliance.clock.pass_s(60.0)
    appliance.run(5)
    assert appliance.study()["state"] == "delivered"
    assert appliance.delivered() == {"revision-1": ["report.json", "set.json", "sr.dcm"]}
