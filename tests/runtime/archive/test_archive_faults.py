"""Faults of disks, shares, files and other runs: each ends with a message or a code, and never with a wrong row."""

import errno
import itertools
import os
import shutil
import time
from pathlib import Path

import pytest

from helpers import archive, tiny
from spinescore.runtime import Scorer, cli
from spinescore.runtime.archive import run, studylists
from spinescore.runtime.archive.layout import ArchiveError, Places
from spinescore.runtime.archive.manifest import make_manifest
from spinescore.runtime.archive.scoring import read_entry
from spinescore.runtime.archive.studylists import read_list

pytest.importorskip("pyarrow", reason="tables are Parquet files")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return tiny.write_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="module")
def scorer(bundle):
    with Scorer.open(bundle, "cpu", build="no") as opened:
        yield opened


@pytest.fixture
def source(tmp_path):
    archive.write_archive(tmp_path / "source", 5)
    return tmp_path / "source"


def words(source, tables, *more):
    options = ["--bundle", "tiny", "--device", "cpu", "--build", "no", "--shard-studies", "2", "--workers", "1"]
    return ["archive", str(source), "--out", str(tables), *options, *more]


@pytest.fixture
def tables(source, tmp_path):
    """A folder with the list of the studies."""
    assert cli.main(words(source, tmp_path / "tables", "--scan-only")) == 0
    return tmp_path / "tables"


@pytest.fixture
def call(scorer, monkeypatch, capfd):
    """Calls the command, which scores in this process; returns its exit status and what it said."""
    monkeypatch.setattr("spinescore.runtime.verbs.archive._way", lambda *_: archive.Inline(scorer))

    def call(*arguments):
        capfd.readouterr()
        status = cli.main(list(arguments))
        said = capfd.readouterr()
        assert "unexpected" not in said.err
        return status, said.err + said.out

    return call


# ---- another source, another run


@pytest.mark.parametrize(
    "options", [[], ["--shard", "1/2"], ["--retry", "too-small"], ["--scan-only"], ["--since", "2026-01-31"]]
)
def test_another_source_is_refused_in_every_way_of_going_on(source, tables, tmp_path, call, options):
    shutil.copytree(source, tmp_path / "other")
    status, said = call(*words(tmp_path / "other", tables, *options))
    assert (status, "name that source, or another folder with --out" in said) == (4, True)
    assert not list(tables.glob("*.parquet"))
    status, said = call("archive", "--list", str(source / "000" / "0-lumbar.dcm"), "--out", str(tables), *options)
    assert (status, "the tables are of the folder" in said) == (4, True)


@pytest.mark.parametrize("lock", ["list", "run"])
def test_a_second_run_of_the_same_tables_is_refused(source, tables, call, lock):
    with Places(tables).locked(lock):
        status, said = call(*words(source, tables))
        assert (status, "another run is at work on the tables" in said) == (4, True)
    assert not list(tables.glob("*.parquet"))
    assert call(*words(source, tables))[0] == 3


def test_parts_run_beside_each_other_and_beside_no_whole_run(source, tables, call):
    with Places(tables).locked("run", shared=True):
        assert call(*words(source, tables, "--shard", "1/2"))[0] == 3
        assert call(*words(source, tables))[0] == 4
    assert call(*words(source, tables))[0] == 3


# ---- disks and shares


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "free space there"), (errno.ESTALE, "when it is there again, the same command goes on")],
)
def test_tables_that_cannot_be_written_end_the_run_which_goes_on_later(
    source, tables, tmp_path, call, monkeypatch, number, message
):
    def failing(path, data):
        raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(run, "write_whole", failing)
        status, said = call(*words(source, tables))
    assert status == 4
    assert message in said
    assert "the same command goes on" in said
    assert call(*words(source, tables))[0] == 3
    assert call(*words(source, tmp_path / "undisturbed"))[0] == 3
    assert archive.digest(tables) == archive.digest(tmp_path / "undisturbed")


def test_a_disk_that_is_full_while_studies_are_sorted_is_told(source, tmp_path, call, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(studylists, "_SCHEMA", f"pragma max_page_count=1;{studylists._SCHEMA}")
        status, said = call(*words(source, tmp_path / "tables"))
    assert (status, "free space there" in said) == (4, True)
    assert call(*words(source, tmp_path / "tables"))[0] == 3


@pytest.mark.parametrize("empty", [True, False])
def test_a_share_that_is_gone_ends_the_run_and_marks_no_study(source, tables, tmp_path, call, empty, monkeypatch):
    source.rename(tmp_path / "elsewhere")
    if empty:
        source.mkdir()  # where it was mounted
    monkeypatch.setattr("spinescore.runtime.verbs.archive.check_paths", lambda paths: None)  # it was there then
    monkeypatch.setattr(Path, "is_dir", lambda path: True)
    status, said = call(*words(source, tables))
    assert status == 4
    assert f"{source} cannot be read (" in said
    assert not list(tables.glob("*.parquet"))


def test_a_share_that_is_not_mounted_yet_is_no_empty_archive(source, tmp_path, call):
    source.rename(tmp_path / "elsewhere")
    source.mkdir()
    status, said = call(*words(source, tmp_path / "tables"))
    assert (status, f"{source} cannot be read (it is empty)" in said) == (4, True)
    source.rmdir()
    (tmp_path / "elsewhere").rename(source)
    assert call(*words(source, tmp_path / "tables"))[0] == 3


def test_a_worker_says_that_the_share_is_gone(source, tables, tmp_path, bundle, capfd):
    shutil.rmtree(source)
    source.mkdir()
    assert cli.main(words(source, tables, "--bundle", str(bundle))) == 4
    assert "cannot be read (it is empty)" in capfd.readouterr().err
    assert not list(tables.glob("*.parquet"))


def test_a_machine_on_which_every_study_fails_ends_the_run(tmp_path, scorer):
    archive.write_archive(tmp_path / "source", 30)
    way = archive.Inline(scorer, code=lambda entry: "worker-timeout")
    with pytest.raises(ArchiveError, match=r"21 studies in a row ended their process \(worker-timeout"):
        archive.run(tmp_path / "tables", tmp_path / "source", way)


# ---- studies that change after they were listed


def entries_of(source: Path, tables: Path):
    places = Places(tables)
    make_manifest(places, "folder", str(source), 100, lambda line: None)
    return {entry.study: entry for entry in read_list(places.listed(places.shards()[0]))}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda first, second, other: second.unlink(), "file-unreadable"),
        (lambda first, second, other: shutil.copy(other, second), "several-studies"),
        (lambda first, second, other: (shutil.copy(other, first), shutil.copy(other, second)), "several-studies"),
        (lambda first, second, other: None, None),
    ],
)
def test_a_study_that_changed_is_not_scored_as_the_listed_one(tmp_path, change, code):
    archive.write_archive(tmp_path / "source", 4, small=False)
    entry = entries_of(tmp_path / "source", tmp_path / "tables")[f"{archive.UID}.1000"]
    first, second = (tmp_path / "source" / path for path in entry.files)
    change(first, second, tmp_path / "source" / "001" / "3-lumbar.dcm")
    study = read_entry(entry, str(tmp_path / "source"))
    assert study == code if code else len(study.radiographs) == 2


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_folder_that_cannot_be_read_any_more_has_a_code_of_its_own(tmp_path, monkeypatch, number):
    archive.write_archive(tmp_path / "source", 1, small=False)
    (entry,) = entries_of(tmp_path / "source", tmp_path / "tables").values()
    opened = os.open

    def failing(path, *arguments, **options):
        if str(path).endswith("0-lumbar.dcm"):
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", failing)
    assert read_entry(entry, str(tmp_path / "source")) == "file-unreadable"


def test_a_file_that_is_replaced_by_a_damaged_one_has_the_code_of_its_fault(source, tmp_path):
    entry = entries_of(source, tmp_path / "tables")[f"{archive.UID}.1000"]
    (source / entry.files[0]).write_bytes(b"no radiograph")
    assert [reject.code for reject in read_entry(entry, str(source)).rejects] == ["not-dicom"]


# ---- damaged and later documents


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *itertools.product(["scan-0000.json", "studies-0000/summary.json", "../archive.json"], [b"{}", b"\xff"]),
        ("scan-0000.json", b'{"schema": "spinescore.archive-source/2", "kind": "folder"}'),
        ("../archive.json", b'{"schema": "spinescore.archive/2"}'),
        ("studies-0000/000001.jsonl", b""),
        ("studies-0000/000001.jsonl", b'{"number": 0}\n'),
        ("studies-0000/000001.jsonl", b'{"number": 0, "study": "1.2", "files": ["a"], "later": 1}\n'),
        ("studies-0000/000001.jsonl", b'{"number": 0, "study": "1.2", "files": ["a"]}\n'),
        ("studies-0000/000001.jsonl", b'{"number": 0, "stu'),
        ("studies-0000/000001.jsonl", None),
    ],
)
def test_a_document_that_cannot_be_used_is_named(source, tables, call, name, content):
    path = tables / "work" / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    status, said = call(*words(source, tables))
    assert status == 4
    assert (str(path.resolve()) if content is not None else "lists 3 of 5 studies") in said.replace("work/../", "")
    assert "bring" in said


@pytest.mark.parametrize(
    "content", [b"", b"{}\n", b"[1", b'{"last": ["a"], "files": 1, "radiographs": 1, "passed_over": {}}\nx']
)
def test_a_damaged_piece_of_a_scan_is_named(source, tables, call, content):
    shutil.rmtree(tables / "work" / "studies-0000")
    (tables / "work" / "scan-0000" / "000000.jsonl").write_bytes(content)
    status, said = call(*words(source, tables))
    assert status == 4
    assert "000000.jsonl cannot be used" in said


# ---- clocks and names


def test_a_clock_that_goes_back_changes_no_table(source, tables, tmp_path, call, monkeypatch):
    assert call(*words(source, tmp_path / "undisturbed"))[0] == 3
    seconds, gmtime = itertools.count(2e9, -1e6), time.gmtime
    monkeypatch.setattr(time, "time", lambda: next(seconds))
    monkeypatch.setattr(time, "gmtime", lambda: gmtime(next(seconds)))
    assert call(*words(source, tables))[0] == 3
    assert archive.digest(tables) == archive.digest(tmp_path / "undisturbed")


def not_unicode(folder: Path, name: str) -> Path:
    path = os.fsencode(folder / name).replace(b"?", b"\xff")
    os.rename(folder / name.replace("?", ""), path)  # noqa: PTH104
    return Path(os.fsdecode(path))


def test_names_that_are_no_unicode_come_into_tables_and_results(tmp_path, scorer):
    archive.write_archive(tmp_path / "source", 2, small=False)
    archive.write_archive(tmp_path / "small", 4)
    shutil.copytree(tmp_path / "small" / "001", tmp_path / "source" / "bad")
    not_unicode(tmp_path / "source" / "bad", "2-lumbar?.dcm")
    not_unicode(tmp_path / "source", "bad?")
    not_unicode(tmp_path / "source", "000?")
    options = {"identifiers": True, "formats": ("json", "html", "csv")}
    archive.run(tmp_path / "tables", tmp_path / "source", archive.Inline(scorer), **options)
    paths = [row["path"] for row in archive.rows(tmp_path / "tables") if "path" in row]
    assert paths == ["bad\\udcff/2-lumbar\\udcff.dcm", "bad\\udcff/3-lumbar.dcm"]
    assert len(list((tmp_path / "tables").glob("results/*/*/report.html"))) == 4


def test_a_source_whose_name_is_no_unicode_is_refused(source, tmp_path, call):
    (tmp_path / "source").rename(tmp_path / "other")
    status, said = call(*words(not_unicode(tmp_path, "other?"), tmp_path / "tables"))
    assert (status, "has bytes that are no UTF-8; rename" in said) == (2, True)
    assert not (tmp_path / "tables").exists()
