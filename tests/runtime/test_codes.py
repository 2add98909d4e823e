"""The table of codes: the page and the program have the same codes."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

import spinescore.runtime
from spinescore.runtime import errors
from spinescore.runtime.codes import CODES, REJECT_CODES
from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.notices import UNCODED, notice
from spinescore.runtime.scoring.budget import SKIPPABLE

RUNTIME = Path(spinescore.runtime.__file__).parent
SOURCES = [*RUNTIME.rglob("*.py"), *(RUNTIME.parent / "export").rglob("*.py")]
PAGE = (RUNTIME / "codes.md").read_text("utf-8")

# What takes a code, and the place of that argument; `corrupt(..)` and its like are functions that hold a code.
TAKERS = {"notice": 0, "finding": 0, "Reject": 0, "RejectInfo": 0, "InputRejected": 0, "Fault": 0, "as_notice": 1}


def rows():
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:3] == "| `"]


def test_the_page_says_what_the_table_says():
    known = {row[0].strip("`"): row[1:] for row in rows() if len(row) == 5}
    assert list(known) == list(CODES)
    for name, code in CODES.items():
        step = f"{code.next_step[0].upper()}{code.next_step[1:]}."
        assert known[name] == [code.severity, code.meaning, step, ", ".join(code.values)]


def test_the_page_says_when_a_warning_on_a_radiograph_is_given():
    explained = {row[0].strip("`") for row in rows() if len(row) == 3}
    of_radiographs = re.findall(r"^\| `([a-z-]+)` \| warning", PAGE[: PAGE.index("## Files of a study")], re.MULTILINE)
    assert explained == {*of_radiographs, "blank"}


def test_the_file_is_what_is_read():
    document = json.loads((RUNTIME / "codes.json").read_text("utf-8"))
    assert document["schema"] == "spinescore.codes/1"
    assert list(document["codes"]) == list(CODES)
    assert spinescore.runtime.CODES is CODES
    assert errors.CODES is CODES


def test_every_code_has_words():
    assert list(REJECT_CODES) == [name for name, code in CODES.items() if code.severity == "reject"]
    assert {code.severity for code in CODES.values()} == {"reject", "warning", "skipped", "error", "service"}
    for name, code in CODES.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name)
        assert code.meaning.endswith(".")
        assert not code.next_step.endswith(".")
        assert "|" not in code.meaning + code.next_step


def subclasses(cls):
    return {cls, *(one for child in cls.__subclasses__() for one in subclasses(child))}


def test_every_error_has_a_code():
    known = [cls for cls in subclasses(SpineScoreError) if cls.__module__.startswith("spinescore.")]
    codes = {cls.code for cls in known if cls is not errors.InputRejected}
    assert codes - {errors.SelfTestError.code} == {name for name, code in CODES.items() if code.severity == "error"}
    assert len(known) >= 10


def test_every_step_that_can_be_skipped_has_a_code():
    assert list(SKIPPABLE) == [name for name, code in CODES.items() if code.severity == "skipped"]


def calls():
    """The calls in the package that take a code: name of the function, the code's node, names of keyword arguments."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in TAKERS:
                place = TAKERS[node.func.id]
                if len(node.args) > place:
                    yield path, node.func.id, node.args[place], {word.arg for word in node.keywords}


def test_no_code_is_used_that_is_not_in_the_table():
    used = [(path, code.value) for path, _, code, _ in calls() if isinstance(code, ast.Constant)]
    assert not [(path.name, code) for path, code in used if code not in CODES]
    assert len(used) > 80


@pytest.mark.parametrize("taker", ["notice", "InputRejected"])
def test_a_code_that_is_not_there_is_refused(taker):
    with pytest.raises((KeyError, ValueError), match="odd"):
        {"notice": notice, "InputRejected": errors.InputRejected}[taker]("odd", "It is odd.")


def test_no_code_of_the_table_is_unused():
    """Each is the argument of a call, what a function yields first, or what is assigned to a name `code`."""
    used = {UNCODED, *(code.value for _, _, code, _ in calls() if isinstance(code, ast.Constant))}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
                used.add(getattr(node.value.elts[0], "value", None))
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("reject", "Fault", "fault_of")
                and node.args
            ):
                used.add(getattr(node.args[0], "value", None))  # a helper of `vet`
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "code":
                used.add(getattr(node.value, "value", None))
    assert not [name for name, code in CODES.items() if code.severity != "skipped" and name not in used]


def test_warnings_have_the_values_that_the_table_names():
    given = {}
    for _, function, code, words in calls():
        if function in ("notice", "finding") and isinstance(code, ast.Constant):
            given.setdefault(code.value, set()).update(words - {"region", "source"})
    for name, words in given.items():
        mapping = None in words  # given as one
        assert words - {None} <= set(CODES[name].values), name
        assert mapping or not CODES[name].values or words, name
    assert UNCODED in CODES
