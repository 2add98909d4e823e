"""The spool over time: objects that are removed, one service alone, and folders that are watched."""

from __future__ import annotations

import errno
import os
import shutil

import pytest

from helpers.appliance import tiny_files
from spinescore.runtime.appliance.configuration.config import Source, SpoolPart
from spinescore.runtime.appliance.recovery import clean
from spinescore.runtime.appliance.store import index, places
from spinescore.runtime.appliance.store.places import disk_fault, filesystem_of, make_places
from spinescore.runtime.errors import SpineScoreError


def objects(appliance):
    return sorted(path.stem for path in appliance.places.objects.glob("*/*"))


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
    assert appliance.receive(*files)[0].status == "known"  # it came again, and is not kept again
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
    assert {path.name for path in incoming.iterdir()} == {ours.name, "reserve.part", f"{ended}-a.console"}
