"""README.md and docs are true: programs run, commands are understood, links lead somewhere, names exist.

A command or program whose comment begins with `# needs` or `# takes` is not run, but it is still parsed.
`test_page_commands.py` runs the commands.
"""

from __future__ import annotations

import os
import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest

from helpers import tiny, tiny_study
from helpers.documentation import PAGES, ROOT, anchors, blocks, commands, inline, is_marked, programs
from spinescore.export.defaults import read_overrides
from spinescore.runtime import Scorer, Study, StudyReport, cli, structured_report

README = PAGES["README.md"]
EVERY_COMMAND = [(page, line) for page in PAGES for line in commands(page)]


def test_the_program_runs(tmp_path, capsys):
    (program,) = programs("README.md")
    bundle, study = tiny.write_bundle(tmp_path / "bundle"), tiny_study.write_study(tmp_path / "study")
    program = program.replace('"phantom-reference"', repr(str(bundle))).replace('"demo/study"', repr(str(study)))
    exec(compile(program, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "cervical scored 13" in out
    assert f"mSASSS {tiny_study.TOTAL} possible" in out


def test_the_program_of_results_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("highdicom")
    (program,) = (program for program in programs("docs/program.md") if "structured_report" in program)
    bundle, study = tiny.write_bundle(tmp_path / "bundle"), tiny_study.write_study(tmp_path / "study")
    program = program.replace('"phantom-reference"', repr(str(bundle))).replace('"demo/study"', repr(str(study)))
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "docs/program.md", "exec"), {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["SR", "OT", "OT"]
    assert {path.name for path in (tmp_path / "results").iterdir()} == {
        "report.json", "row.csv", "sr.dcm", "overlay-cervical.png", "overlay-lumbar.png",
        "gsps-cervical.dcm", "gsps-lumbar.dcm", "sc-cervical.dcm", "sc-lumbar.dcm",
    }  # fmt: skip


def test_an_array_is_described():
    names = {}
    (program,) = (program for program in programs("docs/program.md") if 'name="room 2"' in program)
    exec(compile(program, "docs/program.md", "exec"), names)
    assert (names["neck"].source, names["neck"].facing, names["neck"].study_date) == ("room 2", "left", "20260131")


def test_the_header_of_an_array_is_enough_for_results(tmp_path):
    names = {}
    (program,) = (program for program in programs("docs/program.md") if "header = Dataset()" in program)
    exec(compile(program, "docs/program.md", "exec"), names)
    header, study = names["header"], Study((names["neck"],))
    with Scorer.open(tiny.write_bundle(tmp_path / "bundle"), "cpu", build="no") as scorer:
        report = scorer.score(study)
    ds = structured_report(study, report)
    assert (ds.StudyInstanceUID, ds.PatientID, ds.StudyDate) == (header.StudyInstanceUID, "4711", "20260131")
    referenced = ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert referenced.ReferencedSOPInstanceUID == header.SOPInstanceUID


def test_the_program_that_is_never_late_runs(tmp_path, capsys):
    (program,) = (program for program in programs("docs/program.md") if "try_score" in program)
    bundle, study = tiny.write_bundle(tmp_path / "bundle"), tiny_study.write_study(tmp_path / "study")
    program = program.replace('"phantom-reference"', repr(str(bundle))).replace('"demo/study"', repr(str(study)))
    exec(compile(program.replace("2000", "60000"), "docs/program.md", "exec"), {})
    assert capsys.readouterr().out == f"{tiny_study.TOTAL}\n"


def test_the_program_of_corrections_runs(tmp_path, monkeypatch, capsys):
    (program,) = programs("docs/results.md")
    bundle, study = tiny.write_bundle(tmp_path / "bundle"), tiny_study.write_study(tmp_path / "study")
    program = program.replace('"phantom-reference"', repr(str(bundle))).replace('"demo/study"', repr(str(study)))
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "docs/results.md", "exec"), {})
    total, status = capsys.readouterr().out.split()
    assert status == "imputed"
    assert float(total) == pytest.approx(13 + 1 + 11 * 12 / 11)  # one more at C3, and the mean of 11 lumbar corners
    report = StudyReport.from_json((tmp_path / "corrected" / "report.json").read_text("utf-8"))
    assert report.corrections[0].points[0].before is not None


@pytest.mark.parametrize(
    ("program", "framework"), list(zip(programs("docs/weights.md"), ("torch", "keras"), strict=True))
)
def test_references_are_written_in_eight_lines(program, framework):
    """`tests/golden/make_references.py` runs them with the frameworks."""
    assert f"import {framework}" in program or f", {framework}" in program
    assert len(program.splitlines()) <= 8


def test_every_program_is_run_or_marked():
    """The programs that run: README's, and those that have a test above or in `test_picture_percentiles`."""
    unmarked = {page: sum(not is_marked(program) for program in programs(page)) for page in PAGES}
    assert {page: n for page, n in unmarked.items() if n} == {"README.md": 1, "docs/bundle.md": 1, "docs/program.md": 4,
                                                             "docs/results.md": 1}  # fmt: skip
    assert any("np.percentile" in program for program in programs("docs/bundle.md"))
    for page in PAGES:
        for program in programs(page):
            compile(program, page, "exec")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "toml")])
def test_manifest_files_are_read(tmp_path, page):
    for number, text in enumerate(blocks(page, "toml")):
        path = tmp_path / f"{number}.toml"
        path.write_text(text, encoding="utf-8")
        assert read_overrides(path)


@pytest.mark.parametrize(("page", "line"), [pair for pair in EVERY_COMMAND if " spinescore " in f" {pair[1]}"])
def test_commands_are_understood(page, line):
    words = shlex.split(line, comments=True)
    assert callable(cli._parser().parse_args(words[words.index("spinescore") + 1 :]).verb)


def source_of(module):
    """The text of a module, or of all modules of a package."""
    origin = Path(find_spec(module).origin)
    files = origin.parent.glob("*.py") if origin.name == "__init__.py" else [origin]
    shared = ROOT / "benchmarks" / "harness" / "record.py"
    return "".join(path.read_text(encoding="utf-8") for path in [*files, shared])


MODULES = [
    (page, code.split("#")[0].split()[2:])
    for page in PAGES
    for code in [*inline(page), *commands(page)]
    if code.startswith("python -m ")
]


@pytest.mark.parametrize(("page", "words"), MODULES)
def test_modules_that_measure_exist_with_their_options(page, words):
    text = source_of(words[0])
    assert [word for word in words[1:] if word.startswith("--") and f'"{word}"' not in text] == []


def test_every_other_command_is_of_a_kind_that_is_checked():
    kinds = ("spinescore ", "SPINESCORE_CACHE=", "make ", "pip ", "python -m spinescore.")
    assert [line for _, line in EVERY_COMMAND if not line.startswith(kinds)] == []


@pytest.mark.parametrize(("page", "line"), [pair for pair in EVERY_COMMAND if pair[1].startswith("make ")])
def test_targets_of_make_exist(page, line):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert line.split()[1] in targets


@pytest.mark.parametrize(("page", "line"), [pair for pair in EVERY_COMMAND if pair[1].startswith("pip ")])
def test_what_pip_installs_exists(page, line):
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    words = shlex.split(line, comments=True)
    for word in words:
        for extra in re.findall(r"^\.\[(.*)\]$", word):
            assert all(re.search(rf"^{name} = \[", project, re.MULTILINE) for name in extra.split(",")), line
    assert all((ROOT / words[i + 1]).is_file() for i, word in enumerate(words) if word == "-r")


@pytest.mark.parametrize(
    ("page", "link"),
    [(page, link) for page, text in PAGES.items() for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text)],
)
def test_links_lead_somewhere(page, link):
    path, _, anchor = link.partition("#")
    target = (ROOT / page).parent / path if path else ROOT / page
    assert target.exists()
    if anchor:
        assert anchor in anchors(Path(os.path.relpath(target, ROOT)).as_posix())


def test_every_page_is_linked_from_the_readme():
    assert {page for page in PAGES if f"]({page})" not in README} == {"README.md"}


@pytest.mark.parametrize("page", ["README.md", "docs/command-line.md"])
def test_every_verb_is_listed_in_the_order_of_the_help(page):
    verbs = [name for action in cli._parser()._subparsers._group_actions for name in action.choices]
    assert list(dict.fromkeys(re.findall(r"^\| `spinescore ([a-z-]+)", PAGES[page], re.MULTILINE))) == verbs


def test_options_that_pages_name_exist():
    texts = [
        path.read_text(encoding="utf-8")
        for folder in ("benchmarks", "runtime")
        for path in ROOT.glob(f"{folder}/**/*.py")
    ]
    sources = "".join(texts)
    of_others = {
        "--back",
        "--help",
        "--platform",
        "--prefix",
        "--publish",
        "--python-version",
        "--force-reinstall",
        "--system-site-packages",
    }  # of argparse, pip, venv, install.sh, podman
    named = {word for page in PAGES for code in inline(page) for word in re.findall(r"(?<!\S)--[a-z0-9-]+", code)}
    assert len(named) > 40
    assert {word for word in named - of_others if f'"{word}"' not in sources} == set()


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 180


def test_paths_that_pages_name_exist():
    named = {
        code.rstrip("/")
        for page in PAGES
        for code in inline(page)
        if re.fullmatch(r"(?:runtime|export|kernels|benchmarks|tests|docs|requirements|examples)/[\w./-]+", code)
    }
    assert len(named) > 40
    missing = {name for name in named if not any((ROOT / f"{name}{end}").exists() for end in ("", ".py"))}
    assert missing == set()
