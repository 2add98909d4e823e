"""A run of an archive: rows, identities, order, going on, parts, codes, results; scored in this process."""

import json
import threading
from collections import Counter

import pytest

from helpers import archive, tiny
from spinescore.runtime import Scorer
from spinescore.runtime.archive import run
from spinescore.runtime.archive.layout import ArchiveError, Places
from spinescore.runtime.archive.scoring import read_entry, replaced, rows_of_entry
from spinescore.runtime.archive.status import status_of
from spinescore.runtime.archive.studylists import Entry
from spinescore.runtime.followup import read_cohort
from spinescore.runtime.scoring.report import StudyInfo

pytest.importorskip("pyarrow", reason="tables are Parquet files")


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    with Scorer.open(tiny.write_bundle(tmp_path_factory.mktemp("tiny") / "bundle"), "cpu", build="no") as opened:
        yield opened


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Three studies that are scored, and seven that are too small."""
    folder = tmp_path_factory.mktemp("archive")
    archive.write_archive(folder / "small", 10)
    archive.write_archive(folder / "large", 3, small=False)  # the same UIDs: their small pictures are second choices
    return folder


@pytest.fixture(scope="module")
def undisturbed(source, scorer, tmp_path_factory):
    tables = tmp_path_factory.mktemp("undisturbed") / "tables"
    archive.run(tables, source, archive.Inline(scorer))
    return tables


def log_lines(places):
    return map(json.loads, places.log.read_text(encoding="utf-8").splitlines())


def test_every_study_is_in_the_tables_once(undisturbed):
    rows = archive.rows(undisturbed)
    assert Counter(row["row"] for row in rows) == {"study": 3, "region": 6, "corner": 72, "not-scored": 7}
    heads = [row for row in rows if row["row"] in ("study", "not-scored")]
    assert len({row["study_instance_uid"] for row in heads}) == 10
    assert [row["number"] for row in heads] == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert {row["code"] for row in heads if row["row"] == "not-scored"} == {"too-small"}
    assert [row["total"] for row in heads if row["row"] == "study"] == [26, 26, 26]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_the_work_does_not_change_a_byte(undisturbed, source, scorer, tmp_path, seed):
    archive.run(tmp_path, source, archive.Inline(scorer, seed))
    assert archive.digest(tmp_path) == archive.digest(undisturbed)


def test_a_run_that_was_ended_goes_on_with_the_shards_that_are_missing(undisturbed, source, scorer, tmp_path):
    archive.run(tmp_path, source, archive.Inline(scorer, most=6))
    assert len(archive.digest(tmp_path)) == 3
    (tmp_path / ".shard-0000-000002.parquet.77.tmp").write_bytes(b"half")
    rest = archive.Inline(scorer)
    archive.run(tmp_path, source, rest)
    assert not list(tmp_path.glob(".*"))
    assert len(rest.scored) == 6
    assert archive.digest(tmp_path) == archive.digest(undisturbed)
    nothing = archive.Inline(scorer)
    archive.run(tmp_path, source, nothing)
    assert nothing.scored == []


def test_machines_that_share_the_work_write_the_same_tables(undisturbed, source, scorer, tmp_path):
    first, second = archive.Inline(scorer), archive.Inline(scorer)
    archive.run(tmp_path, source, first, part=(1, 2))
    assert len(first.scored) == 6
    archive.run(tmp_path, source, second, part=(2, 2))
    assert len(second.scored) == 4
    assert archive.digest(tmp_path) == archive.digest(undisturbed)


def test_identities_are_replaced_unless_they_are_asked_for(undisturbed, source, scorer, tmp_path):
    archive.run(tmp_path, source, archive.Inline(scorer), identifiers=True)
    theirs, ours = archive.rows(tmp_path), archive.rows(undisturbed)
    text = repr(ours)
    for name in ("1.2.840.99", "patient 1", "2020-", "lumbar.dcm"):
        assert name not in text
    assert [row["study_instance_uid"] for row in theirs if row["row"] == "study"] == [
        f"{archive.UID}.{1000 + number}" for number in range(3)
    ]
    assert {row["path"] for row in theirs if row["row"] == "not-scored"} == {
        f"small/{number // 2:03}/{number}-lumbar.dcm" for number in range(3, 10)
    }
    shifts = {}
    for true, row in zip(theirs, ours, strict=True):
        assert row["patient_key"] == true["patient_key"]
        shifts.setdefault(row["patient_key"], set()).add((true["study_date"] - row["study_date"]).days)
        assert row["study_instance_uid"].startswith("2.25.")
        assert len(row["study_instance_uid"]) <= 64
    assert len(shifts) == 3
    assert all(len(days) == 1 and 1 <= min(days) <= 365 for days in shifts.values())


def test_a_secret_changes_the_replacements(monkeypatch, undisturbed, source, scorer, tmp_path):
    identity = StudyInfo("1.2.3", "20200131", "p")
    before = replaced(identity)
    assert before == replaced(identity)
    archive.run(tmp_path, source, archive.Inline(scorer, most=4))
    monkeypatch.setenv("SPINESCORE_PATIENT_KEY", "a secret of the site")
    after = replaced(identity)
    assert after.study_instance_uid != before.study_instance_uid
    assert after.study_date != before.study_date
    with pytest.raises(ArchiveError, match="SPINESCORE_PATIENT_KEY"):
        archive.run(tmp_path, source, archive.Inline(scorer))


def test_a_date_at_the_beginning_of_the_calendar_is_left_out():
    assert replaced(StudyInfo("1.2.3", "00010101", "p")).study_date is None
    assert replaced(StudyInfo("1.2.3", None, None)).study_date is None


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"strict": True}, "--strict"),
        ({"identifiers": True}, "--ident"),
        ({"max_imputed": 2}, "--max"),
        ({"precision": "int8"}, "--prec"),
    ],
)
def test_tables_that_were_begun_otherwise_are_not_gone_on_with(undisturbed, source, scorer, tmp_path, change, option):
    archive.run(tmp_path, source, archive.Inline(scorer, most=4))
    for tables in (tmp_path, undisturbed):  # the latter have nothing to be scored
        with pytest.raises(ArchiveError, match=f"another {option}"):
            archive.run(tables, source, archive.Inline(scorer), **change)


def test_a_study_that_ends_its_process_gets_a_code_and_is_tried_again(undisturbed, source, scorer, tmp_path):
    bad = f"{archive.UID}.1001"
    places = archive.run(
        tmp_path, source, archive.Inline(scorer, code=lambda entry: "worker-crashed" if entry.study == bad else None)
    )
    status = status_of(places)
    assert (status.scored, status.codes) == (2, {"too-small": 7, "worker-crashed": 1})
    assert "worker-crashed" in status.text()
    assert [line["number"] for line in log_lines(places) if line["event"] == "not scored"] == [1]
    again = archive.Inline(scorer)
    archive.run(tmp_path, source, again, retry="worker-crashed")
    assert again.scored == [bad]
    assert archive.digest(tmp_path) == archive.digest(undisturbed)


def test_the_log_has_the_times_and_the_tables_have_none(undisturbed):
    events = [line["event"] for line in log_lines(Places(undisturbed))]
    assert events == ["scanned", "opened", "written", "written", "written", "ended"]
    text = (undisturbed / "archive.json").read_text() + repr(archive.rows(undisturbed))
    assert str(undisturbed) not in text
    assert "patient" not in (undisturbed / "work" / "log.jsonl").read_text()


def test_results_are_written_on_wish_and_change_no_table(undisturbed, source, scorer, tmp_path):
    places = archive.run(tmp_path, source, archive.Inline(scorer), formats=("json", "html"))
    assert archive.digest(tmp_path) == archive.digest(undisturbed)
    study = next(row for row in archive.rows(tmp_path) if row["row"] == "study")
    folder = places.results(places.shards()[0]) / study["study_instance_uid"]
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json"]
    assert len(list(tmp_path.glob("results/*/*/report.json"))) == 10


def test_files_that_are_gone_when_they_are_scored_get_a_code(source, scorer, tmp_path):
    archive.write_archive(tmp_path / "source", 2)
    way = archive.Inline(scorer, most=0)
    archive.run(tmp_path / "tables", tmp_path / "source", way)
    for path in (tmp_path / "source").rglob("*.dcm"):
        path.unlink()
    archive.run(tmp_path / "tables", tmp_path / "source", archive.Inline(scorer))
    assert [row["code"] for row in archive.rows(tmp_path / "tables")] == ["file-unreadable"] * 2


def test_the_tables_are_a_cohort(undisturbed):
    cohort = read_cohort(undisturbed)
    assert len(cohort.entries) == 10
    assert {entry.report.total.value for entry in cohort.entries} == {26, None}


def test_a_study_whose_results_cannot_be_written_is_scored_once_and_keeps_its_rows(
    source, scorer, tmp_path, monkeypatch
):
    files = tuple(sorted(str(path.relative_to(source)) for path in (source / "large" / "000").glob("0-*.dcm")))
    entry, scored = Entry(0, f"{archive.UID}.1000", files), []
    request = archive.request_of(source, "tiny", formats=("csv",))

    score = scorer.score
    monkeypatch.setattr(scorer, "score", lambda study, *more, **options: scored.append(study) or score(study, *more))

    def outcome(out):
        return rows_of_entry(entry, read_entry(entry, request.base), scorer, request, out)

    rows, unwritten = outcome(None)
    assert (len(rows), unwritten, len(scored)) == (27, None, 1)
    (tmp_path / "out").write_text("a file where the folder of results would be")
    again, unwritten = outcome(str(tmp_path / "out"))
    assert (again, len(scored)) == (rows, 2)
    assert "out" in unwritten


def test_the_library_of_the_tables_is_loaded_before_the_first_study_is_done(source, scorer, tmp_path, monkeypatch):
    loaded = threading.Event()
    monkeypatch.setattr(run, "parquet_of", lambda rows: rows or loaded.set())

    class Waiting(archive.Inline):
        def outcomes(self, *given):
            assert loaded.wait(60)
            yield from super().outcomes(*given)

    archive.run(tmp_path, source, Waiting(scorer, most=1))
