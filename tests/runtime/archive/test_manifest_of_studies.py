"""The scan of an archive and the lists of its studies: grouping, copies, files that cannot be read, going on."""

import json
import os
import shutil
import tracemalloc
from datetime import date

import pytest

from helpers import archive, dicom_files
from spinescore.runtime.archive import scan as scanning
from spinescore.runtime.archive import studylists
from spinescore.runtime.archive.layout import ArchiveError, Places
from spinescore.runtime.archive.manifest import count_studies, largest_bytes, make_manifest
from spinescore.runtime.archive.scan import records
from spinescore.runtime.archive.studylists import read_list


@pytest.fixture
def source(tmp_path):
    archive.write_archive(tmp_path / "source", 6)
    return tmp_path / "source"


def listed(tables, source, count=4, **options):
    """The entries of all lists, and what was said."""
    places, said = Places(tables), []
    make_manifest(places, "folder", str(source), count, said.append, **options)
    return [entry for shard in places.shards() for entry in read_list(places.listed(shard))], said


def test_studies_are_listed_by_their_uids_in_shards(source, tmp_path):
    entries, said = listed(tmp_path / "tables", source)
    assert [entry.study for entry in entries] == [f"{archive.UID}.{1000 + number}" for number in range(6)]
    assert [entry.number for entry in entries] == [0, 1, 2, 3, 0, 1]
    assert entries[3].files == ("001/3-lumbar.dcm",)
    assert entries[3].day == "20200405"
    assert len({entry.patient for entry in entries}) == 3
    assert said == ["6 files: 6 radiographs, 6 studies"]
    places = Places(tmp_path / "tables")
    assert count_studies(places, places.shards()) == 6
    assert count_studies(places, places.shards()[1:]) == 2
    assert largest_bytes(places) == 16 * 16 * 2


def test_files_of_one_study_belong_together_wherever_they_lie(source, tmp_path):
    ds = dicom_files.radiograph_dataset(dicom_files.picture(rows=16, columns=16))
    ds.StudyInstanceUID, ds.SOPInstanceUID = f"{archive.UID}.1002", "1.2.3"
    dicom_files.write(ds, source / "elsewhere.dcm")
    entries, _ = listed(tmp_path / "tables", source)
    assert entries[2].files == ("001/2-lumbar.dcm", "elsewhere.dcm")
    assert entries[2].patient is None  # its files name two


def test_the_same_object_twice_is_read_once_and_another_with_its_uid_is_kept(source, tmp_path):
    original = source / "000" / "1-lumbar.dcm"
    shutil.copy(original, source / "copy.dcm")
    changed = bytearray(original.read_bytes())
    changed[-1] ^= 1
    (source / "other-pixels.dcm").write_bytes(changed)
    entries, _ = listed(tmp_path / "tables", source)
    assert entries[1].files == ("000/1-lumbar.dcm", "other-pixels.dcm")
    assert entries[1].bytes == 2 * 16 * 16 * 2


def test_files_that_cannot_be_read_get_a_row_and_others_are_passed_over(source, tmp_path):
    (source / "broken.dcm").write_bytes((source / "000" / "0-lumbar.dcm").read_bytes()[:140] + b"xx")
    (source / "note.txt").write_text("no radiograph")
    (source / "gone.dcm").symlink_to(source / "nowhere")
    entries, said = listed(tmp_path / "tables", source)
    assert [(entry.study, entry.files, entry.code) for entry in entries[6:]] == [
        (None, ("broken.dcm",), "not-dicom"),
        (None, ("gone.dcm",), "file-unreadable"),
    ]
    assert said == ["9 files: 6 radiographs, 8 studies; passed over: 1 not-dicom"]


@pytest.mark.parametrize("ended_after", range(4))
def test_a_scan_that_was_ended_goes_on(source, tmp_path, monkeypatch, ended_after):
    monkeypatch.setattr(scanning, "PIECE_FILES", 2)
    whole, _ = listed(tmp_path / "whole", source)
    looks = []

    def interrupted(base, since_s, path, look=scanning._look):
        looks.append(path)
        if len(looks) == 2 * ended_after + 1:
            raise KeyboardInterrupt
        return look(base, since_s, path)

    with monkeypatch.context() as patched:
        patched.setattr(scanning, "_look", interrupted)
        patched.setattr(scanning, "_THREADS", 1)
        if ended_after < 3:
            with pytest.raises(KeyboardInterrupt):
                listed(tmp_path / "tables", source)
        else:
            listed(tmp_path / "tables", source)
    read_again = []
    monkeypatch.setattr(
        scanning, "_look", lambda *arguments, look=scanning._look: read_again.append(arguments[-1]) or look(*arguments)
    )
    entries, said = listed(tmp_path / "tables", source)
    assert entries == whole
    assert len(read_again) == 6 - 2 * ended_after
    assert any("goes on after" in line for line in said) == (ended_after in (1, 2))
    pieces = [Places(path).pieces(0) for path in (tmp_path / "whole", tmp_path / "tables")]
    assert list(records(pieces[0])) == list(records(pieces[1]))


def test_lists_that_were_half_written_are_written_again(source, tmp_path):
    whole, _ = listed(tmp_path / "tables", source)
    places = Places(tmp_path / "tables")
    part = places.studies(0).with_name("studies-0000.part")
    places.studies(0).rename(part)
    (part / "000001.jsonl").unlink()
    (places.work / "studies-0000.sqlite").write_bytes(b"half")
    entries, _ = listed(tmp_path / "tables", source)
    assert entries == whole
    assert sorted(path.name for path in places.work.iterdir()) == [
        "log.jsonl", "scan-0000", "scan-0000.json", "studies-0000"
    ]  # fmt: skip


def test_new_studies_get_new_shards(source, tmp_path):
    before, _ = listed(tmp_path / "tables", source)
    for path in source.rglob("*.dcm"):
        os.utime(path, (0, 0))
    archive.write_archive(source / "new", 8)  # six of them are there already
    entries, said = listed(tmp_path / "tables", source, since=date(2020, 1, 1))
    assert entries[:6] == before
    assert [(entry.study, entry.files) for entry in entries[6:]] == [
        (f"{archive.UID}.{1000 + number}", (f"new/003/{number}-lumbar.dcm",)) for number in (6, 7)
    ]
    assert [str(shard) for shard in Places(tmp_path / "tables").shards()] == [
        "0000-000000", "0000-000001", "0001-000000"
    ]  # fmt: skip
    assert said == ["14 files: 8 radiographs, 2 new studies; passed over: 6 older"]
    assert listed(tmp_path / "tables", source)[0] == entries  # without a day nothing is scanned again


@pytest.mark.parametrize(("change", "message"), [({"count": 5}, "--shard-studies"), ({}, "another folder with --out")])
def test_other_tables_are_not_gone_on_with(source, tmp_path, change, message):
    listed(tmp_path / "tables", source)
    with pytest.raises(ArchiveError, match=message):
        listed(tmp_path / "tables", source if change else source / "000", **change)


def test_names_that_are_no_unicode_are_kept(source, tmp_path):
    os.rename(os.fsencode(source / "000" / "0-lumbar.dcm"), os.fsencode(source / "000") + b"/\xff.dcm")  # noqa: PTH104
    entries, _ = listed(tmp_path / "tables", source)
    assert entries[0].files == ("000/\udcff.dcm",)
    places = Places(tmp_path / "tables")
    assert all(json.loads(line) for line in places.listed(places.shards()[0]).read_text("ascii").splitlines())


@pytest.mark.parametrize("gone_at", range(1, 7))
def test_a_share_that_is_gone_during_the_scan_leaves_no_study_out(source, tmp_path, monkeypatch, gone_at):
    (whole, _), looks = listed(tmp_path / "whole", source), []

    def vanishing(*given, look=scanning._look):
        looks.append(given)
        if len(looks) == gone_at:
            source.rename(tmp_path / "elsewhere")
        return look(*given)

    with monkeypatch.context() as patched:
        patched.setattr(scanning, "_look", vanishing)
        patched.setattr(scanning, "_THREADS", 1)
        patched.setattr(scanning, "PIECE_FILES", 2)
        with pytest.raises(ArchiveError, match="when its files are there"):
            listed(tmp_path / "tables", source)
    (tmp_path / "elsewhere").rename(source)
    assert listed(tmp_path / "tables", source)[0] == whole


def test_the_lists_of_many_files_take_little_memory(tmp_path):
    def piece(number: int) -> bytes:
        head = {"last": [f"{number}"], "files": 1000, "radiographs": 1000, "passed_over": {}}
        names = (f"{number:04}/{file:04}.dcm" for file in range(1000))
        lines = (
            {"path": name, "study": name[:-5], "sop": name, "bytes": 1, "patient": None, "day": None} for name in names
        )
        return "".join(json.dumps(line) + "\n" for line in (head, *lines)).encode()

    def peak_bytes(pieces: int) -> int:
        scanned = tmp_path / f"scan-{pieces}"
        scanned.mkdir()
        for number in range(pieces):
            (scanned / f"{number:06}.jsonl").write_bytes(piece(number))
        tracemalloc.start()
        summary = studylists.list_studies(scanned, tmp_path / f"studies-{pieces}", tmp_path, 100)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert summary["studies"] == 100 * pieces
        return peak

    assert peak_bytes(5) < peak_bytes(1) + (1 << 20)
