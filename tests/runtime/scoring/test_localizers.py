"""A bundle with alternatives to its localizer: opened one by one, accepted one by one, planned and followed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from helpers.golden_bundle import write_golden_bundle
from helpers.scoring import CERVICAL, LUMBAR, checked, grades, points
from helpers.tensorrt_double import HERE, write_engine
from helpers.tiny import HEIGHT, write_bundle
from spinescore.runtime import BundleError, EngineError, Scorer, cli
from spinescore.runtime.acceptance import AcceptanceRecord, find_records, gate, write_record
from spinescore.runtime.acceptance.gate import verify_device
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.engines.places import store_engine
from spinescore.runtime.files import file_sha256
from spinescore.runtime.machine.processor import processor_kind
from spinescore.runtime.opening import building
from spinescore.runtime.opening.plan import LatencyPlan, Setting
from spinescore.runtime.phantom.labelled import PhantomStudy
from spinescore.runtime.scoring.budget import Effort
from spinescore.runtime.verbs import plan as plan_verb
from spinescore.runtime.verbs.summary import study_summary

STUDY = [CERVICAL.radiograph, LUMBAR.radiograph]
SHIFTS_PX = {"narrow": 2.0, "thin": 1.0}  # of the points, in the localizer's input
SCALE = CERVICAL.radiograph.rows / HEIGHT


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Bundle:
    return Bundle.open(write_golden_bundle(tmp_path_factory.mktemp("golden") / "b", alternatives=SHIFTS_PX))


@pytest.fixture
def bundle(made, tmp_path, monkeypatch):
    """The bundle, without records and plans of other tests."""
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "cache"))
    yield made
    for path in made.folder.glob("acceptance/*"):
        path.unlink()


def scored(folder, **options):
    with Scorer.open(folder, "cpu", **options) as scorer:
        return checked(scorer.score(STUDY))


def accepted(bundle, name):
    """Precisions that have a record, beside the reference."""
    found = find_records(bundle.with_localizer(name), "cpu", processor_kind())
    return [record.precision for record in found.accepted]


@pytest.mark.parametrize("heads", [24, "separate"])
def test_each_localizer_scores_by_its_name(tmp_path, heads):
    folder = write_bundle(tmp_path / "b", heads=heads, alternatives=SHIFTS_PX)
    own = scored(folder)
    assert (own.bundle.localizer, json.loads(own.to_json())["bundle"]["localizer"]) == (None, None)
    for name, shift_px in SHIFTS_PX.items():
        report = scored(folder, localizer=name)
        assert report.bundle == replace(own.bundle, localizer=name)
        assert f"Bundle tiny 1, localizer {name}: " in study_summary(report)
        for region in own.regions:
            moved = points(report.regions[region]) - points(own.regions[region])
            np.testing.assert_allclose(moved / SCALE, np.broadcast_to([shift_px, 0], moved.shape), atol=0.2)
            assert grades(report.regions[region]) == grades(own.regions[region])


def test_one_localizer_of_a_bundle(made):
    own, narrow = made.with_localizer(None), made.with_localizer("narrow")
    assert made.manifest.localizer.names == (None, "narrow", "thin")
    assert narrow.manifest.localizer.files["lumbar"]["fp16"] == "localizer-narrow.fp16.onnx"
    assert {own.sha256, narrow.sha256} == {made.sha256}
    assert (own.manifest.networks[0], own.localizer) == (made.manifest.localizer.files["cervical"], None)
    for alone in (own, narrow):
        assert alone.manifest.localizer.names == (None,)
    with pytest.raises(BundleError, match=r"tiny has no localizer 'wide' beside its own; there is: narrow, thin\."):
        made.with_localizer("wide")


def test_an_unknown_name_is_refused_with_those_that_there_are(bundle, tmp_path, capsys):
    command = ["score", str(tmp_path), "--device", "cpu", "--localizer", "wide", "--bundle"]
    assert cli.main([*command, str(bundle.folder)]) == 4
    assert "no localizer 'wide' beside its own; there is: narrow, thin." in capsys.readouterr().err
    assert cli.main([*command, str(write_bundle(tmp_path / "plain"))]) == 4
    assert "there is: none." in capsys.readouterr().err


def test_a_file_of_an_alternative_that_was_altered_is_refused(tmp_path):
    folder = write_bundle(tmp_path / "b", alternatives=SHIFTS_PX)
    path = folder / "localizer-thin.fp32.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleError, match=r"localizer-thin\.fp32\.onnx was altered"):
        Bundle.open(folder)


def test_an_alternative_with_other_heatmaps_is_refused(tmp_path):
    """A manifest that was written by hand: the alternative has 12 heatmaps, the keypoints want 24."""
    narrow = write_bundle(tmp_path / "narrow", heads=12) / "localizer.fp32.onnx"
    folder = write_bundle(tmp_path / "b", alternatives={"narrow": 0})
    document = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    (folder / "localizer-narrow.fp32.onnx").write_bytes(narrow.read_bytes())
    entry = {"sha256": file_sha256(narrow), "bytes": narrow.stat().st_size, "precision": "fp32"}
    document["files"]["localizer-narrow.fp32.onnx"] = entry
    (folder / "bundle.json").write_text(json.dumps(document), encoding="utf-8")
    assert scored(folder).regions["lumbar"].status == "scored"
    with pytest.raises(
        BundleError, match=r"heatmaps is \(12, 64, 48\) per image, the manifest describes \(24, 64, 48\)"
    ):
        scored(folder, localizer="narrow")


def test_the_gate_holds_each_localizer_against_itself(bundle):
    (outcome,) = verify_device(bundle.with_localizer("narrow"), "cpu", "onnxruntime", "fp16")
    assert (outcome.localizer, outcome.record.passed) == ("narrow", True)
    assert set(outcome.record.networks) == {"localizer-narrow.fp16.onnx", "grader-corners.fp16.onnx"}
    assert outcome.record.figures.median_shift_px < 0.05  # and not the half pixel to the bundle's own


def test_a_record_is_of_one_localizer_alone(bundle):
    assert accepted(bundle, "narrow") == []
    for name in ("narrow", None):
        verify_device(bundle.with_localizer(name), "cpu", "onnxruntime", "fp16")
    assert [accepted(bundle, name) for name in bundle.manifest.localizer.names] == [["fp16"], ["fp16"], []]
    assert len(list(bundle.folder.glob("acceptance/*.json"))) == 2
    asked = {"engine": "onnxruntime", "precision": "fp16"}
    assert scored(bundle.folder, **asked, localizer="narrow").device.precision == "fp16"
    with pytest.raises(EngineError, match="No onnxruntime fp16 has been accepted"):
        Scorer.open(bundle.folder, "cpu", **asked, localizer="thin")


@pytest.mark.parametrize(("mine", "other"), [(None, "narrow"), ("narrow", None), ("narrow", "thin")])
def test_a_record_under_the_name_of_another_localizers_does_not_count(bundle, mine, other):
    (outcome,) = verify_device(bundle.with_localizer(other), "cpu", "onnxruntime", "fp16")
    outcome.path.unlink()
    path = write_record(outcome.record, bundle.with_localizer(mine))
    assert AcceptanceRecord.read(path).figures == outcome.record.figures
    assert (accepted(bundle, mine), accepted(bundle, other)) == ([], ["fp16"])


def test_a_record_of_an_engine_counts_for_the_localizer_that_it_was_built_from(tmp_path):
    bundle = Bundle.open(write_golden_bundle(tmp_path / "b", alternatives=SHIFTS_PX))
    (outcome,) = verify_device(bundle, "cpu", "onnxruntime", "fp16", folder=tmp_path)
    (tmp_path / "like").mkdir()
    like = write_engine(tmp_path / "like")[2]
    networks = {}
    for stem in ("localizer-narrow", "grader-corners"):
        sidecar = replace(like, onnx=f"{stem}.fp16.onnx", onnx_sha256=file_sha256(bundle.path(f"{stem}.fp16.onnx")))
        store_engine(bundle.folder / "engines" / "here" / f"{stem}.fp16.engine", b"plan", sidecar)
        networks[f"engines/here/{stem}.fp16.engine"] = sidecar.engine_sha256
    record = replace(outcome.record, engine="tensorrt", networks=networks)
    path = write_record(record, bundle.with_localizer("narrow"))
    assert path.parent == bundle.folder / "engines" / "here"
    assert [accepted(bundle, name) for name in bundle.manifest.localizer.names] == [[], ["fp16"], []]


def test_the_command_verifies_every_localizer(bundle, capsys, monkeypatch):
    outcomes = {}

    def verify(bundle, *arguments, **options):
        if bundle.localizer not in outcomes:
            outcomes[bundle.localizer] = verify_device(bundle, *arguments, **options)
        return list(outcomes[bundle.localizer])

    monkeypatch.setattr(gate, "verify_device", verify)
    command = ["bundle", "verify", str(bundle.folder), "--device", "cpu", "--engine", "onnxruntime"]
    assert cli.main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["localizer"], one["record"]["passed"]) for one in found] == [
        (None, True),
        ("narrow", True),
        ("thin", True),
    ]
    assert cli.main(command) == 0
    assert "onnxruntime fp16, localizer narrow  accepted" in capsys.readouterr().out


def test_what_is_built_for_a_scorer_is_of_its_localizer(made, monkeypatch):
    monkeypatch.setattr(building, "first_gpu", lambda: HERE)
    monkeypatch.setattr(building, "_builder", lambda capability: ("tensorrt", "here"))
    plan, _ = building.find_build(made.with_localizer("thin"), building.Request("auto"))
    assert plan.localizer == "thin"
    built = []
    monkeypatch.setattr(building, "_build", lambda bundle, plan, say: built.append(bundle.localizer))
    monkeypatch.setattr(building, "_outcome", lambda bundle, plan, target, say: "")
    building.run(made, plan, lambda line: None)
    assert built == ["thin"]


@pytest.fixture
def rig(monkeypatch):
    """Studies that are tiny, and times that are not the clock's."""

    def measure(self, setting, runs):
        scorer = self._open(setting)
        assert scorer.bundle.localizer == setting.localizer
        return scorer._session.engine.scorer.info.engine, [
            {None: 100.0, "narrow": 50.0, "thin": 30.0}[setting.localizer]
        ] * runs

    monkeypatch.setattr("spinescore.runtime.machine.processor.core_count", lambda: 1)
    drawn = PhantomStudy([], {}, {"phantom_seed": 7, "transfer_syntax": "uncompressed", "images": []})
    monkeypatch.setattr("spinescore.runtime.phantom.labelled.write_labelled_study", lambda scratch: drawn)
    monkeypatch.setattr(plan_verb._Rig, "measure", measure)


@pytest.mark.parametrize(("budget_ms", "name"), [(110, None), (60, "narrow"), (40, "thin")])
def test_a_plan_takes_the_most_accurate_localizer_that_fits(bundle, rig, capsys, budget_ms, name):
    command = ["plan", "--bundle", str(bundle.folder), "--device", "cpu", "--budget-ms", str(budget_ms)]
    assert cli.main([*command, "--json"]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["candidates"][document["choice"]].get("localizer") == name
    assert {one.get("localizer") for one in document["candidates"]} == {None, "narrow", "thin"}
    assert "onnxruntime fp16 (localizer thin)" in printed.err  # which was not accepted
    (path,) = bundle.folder.glob("acceptance/plan-*.json")
    for report in (scored(bundle.folder), scored(bundle.folder, plan=path)):
        assert (report.bundle.localizer, report.warnings) == (name, ())
    assert scored(bundle.folder, plan=None).bundle.localizer is None
    assert scored(bundle.folder, localizer="narrow").bundle.localizer == "narrow"
    with pytest.raises(ValueError, match="threads and localizer: name them, or a plan, not both"):
        Scorer.open(bundle.folder, "cpu", plan=path, localizer="thin")


def test_a_plan_of_the_bundles_own_localizer_is_written_as_before(bundle, rig, capsys):
    assert cli.main(["plan", "--bundle", str(bundle.folder), "--device", "cpu", "--budget-ms", "110"]) == 0
    printed = capsys.readouterr().out
    assert "onnxruntime fp32, localizer thin, 1 thread" in printed
    assert "\nLocalizer narrow\nLocalizer thin\n" in printed  # whose provenance says no more
    (path,) = bundle.folder.glob("acceptance/plan-*.json")
    plan = LatencyPlan.read(path)
    assert "localizer" not in json.loads(path.read_text(encoding="utf-8"))["candidates"][plan.choice]
    assert plan.chosen.setting.localizer is None


def test_a_plan_of_a_localizer_that_is_not_there_is_passed_over(bundle, rig, capsys):
    assert cli.main(["plan", "--bundle", str(bundle.folder), "--device", "cpu", "--budget-ms", "60"]) == 0
    (path,) = bundle.folder.glob("acceptance/plan-*.json")
    plan = LatencyPlan.read(path)
    gone = replace(plan.chosen, setting=Setting("onnxruntime", "fp32", 1, Effort(1), "gone"))
    assert replace(plan, candidates=(gone,), choice=0).write(bundle) == path
    report = scored(bundle.folder)
    assert report.bundle.localizer is None
    assert "no localizer 'gone'" in report.warnings[0]
    with pytest.raises(EngineError, match=r"cannot be used\. .* no localizer 'gone'.*Make it again"):
        Scorer.open(bundle.folder, "cpu", plan=path)


def test_a_plan_and_a_localizer_cannot_both_be_named(bundle, capsys, tmp_path):
    command = ["score", str(tmp_path), "--bundle", str(bundle.folder), "--plan", "own.json", "--localizer", "thin"]
    assert cli.main(command) == 2
    assert "leave out --engine, --precision, --unaccepted and --localizer" in capsys.readouterr().err
