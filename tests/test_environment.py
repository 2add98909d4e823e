"""docs/environment.md is complete: each variable that the code reads, each folder that it keeps."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
SOURCES = [path for folder in ("runtime", "kernels", "export", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
NAMED = set(re.findall(r"^\| (`[A-Z][A-Z_`, ]*`) \|", PAGE, re.MULTILINE))
VARIABLES = {name for cell in NAMED for name in re.findall(r"`([A-Z_]+)`", cell)}


def constants(tree):
    """The texts that a module's constants hold, by their name."""
    return {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


ALL_CONSTANTS = {}
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
for tree in TREES.values():
    ALL_CONSTANTS |= {name: value for name, value in constants(tree).items() if isinstance(value, str)}


def is_environ(node):
    return isinstance(node, ast.Attribute) and node.attr in ("environ", "environb")


def texts(node, tree):
    """The texts that an expression can be: itself, a constant's, those of a choice or of a loop's names."""
    if isinstance(node, ast.Constant):
        return {node.value}
    if isinstance(node, ast.IfExp):
        return texts(node.body, tree) | texts(node.orelse, tree)
    if isinstance(node, ast.Attribute):
        return {ALL_CONSTANTS[node.attr]}
    if isinstance(node, ast.Name):
        own = constants(tree).get(node.id) or ALL_CONSTANTS.get(node.id)
        if own is not None:
            return {own}
        for loop in ast.walk(tree):
            if isinstance(loop, ast.comprehension) and getattr(loop.target, "id", None) == node.id:
                return {one.value for one in loop.iter.elts}
    raise AssertionError(f"a variable's name that this test cannot tell: {ast.unparse(node)}")


def variables():
    """Every name that is read from or written to the environment, with the file that does."""
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            keys = []
            if isinstance(node, ast.Subscript) and is_environ(node.value):
                keys = [node.slice]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                on_environ = is_environ(node.func.value) and node.func.attr in ("get", "setdefault", "pop")
                if on_environ or node.func.attr in ("getenv", "putenv"):
                    keys = [node.args[0]]
            elif isinstance(node, ast.Compare) and any(map(is_environ, node.comparators)):
                keys = [node.left]
            elif isinstance(node, ast.Dict) and any(key is None and is_environ(value) for key, value in
                                                    zip(node.keys, node.values, strict=True)):  # fmt: skip
                keys = [key for key in node.keys if key is not None]
            for key in keys:
                for name in texts(key, tree):
                    yield path.relative_to(ROOT).as_posix(), name


def test_every_variable_is_on_the_page():
    found = set(variables())
    assert {name for _, name in found} - VARIABLES == set()
    assert len(found) > 12


def test_the_page_names_no_variable_that_nothing_reads():
    through_python = {"HOME", "USERPROFILE"}
    assert VARIABLES - through_python == {name for _, name in variables()}


def test_no_module_reads_the_environment_in_a_way_that_this_test_cannot_see():
    names = [
        path.name
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and node.module == "os"
        and {"environ", "getenv"} & {a.name for a in node.names}
    ]
    assert not names


FOLDERS = re.findall(r"^\| `([a-z]+)(?:/[A-Z/]*)?` \|", PAGE, re.MULTILINE)


def test_every_part_of_the_cache_folder_is_on_the_page():
    """What follows `user_cache() /` in the code."""
    found = set()
    for tree in TREES.values():
        for node in ast.walk(tree):
            is_path = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and isinstance(node.left, ast.Call)
            if is_path and getattr(node.left.func, "id", "") == "user_cache":
                found |= texts(node.right, tree)
    assert found == set(FOLDERS)


@pytest.mark.parametrize("code", re.findall(r"^\| `([a-z]+(?:-[a-z]+)+)` \|", PAGE, re.MULTILINE))
def test_its_codes_are_in_the_table(code):
    from spinescore.runtime import CODES

    assert CODES[code].severity == "warning"
