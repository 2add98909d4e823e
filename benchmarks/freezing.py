"""Freeze a small program that scores a study with PyInstaller, and run it: is its report that of Python itself?

    pip install --no-deps --target build/installed .    # PyInstaller does not follow an editable installation
    PYTHONPATH=build/installed python -m spinescore.benchmarks.freezing [--out F]

Needs `pip install pyinstaller`. The frozen program (a folder, `--onedir`) is moved to another place and run there in an
empty environment, so that nothing of this Python is found. It scores a phantom study whose pixels are compressed, in
a worker process, and runs the bundle's golden inputs in a process of its own, as the acceptance gate does.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from spinescore.benchmarks.bench.subject import draw_study
from spinescore.runtime.files import write_atomic
from spinescore.runtime.machine.processor import processor_name

__all__ = ["main", "measure"]

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
found = {"report": report.to_dict(), "decoded_apart": not decode.in_process(), "checked_apart": runs.framework}
print(json.dumps(found))
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m spinescore.benchmarks.freezing", description=__doc__)
    parser.add_argument("--out", type=Path, metavar="F", help="write the record as JSON")
    arguments = parser.parse_args(argv)
    if find_spec("PyInstaller") is None:
        parser.error("PyInstaller is missing: pip install pyinstaller")
    with tempfile.TemporaryDirectory(prefix="spinescore-") as folder:
        record = measure(Path(folder))
    text = json.dumps(record, indent=2) + "\n"
    if arguments.out is not None:
        write_atomic(arguments.out, text)
    print(text, end="")
    return 0 if record["same_report"] and record["decoded_apart"] and record["checked_apart"] else 1


def measure(folder: Path) -> dict[str, Any]:
    """Freeze and run the program in `folder`; returns the record."""
    files = _compressed(draw_study(folder).files, folder / "study")
    program = folder / "console.py"
    program.write_text(PROGRAM, encoding="utf-8")
    plain = _run([sys.executable, str(program), *files], folder, dict(os.environ))
    frozen = _freeze(program, folder)
    found = _run([str(frozen / f"console{'.exe' if os.name == 'nt' else ''}"), *files], folder, _empty())
    stored = [path for path in frozen.rglob("*") if path.is_file() and not path.is_symlink()]
    return {
        "schema": "spinescore.freezing/1",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": {"cpu": processor_name(), "system": sys.platform, "python": sys.version.split()[0]},
        "pyinstaller": metadata.version("pyinstaller"),
        "packages": _packages(frozen),
        "files": len(stored),
        "megabytes": round(sum(path.stat().st_size for path in stored) / 1e6),
        "same_report": _timeless(found["report"]) == _timeless(plain["report"]),
        "total": found["report"]["total"]["value"],
        "decoders": sorted({view["radiograph"]["decoder"] for view in found["report"]["regions"].values()}),
        "decoded_apart": found["decoded_apart"],
        "checked_apart": found["checked_apart"],
    }


def _compressed(files: Sequence[Path], folder: Path) -> list[str]:
    import pydicom
    from pydicom.uid import RLELossless

    folder.mkdir()
    for path in files:
        ds = pydicom.dcmread(path)
        ds.compress(RLELossless)
        ds.save_as(folder / path.name)
    return [str(folder / path.name) for path in files]


def _freeze(program: Path, folder: Path) -> Path:
    """The folder of the frozen program, moved from where it was made."""
    command = [sys.executable, "-m", "PyInstaller", "--onedir", "--noconfirm", "--log-level", "WARN", str(program)]
    subprocess.run(command, cwd=folder, check=True)
    place = folder / "elsewhere" / "console"
    place.parent.mkdir()
    shutil.move(folder / "dist" / "console", place)
    return place


def _empty() -> dict[str, str]:
    """No variable but what Windows needs to start a process at all."""
    return {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}


def _run(command: Sequence[str], folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    run = subprocess.run(command, cwd=folder / "study", env=environment, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def _packages(frozen: Path) -> list[str]:
    names = (path.name.removesuffix(".dist-info") for path in frozen.rglob("*.dist-info"))
    return sorted(name.replace("-", " ") for name in names)


def _timeless(report: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name != "timings_ms"}


if __name__ == "__main__":
    sys.exit(main())
