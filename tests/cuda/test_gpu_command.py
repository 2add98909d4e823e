"""`python -m spinescore.benchmarks.gpu` on the driver double: whole, and with something wrong with the GPU."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import double
import jsonschema
import pytest

from spinescore.benchmarks.gpu import networks
from spinescore.benchmarks.gpu.__main__ import PARTS, main
from spinescore.benchmarks.gpu.record import Failed, Record, Skipped, text_table
from spinescore.runtime.engines import flavours

pytestmark = pytest.mark.slow

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
def command_line(libraries, tmp_path):
    """Returns the words and the environment of the command that writes gpu.json, with this fault and these options."""
    library, kernels = libraries

    def words(fault, *options):
        script = str(double.HERE / "gpu_on_double.py")
        arguments = [str(kernels), fault, "--out", str(tmp_path / "gpu.json"), "--quick", *options]
        environment = {**os.environ, **double.settings(library), "SPINESCORE_CACHE": str(tmp_path)}
        return [sys.executable, script, *arguments], environment

    return words


@pytest.fixture
def command(command_line, tmp_path):
    """Runs the command; returns (status, document, what it printed)."""

    def run(fault, *parts, minutes=60, **variables):
        words, environment = command_line(fault, "--minutes", str(minutes), "--only", *parts)
        done = subprocess.run(words, env={**environment, **variables}, capture_output=True, text=True)
        document = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
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
    assert sum(PARTS.values()) == 100
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
    figures = {check["name"]: check["figures"] for check in document["checks"]}
    assert 0 < figures["phantom-reference: networks"]["networks_share_of_gpu_time"] < 1
    study = figures["phantom-reference: whole study"]
    assert study["graph"]["p50_ms"] <= study["graph"]["p99_ms"]


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_with_pytorch_as_the_only_engine_everything_is_checked_on_it(command):
    """On the CPU, by a double of the few calls that need a GPU; those calls themselves wait for one."""
    status, document, printed = command("pytorch", "networks", "pipelines", "study", "acceptance")
    assert by_status(document, "failed") == {}
    assert status == 0
    figures = {check["name"]: check["figures"] for check in document["checks"] if check["status"] == "passed"}
    for name in (
        "engine chosen",
        "graph replay against stream launches",
        "sizes change between replays",
        "host device against GPU",
        "4 replays",
        "whole study",
        "golden inputs on PyTorch",
    ):
        assert f"phantom-reference: {name}" in figures, printed
    golden = figures["phantom-reference: golden inputs on PyTorch"]
    assert golden["engine"].startswith("pytorch ")
    assert golden["grader"]["corners"] > 0
    assert figures["phantom-reference: host device against GPU"]["grade_flips"] == 0


def test_a_run_that_is_killed_leaves_all_that_it_had_done(command_line, tmp_path):
    """Half of the minutes are enough for answers and whole studies; at any time the file is a whole document."""
    assert sum(PARTS[name] for name in list(PARTS)[: list(PARTS).index("study") + 1]) < 48
    parts = ["machine", "kernels", "pipelines", "study", "timing"]
    words, environment = command_line("hang-in-timing", "--minutes", "60", "--only", *parts)
    out = tmp_path / "gpu.json"
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    part = tmp_path / "pid"  # of the part that hangs
    while not part.exists():
        assert process.poll() is None
        if out.exists():
            json.loads(out.read_text(encoding="utf-8"))
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    document = json.loads(out.read_text(encoding="utf-8"))
    jsonschema.validate(document, SCHEMA)
    assert not document["finished"]
    assert [part["name"] for part in document["parts"]] == ["machine", "kernels", "pipelines", "study"]
    passed = by_status(document, "passed")
    assert {"warp_f16, edges", "phantom-reference: host device against GPU", "phantom-reference: whole study"} <= {
        *passed
    }
    hanging = int(part.read_text(encoding="ascii"))
    until = time.monotonic() + 60
    while Path(f"/proc/{hanging}").exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert not Path(f"/proc/{hanging}").exists(), "the part outlives the command"


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


@pytest.fixture
def nvidia_tools(tmp_path):
    """Doubles of compute-sanitizer and ncu on PATH: they run the command and then print ERRORS and COUNTS."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, value in (("compute-sanitizer", "ERRORS"), ("ncu", "COUNTS")):
        path = folder / name
        path.write_text(f"#!{sys.executable}\n{TOOL.replace('VALUE', value)}", encoding="utf-8")
        path.chmod(0o755)
    return {"PATH": os.pathsep.join([str(folder), os.environ["PATH"]])}


TOOL = """import os, subprocess, sys
words = sys.argv[1:]
start = words.index(sys.executable)
print("settings", *words[:start], flush=True)
subprocess.run(words[start:], check=True)
print(os.environ["VALUE"])
"""
COUNTS = """==PROF== Connected to process 1
"ID","Kernel Name","dram__bytes_read.sum","gpu__time_duration.sum","launch__registers_per_thread"
"","","byte","ns","register/thread"
"0","warp_f16","1,204,224","18,432","40"
"1","decode_f16","147,456","5,120","32\""""


def sanitizer(memory, races):
    lines = (
        f"ERROR SUMMARY: {memory} errors",
        f"RACECHECK SUMMARY: {races} hazards displayed ({races} errors, 0 warnings)",
    )
    return "\n".join(f"========= {line}" for line in lines)


def test_the_words_of_nvidias_tools_become_figures(command, nvidia_tools):
    status, document, _ = command("none", "tools", ERRORS=sanitizer(0, 0), COUNTS=COUNTS, **nvidia_tools)
    assert status == 0
    figures = {check["name"]: check["figures"] for check in document["checks"] if check["status"] == "passed"}
    for tool in ("memcheck", "racecheck"):
        assert figures[f"compute-sanitizer {tool}"]["errors"] == 0
        assert figures[f"compute-sanitizer {tool}"]["checks_passed"] > 10
    assert figures["ncu"]["0 warp_f16"] == {"dram_read_bytes": 1204224, "ns": 18432, "registers": 40}
    assert list(figures["ncu"]) == ["0 warp_f16", "1 decode_f16"]


def test_a_race_fails_and_a_tool_that_cannot_work_here_is_skipped(command, nvidia_tools):
    status, document, _ = command(
        "none", "tools", ERRORS=sanitizer(0, 2), COUNTS="==ERROR== no permission", **nvidia_tools
    )
    assert status == 1
    assert list(by_status(document, "failed")) == ["compute-sanitizer racecheck"]
    assert by_status(document, "skipped")["ncu"].endswith("==ERROR== no permission")
    _, document, _ = command("none", "tools", ERRORS="Device not supported", COUNTS=COUNTS, **nvidia_tools)
    reason = by_status(document, "skipped")["compute-sanitizer memcheck"]
    assert reason.startswith("compute-sanitizer memcheck did not get to its end: ")
    assert reason.endswith("Device not supported")


def test_a_crash_costs_one_part(command):
    status, document, _ = command("crash", "pipelines", "machine")
    assert status == 1
    assert re.search("status -9; the last check that was done: none", by_status(document, "failed")["the part"])
    assert "device" in by_status(document, "passed")


def test_a_part_that_hangs_is_cut_and_what_has_no_time_is_skipped(command):
    status, document, _ = command("hang", "pipelines", "timing", minutes=0.15)
    assert status == 1
    assert by_status(document, "failed")["the part"].startswith("it was cut: it took longer than 4 s; the last check")
    assert by_status(document, "skipped")["the part"] == "the minutes were over"


def test_without_an_engine_the_kernels_are_checked_and_the_networks_skipped(command):
    status, document, _ = command("no-engine", "networks", "study", "timing")
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


@pytest.mark.parametrize(
    ("installed", "builds", "stands_in"),
    [
        ((), False, True),
        (("tensorrt_lean",), False, True),
        (("tensorrt_rtx",), False, True),
        (("tensorrt_rtx",), True, False),
    ],
)
def test_pytorch_stands_in_if_no_installed_tensorrt_runs_networks_here(monkeypatch, installed, builds, stands_in):
    """Such as on a Hopper GPU, for which TensorRT-RTX builds nothing."""
    torch = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: True))
    opener = SimpleNamespace(open_on_gpu=object())
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "spinescore.benchmarks.gpu.torchengine", opener)
    monkeypatch.setattr(flavours, "installed_flavours", lambda: installed)
    monkeypatch.setattr(networks, "_builds_here", lambda flavour: builds)
    assert networks.stand_in() is (opener.open_on_gpu if stands_in else None)


def test_without_a_gpu_everything_is_skipped_with_the_reason(tmp_path):
    out = tmp_path / "gpu.json"
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    arguments = ["--out", str(out), "--quick", "--only", "machine", "kernels", "timing"]
    command = [sys.executable, "-W", "error", "-m", "spinescore.benchmarks.gpu", *arguments]
    done = subprocess.run(command, env=hidden, capture_output=True, text=True)
    document = json.loads(out.read_text(encoding="utf-8"))
    jsonschema.validate(document, SCHEMA)
    assert done.returncode == 3, done.stdout
    assert "No kernel was checked; the table says why." in done.stderr
    skipped = by_status(document, "skipped")
    assert skipped["boxes and crops, random"].startswith("Device cuda is not available: ")
    assert [check["name"] for check in document["checks"] if check["part"] == "timing"] == ["the part"]


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf", "many"])
def test_minutes_that_are_none_are_wrong_usage(tmp_path, capsys, minutes):
    with pytest.raises(SystemExit) as ended:
        main(["--out", str(tmp_path / "gpu.json"), f"--minutes={minutes}"])
    assert ended.value.code == 2
    assert "--minutes" in capsys.readouterr().err
    assert not (tmp_path / "gpu.json").exists()


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
