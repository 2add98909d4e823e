"""Objects are on the disk and in the index before `receive` returns, each once; the rest is refused without a trace."""

from __future__ import annotations

import errno
import threading
import time
from contextlib import closing

import pytest

from helpers import dicom_files
from spinescore.runtime import durable
from spinescore.runtime.appliance.configuration.config import SpoolPart
from spinescore.runtime.appliance.fault import Refused
from spinescore.runtime.appliance.recovery import recover
from spinescore.runtime.appliance.store import index, places
from spinescore.runtime.appliance.store.spool import Spool


def parts(appliance):
    return [path.name for path in appliance.places.incoming.iterdir()]


def objects(appliance):
    return sorted(path.stem for path in appliance.places.objects.glob("*/*"))


def test_an_object_is_durable_before_it_is_acknowledged(make, files, monkeypatch):
    appliance = make()
    done = []
    monkeypatch.setattr(
        durable.os, "fsync", lambda number, fsync=durable.os.fsync: (fsync(number), done.append("sync"))
    )
    monkeypatch.setattr(index, "commit", lambda one, commit=index.commit: (commit(one), done.append("commit")))
    received = appliance.spool.receive([files[0].read_bytes()])
    assert (received.status, received.study) == ("stored", 1)
    # The file, the new folder's name, the file's name; the audit log's folder, file and file's name; the index.
    assert done == ["sync", "sync", "sync", "sync", "sync", "sync", "commit"]
    done.clear()
    appliance.spool.receive([files[1].read_bytes()])
    assert done == ["sync", "sync", "sync", "sync", "commit"]  # later objects cost one sync more for the audit log
    stored = appliance.places.object(received.sha256)
    assert stored.read_bytes() == files[0].read_bytes()
    assert stored.stat().st_mode & 0o077 == 0
    assert appliance.study()["state"] == "collecting"


def test_content_may_come_in_parts(make, files):
    data = files[0].read_bytes()
    appliance = make()
    appliance.spool.receive([data[:100], memoryview(data)[100:]])
    assert appliance.places.object(objects(appliance)[0]).read_bytes() == data


def test_a_resend_is_the_same_file(make, files):
    appliance = make()
    first, again = appliance.receive(files[0], files[0])
    assert (first.status, again.status, again.study) == ("stored", "known", 1)
    assert objects(appliance) == [first.sha256]
    assert (appliance.study()["revision"], parts(appliance)) == (1, [])


@pytest.mark.parametrize(
    ("content", "code"), [(b"no DICOM at all", "not-dicom"), (b"", "not-dicom"), (b"\0" * (2 << 20), "too-large")]
)
def test_what_cannot_be_taken_in_leaves_nothing(make, content, code):
    appliance = make(spool=SpoolPart(str(make().places.root), reserve_gb=0.0, max_object_mb=1))
    with pytest.raises(Refused) as caught:
        appliance.spool.receive([content])
    assert caught.value.fault.code == code
    assert (parts(appliance), objects(appliance)) == ([], [])


def test_an_object_without_uids_is_refused(make, tmp_path):
    ds = dicom_files.radiograph_dataset(StudyInstanceUID=None)
    with pytest.raises(Refused, match="no-uid"):
        make().receive(dicom_files.write(ds, tmp_path / "x.dcm"))


@pytest.mark.parametrize(
    ("tags", "code"),
    [({"Modality": "CT"}, "not-radiograph"), ({"Modality": "SR", "Manufacturer": "spinescore"}, "own-results")],
)
def test_what_is_no_radiograph_is_kept_and_counted_and_changes_no_study(make, files, tmp_path, tags, code):
    appliance = make()
    appliance.receive(*files)
    appliance.run(5)
    assert appliance.study()["state"] == "delivered"
    path = dicom_files.write(dicom_files.radiograph_dataset(**tags), tmp_path / "other.dcm")
    (received,) = appliance.receive(path)
    assert (received.status, received.study) == ("stored", None)
    assert appliance.index.one("SELECT count(*) FROM objects WHERE code = ?", code)[0] == 1
    assert (appliance.study()["state"], appliance.study()["revision"]) == ("delivered", 1)


def test_a_full_index_takes_nothing_in_and_frees_the_reserve(make, files, monkeypatch):
    appliance = make()
    appliance.places.reserve.write_bytes(b"x")

    def full(connection):
        raise index.sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(index, "commit", full)
        with pytest.raises(Refused, match="no-space"):
            appliance.spool.receive([files[0].read_bytes()])
    assert (parts(appliance), objects(appliance), appliance.states()) == ([], [], {})
    assert not appliance.places.reserve.exists()
    assert appliance.spool.receive([files[0].read_bytes()]).status == "stored"


def test_of_two_that_receive_an_object_at_once_a_failure_takes_nothing_from_the_other(make, files, monkeypatch):
    appliance, others = make(), []
    commit, here = index.commit, threading.current_thread()
    data = files[0].read_bytes()

    def receive_also() -> None:
        with closing(index.Index(appliance.places.index)) as own:
            others.append(Spool(appliance.places, own, appliance.clock, 1 << 20).receive([data]).status)

    def fail_here(connection) -> None:
        if threading.current_thread() is not here:
            commit(connection)
            return
        if thread.ident is None:
            thread.start()
            time.sleep(0.3)  # the other one waits for the index
        raise index.sqlite3.OperationalError("database or disk is full")

    thread = threading.Thread(target=receive_also)
    with monkeypatch.context() as patched:
        patched.setattr(index, "commit", fail_here)
        with pytest.raises(Refused, match="no-space"):
            appliance.spool.receive([data])
        patched.setattr(index, "commit", commit)
        thread.join()
    assert others == ["stored"]
    assert [path.read_bytes() for path in appliance.places.objects.glob("*/*")] == [data]


def test_the_end_of_an_association_that_could_not_be_noted_is_noted_with_the_next_one(make, files, monkeypatch):
    appliance = make()

    def full(connection):
        raise index.sqlite3.OperationalError("database or disk is full")

    def receive_until_the_disk_is_full(patched) -> None:
        with appliance.spool.association("test") as association:
            appliance.spool.receive([files[0].read_bytes()], association)
            patched.setattr(index, "commit", full)

    with monkeypatch.context() as patched, pytest.raises(index.IndexFull):
        receive_until_the_disk_is_full(patched)
    assert appliance.index.one("SELECT count(*) FROM associations WHERE closed_s IS NULL")[0] == 1
    appliance.receive(files[1])
    assert appliance.index.one("SELECT count(*) FROM associations WHERE closed_s IS NULL")[0] == 0


def test_an_index_that_cannot_be_written_takes_nothing_in_until_it_can(make, files):
    appliance = make()
    appliance.index._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(Refused, match=r"spool-unwritable: the index .* cannot be written .*mount it so that it can be"):
        appliance.receive(files[0])
    assert (parts(appliance), objects(appliance), appliance.states()) == ([], [], {})
    appliance.index._connection.execute("PRAGMA query_only = OFF")
    assert appliance.receive(files[0])[0].status == "stored"


@pytest.mark.parametrize("number", [errno.EROFS, errno.EIO])
def test_a_spool_that_cannot_be_written_takes_nothing_in(make, files, monkeypatch, number):
    appliance = make()

    def fail(path):
        raise OSError(number, "it is so", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(durable, "sync", fail)
        with pytest.raises(
            Refused, match=r"spool-unwritable: the spool .* cannot be written \(it is so\); correct that"
        ):
            appliance.receive(files[0])
    assert (parts(appliance), objects(appliance), appliance.states()) == ([], [], {})


def test_below_the_reserve_nothing_is_taken_in(make, files):
    appliance = make()
    appliance.places.reserve_bytes = 1 << 60
    with pytest.raises(Refused, match="no-space"):
        appliance.receive(files[0])
    appliance.places.reserve_bytes = 0
    assert appliance.receive(files[0])[0].status == "stored"


def test_the_reserve_is_filled_when_there_is_room(make, monkeypatch):
    monkeypatch.setattr(places, "_RESERVE_BYTES", 4096)
    appliance = make()
    appliance.places.fill_reserve()
    assert appliance.places.reserve.stat().st_size == 4096
    appliance.places.release_reserve()
    appliance.places.reserve_bytes = 1 << 60
    appliance.places.fill_reserve()
    assert not appliance.places.reserve.exists()


def test_objects_that_were_not_acknowledged_are_indexed_at_the_start(make, files):
    appliance = make()
    appliance.receive(files[0])
    (path,) = appliance.places.objects.glob("*/*")
    with appliance.index.transaction():
        for table in ("objects", "studies"):
            appliance.index.change(f"DELETE FROM {table}")
    (appliance.places.incoming / "a.part").write_bytes(b"half")
    (appliance.places.incoming / "b.results").mkdir()
    recover(appliance.places, appliance.index, appliance.clock)
    assert (parts(appliance), objects(appliance)) == ([], [path.stem])
    assert appliance.study()["state"] == "collecting"
    assert appliance.receive(files[0])[0].status == "known"
