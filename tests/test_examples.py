"""The examples run as a user runs them, each in a process of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from pydicom import dcmread

from helpers.golden_networks import unpacked, write_inputs
from helpers.tiny import write_bundle
from helpers.tiny_study import write_study
from spinescore.export.defaults import read_overrides
from spinescore.runtime import Cancelled, EngineError, StudyReport

EXAMPLES = Path(__file__).parents[1] / "examples"
CONSOLE = EXAMPLES / "console.py"
WATCH = EXAMPLES / "watch_folder.py"
STAGES = ("select", "upload", "localize", "crop", "grade", "report")


def test_the_console_scores_a_study_and_stores_it(tmp_path):
    folder = tmp_path / "results"
    command = [sys.executable, "-W", "error", str(CONSOLE), str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
    report = StudyReport.from_json((folder / "report.json").read_text(encoding="utf-8"))
    for kind in ("SR", "PR", "OT"):
        assert kind in {dcmread(path).Modality for path in folder.rglob("*.dcm")}
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8")
    assert report.total.status in ("complete", "imputed", "incomplete")
    assert f"console INFO mSASSS {report.total.value}, possible" in ran.stderr
    assert "console INFO opening: self-test of " in ran.stderr
    for number, stage in enumerate(STAGES, 1):
        assert ran.stderr.count(f"stage {number} of 6: {stage}\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no process can send Ctrl-C to another one alone")
def test_the_console_that_is_left_while_it_opens_ends_at_once(tmp_path):
    command = [sys.executable, str(CONSOLE), str(tmp_path / "results")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, encoding="utf-8") as console:
        assert console.stderr is not None
        first = console.stderr.readline()
        os.kill(console.pid, signal.SIGINT)
        rest = console.stderr.read()
    assert "opening: the files of bundle phantom-reference are checked" in first
    assert (
        console.returncode,
        "(cancelled): Given up, because the caller asked for that, before this step" in rest,
    ) == (1, True), rest
    assert "Traceback" not in rest
    assert not (tmp_path / "results").exists()


def up_to_line(process, text):
    """Wait for a line of standard error that holds the text; return it with the lines before it."""
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError("".join(lines))


@pytest.mark.skipif(sys.platform == "win32", reason="no process can send Ctrl-C to another one alone")
def test_a_watched_folder_gives_results_of_complete_studies_until_ctrl_c(tmp_path):
    inbox, results = tmp_path / "inbox", tmp_path / "results"
    write_study(inbox / "first")
    (inbox / "empty").mkdir()
    (inbox / "broken").mkdir()
    (inbox / "broken" / "notes.dcm").write_text("no DICOM")
    (results / ".first.part").mkdir(parents=True)  # of a program that was killed
    bundle = write_bundle(tmp_path / "bundle")
    command = [sys.executable, "-W", "error", str(WATCH), str(inbox), str(results), "--quiet-s", "0.1"]
    command += ["--bundle", str(bundle)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, encoding="utf-8") as watch:
        deadline = threading.Timer(300, watch.kill)  # a line that does not come must not hold up the tests
        deadline.start()
        said = up_to_line(watch, "first: mSASSS 26")
        write_study(tmp_path / "second").rename(inbox / "second")
        said += up_to_line(watch, "second: mSASSS 26")
        os.kill(watch.pid, signal.SIGINT)
        said += watch.stderr.read()
        deadline.cancel()
    assert (watch.returncode, said.splitlines()[-1][-5:], "Traceback" in said) == (0, "ended", False), said
    assert {path.name for path in results.iterdir()} == {"broken", "first", "second"}
    assert {path.name for path in (results / "first").iterdir()} == {"report.json", "report.html"}
    StudyReport.from_json((results / "first" / "report.json").read_text(encoding="utf-8"))
    assert "not-dicom" in (results / "broken" / "report.json").read_text(encoding="utf-8")


def example(path):
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_study_that_still_arrives_is_left_alone(tmp_path, monkeypatch):
    watch, inbox = example(WATCH), tmp_path / "inbox"
    study = inbox / "study"
    study.mkdir(parents=True)
    scored = []
    monkeypatch.setattr(watch, "score", lambda scorer, study, results, stop: scored.append(study.name))

    class Looks:
        """An event that is set after five looks; a file arrives before each of the first three."""

        count = 0

        def wait(self, quiet_s):
            self.count += 1
            if self.count <= 3:
                (study / f"{self.count}.dcm").write_bytes(b"x")
            else:
                assert scored == ["study"] * (self.count - 4)
            return self.count > 5

    watch.watch(None, inbox, tmp_path, 5.0, Looks())
    assert scored == ["study", "study"]  # the second time because nothing wrote results


@pytest.mark.parametrize("fault", [EngineError("the engine fell over"), ZeroDivisionError("of ours"), Cancelled("")])
def test_a_study_that_fails_is_named_and_a_cancelled_one_leaves_nothing(tmp_path, fault):
    watch = example(WATCH)

    class Failing:
        def score(self, study, cancel):
            raise fault

    with contextlib.suppress(Cancelled):
        watch.score(Failing(), write_study(tmp_path / "study"), tmp_path / "results", threading.Event())
    left = {path.name for path in tmp_path.iterdir()} - {"study"}
    if isinstance(fault, Cancelled):
        assert left == set()
    else:
        assert left == {"results"}
        assert str(fault) in (tmp_path / "results" / "error.txt").read_text(encoding="utf-8")


def test_a_bundle_is_made_from_weights_of_pytorch(tmp_path):
    unpacked("hrnet-legacy.pth", tmp_path)
    unpacked("resnet152-corners4.pth", tmp_path)
    write_inputs(tmp_path)
    command = [sys.executable, "-W", "error", str(EXAMPLES / "bundle_from_pytorch.py")]
    command += ["hrnet-legacy.pth", "resnet152-corners4.pth", "bundle", "--manifest", "sizes.json", "--golden", "study"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
    assert "verified: passed" in ran.stdout
    assert ran.stdout.splitlines()[-2].startswith("cervical ")
    assert (tmp_path / "bundle" / "bundle.json").is_file()
    command[command.index("hrnet-legacy.pth")] = "sizes.json"
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=False)
    assert (ran.returncode, ran.stderr.startswith("checkpoint: ")) == (1, True), ran.stderr


def test_the_manifest_of_that_example_is_one(tmp_path):
    (tmp_path / "fields.toml").write_text(example(EXAMPLES / "bundle_from_pytorch.py").MANIFEST, encoding="utf-8")
    assert read_overrides(tmp_path / "fields.toml")["localizer"] == {"passes": 2}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_what_a_user_copies_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 130


def test_a_watched_folder_that_is_missing_is_named(tmp_path):
    command = [sys.executable, str(WATCH), str(tmp_path / "inbox"), str(tmp_path / "results")]
    ran = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert ran.returncode == 2
    assert f"there is no folder {tmp_path / 'inbox'}" in ran.stderr
    assert not (tmp_path / "results").exists()
