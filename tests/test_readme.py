"""What README.md promises: its program runs, its links lead somewhere, its commands are understood."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from helpers import tiny, tiny_study
from spinescore.runtime import cli

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_program_runs(tmp_path, capsys):
    program = PROGRAMS[0]
    bundle, study = tiny.write_bundle(tmp_path / "bundle"), tiny_study.write_study(tmp_path / "study")
    program = program.replace('"phantom-reference"', repr(str(bundle))).replace('"demo/study"', repr(str(study)))
    exec(compile(program, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "cervical scored 13" in out
    assert f"mSASSS {tiny_study.TOTAL} possible" in out


def test_the_program_of_results_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("highdicom")
    (program,) = (program for program in PROGRAMS if "structured_report" in program)
    bundle, study = tiny.write_bundle(tmp_path / "bundle"), tiny_study.write_study(tmp_path / "study")
    program = program.replace('"phantom-reference"', repr(str(bundle))).replace('"demo/study"', repr(str(study)))
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "README.md", "exec"), {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["SR", "OT", "OT"]
    assert {path.name for path in (tmp_path / "results").iterdir()} == {
        "report.json", "row.csv", "sr.dcm", "overlay-cervical.png", "overlay-lumbar.png",
        "gsps-cervical.dcm", "gsps-lumbar.dcm", "sc-cervical.dcm", "sc-lumbar.dcm",
    }  # fmt: skip


def test_an_array_is_described():
    names = {}
    exec(
        compile(
            next(program for program in PROGRAMS if "neck = radiograph_from_array" in program), "README.md", "exec"
        ),
        names,
    )
    assert (names["neck"].source, names["neck"].facing, names["neck"].study_date) == ("room 2", "left", "20260131")


@pytest.mark.parametrize(("program", "framework"), list(zip(PROGRAMS[-2:], ("torch", "keras"), strict=True)))
def test_references_are_written_in_eight_lines(program, framework):
    """`tests/golden/make_references.py` runs them with the frameworks."""
    compile(program, "README.md", "exec")
    assert f"import {framework}" in program or f", {framework}" in program
    assert len(program.splitlines()) <= 8


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?:)([^)]+)\)", README))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()


@pytest.mark.parametrize("line", re.findall(r"^    (spinescore .+)$", README, re.MULTILINE))
def test_commands_are_understood(line):
    arguments = cli._parser().parse_args(line.split()[1:])
    assert callable(arguments.verb)


def test_every_verb_is_listed():
    verbs = {name for action in cli._parser()._subparsers._group_actions for name in action.choices}
    assert verbs == {name for name in verbs if f"`spinescore {name}" in README}
