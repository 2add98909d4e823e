"""No process of this package opens a socket or looks up a name, and no engine writes under the user's home.

Commands run in a process of their own with an audit hook, which sees what Python does in it and in its workers. Where
the system permits it they also run without a network under strace, which sees what the engines' own threads do.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.golden_bundle import write_golden_bundle
from spinescore.runtime.phantom import write_study

ROOT = Path(__file__).resolve().parents[2]
STRACE = ["unshare", "-rn", "strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=%network"]  # strace 5.3 or later
ENGINES = ("onnxruntime", "openvino", "tensorrt_rtx", "tensorrt_lean", "tensorrt")

HOOK = """
import os, sys
def note(event, arguments, log=os.environ["SOCKET_LOG"]):
    if event.startswith("socket.") and event != "socket.gethostname":
        with open(log, "a") as file:
            file.write(f"{event} {arguments[1:]}\\n")
sys.addaudithook(note)
"""
SMALL = "".join(f"[{network}.input]\nheight = 64\nwidth = 64\n" for network in ("localizer", "grader"))
COMMANDS = """
import sys
from spinescore.runtime import cli
bundle, study, out = sys.argv[1:]
for command in (
    ["doctor"],
    ["score", study, "--engine", "onnxruntime", "--precision", "fp32", "--json"],
    ["score", study, "--engine", "openvino", "--unaccepted", "--out", f"{out}/results", "--format", "html,png"],
    ["export", "--localizer", "synthetic:hrnet-w4", "--grader", "synthetic:resnet50-w4", "--golden", study,
     "--manifest", f"{out}/fields.toml", "--out", f"{out}/exported"],
    ["bundle", "verify", f"{out}/exported"],
    ["bundle", "verify", bundle, "--device", "cpu", "--engine", "openvino", "--precision", "fp32"],
    ["plan", "--bundle", bundle, "--budget-ms", "1e6", "--percentile", "50", "--runs", "2", "--device", "cpu"],
    ["bench", "--bundle", bundle, "--parts", "steady", "--runs", "1", "--warmup", "0", "--device", "cpu"],
):
    status = cli.main(command)
    assert status == 0, (command, status)
"""


def strace_works() -> bool:
    if not all(map(shutil.which, STRACE[:1] + STRACE[2:3])):
        return False
    try:
        return subprocess.run([*STRACE, "true"], capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def quiet_run(folder: Path, code: str, *arguments: str) -> tuple[str, str | None, list[Path]]:
    """What Python's sockets did, what the system saw (None without strace), and what was written under the home."""
    hooks, home = folder / "hooks", folder / "home"
    for made in (hooks, home):
        made.mkdir(parents=True, exist_ok=True)
    (hooks / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
    log, calls = folder / "sockets.txt", folder / "calls.txt"
    log.touch()
    left_out = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "PYTHONPATH")
    env = {name: value for name, value in os.environ.items() if name not in left_out}
    env |= {"HOME": str(home), "SOCKET_LOG": str(log), "PYTHONPATH": str(hooks), "MPLCONFIGDIR": str(folder / "mpl")}
    command = [sys.executable, "-c", code, *arguments]
    traced = strace_works()
    if traced:
        command = [*STRACE, "-o", str(calls), *command]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = calls.read_text(encoding="utf-8", errors="replace") if traced else None
    return log.read_text(encoding="utf-8"), seen, [path for path in home.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    pytest.importorskip("openvino", reason="OpenVINO is missing")
    folder = tmp_path_factory.mktemp("silence")
    bundle = write_golden_bundle(folder / "bundle", "none")
    write_study(1_000_003, folder / "study")
    (folder / "fields.toml").write_text(SMALL, encoding="utf-8")
    return quiet_run(folder, COMMANDS, str(bundle), str(folder / "study"), str(folder))


@pytest.mark.slow
def test_the_commands_use_no_socket_of_python(commands):
    assert commands[0] == ""


@pytest.mark.slow
def test_the_commands_use_no_socket_of_an_engine(commands):
    if commands[1] is None:
        pytest.skip("strace is not installed, or not permitted in a network namespace")
    assert [line for line in commands[1].splitlines() if re.search(r"AF_INET|nscd|resolve", line)] == []


@pytest.mark.slow
def test_the_commands_write_nothing_under_the_home(commands):
    assert commands[2] == []


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_is_imported_in_silence(tmp_path, engine):
    look = f"from importlib.util import find_spec\nif find_spec({engine!r}) is None: raise SystemExit(1)"
    # Asked of a new process: in this one, other tests put doubles in the engines' place.
    if subprocess.run([sys.executable, "-c", look], capture_output=True, check=False).returncode:
        pytest.skip(f"{engine} is missing")
    used = {"onnxruntime": "module.SessionOptions()", "openvino": "module.Core()"}.get(engine, "")
    code = f"import spinescore.runtime, importlib\nmodule = importlib.import_module({engine!r})\n{used}"
    sockets, seen, written = quiet_run(tmp_path, code)
    assert (sockets, written) == ("", [])
    assert not re.search(r"AF_INET|nscd|resolve", seen or "")


def test_the_hook_sees_a_socket(tmp_path):
    """Else the tests above could not fail."""
    code = "import socket, contextlib\nwith contextlib.suppress(OSError): socket.getaddrinfo('example.invalid', 80)"
    sockets, seen, _ = quiet_run(tmp_path, code)
    assert "socket.getaddrinfo" in sockets
    assert seen is None or re.search(r"AF_INET|nscd|resolve", seen)


def test_every_module_that_imports_an_engine_is_silenced_before():
    """By its package, whose `__init__` imports `silence` first."""
    importers = set()
    for package in ("runtime", "export", "benchmarks", "kernels"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                if {name.split(".")[0] for name in names} & {"onnxruntime", "openvino"}:
                    importers.add(package)
    assert importers == {"runtime", "export", "benchmarks"}
    for package in importers:
        code = f"import sys, os, spinescore.{package}; sys.exit(sys.modules['openvino_telemetry'] is not None)"
        env = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
        subprocess.run([sys.executable, "-c", code], check=True, env=env)


def test_pydicom_alone_does_without_requests():
    pytest.importorskip("requests", reason="requests is missing")
    code = (
        "import spinescore.runtime, pydicom, sys\n"
        "assert not {'requests', 'urllib3'} & set(sys.modules)\n"
        "assert sys.modules['pydicom.data.download'].HAVE_REQUESTS is False\n"
        "import requests\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
