"""A fault loses one format, one study or one message, and nothing else."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread

from helpers import tiny
from helpers.tiny_study import TOTAL, write_study
from spinescore.runtime import EngineError, InputRejected, Scorer, cli
from spinescore.runtime.outputs import formats, results
from spinescore.runtime.outputs.formats import FORMATS, write_file
from spinescore.runtime.verbs.faults import told

POSIX = pytest.mark.skipif(os.name != "posix", reason="a shell of POSIX")
UIDS = ["1.2.3.1", "1.2.3.2", "1.2.3.3"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    return str(tiny.write_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def three(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("three")
    for uid in UIDS:
        write_study(folder / uid, regions=("lumbar",), uid=uid)
    return str(folder)


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> str:
    return str(write_study(tmp_path_factory.mktemp("one")))


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (EngineError("The engine is gone."), 4, "engine: The engine is gone."),
        (KeyError("the moon"), 1, "unexpected KeyError: 'the moon'"),
        (MemoryError(), 4, "not enough memory"),
        (InputRejected("two-patients", "Two patients."), 0, "two-patients: Two patients."),
        (RecursionError("too deep"), 1, "report it"),
    ],
)
def test_a_fault_in_one_study_costs_that_study(bundle, three, tmp_path, capsys, monkeypatch, error, status, words):
    score = Scorer.score

    def fail(self, study, *arguments, **options):
        if study.study_instance_uid == UIDS[1]:
            raise error
        return score(self, study, *arguments, **options)

    earlier = tmp_path / "study-2"
    earlier.mkdir()
    (earlier / "report.json").write_text("an earlier one", encoding="utf-8")
    monkeypatch.setattr(Scorer, "score", fail)
    asked = ["score", three, "--bundle", bundle, "--json", "--out", str(tmp_path), "--format", "json,csv"]
    assert cli.main(asked) == status
    printed = capsys.readouterr()
    assert [json.loads(line)["study"]["study_instance_uid"] for line in printed.out.splitlines()] == UIDS[::2]
    assert f"study 2 of 3 ({UIDS[1]}/lumbar.dcm): {words}" in printed.err or words in printed.err
    assert "study 2 of 3 (" in printed.err
    assert [(tmp_path / f"study-{n}" / "report.json").exists() for n in (1, 2, 3)] == [True, False, True]
    assert len((tmp_path / "row.csv").read_text(encoding="utf-8").splitlines()) == 3


@pytest.mark.parametrize("error", [ValueError("no such code\nforged"), AttributeError("x"), MemoryError()])
def test_what_a_format_raises_costs_that_format(bundle, one, tmp_path, capsys, monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setitem(FORMATS, "html", replace(FORMATS["html"], make=fail))
    asked = ["score", one, "--bundle", bundle, "--out", str(tmp_path), "--format", "html,json,csv"]
    assert cli.main(asked) == 4
    printed = capsys.readouterr()
    assert f"{TOTAL} of 72" in printed.out
    (line,) = [line for line in printed.err.splitlines() if line.startswith("not written")]
    assert line.startswith(f"not written: html: unexpected {type(error).__name__}")
    assert line.endswith("(code output)")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "row.csv"]


def test_what_is_raised_while_a_file_is_written_costs_that_file(bundle, one, tmp_path, capsys, monkeypatch):
    def fail(path, content):
        if path.name == "row.csv":
            raise ValueError("an element that cannot be written")
        write_file(path, content)

    monkeypatch.setattr(results, "write_file", fail)
    asked = ["score", one, "--bundle", bundle, "--out", str(tmp_path), "--format", "json,csv"]
    assert cli.main(asked) == 4
    assert "row.csv: unexpected ValueError: an element that cannot be written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_dates_that_are_none_cost_nothing(bundle, tmp_path):
    """A birth date with the year alone, and a study date of zeros, as devices write them."""
    pytest.importorskip("highdicom")
    path = write_study(tmp_path / "in", regions=("lumbar",)) / "lumbar.dcm"
    ds = dcmread(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.PatientBirthDate, ds.StudyDate, ds.StudyTime = "19550000", "00000000", "250000"
        ds.save_as(path)
    out = tmp_path / "out"
    assert cli.main(["score", str(path), "--bundle", bundle, "--out", str(out), "--format", "sr,gsps,sc,json"]) == 0
    for name in ("sr.dcm", "gsps-lumbar.dcm", "sc-lumbar.dcm"):
        made = dcmread(out / name)
        assert (made.PatientBirthDate or "", made.StudyDate or "", made.StudyTime or "") == ("", "", "")
    assert json.loads((out / "report.json").read_text(encoding="utf-8"))["study"]["study_date"] is None


def test_a_full_disk_is_named(bundle, one, tmp_path, capsys, monkeypatch):
    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(formats, "write_atomic", full)
    assert cli.main(["score", one, "--bundle", bundle, "--out", str(tmp_path), "--format", "json"]) == 4
    assert "report.json cannot be written (No space left on device): free space there" in capsys.readouterr().err


def shell(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = f"'{sys.executable}' -m spinescore.runtime.cli"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command.replace("spinescore", program, 1), "bash", *arguments],
        capture_output=True,
        text=True,
    )


@POSIX
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize(
    ("streams", "status", "words"),
    [
        ("2>/dev/full", 0, None),
        ("2>&-", 0, None),
        (">/dev/full", 4, "not printed: standard output cannot be written (No space left on device)"),
        (">&-", 0, ""),
        (">&- 2>&-", 0, None),
        ("| true", 0, ""),
    ],
)
def test_streams_that_fail_cost_no_result(bundle, three, tmp_path, streams, status, words):
    done = shell(f'spinescore score "$1" --bundle "$2" --out "$3" {streams}', three, bundle, str(tmp_path))
    assert done.returncode == status, done.stderr
    assert [(tmp_path / f"study-{n}" / "report.json").exists() for n in (1, 2, 3)] == [True] * 3
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    if words:
        assert words in done.stderr


@POSIX
@pytest.mark.parametrize(
    ("streams", "words"),
    [(">&-", "standard output is closed"), (">/dev/full", "standard output cannot be written")],
)
def test_a_report_that_nobody_would_get_is_refused(bundle, one, streams, words):
    done = shell(f'spinescore score "$1" --bundle "$2" {streams}', one, bundle)
    assert done.returncode == 4
    assert words in done.stderr


def test_words_of_the_command_are_escaped(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["score", "--device", "\x1b[31m\u202ex\nspinescore: all is well", "."])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert not any(line.startswith("spinescore: all is well") for line in said.splitlines())


def test_a_disk_that_is_full_is_no_fault_of_ours():
    status, said = told(OSError(errno.ENOSPC, "No space left on device"))
    assert (status, said) == (4, "the disk: No space left on device; free space there, or choose another place")
    assert told(FileNotFoundError(errno.ENOENT, "No such file", "x"))[0] == 1


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("x.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
        RuntimeError("Exception during initialization: std::bad_alloc"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_memory_that_ran_out_is_no_fault_of_ours(error):
    status, said = told(error)
    assert status == 4
    assert said.startswith("there is not enough memory (")
    assert told(ImportError("no module named x"))[0] == 1
