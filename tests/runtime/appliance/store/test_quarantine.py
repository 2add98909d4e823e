"""The quarantine: what goes there, how much it keeps and for how long, and who is told of what was removed."""

from __future__ import annotations

import errno
import hashlib
import json
import sqlite3

import pytest

from spinescore.runtime import durable
from spinescore.runtime.appliance.configuration.config import SpoolPart
from spinescore.runtime.appliance.fault import Refused
from spinescore.runtime.appliance.recovery import clean, recover
from spinescore.runtime.appliance.seen import audit
from spinescore.runtime.appliance.seen.status import status
from spinescore.runtime.appliance.store import quarantine
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.verbs.status import _lines

DAY_S = 86400.0


def others(files, count: int) -> list[bytes]:
    """Objects with the SOP Instance UID of the first file, each with other content, of one size."""
    return [files[0].read_bytes() + bytes([number, 1]) for number in range(count)]


@pytest.fixture
def full(make, files):
    """An appliance with three objects in quarantine, a day between two, and their hashes, the oldest first."""
    appliance = make()
    appliance.receive(files[0])
    for content in others(files, 3):
        assert appliance.spool.receive([content]).status == "quarantined"
        appliance.clock.pass_s(DAY_S)
    return appliance, [hashlib.sha256(content).hexdigest() for content in others(files, 3)]


def kept(appliance) -> set[str]:
    return {path.stem for path in appliance.places.quarantine.iterdir()}


def limit(appliance, **limits: float) -> list[str]:
    """Clean with these limits; return the messages."""
    faults = clean(appliance.places, appliance.index, appliance.clock, SpoolPart("x", **limits))
    assert {one.code for one in faults} <= {"quarantine-removed"}
    return [one.message for one in faults]


def told(appliance) -> tuple[int, int, int]:
    state = status(appliance.places, appliance.index, appliance.clock)
    return state["quarantined"], state["quarantine_bytes"], state["quarantine_removed"]


def removed(appliance) -> list[list[str]]:
    """The hashes of each record of the audit log on removed files."""
    lines = "".join(path.read_text() for path in (appliance.places.root / audit.FOLDER).glob("*.jsonl"))
    records = [json.loads(line) for line in lines.splitlines()]
    return [record["objects_sha256"] for record in records if record["event"] == "quarantine-removed"]


def test_the_same_uid_with_other_content_goes_to_quarantine(make, files):
    appliance = make()
    appliance.receive(files[0])
    (other,) = others(files, 1)
    for _ in range(2):
        received = appliance.spool.receive([other])
        assert (received.status, received.fault.code) == ("quarantined", "quarantined")
    (path,) = appliance.places.quarantine.iterdir()
    assert path.read_bytes() == other
    assert len(list(appliance.places.objects.glob("*/*.dcm"))) == 1
    assert [row["code"] for row in appliance.index.rows("SELECT code FROM faults")] == ["quarantined"]
    assert told(appliance) == (1, len(other), 0)


def test_within_the_limits_nothing_is_removed(full):
    appliance, hashes = full
    assert limit(appliance) == []
    assert kept(appliance) == set(hashes)


def test_beyond_the_bytes_the_oldest_go_first(full):
    appliance, hashes = full
    size = told(appliance)[1] / 3
    (message,) = limit(appliance, quarantine_gb=2.5 * size / 1e9)
    assert message.startswith("1 object of quarantine/ went, the oldest first: it keeps ")
    assert kept(appliance) == set(hashes[1:])
    assert removed(appliance) == [[hashes[0]]]
    assert told(appliance) == (2, 2 * size, 1)
    assert limit(appliance, quarantine_gb=2.5 * size / 1e9) == []


def test_after_its_days_a_file_is_removed(full):
    appliance, hashes = full
    assert limit(appliance, quarantine_d=3.5) == []
    assert limit(appliance, quarantine_d=1.5) != []
    assert kept(appliance) == {hashes[2]}


def test_many_small_files_are_too_many(full, monkeypatch):
    appliance, hashes = full
    monkeypatch.setattr(quarantine, "MOST_FILES", 2)
    assert limit(appliance) != []
    assert kept(appliance) == set(hashes[1:])


def test_status_and_the_list_of_faults_tell_of_it_and_a_flood_leaves_room_for_other_faults(full):
    appliance, _ = full
    limit(appliance, quarantine_d=2.5)
    limit(appliance, quarantine_d=1.5)
    codes = [row["code"] for row in appliance.index.rows("SELECT code FROM faults")]
    assert codes.count("quarantine-removed") == 1
    lines = list(_lines(status(appliance.places, appliance.index, appliance.clock)))
    assert "objects      1 received, 1 in quarantine (0.0 GB), 2 removed from it" in lines


def test_what_is_sent_again_after_it_was_removed_is_put_there_again(full, files):
    appliance, hashes = full
    limit(appliance, quarantine_gb=0.0)
    assert kept(appliance) == set()
    assert appliance.spool.receive([others(files, 1)[0]]).status == "quarantined"
    assert kept(appliance) == {hashes[0]}
    assert limit(appliance, quarantine_d=0.5) == []  # its time begins anew


def test_a_file_whose_removal_was_not_committed_is_removed_with_the_next_record(full, monkeypatch):
    appliance, hashes = full

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(type(appliance.places), "quarantined", killed)
        with pytest.raises(Killed):
            limit(appliance, quarantine_d=2.5)
    assert kept(appliance) == set(hashes)
    limit(appliance, quarantine_d=2.5)
    assert kept(appliance) == set(hashes[1:])


def test_files_that_a_person_took_out_are_counted_no_more(full):
    appliance, hashes = full
    appliance.places.quarantined(hashes[1]).unlink()
    assert limit(appliance) == []
    assert told(appliance)[0] == 2
    assert removed(appliance) == []


def test_an_object_that_cannot_be_noted_leaves_nothing(make, files, monkeypatch):
    appliance = make()
    appliance.receive(files[0])

    def full_disk(*_: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(audit, "note", full_disk)
        with pytest.raises(Refused, match="no-space"):
            appliance.spool.receive(others(files, 1))
    assert kept(appliance) == set()
    assert not list(appliance.places.incoming.iterdir())


def test_files_that_a_version_without_limits_put_there_have_their_days_from_now_on(full):
    appliance, hashes = full
    with appliance.index.transaction():
        appliance.index.change("UPDATE quarantine SET received_s = NULL WHERE sha256 = ?", hashes[0])
    assert limit(appliance, quarantine_d=2.5) == []
    appliance.clock.pass_s(3 * DAY_S)
    assert limit(appliance, quarantine_d=2.5) != []
    assert kept(appliance) == set()


def test_the_index_of_a_version_without_limits_gets_the_column(full):
    appliance, hashes = full
    appliance.close()
    with sqlite3.connect(appliance.places.index) as connection:
        connection.execute("ALTER TABLE quarantine DROP COLUMN received_s")
        connection.execute("PRAGMA user_version = 102")
    connection.close()
    index = Index(appliance.places.index)
    rows = index.rows("SELECT sha256, received_s FROM quarantine ORDER BY rowid")
    index.close()
    assert [(row["sha256"], row["received_s"]) for row in rows] == [(sha256, None) for sha256 in hashes]


def test_a_file_that_a_crash_left_without_a_row_is_noted_at_the_next_start(make, files):
    appliance = make()
    appliance.receive(files[0])
    (other,) = others(files, 1)
    sha256 = hashlib.sha256(other).hexdigest()
    durable.write_new(appliance.places.quarantined(sha256), other)
    (appliance.places.quarantine / "note.dcm").write_text("of a person")
    recover(appliance.places, appliance.index, appliance.clock)
    assert told(appliance)[0] == 1
    assert limit(appliance, quarantine_gb=0.0) != []
    assert kept(appliance) == {"note"}
