"""Deliveries to a folder: tried again, refused, asked for after an unclear outcome, and kept from a missing folder."""

from __future__ import annotations

import os
import shutil
import sqlite3
from itertools import pairwise

import pytest

from helpers.appliance import OUT
from spinescore.runtime.appliance.fault import Unsent
from spinescore.runtime.appliance.seen.status import deliver_again, retry
from spinescore.runtime.appliance.sending.delivery import Outcome
from spinescore.runtime.appliance.sending.destinations import note_destinations
from spinescore.runtime.appliance.sending.sendfolder import FolderDestination
from spinescore.runtime.appliance.store.index import IndexFull
from spinescore.runtime.appliance.store.studies import cancel_deliveries


def test_a_destination_is_tried_again_later_and_later_and_then_parked(make, files):
    appliance = make()
    tries = []

    def send(parcel):
        tries.append(appliance.clock.now())
        raise Unsent("no network")

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


def test_one_file_that_is_never_taken_does_not_hold_up_the_others(make, files):
    appliance = make()
    destination = appliance.destinations[0]
    send = destination.send
    destination.send = lambda parcel: Outcome("later", "0x0110") if parcel.kind == "sr" else send(parcel)
    appliance.receive(*files)
    appliance.run(3600)
    row = appliance.index.one("SELECT * FROM deliveries WHERE kind = 'sr'")
    assert row["state"] == "waiting"
    assert row["attempts"] > 7  # by now, it is tried every 15 minutes
    with appliance.index.transaction():
        appliance.index.change("UPDATE deliveries SET next_s = 0.0 WHERE kind = 'sr'")
        appliance.index.change("UPDATE deliveries SET state = 'waiting' WHERE kind = 'json'")
    appliance.run(8)
    assert appliance.index.one("SELECT state FROM deliveries WHERE kind = 'json'")["state"] == "sent"


def test_a_destination_that_is_not_there_is_left_alone_however_much_waits_for_it(make, files):
    appliance = make()
    appliance.receive(*files)
    appliance.run(5)
    with appliance.index.transaction():
        for number in range(100):
            appliance.index.change(
                "INSERT INTO deliveries SELECT NULL, input_key, file || ?, kind, sha256, sop_instance_uid, "
                "destination, 'waiting', 0, 0, first_s, next_s, NULL, NULL, changed_s FROM deliveries WHERE "
                "file = 'report.json'", number,
            )  # fmt: skip
    report = next(appliance.places.results.glob("*/report.json"))
    for number in range(100):
        shutil.copy(report, report.with_name(f"report.json{number}"))
    (appliance.root / OUT).rename(appliance.root / "unmounted")
    for _ in range(200):
        appliance.clock.pass_s(20.0)
        appliance.step()
    assert appliance.index.one("SELECT sum(attempts) AS n FROM deliveries WHERE state = 'waiting'")["n"] < 15
    assert faults(appliance)[0][0] == "destination-unreachable"


def test_a_file_that_was_damaged_in_the_spool_is_not_sent(make, files):
    appliance = make()
    appliance.destinations[0].send = lambda parcel: Outcome("later", "not yet")
    appliance.receive(*files)
    appliance.run(3)
    del appliance.destinations[0].send
    path = next(appliance.places.results.glob("*/sr.dcm"))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    appliance.run(30)
    assert appliance.delivered() == {"revision-1": ["report.json", "set.json"]}
    message = "out refused sr.dcm: the file is damaged in the spool; correct that, then call spinescore study deliver"
    assert appliance.study()["message"] == message


def test_a_destination_that_cannot_say_for_a_day_gets_the_file_again(make, files):
    appliance = make()
    destination = appliance.destinations[0]
    send, sent = destination.send, []
    destination.send = lambda parcel: Outcome("later", "unclear")
    destination.holds = lambda parcel: None
    appliance.receive(*files)
    appliance.run(10)
    destination.send = lambda parcel: sent.append(parcel.kind) or send(parcel)
    for _ in range(22):
        appliance.clock.pass_s(3600.0)
        appliance.step()
    assert sent == []
    for _ in range(8):
        appliance.clock.pass_s(3600.0)
        appliance.step()
    assert sorted(sent) == ["json", "set", "sr"]
    assert appliance.study()["state"] == "delivered"


def test_results_that_are_superseded_while_the_destination_is_not_reached_are_not_sent(make, files):
    appliance = make()
    deliverer, index = appliance.deliverers.pop(), appliance.index
    appliance.receive(*files)
    appliance.run(5)

    def superseded(parcel):
        with index.transaction():
            index.change("UPDATE studies SET revision = 2, input_key = NULL, state = 'collecting'")
            cancel_deliveries(index, appliance.clock.now(), 1)
        raise Unsent("no network")

    appliance.destinations[0].send = superseded
    assert deliverer.step()
    assert [row["state"] for row in index.rows("SELECT state FROM deliveries")].count("waiting") == 1
    del appliance.destinations[0].send
    appliance.clock.pass_s(60.0)
    assert deliverer.step()
    assert {row["state"] for row in index.rows("SELECT state FROM deliveries")} == {"cancelled"}
    assert appliance.delivered() == {}


def test_an_outcome_that_the_index_has_no_room_for_is_unclear(make, files, monkeypatch):
    appliance = make()
    deliverer, index = appliance.deliverers[0], appliance.index
    appliance.receive(*files)
    appliance.deliverers = []
    appliance.run(5)
    appliance.deliverers = [deliverer]
    change = index.change

    def full(statement, *values):
        if "unclear = ?" in statement:
            raise sqlite3.OperationalError("database or disk is full")
        return change(statement, *values)

    monkeypatch.setattr(index, "change", full)
    with pytest.raises(IndexFull):
        deliverer.step()
    monkeypatch.setattr(index, "change", change)
    assert [row["state"] for row in index.rows("SELECT state FROM deliveries")].count("sending") == 1
    asked, holds = [], appliance.destinations[0].holds
    appliance.destinations[0].holds = lambda parcel: asked.append(parcel.kind) or holds(parcel)
    appliance.run(5)
    assert len(asked) == 1
    assert appliance.study()["state"] == "delivered"


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


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root, to have another group")
def test_results_have_the_group_of_their_folder(make, files):
    appliance = make()
    os.chown(appliance.root / OUT, -1, 4711)
    appliance.receive(*files)
    appliance.run(5)
    folder = appliance.root / OUT / "1.2.3.4" / "revision-1"
    assert {path.stat().st_gid for path in (folder.parent, folder, *folder.iterdir())} == {4711}


def test_parts_that_cannot_be_removed_do_not_end_the_service(tmp_path):
    folder = tmp_path / ".spinescore-parts"
    (folder / "x" / "y").mkdir(parents=True)
    (folder / "z.part").touch()
    destination = FolderDestination("out", tmp_path)
    destination.clear()
    assert not folder.exists()
    FolderDestination("out", tmp_path / "missing").clear()


def test_results_wait_for_a_folder_that_is_not_mounted(make, files):
    appliance = make()
    (appliance.root / OUT).rmdir()
    appliance.receive(*files)
    appliance.run(5)
    assert appliance.study()["state"] == "delivering"
    assert not (appliance.root / OUT).exists()
    assert faults(appliance) == []  # not at the first attempt
    appliance.run(60)
    unclear = appliance.index.rows("SELECT 1 FROM deliveries WHERE unclear = 1")
    assert unclear == []  # it certainly has nothing: no later report names one of these as its predecessor
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
