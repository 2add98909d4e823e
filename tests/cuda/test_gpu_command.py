"""`python -m spinescore.benchmarks.gpu` on the driver double: whole, and with something wrong with the GPU."""

import json
import os
import re
import subprocess
import sys

import double
import jsonschema
import pytest

from spinescore.benchmarks.gpu.__main__ import PARTS
from spinescore.benchmarks.gpu.record import Failed, Record, Skipped, text_table

STATUS = {"enum": ["passed", "failed", "skipped"]}
CHECK = {
    "type": "object",
    "required": ["part", "name", "status", "figures", "reason", "seconds"],
    "properties": {
        "part": {"enum": list(PARTS)},
        "name": {"type": "string", "minLength": 1},
        "status": STATUS,
        "figures": {"type": "object"},
        "reason": {"type": ["string", "null"]},
        "seconds": {"type": "number", "minimum": 0},
    },
    "if": {"properties": {"status": {"enum": ["failed", "skipped"]}}},
    "then": {"properties": {"reason": {"type": "string", "minLength": 1}}},
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "required": ["schema", "date", "minutes", "quick", "finished", "parts", "checks"],
    "properties": {"schema": {"const": "spinescore.gpu/1"}, "checks": {"type": "array", "items": CHECK}},
}


@pytest.fixture
def command(libraries, tmp_path):
    """Runs the command; returns (status, document, what it printed)."""
    library, kernels = libraries

    def run(fault, *parts, minutes=8):
        out = tmp_path / "gpu.json"
        options = ["--out", str(out), "--quick", "--minutes", str(minutes), "--only", *parts]
        arguments = [str(kernels), fault, *options]
        script = str(double.HERE / "gpu_on_double.py")
        environment = {**os.environ, **double.settings(library), "SPINESCORE_CACHE": str(tmp_path)}
        done = subprocess.run([sys.executable, script, *arguments], env=environment, capture_output=True, text=True)
        document = json.loads(out.read_text(encoding="utf-8"))
        jsonschema.validate(document, SCHEMA)
        assert document["finished"]
        return done.returncode, document, done.stdout + done.stderr

    return run


def by_status(document, status):
    return {check["name"]: check["reason"] for check in document["checks"] if check["status"] == status}


def test_every_part_passes(command):
    status, document, printed = command("none", *PARTS)
    assert by_status(document, "failed") == {}
    assert status == 0
    assert [part["name"] for part in document["parts"]] == list(PARTS)
    passed, skipped = by_status(document, "passed"), by_status(document, "skipped")
    for name in ("warp_f16, edges", "boxes and crops, random", "kernels alone: sizes change between replays", "errors",
                 "phantom-reference: graph replay against stream launches", "several threads",
                 "phantom-reference: host device against GPU", "kernel warp, 12 crops",
                 "phantom-reference: whole study", "phantom-reference: acceptance of onnxruntime fp32"):  # fmt: skip
        assert name in passed, name
        assert name in printed
    assert skipped["peers"] == "the full-size bundle was not exported"
    assert skipped["hrnet-w32-resnet152: bundle"] == "left out by --quick"
    assert document["machine"]["gpu"]["name"] == "driver double"
    study = next(check["figures"] for check in document["checks"] if check["name"] == "phantom-reference: whole study")
    assert 0 < study["networks_share_of_gpu_time"] < 1
    assert study["graph"]["p50_ms"] <= study["graph"]["p99_ms"]


def test_a_wrong_kernel_fails_its_checks_and_no_other(command):
    status, document, printed = command("wrong-warp", "kernels")
    assert status == 1
    failed = by_status(document, "failed")
    assert {re.sub(", .*", "", name) for name in failed} == {"warp_f32", "warp_f16"}
    assert all("beyond the bound" in reason for reason in failed.values())
    assert "decode_f16, random" in by_status(document, "passed")
    assert "failed" in printed


def test_a_gpu_that_is_lost_fails_what_comes_after(command):
    status, document, _ = command("lost-gpu", "pipelines")
    failed = by_status(document, "failed")
    assert status == 1
    assert any("launch failure" in reason for reason in failed.values())
    assert "the part" not in failed


def test_a_crash_costs_one_part(command):
    status, document, _ = command("crash", "pipelines", "machine")
    assert status == 1
    assert re.search("status -9; the last check that was done: none", by_status(document, "failed")["the part"])
    assert "device" in by_status(document, "passed")


def test_a_part_that_hangs_is_cut_and_what_has_no_time_is_skipped(command):
    status, document, _ = command("hang", "pipelines", "timing", minutes=0.1)
    assert status == 1
    assert by_status(document, "failed")["the part"].startswith("it was cut: it took longer than 3 s; the last check")
    assert by_status(document, "skipped")["the part"] == "the minutes were over"


def test_without_an_engine_the_kernels_are_checked_and_the_networks_skipped(command):
    status, document, _ = command("no-engine", "networks", "timing")
    assert status == 0
    skipped = by_status(document, "skipped")
    for name in ("phantom-reference: engine chosen", "phantom-reference: networks", "phantom-reference: whole study"):
        assert skipped[name].startswith("no engine runs these networks here: no engine here.")
    assert "kernels alone: whole study" in by_status(document, "passed")


def test_a_gpu_that_tensorrt_rtx_does_not_know_is_skipped(command):
    status, document, _ = command("unknown-gpu", "networks")
    assert (status, by_status(document, "failed")) == (0, {})
    reason = "tensorrt_rtx builds nothing for compute capability 8.7"
    assert by_status(document, "skipped")["phantom-reference: tensorrt_rtx built and tried"] == reason


def test_without_a_gpu_everything_is_skipped_with_the_reason(tmp_path):
    out = tmp_path / "gpu.json"
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    arguments = ["--out", str(out), "--quick", "--only", "machine", "kernels", "timing"]
    command = [sys.executable, "-W", "error", "-m", "spinescore.benchmarks.gpu", *arguments]
    done = subprocess.run(command, env=hidden, capture_output=True, text=True)
    document = json.loads(out.read_text(encoding="utf-8"))
    jsonschema.validate(document, SCHEMA)
    assert done.returncode == 0, done.stdout
    skipped = by_status(document, "skipped")
    assert skipped["boxes and crops, random"].startswith("Device cuda is not available: ")
    assert [check["name"] for check in document["checks"] if check["part"] == "timing"] == ["the part"]


def test_every_way_that_a_check_may_end(tmp_path):
    """Its entry is in the file before the next check begins; what is no number is text."""

    def raising(error):
        def run():
            raise error

        return run

    record = Record.start(tmp_path / "record.json", {})
    assert record.check("right", lambda: {"value": float("inf"), "cut": "after one"}) == {"value": float("inf")}
    for name, error in (
        ("wrong", Failed("off by one", {"off": 1})),
        ("elsewhere", Skipped("no such thing")),
        ("broken", ValueError("bad")),
        ("missing", ModuleNotFoundError("No module named 'x'")),
    ):
        assert record.check(name, raising(error)) is None
        assert json.loads(record.path.read_text(encoding="utf-8"))["checks"][-1]["name"] == name
    record.end = 0.0
    record.check("late", dict)
    found = {
        check["name"]: (check["status"], check["reason"]) for check in Record.resume(record.path).document["checks"]
    }
    assert found["right"] == ("passed", "after one")
    assert found["wrong"] == ("failed", "off by one")
    assert found["elsewhere"] == ("skipped", "no such thing")
    assert found["broken"][0] == "failed"
    assert found["broken"][1].startswith("ValueError: bad (test_gpu_command.py, line ")
    assert found["missing"][0] == found["late"][0] == "skipped"
    assert "off 1" in text_table(record.document)
