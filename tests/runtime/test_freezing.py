"""Frozen applications: they start workers only after `freeze_support`, and PyInstaller finds what it has to know."""

from __future__ import annotations

import ast
import json
import os
import re
import stat
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from helpers import tiny_study
from spinescore.runtime import freeze_support, freezing
from spinescore.runtime.machine import processes
from spinescore.runtime.reading.decoding import decode, pool

HOOKS = Path(freezing.hook_dirs()[0])
ROOT = Path(__file__).resolve().parents[2]

APPLICATION = """
import json, sys
sys.frozen, sys.executable = True, {launcher!r}
from spinescore.runtime import freeze_support
{call}
from spinescore.runtime import load_study
from spinescore.runtime.reading.decoding import decode
study = load_study({study!r})
print(json.dumps([decode.in_process(), [image.decoder for image in study.radiographs]]))
"""


@pytest.fixture
def frozen(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(processes, "_supported", False)


def test_the_call_does_nothing_in_other_programs(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program", processes._WORKER, "os:getcwd", ""])
    freeze_support()
    assert not processes._supported


def test_a_frozen_program_starts_itself_once_it_supports_that(frozen, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program", "study"])
    assert not processes.can_start()
    assert decode.in_process()
    freeze_support()
    assert processes.can_start()
    assert not decode.in_process()
    for command in (processes.worker_command("spinescore.runtime.opening.builder", "{}"), pool._command("3")):
        assert command[:2] == [sys.executable, processes._WORKER]
        assert command[2] in processes._WORKERS
        module, function = command[2].split(":")
        assert find_spec(module) is not None
        assert function == "main"


@pytest.mark.parametrize("arguments", [["os:abort", ""], ["spinescore.runtime.cli:main", "x"], ["a", "b", "c"], []])
def test_no_other_function_is_called(frozen, monkeypatch, arguments):
    monkeypatch.setattr(sys, "argv", ["program", processes._WORKER, *arguments])
    with pytest.raises(SystemExit) as ended:
        freeze_support()
    assert ended.value.code == 1


def test_the_workers_are_all_that_are_started():
    """A module that starts a process of its own has its function among those that a frozen program may run."""
    started = set()
    for path in (ROOT / "runtime").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if re.search(r"\bworker_command\(__name__", text):
            started.add("spinescore." + ".".join(path.relative_to(ROOT).with_suffix("").parts))
        started |= set(re.findall(r'(?:worker_command|Child|super\(\).__init__)\("(spinescore[\w.]+)"', text))
    assert {f"{module}:main" for module in started | {pool._WORKER}} == set(processes._WORKERS)


@pytest.mark.skipif(os.name == "nt", reason="the launcher is a shell script")
@pytest.mark.parametrize(("call", "in_process"), [("freeze_support()", False), ("", True)])
def test_an_application_decodes_in_a_process_of_its_own(tmp_path, call, in_process):
    import pydicom
    from pydicom.uid import RLELossless

    study = tiny_study.write_study(tmp_path / "study")
    for path in study.iterdir():
        ds = pydicom.dcmread(path)
        ds.compress(RLELossless)
        ds.save_as(path)
    launcher, program = tmp_path / "application", tmp_path / "application.py"
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{program}" "$@"\n', encoding="utf-8")
    launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR)
    program.write_text(APPLICATION.format(launcher=str(launcher), call=call, study=str(study)), encoding="utf-8")
    run = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    apart, decoders = json.loads(run.stdout)
    assert apart is in_process
    assert len(decoders) == 2
    assert "none" not in decoders


def test_each_hook_is_of_a_module_that_is_there():
    hooks = [path.stem.removeprefix("hook-") for path in HOOKS.glob("hook-*.py")]
    assert {"spinescore.runtime", "spinescore.runtime.cli", "spinescore.runtime.followup"} == set(hooks)
    assert all(find_spec(name) for name in hooks)
    at_start = ast.literal_eval((HOOKS / "rthooks.dat").read_text(encoding="utf-8"))
    files = [file for names in at_start.values() for file in names]
    assert files
    assert all((HOOKS / "rthooks" / file).is_file() for file in files)


def test_pyinstaller_is_told_where_the_hooks_are():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '[project.entry-points.pyinstaller40]\nhook-dirs = "spinescore.runtime.freezing:hook_dirs"\n' in text
