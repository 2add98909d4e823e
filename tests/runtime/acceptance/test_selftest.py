"""The self-test of an engine in every process: faults that it finds, and their effect on engine, record and study.

OpenVINO is a double that computes wrongly in one view, in every second process, or after a while; each command runs in
a process of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.golden_bundle import write_golden_bundle
from helpers.scoring import CERVICAL, LUMBAR
from helpers.tiny import write_bundle
from spinescore.runtime import BundleError, EngineError, Scorer, SelfTestError, cli
from spinescore.runtime.acceptance import find_records, write_record
from spinescore.runtime.acceptance.golden import golden_grader, golden_localizers
from spinescore.runtime.acceptance.repeats import Repeats, check_repeats
from spinescore.runtime.acceptance.selftest import SelfTest
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.machine.processor import processor_kind
from spinescore.runtime.manifest.tolerances import Tolerances
from spinescore.runtime.opening.plan import Candidate, LatencyPlan, Setting, this_machine
from spinescore.runtime.scoring.budget import Effort

DOUBLE = Path(__file__).parents[2] / "helpers" / "openvino_double"
STUDY = [CERVICAL.radiograph, LUMBAR.radiograph]
SCORE = """
import json, sys
sys.path[:0] = sys.argv[3:]
from helpers.scoring import CERVICAL, LUMBAR
from spinescore.runtime import Scorer, SpineScoreError
reports = []
try:
    with Scorer.open(sys.argv[1], "cpu", **json.loads(sys.argv[2])) as scorer:
        for _ in range(2):
            reports.append(json.loads(scorer.score([CERVICAL.radiograph, LUMBAR.radiograph]).to_json()))
except SpineScoreError as error:
    reports.append({"error": type(error).__name__, "message": str(error)})
print(json.dumps(reports))
"""


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """A bundle whose grader has an INT8 file; what is known of it lies in a cache of its own."""
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(DOUBLE))
    return Bundle.open(write_golden_bundle(tmp_path / "b", "none", int8=True))


@pytest.fixture(scope="module")
def verified(tmp_path_factory):
    """The folder of such a bundle and its cache after the gate has accepted the double, and the gate's answer."""
    folder = tmp_path_factory.mktemp("verified")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SPINESCORE_CACHE", str(folder / "cache"))
        patched.setenv("PYTHONPATH", str(DOUBLE))
        bundle = Bundle.open(write_golden_bundle(folder / "b", "none", int8=True))
        return folder, verify("right", bundle)


@pytest.fixture
def accepted(bundle, verified, tmp_path):
    """A bundle that has a record of the double."""
    shutil.copytree(verified[0], tmp_path, dirs_exist_ok=True)
    assert find_records(bundle, "cpu", processor_kind()).accepted
    return bundle


def double(mode: str, *words: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OPENVINO_DOUBLE": mode}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, encoding="utf-8")


def verify(mode: str, bundle: Bundle, *more: str) -> tuple[int, dict]:
    words = ("bundle", "verify", str(bundle.folder), "--device", "cpu", "--engine", "openvino", "--precision", "int8")
    found = double(mode, "-m", "spinescore.runtime.cli", *words, "--json", *more)
    return found.returncode, json.loads(found.stdout)[0]


def score(mode: str, bundle: Bundle, **options) -> list[dict]:
    """Two reports of one scorer in a new process, or an error."""
    paths = [str(Path(__file__).parents[2])]
    found = double(mode, "-c", SCORE, str(bundle.folder), json.dumps(options), *paths)
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout)


def engine(report: dict) -> str:
    return report["device"]["engine"].split()[0]


def total(report: dict) -> int:
    return report["total"]["value"]


def true_total() -> int:
    return sum(map(sum, CERVICAL.grades + LUMBAR.grades))


def test_the_gate_accepts_what_three_new_processes_compute_rightly(accepted, verified):
    _, (status, found) = verified
    assert found["record"]["processes"] == {"run": 3, "beyond": 0}
    assert (status, found["record"]["passed"], found["reason"]) == (0, True, "")
    records = find_records(accepted, "cpu", processor_kind())
    assert (len(records.accepted), len(records.failed)) == (1, 0)


@pytest.mark.parametrize(("mode", "run", "beyond"), [("process", 4, 2), ("stream", 3, 3)])
def test_the_gate_runs_new_processes_and_the_worst_counts(bundle, tmp_path, mode, run, beyond):
    more = ("--processes", str(run)) if run > 3 else ()
    status, found = verify(f"{mode}:{tmp_path / 'count'}" if mode == "process" else mode, bundle, *more)
    assert found["record"]["processes"] == {"run": run, "beyond": beyond}
    assert (status, found["record"]["passed"]) == (4, False)
    assert found["reason"].endswith(f"(in {beyond} of {run} processes)")
    records = find_records(bundle, "cpu", processor_kind())
    assert (len(records.accepted), len(records.failed)) == (0, 1)


def test_fewer_processes_cannot_be_asked_for(bundle, capsys):
    words = ["bundle", "verify", str(bundle.folder), "--device", "cpu", "--processes", "2"]
    with pytest.raises(SystemExit, match="2"):
        cli.main(words)
    assert "must be at least 3" in capsys.readouterr().err


@pytest.mark.parametrize("warm_up", [True, False])
def test_an_engine_that_was_accepted_and_computes_wrongly_gives_out_no_grade(accepted, warm_up):
    for report in score("right", accepted, precision="int8", warm_up=warm_up):
        assert (engine(report), total(report), report["findings"]) == ("openvino", true_total(), [])
    make_fast(accepted)
    for report in score("stream", accepted, warm_up=warm_up):
        assert (engine(report), total(report)) == ("onnxruntime", true_total())
        (finding,) = report["findings"]
        assert (finding["code"], finding["severity"], finding["region"]) == ("engine-failed", "warning", None)
        assert "openvino 2999.1.0 fp32+int8 computes wrongly in this process" in finding["message"]
        assert "grades flip" in finding["message"]
        assert finding["message"] in report["warnings"]
    (record,) = find_records(accepted, "cpu", processor_kind()).failed
    assert record.self_test in finding["message"]


def test_an_engine_that_failed_is_not_used_until_the_gate_takes_it_again(accepted):
    make_fast(accepted)
    (first, _) = score("stream", accepted)
    assert [finding["code"] for finding in first["findings"]] == ["engine-failed"]
    (first, _) = score("right", accepted)  # it is not used any more, and that is said
    assert (engine(first), first["findings"]) == ("onnxruntime", [])
    assert "Engine openvino int8 is not used: it failed its self-test on " in first["warnings"][0]
    assert verify("right", accepted)[0] == 0
    make_fast(accepted)
    assert engine(score("right", accepted)[0]) == "openvino"


@pytest.mark.parametrize("warm_up", [True, False])
@pytest.mark.parametrize("require_acceptance", [True, False])
def test_an_engine_that_was_named_is_an_error(accepted, warm_up, require_acceptance):
    options = {"engine": "openvino", "warm_up": warm_up, "require_acceptance": require_acceptance}
    (found,) = score("stream", accepted, **options, precision="int8")
    assert found["error"] == "SelfTestError"
    assert f"spinescore bundle verify {accepted.folder} --device cpu" in found["message"]
    assert find_records(accepted, "cpu", processor_kind()).failed


def test_an_engine_that_turns_wrong_later_is_found_by_a_repeated_test(accepted):
    code = SCORE.replace("reports.append(json", "scorer.self_test(); reports.append(json")
    make_fast(accepted)
    paths = [str(Path(__file__).parents[2])]
    found = double("later", "-c", code, str(accepted.folder), "{}", *paths)
    first, second = json.loads(found.stdout)
    assert (engine(first), engine(second)) == ("openvino", "onnxruntime")
    (finding,) = second["findings"]
    assert "It had passed before: 1 studies have been scored since then; score them again." in finding["message"]


def test_a_plan_whose_engine_fails_is_passed_over(accepted):
    setting = Setting("openvino", "int8", 2, Effort(1))
    candidate = Candidate(setting, "openvino 2999.1.0", 24, 0, 0.0, 1, 1.0, 1.0)
    machine = this_machine("cpu")
    names = {"name": accepted.manifest.name, "sha256": accepted.sha256}
    LatencyPlan(names, machine, 100.0, 99.0, "one", (candidate,), 0, "2026-01-01").write(accepted)
    (report, _) = score("right", accepted)
    assert (engine(report), report["warnings"]) == ("openvino", [])
    (report, _) = score("stream", accepted)
    assert engine(report) == "onnxruntime"
    assert [finding["code"] for finding in report["findings"]] == ["engine-failed"]
    assert "The plan" in report["findings"][0]["message"]


def make_fast(bundle: Bundle) -> None:
    """Let the record say that the engine is faster than the reference, so that it is taken unasked."""
    (record,) = find_records(bundle, "cpu", processor_kind()).accepted
    write_record(replace(record, networks_ms={name: 0.5 * ms for name, ms in record.reference_ms.items()}), bundle)


@contextmanager
def spoiled(monkeypatch, spoil):
    """Every network's outputs on the host device go through `spoil(outputs, number of the call)`."""
    run, calls = HostDevice.run, []

    def wrong(device, network, inputs, outputs):
        run(device, network, inputs, outputs)
        calls.append(len(inputs))
        spoil(outputs, len(calls))

    with monkeypatch.context() as patched:
        patched.setattr(HostDevice, "run", wrong)
        yield


def one_view(outputs, number):
    if outputs.ndim == 2:
        outputs[: len(outputs) // 2] = outputs[: len(outputs) // 2, ::-1]


def not_finite(outputs, number):
    outputs[0] = np.nan


def moved(outputs, number):
    if outputs.ndim == 4:
        outputs[...] = np.roll(outputs, 2, axis=3)


def wrong_at(height):
    """What is computed wrongly in the runs of one size alone, as an engine can that chooses its kernels by shape."""

    def spoil(outputs, number):
        if outputs.ndim == 4 and outputs.shape[2] == height // 4:
            outputs[...] = np.roll(outputs, 8, axis=3)

    return spoil


def only_flipped(outputs, number):
    if outputs.ndim == 4 and number % 2 == 0:
        outputs[...] = 0.9 * outputs[:, ::-1]


@pytest.mark.parametrize("spoil", [wrong_at(256), wrong_at(384), only_flipped], ids=["base", "larger", "flipped"])
def test_every_run_that_is_averaged_is_tested(tmp_path, monkeypatch, spoil):
    bundle = Bundle.open(write_golden_bundle(tmp_path / "b", "none", test_time=([1.0, 1.5], True, True)))
    with Scorer(bundle, HostDevice(1)) as scorer:
        assert scorer.score(STUDY).total.value == true_total()
    with (
        spoiled(monkeypatch, spoil),
        pytest.raises(SelfTestError, match=r"heatmap difference|points shift by more than"),
    ):
        Scorer(bundle, HostDevice(1))


@pytest.mark.parametrize(
    ("spoil", "words"), [(one_view, "grades flip"), (not_finite, "difference inf"), (moved, "points shift by more")]
)
@pytest.mark.parametrize("heads", [24, "separate"])
def test_the_reference_itself_is_tested(tmp_path, monkeypatch, spoil, words, heads):
    bundle = Bundle.open(write_golden_bundle(tmp_path / "b", "none", heads=heads, **{"grader.head": "corner4"}))
    with Scorer(bundle, HostDevice(1)) as scorer:
        assert scorer.score(STUDY).total.value == true_total()
    with spoiled(monkeypatch, spoil), pytest.raises(SelfTestError, match=words):
        Scorer(bundle, HostDevice(1))
    with spoiled(monkeypatch, spoil), pytest.raises(EngineError, match="computes wrongly in this process"):
        Scorer.open(bundle.folder, "cpu")


def test_what_may_differ_by_the_tolerances_of_all_golden_inputs(tmp_path):
    bundle = Bundle.open(write_golden_bundle(tmp_path / "b", "none"))
    networks = {network.name: network for network in (*golden_localizers(bundle), *golden_grader(bundle))}
    right = {name: network.expected[: network.batch].copy() for name, network in networks.items()}
    flipped = {name: values.copy() for name, values in right.items()}
    flipped["grader corners"][0, :4] = flipped["grader corners"][0, [1, 0, 2, 3]]

    def faults(outputs, **bounds):
        manifest = replace(bundle.manifest, tolerances=Tolerances(**{"logit_difference": 9.0, **bounds}))
        return SelfTest.of(replace(bundle, manifest=manifest)).faults(outputs)

    assert faults(right) == []
    assert faults(flipped, grade_flips=1 / 24) == []  # one of the 24 golden corners may flip, here as elsewhere
    assert faults(flipped, grade_flips=0.9 / 24) == ["1 of 24 grades flip, at most 0 may"]
    assert faults(flipped, grade_flips=1.0, logit_difference=0.01)[0].startswith("logit difference")


def test_golden_outputs_of_another_shape_are_the_bundles_fault(tmp_path):
    test = SelfTest.of(Bundle.open(write_golden_bundle(tmp_path / "b", "none")))
    networks = (*test.localizers, *test.graders)
    outputs = {network.name: network.expected[: network.batch] for network in networks}
    for name in outputs:
        with pytest.raises(BundleError, match=f"The {name} gives .* for a picture, the golden inputs hold"):
            test.faults({**outputs, name: outputs[name][..., :-1]})


def test_only_what_stands_for_one_study_is_read(tmp_path):
    bundle = Bundle.open(write_golden_bundle(tmp_path / "b", "none", heads="separate"))
    test = SelfTest.of(bundle)
    assert [(one.name, len(one.pictures), one.regions.tolist(), one.stored) for one in test.localizers] == [
        ("localizer cervical", 1, [0], 2),
        ("localizer lumbar", 1, [1], 2),
    ]
    both = SelfTest.of(Bundle.open(write_golden_bundle(tmp_path / "both", "none")))
    assert [(len(one.pictures), one.regions.tolist(), one.stored) for one in both.localizers] == [(2, [0, 1], 3)]
    whole = golden_localizers(both.bundle)[0]
    np.testing.assert_array_equal(both.localizers[0].pictures, whole.pictures[:2])
    np.testing.assert_array_equal(both.localizers[0].expected, whole.expected[:2])


def test_a_bundle_without_golden_inputs_cannot_be_tested_and_says_so(tmp_path):
    folder = write_bundle(tmp_path / "b", precision="fp16")
    with Scorer.open(folder, "cpu", precision="fp16", require_acceptance=False) as scorer:
        report = scorer.score(STUDY, strict=True)
    assert [finding.code for finding in report.findings] == ["engine-untested"]
    assert (report.total.value, report.warnings) == (true_total(), (report.findings[0].message,))
    with Scorer.open(write_bundle(tmp_path / "reference"), "cpu") as scorer:
        assert not scorer.score(STUDY).findings


def test_repeats_come_after_so_many_studies_or_minutes_when_the_scorer_is_idle():
    asked, free, done = [], threading.Event(), threading.Event()

    def test() -> bool:
        asked.append(free.is_set())
        if free.is_set():
            done.set()
        return free.is_set()

    repeats = Repeats(test, studies=3, minutes=None)
    repeats.count_study()
    repeats.count_study()
    assert not asked
    repeats.count_study()
    while not asked:  # it is due, and the scorer is busy
        pass
    free.set()
    assert done.wait(20)
    repeats.close()
    repeats.close()
    assert asked[-1]
    assert asked.count(True) == 1
    done.clear()
    timed = Repeats(test, studies=None, minutes=1e-4)
    assert done.wait(20)
    timed.close()
    for options in ({"self_test_studies": 0}, {"self_test_minutes": -1.0}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
            check_repeats(options.get("self_test_studies"), options.get("self_test_minutes"))


def test_a_scorer_repeats_its_test_between_studies(tmp_path, monkeypatch):
    tested = threading.Event()
    folder = write_golden_bundle(tmp_path / "b", "none")
    with Scorer.open(folder, "cpu", self_test_studies=2) as scorer:
        test = scorer._session.engine.scorer.test
        monkeypatch.setattr(scorer._session.engine.scorer, "test", lambda: (test(), tested.set()))
        scorer.score(STUDY)
        assert not tested.is_set()
        scorer.score(STUDY)
        assert tested.wait(20)
        assert scorer.score(STUDY).total.value == true_total()
    assert not [thread for thread in threading.enumerate() if thread.name == "spinescore-self-test"]
