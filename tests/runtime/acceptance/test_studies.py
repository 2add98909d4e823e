"""The gate on whole studies: they are scored as any other, and their grades decide beside the golden inputs."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from helpers.golden_bundle import write_golden_bundle
from helpers.tiny_study import write_study
from spinescore.runtime import BundleError, cli
from spinescore.runtime.acceptance import AcceptanceRecord, StudyFigures, find_records, write_record
from spinescore.runtime.acceptance.gate import verify_device
from spinescore.runtime.acceptance.studies import compare_studies, grades_of, places_of
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices import open_device
from spinescore.runtime.machine.processor import processor_kind
from spinescore.runtime.manifest.tolerances import Tolerances
from spinescore.runtime.scoring.studyscorer import StudyScorer

HALF = ("onnxruntime", "fp16")


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """A folder with two studies; one has its cervical radiograph alone."""
    folder = tmp_path_factory.mktemp("studies")
    write_study(folder / "one")
    write_study(folder / "two", regions=("cervical",))
    return folder


@pytest.fixture
def command(tmp_path, studies):
    def words(half):
        folder = write_golden_bundle(tmp_path / half, half)
        engine = ["--device", "cpu", "--engine", HALF[0], "--precision", HALF[1]]
        return ["bundle", "verify", str(folder), *engine, "--studies", str(studies)]

    return words


def test_an_engine_that_grades_alike_is_accepted(command, capsys):
    assert cli.main(command("right")) == 0
    printed = capsys.readouterr()
    assert "0 of 36 (< 9.6 %)" in printed.out
    assert "the reference on the studies of 2 folders or files" in printed.err


def test_an_engine_that_grades_otherwise_is_not(command, capsys):
    assert cli.main([*command("wrong"), "--json"]) == 4
    (found,) = json.loads(capsys.readouterr().out)
    assert "studies" not in {name for name, value in found["record"].items() if value is not None}
    assert re.search(r"computes wrongly in this process: .* \d+ of 24 grades flip, at most 0 may", found["reason"])


def test_studies_alone_can_refuse_an_engine_and_the_record_says_so(tmp_path, studies):
    bundle = Bundle.open(write_golden_bundle(tmp_path / "b"))
    (outcome,) = verify_device(bundle, "cpu", *HALF, studies=[studies])
    path = outcome.path
    assert AcceptanceRecord.read(path) == replace(outcome.record, sha256=outcome.record.digest())
    few = replace(outcome.record, studies=StudyFigures(200, 4800, 24), date="2999-01-01")
    many = replace(few, studies=StudyFigures(200, 4800, 25), passed=False)
    write_record(few, bundle)
    assert find_records(bundle, "cpu", processor_kind()).accepted
    write_record(many, bundle)
    found = find_records(bundle, "cpu", processor_kind())
    assert (found.accepted, len(found.failed)) == ((), 1)
    assert many.faults(Tolerances()) == ["grade flips in 200 studies 0.005208, at most 0.005"]
    path.write_text(path.read_text(encoding="utf-8").replace('"grade_flips": 25', '"grade_flips": 5'), encoding="utf-8")
    assert "was altered" in find_records(bundle, "cpu", processor_kind()).altered[0]


def test_a_later_gate_without_studies_does_not_forget_them(tmp_path, studies):
    bundle = Bundle.open(write_golden_bundle(tmp_path / "b"))
    (first,) = verify_device(bundle, "cpu", *HALF, studies=[studies])
    assert first.record.studies == StudyFigures(2, 36, 0)
    failed = replace(first.record, studies=StudyFigures(200, 4800, 25), passed=False)
    write_record(failed, bundle)
    (again,) = verify_device(bundle, "cpu", *HALF)
    assert (again.record.studies, again.record.passed) == (failed.studies, False)
    assert not find_records(bundle, "cpu", processor_kind()).accepted
    write_record(replace(failed, framework="onnxruntime 1.0"), bundle)
    again.path.unlink()
    (other,) = verify_device(bundle, "cpu", *HALF)
    assert (other.record.studies, other.record.passed) == (None, True)
    (anew,) = verify_device(bundle, "cpu", *HALF, studies=[studies])
    assert (anew.record.studies, anew.record.passed) == (first.record.studies, True)


def test_a_record_without_studies_has_no_word_of_them(tmp_path):
    bundle = Bundle.open(write_golden_bundle(tmp_path / "b"))
    (outcome,) = verify_device(bundle, "cpu", *HALF)
    assert outcome.record.studies is None
    assert "studies" not in json.loads(outcome.path.read_text(encoding="utf-8"))


def test_a_corner_that_only_one_grades_counts_as_flipped():
    reference = [{"a": 0, "b": 3, "c": None, "d": None}, {"a": 1}]
    other = [{"a": 0, "b": None, "c": 2, "d": None}, {"a": 2}]
    assert compare_studies(reference, other) == StudyFigures(2, 4, 3)


def test_the_bundles_budget_is_left_aside(tmp_path, studies, monkeypatch):
    bundle = Bundle.open(write_golden_bundle(tmp_path / "b"))
    hurried = replace(bundle, manifest=replace(bundle.manifest, budget_ms=1e-3))
    reports = []

    class Watched(StudyScorer):
        def score(self, study):
            scored = super().score(study)
            reports.append(scored.report)
            return scored

    monkeypatch.setattr("spinescore.runtime.acceptance.studies.StudyScorer", Watched)
    grades_of(hurried, open_device("cpu"), [studies / "one"])
    assert [(report.budget_ms, report.skipped) for report in reports] == [(None, ())]


def test_places(tmp_path, studies):
    file = studies / "one" / "cervical.dcm"
    assert places_of([studies]) == [studies / "one", studies / "two"]
    assert places_of([studies / "one", file]) == [studies / "one", file]


def test_studies_that_tell_nothing_are_refused(command, tmp_path, capsys):
    words = command("right")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert cli.main([*words[:-1], str(tmp_path / "gone")]) == 2
    assert "there is no file or folder" in capsys.readouterr().err
    assert cli.main([*words[:3], "--studies", str(empty)]) == 4
    assert "Bundle tiny grades no corner of the 1 studies" in capsys.readouterr().err
    with pytest.raises(BundleError, match="grades no corner"):
        verify_device(Bundle.open(words[2]), "cpu", *HALF, studies=[empty])
