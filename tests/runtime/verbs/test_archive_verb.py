"""`spinescore archive` as a user calls it: options, exit statuses, a small run with its processes, the status."""

import json

import pytest

from helpers import archive, tiny
from spinescore.runtime import cli
from spinescore.runtime.archive.layout import Places

pytest.importorskip("pyarrow", reason="tables are Parquet files")


@pytest.fixture
def source(tmp_path):
    archive.write_archive(tmp_path / "source", 3, small=False)
    return tmp_path / "source"


def words(source, tables, bundle, *more):
    options = ["--bundle", str(bundle), "--device", "cpu", "--build", "no", "--shard-studies", "2"]
    return ["archive", str(source), "--out", str(tables), *options, *more]


def test_an_archive_is_scored_and_its_status_shown(source, tmp_path, capfd):
    bundle, tables = tiny.write_bundle(tmp_path / "bundle"), tmp_path / "tables"
    (source / "note.txt").write_text("no radiograph")
    assert cli.main(words(source, tables, bundle, "--workers", "1", "--format", "json")) == 0
    said = capfd.readouterr()
    assert "scored       3" in said.out
    assert "7 files: 6 radiographs, 3 studies; passed over: 1 not-dicom" in said.err
    assert len(archive.rows(tables)) == 3 * 27
    assert len(list(tables.glob("results/*/*/report.json"))) == 3
    assert cli.main(["archive", "--status", str(tables), "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {
        "schema": "spinescore.archive-status/1",
        "studies": 3,
        "shards": 2,
        "shards_written": 2,
        "scored": 3,
        "codes": {},
        "scanning": None,
    }
    before = archive.digest(tables)
    assert cli.main(words(source, tables, bundle)) == 0  # nothing is left, and no process is started
    assert archive.digest(tables) == before


def test_a_bundle_that_is_not_there_is_refused(source, tmp_path, capfd):
    assert cli.main(words(source, tmp_path / "tables", tmp_path / "nothing", "--workers", "1")) == 4
    assert "nothing" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "name the archive as SOURCE"),
        (["{source}"], "--out TABLES"),
        (["{source}", "--list", "{list}", "--out", "{out}"], "name the archive as SOURCE"),
        (["{source}/nothing", "--out", "{out}"], "there is no file or folder"),
        (["{list}", "--out", "{out}"], "is a file; name a folder, or a list"),
        (["{source}", "--out", "{list}"], "is a file; name a folder"),
        (["{source}", "--out", "{out}", "--shard", "3/2"], "'3/2' is no part"),
        (["{source}", "--out", "{out}", "--shard", "0/2"], "'0/2' is no part"),
        (["{source}", "--out", "{out}", "--shard", "1/2"], "--scan-only first"),
        (["{source}", "--out", "{out}", "--shard", "1/2", "--since", "2026-01-31"], "--scan-only once"),
        (["{source}", "--out", "{out}", "--since", "yesterday"], "'yesterday' is no day"),
        (["{source}", "--out", "{out}", "--format", "json,doc"], "no format 'doc'"),
        (["--status", "{source}"], "has no tables"),
    ],
)
def test_options_that_do_not_fit_are_wrong_usage(source, tmp_path, capfd, options, message):
    places = {"source": source, "list": tmp_path / "list.txt", "out": tmp_path / "tables"}
    places["list"].write_text("source\n")
    try:
        status = cli.main(["archive", *(option.format(**places) for option in options)])
    except SystemExit as end:
        status = end.code
    assert status == 2
    assert message in capfd.readouterr().err
    assert not places["out"].exists()


def test_a_list_is_scanned_alone(source, tmp_path, capfd):
    listed, tables = tmp_path / "list.txt", tmp_path / "tables"
    listed.write_text("source/000\n")
    assert cli.main(["archive", "--list", str(listed), "--out", str(tables), "--scan-only"]) == 0
    assert "4 files: 4 radiographs, 2 studies" in capfd.readouterr().err
    assert cli.main(["archive", str(source), "--out", str(tables), "--scan-only"]) == 4
    assert "the tables are of the list" in capfd.readouterr().err
    assert cli.main(["archive", "--status", str(tables)]) == 0
    assert "0 of 1 written" in capfd.readouterr().out


def test_an_archive_without_radiographs_has_nothing_scored(tmp_path, capfd):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "note.txt").write_text("no radiograph")
    assert cli.main(words(tmp_path / "source", tmp_path / "tables", "phantom-reference")) == 3
    assert "studies      0" in capfd.readouterr().out


def test_a_spoiled_table_names_the_next_step(source, tmp_path, capfd):
    tables = tmp_path / "tables"
    assert cli.main(["archive", str(source), "--out", str(tables), "--scan-only"]) == 0
    Places(tables).table(Places(tables).shards()[0]).write_bytes(b"no table")
    assert cli.main(["archive", "--status", str(tables)]) == 2
    assert cli.main(["archive", str(source), "--out", str(tables), "--retry", "worker-crashed"]) == 2
    assert "remove that file, and the same command makes it again" in capfd.readouterr().err
