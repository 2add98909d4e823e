"""Objects are on the disk and in the index before `receive` returns, each once; the rest is refused without a trace."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from contextlib import closing

import pytest

from helpers import dicom_files
from helpers.appliance import tiny_files
from spinescore.runtime import durable
from spinescore.runtime.appliance.configuration.config import Source, SpoolPart
from spinescore.runtime.appliance.fault import Refused
from spinescore.runtime.appliance.recovery import clean, recover
from spinescore.runtime.appliance.store import index, places
from spinescore.runtime.appliance.store.places import disk_fault, filesystem_of, make_places
from spinescore.runtime.appliance.store.spool import Spool
from spinescore.runtime.errors import SpineScoreError


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


def test_retention_removes_only_what_is_delivered(make, files, tmp_path):
    appliance = make()
    appliance.receive(*files)
    (other,) = tiny_files(tmp_path / "other", "1.2.9", ("lumbar",))
    appliance.run(5)
    appliance.receive(other)
    assert appliance.states() == {"1.2.3.4": "delivered", "1.2.9": "collecting"}
    key = appliance.study()["input_key"]
    appliance.clock.pass_s(25 * 3600)
    clean(appliance.places, appliance.index, appliance.clock, SpoolPart("x"))
    assert len(objects(appliance)) == 1
    assert (appliance.places.results / key).is_dir()
    assert appliance.receive(*files)[0].status == "known"  # a resend, of which nothing is kept
    assert len(objects(appliance)) == 1
    appliance.clock.pass_s(30 * 86400)
    clean(appliance.places, appliance.index, appliance.clock, SpoolPart("x"))
    assert not (appliance.places.results / key).exists()
    assert len(objects(appliance)) == 1
    assert list(appliance.delivered()) == ["revision-1"]


def test_a_view_that_was_removed_is_asked_for_and_completes_the_study_again(make, files):
    appliance = make()
    appliance.receive(files[0])
    appliance.run(20)
    appliance.clock.pass_s(25 * 3600)
    clean(appliance.places, appliance.index, appliance.clock, SpoolPart("x"))
    appliance.receive(files[1])
    appliance.run(20)
    assert (appliance.study()["state"], appliance.study()["code"]) == ("parked", "object-missing")
    assert appliance.receive(files[0])[0].status == "stored"
    appliance.run(20)
    assert (appliance.study()["state"], appliance.study()["revision"]) == ("delivered", 2)


MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/root rw
40 22 0:44 / /srv/with\\040space rw,relatime shared:1 - nfs4 nas:/x rw
41 40 0:45 / /srv/with\\040space/local rw - xfs /dev/sdb rw
"""


def test_disks_of_the_network_are_refused(tmp_path, monkeypatch):
    from pathlib import Path

    assert filesystem_of(Path("/srv/with space/spool"), MOUNTS) == "nfs4"
    assert filesystem_of(Path("/srv/with space/local/spool"), MOUNTS) == "xfs"
    assert filesystem_of(Path("/srv/without"), MOUNTS) == "ext4"
    assert disk_fault(tmp_path) is None
    monkeypatch.setattr(places, "filesystem_of", lambda path: "nfs4")
    with pytest.raises(SpineScoreError, match="disk of the network"):
        make_places(tmp_path / "spool", 0)
    assert not (tmp_path / "spool").exists()


def test_only_one_service_works_on_a_spool(tmp_path):
    spool = make_places(tmp_path / "spool", 0)
    assert not places.is_running(spool)
    with places.locked(spool):
        assert places.is_running(spool)
        with pytest.raises(SpineScoreError, match="another service"), places.locked(spool, wait_s=0.0):
            pass
    assert not places.is_running(spool)


def test_an_index_that_cannot_be_read_is_refused(tmp_path):
    path = tmp_path / "index.sqlite"
    path.write_bytes(b"this is no index of anything, not at all" * 100)
    with pytest.raises(SpineScoreError, match="move the index away"):
        index.Index(path)
    path.unlink()
    one = index.Index(path)
    one._connection.execute("PRAGMA user_version = 200")
    one.close()
    with pytest.raises(SpineScoreError, match="later version"):
        index.Index(path)


def test_a_folder_is_watched(make, files, tmp_path):
    appliance = make()
    (source,) = appliance.sources
    inbox = tmp_path / "inbox"
    shutil.copy(files[0], inbox / "a.dcm")
    (inbox / "sub").mkdir()
    data = files[1].read_bytes()
    (inbox / "sub" / "b.dcm").write_bytes(data[: len(data) // 2])  # it is still being copied
    (inbox / "note.txt").write_text("no DICOM")
    (inbox / "c.dcm.part").write_bytes(data)
    (inbox / ".hidden").write_bytes(data)
    assert source.poll() == 3  # they may still change
    appliance.clock.pass_s(2.0)
    assert source.poll() == 1
    assert [fault.code for fault in source.faults] == ["not-dicom"]
    assert sorted(path.name for path in inbox.iterdir()) == [".hidden", "c.dcm.part", "note.txt", "sub"]
    (inbox / "sub" / "b.dcm").write_bytes(data)
    source.poll()
    appliance.clock.pass_s(2.0)
    assert (source.poll(), source.faults) == (0, [])
    assert len(objects(appliance)) == 2


def test_a_folder_that_cannot_be_read_does_not_hold_up_the_others(make, files, tmp_path, monkeypatch):
    appliance = make(source=(Source("inbox", "folder", str(tmp_path / "inbox"), settle_s=0.0),))
    (source,), scan = appliance.sources, os.scandir
    (tmp_path / "inbox" / "closed").mkdir()
    shutil.copy(files[0], tmp_path / "inbox")

    def scan_most(path):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scan_most)
    source.poll()
    assert [fault.message for fault in source.faults] == [
        "a folder below the source inbox cannot be read (Permission denied); correct its permissions"
    ]
    assert len(objects(appliance)) == 1


def test_a_file_that_stays_half_is_named_and_read_when_it_is_whole(make, files, tmp_path):
    appliance = make()
    (source,) = appliance.sources
    data, path = files[0].read_bytes(), tmp_path / "inbox" / "a.dcm"
    path.write_bytes(data[:-10])
    source.poll()
    appliance.clock.pass_s(700.0)
    assert (source.poll(), [fault.code for fault in source.faults]) == (0, ["file-unreadable"])
    path.write_bytes(data)
    source.poll()
    appliance.clock.pass_s(2.0)
    assert (source.poll(), source.faults) == (0, [])
    assert len(objects(appliance)) == 1


def test_files_that_stay_are_taken_in_once(make, files, tmp_path):
    appliance = make(source=(Source("inbox", "folder", str(tmp_path / "inbox"), settle_s=0.0),))
    shutil.copy(files[0], tmp_path / "inbox")
    (source,) = appliance.sources
    source.poll()
    taken = []
    appliance.spool.receive = lambda *arguments: taken.append(arguments)
    source.poll()
    assert not taken
    assert (tmp_path / "inbox" / files[0].name).exists()


def test_parts_of_processes_that_were_killed_are_removed_while_the_service_runs(make):
    """Each process names its parts; those of this one, and files of others, stay."""
    appliance = make()
    incoming, ended = appliance.places.incoming, (1 << 22) + 1  # no process has this number
    ours = places.new_part(incoming, ".part")
    for name in (ours.name, f"{ended}-a.part", "reserve.part", f"{ended}-a.console"):
        (incoming / name).write_bytes(b"half")
    (incoming / f"{ended}-b.results").mkdir()
    (incoming / f"{ended}-b.results" / "sr.dcm").write_bytes(b"half")
    places.remove_parts(appliance.places, [os.getpid(), None])
    assert set(parts(appliance)) == {ours.name, "reserve.part", f"{ended}-a.console"}
