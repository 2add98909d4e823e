"""Plans: written, read again, held to bundle, machine and engine, and followed at opening."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import datetime, timezone

import pytest

from helpers.golden_bundle import write_golden_bundle
from helpers.scoring import CERVICAL, LUMBAR, checked
from spinescore.kernels.signing import sign
from spinescore.runtime import EngineError, Scorer, cli
from spinescore.runtime.acceptance.gate import verify_device
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.opening.plan import Candidate, LatencyPlan, Setting, this_machine
from spinescore.runtime.phantom.labelled import PhantomStudy, write_labelled_study
from spinescore.runtime.scoring.budget import Effort
from spinescore.runtime.verbs import plan as plan_verb

STUDY = [CERVICAL.radiograph, LUMBAR.radiograph]
HALF = Setting("onnxruntime", "fp16", 1, Effort(1, False, True))


@pytest.fixture(scope="module")
def accepted(tmp_path_factory):
    """A bundle of two passes whose FP16 networks were accepted, and the version of the engine."""
    bundle = Bundle.open(write_golden_bundle(tmp_path_factory.mktemp("golden") / "b", **{"localizer.passes": 2}))
    (outcome,) = verify_device(bundle, "cpu", "onnxruntime", "fp16")
    return bundle, outcome.record.framework


@pytest.fixture
def bundle(accepted):
    yield accepted[0]
    for path in accepted[0].folder.glob("acceptance/plan-*"):
        path.unlink()


@pytest.fixture
def plan(bundle, accepted):
    """The plan of one pass in FP16."""
    reference = Candidate(Setting("onnxruntime", "fp32", 1, Effort(2)), accepted[1], 0, 0, 0.0, 5, 90.0, None)
    half = Candidate(HALF, accepted[1], 24, 0, 0.01, 100, 40.0, 45.5)
    return LatencyPlan(
        bundle={"name": "tiny", "sha256": bundle.sha256},
        machine=this_machine("cpu"),
        budget_ms=50.0,
        percentile=99.0,
        studies="two phantoms",
        candidates=(reference, half),
        choice=1,
        date="2026-01-01T00:00:00+00:00",
    )


def opened(bundle, **options):
    """Precision, what was skipped and warnings of a report."""
    with Scorer.open(bundle.folder, options.pop("device", "cpu"), **options) as scorer:
        report = checked(scorer.score(STUDY))
    return report.device.precision, report.skipped, report.warnings


def test_a_plan_is_written_read_and_followed(bundle, plan):
    path = plan.write(bundle)
    assert path.parent == bundle.folder / "acceptance"
    assert LatencyPlan.read(path) == replace(plan, sha256=plan.digest())
    assert json.loads(path.read_text(encoding="utf-8"))["candidates"][1] == {
        "engine": "onnxruntime", "precision": "fp16", "threads": 1, "passes": 1, "antialias": False, "apart": True,
        "framework": plan.chosen.framework, "corners": 24, "grade_flips": 0, "median_shift_px": 0.01, "runs": 100,
        "p50_ms": 40.0, "tail_ms": 45.5,
    }  # fmt: skip
    said = "By its plan the localizer looked once and not twice and the networks' inputs were sampled once a pixel."
    by_plan = ("fp16", ("second-pass", "antialias"), (said,))
    assert opened(bundle) == opened(bundle, plan=path) == opened(bundle, device="auto") == by_plan
    for own in ({"plan": None}, {"precision": "fp32"}, {"threads": 1}, {"engine": "onnxruntime", "precision": "fp32"}):
        assert opened(bundle, **own)[1] == ()
    with pytest.raises(ValueError, match="name them, or a plan, not both"):
        Scorer.open(bundle.folder, "cpu", plan=path, threads=1)


def test_the_latest_of_two_is_followed(bundle, plan, tmp_path):
    earlier = replace(plan, choice=0, date="2025-01-01")
    (bundle.folder / "acceptance" / "plan-cpu-other.json").write_text(earlier.to_json(), encoding="utf-8")
    sign(earlier.signed_as, earlier.digest())
    assert opened(bundle)[0] == "fp32"
    plan.write(bundle)
    assert opened(bundle)[0] == "fp16"
    assert replace(plan, machine={**plan.machine, "cores": "99"}).write(bundle) != plan.write(bundle)
    assert opened(bundle)[0] == "fp16"
    assert plan.write(bundle, tmp_path / "own.json") == tmp_path / "own.json"


OTHERS = [
    ({"machine": {"cores": "99"}}, r"is of another machine \(cores 99, not \d+\)"),
    ({"machine": {"processor": "Z80"}}, r"is of another machine \(processor Z80, not "),
    ({"bundle": {"sha256": "0" * 64}}, r"is of another bundle \(tiny 000000000000, not tiny "),
    ({"framework": "onnxruntime 0.1"}, r"was made with onnxruntime 0\.1, this is onnxruntime 1\."),
    ({"engine": "openvino", "precision": "int8"}, r"cannot be used\. .* cannot be run with openvino int8"),
]


@pytest.mark.parametrize(("changes", "message"), OTHERS)
def test_a_plan_that_does_not_hold_is_refused_or_passed_over(bundle, plan, changes, message):
    chosen = replace(plan.chosen, framework=changes.get("framework", plan.chosen.framework))
    names = {name: changes[name] for name in ("engine", "precision") if name in changes}
    chosen = replace(chosen, setting=replace(chosen.setting, **names))
    other = replace(
        plan,
        machine={**plan.machine, **changes.get("machine", {})},
        bundle={**plan.bundle, **changes.get("bundle", {})},
        candidates=(plan.candidates[0], chosen),
    )
    path = other.write(bundle)
    again = f"Make it again: spinescore plan --budget-ms 50 --percentile 99 --bundle {bundle.folder} --device cpu"
    precision, skipped, (warning,) = opened(bundle)
    assert (skipped, warning.endswith(again)) == ((), True)
    assert precision in ("fp32", "fp16")  # as without a plan
    with pytest.raises(EngineError, match=message) as refused:
        Scorer.open(bundle.folder, "cpu", plan=path)
    assert str(refused.value).endswith(again)


def test_a_plan_that_this_machine_did_not_make_is_passed_over(bundle, plan, monkeypatch, tmp_path):
    own = os.environ["SPINESCORE_CACHE"]
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "another"))
    path = replace(plan, date="2026-01-03").write(bundle)
    monkeypatch.setenv("SPINESCORE_CACHE", own)
    _, skipped, (warning,) = opened(bundle)
    assert skipped == ()
    assert f"The plan {path} was not made on this machine, and is not used. Make one: spinescore plan" in warning
    assert f"spinescore bundle trust {bundle.folder}" in warning
    assert opened(bundle, plan=path)[1] == ("second-pass", "antialias")  # the operator names it
    assert cli.main(["bundle", "trust", str(bundle.folder)]) == 0
    assert opened(bundle)[1] == ("second-pass", "antialias")


def test_a_plan_of_the_future_does_not_win(bundle, plan):
    later = replace(plan, choice=0, date="9999-01-01")
    (bundle.folder / "acceptance" / "plan-cpu-other.json").write_text(later.to_json(), encoding="utf-8")
    sign(later.signed_as, later.digest())
    assert opened(bundle)[0] == "fp32"
    plan.write(bundle)
    assert opened(bundle)[0] == "fp16"


@pytest.mark.parametrize(("threads", "message"), [(4096, "asks for 4096 threads of"), (65536, "threads: expected")])
def test_a_plan_for_more_threads_than_cores_is_refused(bundle, plan, threads, message):
    chosen = replace(plan.chosen, setting=replace(HALF, threads=threads))
    path = replace(plan, candidates=(plan.candidates[0], chosen)).write(bundle)
    assert opened(bundle)[1] == ()
    with pytest.raises(EngineError, match=message):
        Scorer.open(bundle.folder, "cpu", plan=path)


def test_a_plan_that_is_older_than_what_is_accepted_says_so(bundle, plan):
    """FP16 was accepted after the plan was made, and is not among its candidates."""
    earlier = replace(plan, candidates=plan.candidates[:1], choice=0, date="2026-01-04")
    path = earlier.write(bundle)
    precision, _, (warning,) = opened(bundle)
    assert precision == "fp32"
    framework = plan.chosen.framework
    assert f"The plan {path} is older than what is accepted now, and did not measure {framework} fp16." in warning
    again = f"Renew it: spinescore plan --budget-ms 50 --percentile 99 --bundle {bundle.folder} --device cpu"
    assert warning.endswith(again)
    replace(earlier, date=datetime.now(timezone.utc).isoformat()).write(bundle)
    assert opened(bundle)[2] == ()


def test_a_plan_of_another_device_is_refused(bundle, plan):
    path = plan.write(bundle)
    with pytest.raises(EngineError, match="is for device cpu, not cuda"):
        Scorer.open(bundle.folder, "cuda", plan=path)
    gpu = replace(plan, machine={**plan.machine, "kind": "cuda"}).write(bundle)
    with pytest.raises(EngineError, match=r"is of another machine \(Device cuda is not available"):
        Scorer.open(bundle.folder, "auto", plan=gpu)
    assert opened(bundle)[0] == "fp16"  # plans of the other kind are not looked at


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"choice": 1', '"choice": 0', "was altered"),
        ('"choice": 1', '"choice": 2', "choice: there are 2 candidates"),
        ('"passes": 1', '"passes": 3', "passes: expected one of 1, 2"),
        ('"threads": 1', '"threads": 0', "threads: expected a whole number"),
        ('"tail_ms": 45.5', '"tail_ms": "fast"', "tail_ms: expected a number"),
        ('"kind": "cpu"', '"kind": "tpu"', "machine.kind: expected one of cpu, cuda"),
        ('"studies"', '"study"', "studies: this field is missing"),
        ("{", "", "is not valid"),
    ],
)
def test_a_file_that_is_no_plan(bundle, plan, old, new, message):
    path = plan.write(bundle)
    path.write_text(path.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(EngineError, match=message):
        Scorer.open(bundle.folder, "cpu", plan=path)
    _, skipped, (warning,) = opened(bundle)
    assert skipped == ()
    assert str(path) in warning
    with pytest.raises(EngineError, match="cannot be read"):
        Scorer.open(bundle.folder, "cpu", plan=path.parent / "none.json")


def test_a_plan_in_the_encoding_of_powershell(bundle, plan, tmp_path):
    """`spinescore plan --json > plan.json` makes UTF-16 there."""
    (tmp_path / "plan.json").write_text(plan.to_json(), encoding="utf-16")
    with Scorer.open(bundle.folder, "cpu", plan=tmp_path / "plan.json") as scorer:
        assert scorer.choice is not None


@pytest.fixture
def rig(monkeypatch):
    """Studies that are tiny, and times that are not the clock's."""

    def measure(self, setting, runs):
        scorer = self._open(setting)
        factor = {"fp32": 100.0, "fp16": 60.0}[setting.precision]
        return scorer._session.engine.scorer.info.engine, [factor * setting.effort.passes] * runs

    monkeypatch.setattr("spinescore.runtime.machine.processor.core_count", lambda: 1)
    images = [{"rows": 1024, "columns": 768}] * 2
    drawn = PhantomStudy([], {}, {"phantom_seed": 7, "transfer_syntax": "uncompressed", "images": images})
    monkeypatch.setattr("spinescore.runtime.phantom.labelled.write_labelled_study", lambda scratch: drawn)
    monkeypatch.setattr(plan_verb._Rig, "measure", measure)


def test_command_line(bundle, rig, capsys, tmp_path):
    command = ["plan", "--bundle", str(bundle.folder), "--device", "cpu"]
    assert cli.main([*command, "--budget-ms", "150", "--json"]) == 0
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    chosen = document["candidates"][document["choice"]]
    assert (chosen["precision"], chosen["passes"], chosen["tail_ms"], chosen["runs"]) == ("fp16", 2, 120.0, 200)
    assert document["studies"] == "phantom 7, uncompressed, 1024 x 768 and 1024 x 768, its points given"
    assert opened(bundle)[:2] == ("fp16", ())
    assert cli.main([*command, "--budget-ms", "30", "--percentile", "90", "--runs", "10"]) == 5
    printed = capsys.readouterr()
    assert "takes 60.0 ms: 30.0 ms too long (2.00 times the budget)" in printed.out
    assert "24 " in printed.out  # corners of the record
    assert cli.main([*command, "--budget-ms", "300", "--out", str(tmp_path / "own.json")]) == 0
    assert "chosen" in capsys.readouterr().out
    assert LatencyPlan.read(tmp_path / "own.json").chosen.setting.precision == "fp32"


def test_a_study_is_measured_from_its_files(bundle, tmp_path):
    study = write_labelled_study(tmp_path)
    with plan_verb._Rig(bundle, "cpu", study) as rig:
        for setting in (HALF, replace(HALF, effort=Effort(2))):
            framework, times_ms = rig.measure(setting, 3)
            assert framework.startswith("onnxruntime ")
            assert len(times_ms) == 3
            assert min(times_ms) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--budget-ms", "0"], "--budget-ms must be a number of milliseconds above 0, got 0"),
        (["--budget-ms", "-5"], "--budget-ms must be a number of milliseconds above 0"),
        (["--budget-ms", "nan"], "--budget-ms must be a number of milliseconds above 0"),
        (["--budget-ms", "50", "--percentile", "100"], "--percentile is 50 or more and below 100"),
        (["--budget-ms", "50", "--runs", "99"], "--runs must be 100 or more for the 99th percentile"),
    ],
)
def test_wrong_usage(bundle, capsys, options, message):
    assert cli.main(["plan", "--bundle", str(bundle.folder), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_plan_and_an_engine_cannot_both_be_named(bundle, capsys, tmp_path):
    command = ["score", str(tmp_path), "--bundle", str(bundle.folder), "--plan", "own.json", "--engine", "onnxruntime"]
    assert cli.main(command) == 2
    assert "--plan chooses engine and precision" in capsys.readouterr().err
