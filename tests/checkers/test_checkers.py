"""What mypy and pyright say of the installed package: of right use, wrong use, the programs of README and docs, the
public names.

`make lint` runs this, and names the folder where the package is installed. basedpyright is a pyright that brings its
own Node.js, so that nothing is downloaded when it runs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import spinescore.runtime as door

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
INSTALLED = os.environ.get("SPINESCORE_INSTALLED", "")
MARK = re.compile(r"  # wrong: ([\w-]+) (\w+)$")
PAGES = [path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
CHECKERS = ("mypy", "basedpyright")

pytestmark = [
    pytest.mark.skipif(not INSTALLED, reason="`make lint` installs the package to check it, and runs this"),
    pytest.mark.skipif(not all(map(find_spec, CHECKERS)), reason="needs the extra lint"),
]


def documented_programs() -> dict[str, str]:
    """The pages' programs that use the public door, and the calls in their text, whose names are those of the text."""
    programs = [program for page in PAGES for program in re.findall(r"```python\n(.*?)```", page, re.DOTALL)]
    found = {f"program_{n}.py": text for n, text in enumerate(programs) if "from spinescore.runtime import" in text}
    calls = re.findall(r"`((?:scorer\.\w+|radiograph_from_array)\([^.`][^`]*\))`", "\n\n".join(PAGES))
    body = "".join(f"    {' '.join(call.split())}\n" for call in calls)
    arrays = ", radiograph_from_array" if "radiograph_from_array(" in body else ""
    found["calls.py"] = (
        "import numpy as np\nfrom numpy.typing import NDArray\nfrom pydicom import Dataset\n"
        f"from spinescore.runtime import Scorer, StudyInput{arrays}\n\n\n"
        f"def calls(scorer: Scorer, study: StudyInput, pixels: NDArray[np.uint16], dataset: Dataset) -> None:\n{body}"
    )
    assert len(found) >= 4
    assert 'scorer.score({"cervical": pixels' in body
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checked")
    texts = {name: (HERE / name).read_text(encoding="utf-8") for name in ("use.py", "misuse.py")}
    for name, text in (texts | documented_programs()).items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module", params=CHECKERS)
def errors(request, folder) -> dict[str, dict[int, set[str]]]:
    """The kinds of errors by file and line."""
    found: dict[str, dict[int, set[str]]] = {path.name: {} for path in folder.glob("*.py")}
    for name, line, kind in (mypy if request.param == "mypy" else pyright)(folder):
        found[name].setdefault(line, set()).add(kind)
    return found


def mypy(folder: Path) -> list[tuple[str, int, str]]:
    (folder / "mypy.ini").write_text("[mypy]\nstrict = true\n[mypy-spinescore.*]\nfollow_imports = silent\n")
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--hide-error-context", "."]
    command += ["--cache-dir", str(ROOT / ".mypy_cache" / "checkers"), "--output", "json"]
    environment = {**os.environ, "MYPYPATH": str(Path(INSTALLED).absolute())}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8")
    assert run.returncode in (0, 1), run.stderr
    found = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    return [(Path(f["file"]).name, f["line"], f["code"]) for f in found if f["severity"] == "error"]


def pyright(folder: Path) -> list[tuple[str, int, str]]:
    settings = {"include": ["."], "extraPaths": [str(Path(INSTALLED).absolute())], "typeCheckingMode": "strict"}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    found = basedpyright("--project", str(folder))["generalDiagnostics"]
    errors = [f for f in found if f["severity"] == "error"]
    return [(Path(f["file"]).name, f["range"]["start"]["line"] + 1, f["rule"]) for f in errors]


def basedpyright(*arguments: str, **environment: str) -> dict:
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, *arguments]
    run = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, encoding="utf-8")
    assert run.returncode in (0, 1), run.stderr or run.stdout
    return json.loads(run.stdout)


def test_right_use_and_the_pages_have_no_error(errors):
    assert {name: found for name, found in errors.items() if found and name != "misuse.py"} == {}


def test_each_misuse_is_an_error_of_its_kind(errors):
    found = errors["misuse.py"]
    lines = enumerate((HERE / "misuse.py").read_text(encoding="utf-8").splitlines(), 1)
    wrong = {number: set(mark.groups()) for number, line in lines if (mark := MARK.search(line))}
    assert len(wrong) > 30
    assert found.keys() == wrong.keys()
    assert [number for number in wrong if not wrong[number] & found[number]] == []


# Classes of the appliance whose bases, of pynetdicom and uvicorn, are not wholly typed.
_BASES_WITHOUT_TYPES = (
    "spinescore.runtime.appliance.receiving.guard.GuardedServer",
    "spinescore.runtime.appliance.web.limits.LimitedProtocol",
)


def test_the_door_is_wholly_typed():
    """pyright finds no type of the package unknown, and every attribute of the public classes has its type written."""
    answer = basedpyright(
        "--verifytypes", "spinescore.runtime", "--ignoreexternal", PYTHONPATH=str(Path(INSTALLED).absolute())
    )
    symbols = answer["typeCompleteness"]["symbols"]
    assert answer["typeCompleteness"]["pyTypedPath"]
    unknown = [s["name"] for s in symbols if not s["isTypeKnown"] and not s["isTypeAmbiguous"]]
    assert sorted(unknown) == list(_BASES_WITHOUT_TYPES)
    named = {name: getattr(getattr(door, name), "__module__", None) for name in door.__all__}  # a constant has none
    public = [f"{module}.{name}" for name, module in named.items() if module]
    exact = [s for s in symbols if any(f"{s['name']}.".startswith(f"{name}.") for name in public)]
    assert {f"spinescore.runtime.scorer.Scorer.{name}" for name in ("open", "bundle")} <= {s["name"] for s in exact}
    assert [s["name"] for s in exact if s["isTypeAmbiguous"]] == []
