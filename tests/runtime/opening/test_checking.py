"""The gate that is run unasked on a CPU: when, how often, and what a scorer makes of it. Its processes are doubles."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from helpers.golden_bundle import record_of, write_golden_bundle
from helpers.scoring import CERVICAL, LUMBAR
from helpers.tiny import write_bundle
from spinescore.runtime import Scorer, cli
from spinescore.runtime.acceptance import gate, write_record
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.engines.onnxruntime import onnxruntime
from spinescore.runtime.machine import child
from spinescore.runtime.opening import background, candidates, checking
from spinescore.runtime.opening.checking import Check, find_check
from spinescore.runtime.opening.request import Request

VERSION = "openvino 2026.4.1"
CPU = Request("cpu")
STUDY = [CERVICAL.radiograph, LUMBAR.radiograph]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return Bundle.open(write_golden_bundle(tmp_path_factory.mktemp("golden") / "b", int8=True))


@pytest.fixture
def bundle(whole, tmp_path, monkeypatch):
    """A bundle with networks in INT8, on a CPU with BF16 and that OpenVINO; nothing was accepted."""
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPINESCORE_CHECK")
    installed(monkeypatch, VERSION)
    monkeypatch.setattr(checking, "instruction_sets", lambda: ("avx2", "avx512-bf16"))
    monkeypatch.setattr("spinescore.runtime.engines.choice.find_spec", lambda name: True)
    yield whole
    for path in whole.folder.glob("acceptance/*"):
        path.unlink()


def installed(monkeypatch, version):
    monkeypatch.setattr(checking, "installed_openvino", lambda: version)
    monkeypatch.setattr(candidates, "installed_openvino", lambda: version)


def builder(monkeypatch, code):
    monkeypatch.setattr(child, "worker_command", lambda module, request: [sys.executable, "-c", code])


def record(bundle, precision, version=VERSION, **changes):
    return replace(record_of(bundle), engine="openvino", framework=version, precision=precision, **changes)


def test_the_fast_engines_are_checked_if_none_is_accepted(bundle, monkeypatch):
    assert find_check(bundle, CPU) == (Check(VERSION, ("int8", "bf16")), ())
    monkeypatch.setattr(checking, "instruction_sets", lambda: ("avx2",))
    assert find_check(bundle, CPU) == (Check(VERSION, ("int8",)), ())


@pytest.mark.parametrize(
    "request_",
    [Request("cpu", "onnxruntime"), Request("cpu", precision="int8"), Request("cpu", require_acceptance=False)],
    ids=str,
)
def test_nothing_is_checked_that_was_not_asked_for(bundle, request_):
    assert find_check(bundle, request_) == (None, ())


@pytest.mark.parametrize("lacking", ["openvino", "golden inputs", "permission"])
def test_nothing_is_checked_where_something_is_lacking(bundle, monkeypatch, tmp_path, lacking):
    if lacking == "openvino":
        installed(monkeypatch, None)
    if lacking == "golden inputs":
        bundle = Bundle.open(write_bundle(tmp_path / "b"))
    if lacking == "permission":
        monkeypatch.setenv("SPINESCORE_CHECK", "0")
    assert find_check(bundle, CPU) == (None, ())


@pytest.mark.parametrize(("lacking", "why"), [("interpreter", "no Python"), ("build", "build no")])
def test_a_check_that_may_not_run_leaves_a_warning(bundle, monkeypatch, lacking, why):
    """As for the account of a service, whose home folder has no records."""
    if lacking == "interpreter":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    check, (told,) = find_check(bundle, CPU, lacking != "build")
    assert check is None
    assert (told.code, told.values["engine"], told.values["precisions"]) == (
        "engine-unchecked",
        VERSION,
        ["int8", "bf16"],
    )
    assert why in told.values["why"]
    assert f"spinescore bundle verify {bundle.folder} --device cpu" in told
    assert told.values["folder"] in told
    write_record(record(bundle, "int8"), bundle)
    assert find_check(bundle, CPU, lacking != "build") == (None, ())


def test_what_was_judged_is_not_checked_again_until_the_version_changes(bundle, monkeypatch):
    write_record(record(bundle, "int8", passed=False, self_test="it computed wrongly"), bundle)
    assert find_check(bundle, CPU) == (Check(VERSION, ("bf16",)), ())
    write_record(record(bundle, "bf16", passed=False, self_test="it computed wrongly"), bundle)
    assert find_check(bundle, CPU) == (None, ())
    installed(monkeypatch, "openvino 2027.0.0")
    assert find_check(bundle, CPU) == (Check("openvino 2027.0.0", ("int8", "bf16")), ())
    write_record(record(bundle, "bf16", "openvino 2027.0.0"), bundle)
    assert find_check(bundle, CPU) == (None, ())


def test_where_nothing_can_be_kept_nothing_is_checked(bundle, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("a file where the folder would be", encoding="utf-8")
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "file"))
    check, (told,) = find_check(bundle, CPU)
    assert check is None
    assert told.startswith(
        f"{VERSION} was not checked on this CPU, and a slower engine scores. Files that are made here cannot"
    )
    assert "set SPINESCORE_CACHE to a folder of this user's own" in told
    folder = str(tmp_path / "file")
    assert (told.code, told.values) == ("cache-not-writable", {"folder": folder, "variable": "SPINESCORE_CACHE"})


def test_a_check_that_is_ended_three_times_is_not_begun_again(bundle, monkeypatch):
    builder(monkeypatch, "import time; time.sleep(600)")
    monkeypatch.setattr(background, "_END_S", 0.05)
    for _ in range(3):
        check, warnings = find_check(bundle, CPU)
        assert warnings == ()
        background.Build(bundle, check, CPU, aside=True).close()
    check, (told,) = find_check(bundle, CPU)
    assert check is None
    assert "The check was ended 3 times before it was done. To try again: spinescore bundle verify" in told


@pytest.mark.parametrize(
    ("code", "reason"),
    [("raise SystemExit(3)", "ended with exit status 3"), ('print(\'{"accepted": false, "reason": "No."}\')', "No.")],
)
def test_a_check_that_fails_is_said_and_not_begun_again(bundle, monkeypatch, code, reason):
    builder(monkeypatch, code)
    for _ in range(2):
        with Scorer.open(bundle.folder, "cpu", build="now") as scorer:
            report = scorer.score(STUDY)
        assert (report.device.engine.split()[0], report.device.precision) == ("onnxruntime", "fp32")
        (told,) = report.warnings
        assert f"{VERSION} was not accepted on this CPU, and a slower engine scores. " in told
        assert reason in told
        builder(monkeypatch, "raise SystemExit('must not be run')")


def test_a_scorer_takes_what_was_accepted_between_two_studies(bundle, monkeypatch, tmp_path):
    """ONNX Runtime in FP16 stands for the engine that the other process accepts."""
    go, answer = tmp_path / "go", json.dumps({"accepted": True, "reason": "", "judged": True})
    builder(monkeypatch, f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\nprint({answer!r})")
    with Scorer.open(bundle.folder, "cpu") as scorer:
        report = scorer.score(STUDY)
        assert (report.device.precision, scorer.is_checking) == ("fp32", True)
        said = f"{VERSION} (int8 or bf16) is being checked on this CPU, once; until then a slower engine scores."
        assert report.warnings == (said,)
        names = {name: entry.sha256 for name, entry in bundle.manifest.files.items() if entry.precision == "fp16"}
        framework = f"onnxruntime {onnxruntime.__version__}"
        write_record(replace(record_of(bundle), networks=names, framework=framework), bundle)
        go.touch()
        assert scorer.wait_for_check() == ()
        for _ in range(2):
            report = scorer.score(STUDY)
            assert (report.device.precision, report.warnings, scorer.is_checking) == ("fp16", (), False)


@pytest.mark.parametrize("build", ["no", "auto"])
def test_the_command_line_waits_for_it_after_the_report(bundle, monkeypatch, tmp_path, capsys, build):
    answer = json.dumps({"accepted": True, "reason": "", "judged": True})
    builder(monkeypatch, f"print({answer!r})")
    (tmp_path / "studies").mkdir()
    assert cli.main(["score", str(tmp_path / "studies"), "--bundle", str(bundle.folder), "--build", build]) == 3
    assert ("waiting until the faster engine is checked" in capsys.readouterr().err) == (build == "auto")


@pytest.mark.parametrize(
    ("passes", "tried", "answer"),
    [("int8", ["int8"], ("", True)), ("bf16", ["int8", "bf16"], ("", True)), ("", ["int8", "bf16"], None)],
)
def test_the_gate_is_run_until_an_engine_is_accepted(bundle, monkeypatch, passes, tried, answer):
    asked = []

    def verify(bundle, device, engine, precision, say):
        asked.append(precision)
        assert (device, engine) == ("cpu", "openvino")
        found = record(bundle, precision, passed=precision == passes)
        return [
            SimpleNamespace(record=found, name=f"openvino {precision}", reason="" if found.passed else "it differs")
        ]

    monkeypatch.setattr(gate, "verify_device", verify)
    found = checking.run(bundle, find_check(bundle, CPU)[0], lambda line: None)
    assert asked == tried
    assert found == (answer or ("openvino int8: it differs. openvino bf16: it differs.", True))


def test_a_record_of_another_version_is_not_opened(bundle, monkeypatch):
    """It would load OpenVINO for nothing; once the version that is here was judged, nothing is said of it either."""
    monkeypatch.setenv("SPINESCORE_CHECK", "0")
    write_record(record(bundle, "int8", "openvino 2025.0.0"), bundle)
    monkeypatch.setattr("spinescore.runtime.opening.candidates.open_device", opened_on_onnxruntime)
    with Scorer.open(bundle.folder, "cpu") as scorer:
        (told,) = scorer.score(STUDY).warnings
    assert f"was accepted with openvino 2025.0.0, this is {VERSION}. Accept it again: spinescore bundle verify" in told
    write_record(record(bundle, "int8", passed=False, self_test="it computed wrongly"), bundle)
    with Scorer.open(bundle.folder, "cpu") as scorer:
        (told,) = scorer.score(STUDY).warnings
    assert "is not used: it failed its self-test" in told


def opened_on_onnxruntime(kind, threads, largest_image_px, choice):
    from spinescore.runtime.devices import open_device

    assert choice is None or choice.engine == "onnxruntime"
    return open_device(kind, threads, largest_image_px, choice)
