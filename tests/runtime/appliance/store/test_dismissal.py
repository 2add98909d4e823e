"""Deliveries that a person gives up: what they end as, what stays, and how they are taken up again."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.appliance import OUT
from spinescore.runtime.appliance.configuration.config import Destination, SpoolPart
from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.recovery import clean
from spinescore.runtime.appliance.seen import status
from spinescore.runtime.appliance.seen.status import dismiss
from spinescore.runtime.appliance.sending.destinations import note_destinations
from spinescore.runtime.appliance.store.counts import counters
from spinescore.runtime.appliance.store.studies import park


@pytest.fixture
def removed(make, files):
    """An appliance with a study whose only destination was removed from the configuration."""
    appliance = make()
    (appliance.root / OUT).rmdir()
    appliance.receive(*files)
    appliance.run(5)
    note_destinations(appliance.index, appliance.clock, [])
    assert "spinescore study dismiss 1" in appliance.study()["message"]
    return appliance


def give_up(appliance, destination=None) -> str:
    return dismiss(appliance.index, appliance.clock, 1, destination, user="somebody")


def states(appliance) -> set[str]:
    return {row["state"] for row in appliance.index.rows("SELECT state FROM deliveries")}


def test_a_study_without_its_destination_is_dismissed_and_its_results_stay(removed):
    assert (
        give_up(removed)
        == "the delivery of 3 files of study 1 is dismissed; spinescore study show 1 shows what is left"
    )
    assert (removed.study()["state"], states(removed)) == ("dismissed", {"dismissed"})
    shown = status.status(removed.places, removed.index, removed.clock)
    assert (shown["studies"]["dismissed"], shown["studies"]["delivered"], shown["parked"]) == (1, 0, {})
    assert shown["destinations"] == {OUT: {"dismissed": 3}}
    assert counters(removed.index, "deliveries")[OUT, "dismissed"] == 3
    log = "".join(path.read_text() for path in sorted((removed.places.root / "audit").iterdir()))
    assert '"event":"dismissed","study":1,"files":3,"user":"somebody"' in log
    removed.close()
    assert len(list(removed.places.results.glob("*/report.json"))) == 1


def test_what_was_dismissed_stays_so_when_its_destination_is_back(removed, make):
    give_up(removed)
    (removed.root / OUT).mkdir()
    again = make(removed.clock)
    note_destinations(again.index, again.clock, [OUT])
    again.run(5)
    assert (again.study()["state"], again.delivered()) == ("dismissed", {})
    assert status.deliver_again(again.index, again.clock, 1, among=[OUT]).startswith("3 files")
    again.run(5)
    assert (again.study()["state"], states(again)) == ("delivered", {"sent"})


def test_only_one_of_two_destinations_is_given_up(make, files, tmp_path):
    places = [Destination(name, "folder", str(tmp_path / name)) for name in (OUT, "other")]
    appliance = make(destination=tuple(places))
    (appliance.root / OUT).rmdir()
    appliance.receive(*files)
    appliance.run(5)
    assert give_up(appliance, "nowhere").endswith("nothing was changed")
    assert appliance.study()["state"] == "delivering"
    give_up(appliance, "other")
    assert (appliance.study()["state"], states(appliance)) == ("delivering", {"waiting", "dismissed"})
    (appliance.root / OUT).mkdir()
    appliance.clock.pass_s(900.0)
    appliance.run(5)
    assert (appliance.study()["state"], states(appliance)) == ("dismissed", {"sent", "dismissed"})
    assert give_up(appliance) == (
        "study 1 is dismissed and has no delivery that waits or is parked; nothing was changed"
    )


def test_another_delivery_that_is_parked_keeps_its_study_parked(make, files, tmp_path):
    appliance = make(destination=(Destination(OUT, "folder", str(tmp_path / "a")),
                                  Destination("other", "folder", str(tmp_path / "b"))))  # fmt: skip
    appliance.receive(*files)
    appliance.run(5)
    note_destinations(appliance.index, appliance.clock, [])
    give_up(appliance, OUT)
    study = appliance.study()
    assert (study["state"], study["code"]) == ("parked", "destination-removed")
    assert study["message"].startswith("the destination other is not in the configuration")


def test_a_parked_study_without_results_is_given_up_as_a_whole_until_it_is_retried(make, files):
    appliance = make()
    appliance.receive(*files)
    with appliance.index.transaction():
        park(appliance.index, appliance.clock, 1, Fault("object-damaged", "the disk is old"))
    assert give_up(appliance, OUT).endswith("nothing was changed")
    assert give_up(appliance).startswith("study 1 is dismissed")
    assert appliance.study()["code"] == "object-damaged"
    appliance.run(5)
    assert appliance.study()["state"] == "dismissed"
    status.retry(appliance.index, appliance.clock, 1)
    appliance.run(20)
    assert appliance.study()["state"] == "delivered"


def test_files_of_a_dismissed_study_are_removed_after_their_time(removed):
    give_up(removed)
    removed.clock.pass_s(40 * 86400.0)
    keep = SpoolPart(str(removed.places.root))
    clean(removed.places, removed.index, removed.clock, keep)
    assert [list(folder.glob("*")) for folder in (removed.places.results,)] == [[]]
    assert not list(Path(removed.places.objects).glob("*/*"))
    removed.receive(*sorted((removed.root / "study").rglob("*.dcm")))
    assert removed.study()["state"] == "dismissed"  # it came again, and is known


def test_results_for_a_destination_that_was_removed_are_not_sent_again(removed):
    answer = status.deliver_again(removed.index, removed.clock, 1, among=["another"])
    assert answer == "study 1 is parked and has no results to deliver again now; nothing was changed"
    assert states(removed) == {"parked"}
