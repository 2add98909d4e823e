"""Freezes a small program that scores a study with PyInstaller, and compares its report with that of Python itself.

    pip install --no-deps --target build/installed .    # PyInstaller does not follow an editable installation
    PYTHONPATH=build/installed python -m spinescore.benchmarks.freezing [--out F]

Needs `pip install pyinstaller`. The frozen program (a folder, `--onedir`) is moved to another place and run there in an
empty environment, so that it cannot use this Python. It scores a phantom study whose pixels are compressed, in a worker
process, and runs the bundle's golden inputs in a process of its own, as the acceptance gate does.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from spinescore.benchmarks.harness.child import answer, run_child
from spinescore.benchmarks.harness.record import Command
from spinescore.runtime.phantom.labelled import write_labelled_study

__all__ = ["main", "measure"]

SCHEMA = "spinescore.freezing/2"
PROGRAM = """
import json
import sys

from spinescore.runtime import Scorer, load_study
from spinescore.runtime.acceptance.runs import run_in_new_process
from spinescore.runtime.engines.choice import EngineChoice
from spinescore.runtime.reading.decoding import decode

with Scorer.open("phantom-reference", "cpu", engine="onnxruntime", precision="fp32", build="no") as scorer:
    report = scorer.score(load_study(*sys.argv[1:]))
    runs = run_in_new_process(scorer.bundle, "cpu", EngineChoice("onnxruntime", "fp32"))
answer = {"report": report.to_dict(), "decoded_apart": not decode.in_process(), "checked_apart": runs.framework}
print(json.dumps(answer))
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 if the frozen program gives the same report and starts its worker processes, else 1."""
    command = Command("freezing", SCHEMA, __doc__)
    command.start(argv)
    if find_spec("PyInstaller") is None:
        command.options.error("PyInstaller is missing: pip install pyinstaller")
    with tempfile.TemporaryDirectory(prefix="spinescore-") as folder:
        record = command.publish(measure(Path(folder)))
    return 0 if record["same_report"] and record["decoded_apart"] and record["checked_apart"] else 1


def measure(folder: Path) -> dict[str, Any]:
    """Freeze and run the program in `folder`; returns the figures."""
    files = _compress(write_labelled_study(folder).files, folder / "study")
    program = folder / "console.py"
    program.write_text(PROGRAM, encoding="utf-8")
    plain = answer([sys.executable, str(program), *files], cwd=folder / "study")
    frozen = _freeze(program, folder)
    executable = str(frozen / f"console{'.exe' if os.name == 'nt' else ''}")
    # Windows needs this variable to start a process at all.
    environment = {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}
    output = answer([executable, *files], cwd=folder / "study", env=environment)
    stored = [path for path in frozen.rglob("*") if path.is_file() and not path.is_symlink()]
    report = output["report"]
    return {
        "pyinstaller": metadata.version("pyinstaller"),
        "packages": _packages(frozen),
        "files": len(stored),
        "megabytes": round(sum(path.stat().st_size for path in stored) / 1e6),
        "same_report": _without_times(report) == _without_times(plain["report"]),
        "total": report["total"]["value"],
        "decoders": sorted({view["radiograph"]["decoder"] for view in report["regions"].values()}),
        "decoded_apart": output["decoded_apart"],
        "checked_apart": output["checked_apart"],
    }


def _compress(files: Sequence[Path], folder: Path) -> list[str]:
    import pydicom
    from pydicom.uid import RLELossless

    folder.mkdir()
    for path in files:
        ds = pydicom.dcmread(path)
        ds.compress(RLELossless)
        ds.save_as(folder / path.name)
    return [str(folder / path.name) for path in files]


def _freeze(program: Path, folder: Path) -> Path:
    """Return the folder of the frozen program, moved away from where it was built."""
    options = ["--onedir", "--noconfirm", "--log-level", "WARN"]
    run_child([sys.executable, "-m", "PyInstaller", *options, str(program)], cwd=folder)
    place = folder / "elsewhere" / "console"
    place.parent.mkdir()
    shutil.move(folder / "dist" / "console", place)
    return place


def _packages(frozen: Path) -> list[str]:
    names = (path.name.removesuffix(".dist-info") for path in frozen.rglob("*.dist-info"))
    return sorted(name.replace("-", " ") for name in names)


def _without_times(report: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name != "timings_ms"}


if __name__ == "__main__":
    sys.exit(main())
