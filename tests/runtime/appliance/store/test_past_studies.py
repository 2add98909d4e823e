"""Studies leave the index long after their delivery, and are scored and delivered no second time."""

from __future__ import annotations

import json
import random
import shutil

import pytest
from pydicom import dcmread

from helpers.appliance import tiny_files
from spinescore.runtime.appliance.configuration.config import SpoolPart, StudyTimes
from spinescore.runtime.appliance.recovery import clean, recover
from spinescore.runtime.appliance.store.counts import tally
from spinescore.runtime.appliance.store.reviews import accept

DAY_S = 86400.0
KEEP = SpoolPart("x", objects_h=1.0, results_d=2.0, index_d=4.0)
TABLES = ("studies", "objects", "results", "deliveries", "summaries", "reviews")


def rows(appliance) -> dict[str, int]:
    return {name: appliance.index.one(f"SELECT count(*) AS n FROM {name}")["n"] for name in TABLES}


def pass_days(appliance, days: int) -> None:
    for _ in range(days):
        appliance.clock.pass_s(DAY_S)
        appliance.run(2)
        clean(appliance.places, appliance.index, appliance.clock, KEEP)


@pytest.fixture
def forgotten(make, tmp_path):
    """An appliance with a study that has left the index, and a newer one; the study's files."""
    appliance = make()
    files = tiny_files(tmp_path / "a", "1.2.3")
    for uid in ("1.2.3", "1.2.4"):
        appliance.receive(*tiny_files(tmp_path / uid, uid))
        appliance.run()
    accept(appliance.index, appliance.clock, 1, 1, "AB", None, "2026-11-29T08:00:00+00:00")
    assert rows(appliance)["reviews"] == 1
    pass_days(appliance, 6)
    assert appliance.states() == {"1.2.4": "delivered"}
    assert rows(appliance) == {"studies": 1, "objects": 2, "results": 1, "deliveries": 3, "summaries": 1, "reviews": 0}
    return appliance, files


def test_a_study_leaves_the_index_only_after_its_files_and_its_time(make, files, tmp_path):
    appliance = make()
    appliance.receive(*files)
    appliance.receive(*tiny_files(tmp_path / "b", "1.2.9"))
    appliance.run()
    pass_days(appliance, 3)
    assert rows(appliance)["studies"] == 2
    pass_days(appliance, 2)
    assert rows(appliance)["studies"] == 1


def test_what_is_not_delivered_stays(make, files, tmp_path):
    appliance = make()
    shutil.rmtree(tmp_path / "out")
    appliance.receive(*files)
    appliance.receive(*tiny_files(tmp_path / "b", "1.2.9"))
    appliance.run()
    pass_days(appliance, 20)
    assert set(appliance.states().values()) == {"parked"}
    assert rows(appliance) == {"studies": 2, "objects": 4, "results": 2, "deliveries": 6, "summaries": 2, "reviews": 0}


def test_an_object_that_comes_again_is_known(forgotten):
    appliance, files = forgotten
    before = appliance.delivered("1.2.3")
    assert [one.status for one in appliance.receive(*files)] == ["known", "known"]
    appliance.run()
    assert (appliance.states(), appliance.delivered("1.2.3")) == ({"1.2.4": "delivered"}, before)


def test_other_content_under_a_past_uid_is_kept_apart(forgotten):
    appliance, files = forgotten
    changed = bytearray(files[0].read_bytes())
    changed[-1] ^= 1
    assert appliance.spool.receive([bytes(changed)]).status == "quarantined"


def test_a_late_radiograph_begins_the_next_revision(forgotten, tmp_path):
    appliance, files = forgotten
    late = tiny_files(tmp_path / "late", "1.2.3", ("lumbar",))[0]
    ds = dcmread(late)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.77"
    ds.save_as(late)
    assert [one.status for one in appliance.receive(late)] == ["stored"]
    assert appliance.study("1.2.3")["revision"] == 2
    assert [one.status for one in appliance.receive(*files)] == ["stored", "stored"]  # its study is open again
    appliance.run()
    assert appliance.states()["1.2.3"] == "delivered"
    assert sorted(appliance.delivered("1.2.3")) == ["revision-1", "revision-2"]


def test_a_file_that_a_crash_left_is_not_scored_again(forgotten, tmp_path):
    appliance, files = forgotten
    sha256 = appliance.spool.receive([files[0].read_bytes()]).sha256
    left = appliance.places.object(sha256)
    shutil.copyfile(files[0], left)
    recover(appliance.places, appliance.index, appliance.clock)
    assert not left.exists()
    assert appliance.states() == {"1.2.4": "delivered"}


def test_the_audit_log_says_which_studies(forgotten):
    appliance, _ = forgotten
    (log,) = (appliance.places.root / "audit").glob("*.jsonl")
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [record["studies"] for record in records if record["event"] == "forgotten"] == [[1]]


def test_the_number_of_a_past_study_is_given_to_no_other(make, files, tmp_path):
    appliance = make()
    appliance.receive(*files)
    appliance.run()
    pass_days(appliance, 10)
    appliance.receive(*tiny_files(tmp_path / "b", "1.2.9"))
    assert appliance.study("1.2.9")["id"] == 2


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_each_object_is_scored_once_and_counts_are_right(make, tmp_path, seed):
    """Random studies, resends, late images and days: results of each content are delivered once."""
    chance = random.Random(seed)
    appliance = make(study=StudyTimes(quiet_s=10.0, quiet_complete_s=0.0))
    views = {uid: tiny_files(tmp_path / uid, uid) for uid in ("1.2.3", "1.2.4", "1.2.5")}
    sent: dict[str, set] = {uid: set() for uid in views}
    for _ in range(25):
        uid = chance.choice(list(views))
        view = chance.choice(views[uid])
        appliance.receive(view)
        sent[uid].add(view)
        if chance.random() < 0.7:
            appliance.run(15)
        if chance.random() < 0.5:
            pass_days(appliance, chance.randrange(1, 7))
        for name, column in (("studies", "'studies:'"), ("deliveries", "'deliveries:' || destination")):
            query = f"SELECT {column} AS kind, state, count(*) AS n FROM {name} GROUP BY 1, 2"
            counted = {(row["kind"], row["state"]): row["n"] for row in appliance.index.rows(query)}
            kinds = {row["kind"] for row in appliance.index.rows("SELECT kind FROM tallies")}
            tallies = {(kind, state): n for kind in kinds for state, n in tally(appliance.index, kind).items()}
            assert {key: n for key, n in tallies.items() if key[0].startswith(name)} == counted
    appliance.run(30)
    for uid, views_sent in sent.items():
        assert 1 <= len(appliance.delivered(uid)) <= len(views_sent) or not views_sent
    made = [record["input_key"] for record in scored(appliance)]
    assert len(made) == len(set(made))


def scored(appliance) -> list[dict]:
    lines = "".join(path.read_text() for path in sorted((appliance.places.root / "audit").glob("*.jsonl")))
    records = [json.loads(line) for line in lines.splitlines()]
    return [record for record in records if record["event"] == "scored"]
