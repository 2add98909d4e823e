"""Measures the cost of a study's results.

`python -m spinescore.benchmarks.resultcost [--processes N] [--bundle B] [--out F]`

A phantom study is scored once. Then each of N processes reads the study and its report, and makes each result: once as
the process's first, and again `--again` times. Inside of a time is the call of the public function and, for DICOM
objects, saving them to memory; imports that the first call brings are in it, reading the study is not. Milliseconds of
wall time and of processor time, the median and the maximum of the processes' firsts and of all others.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from spinescore.benchmarks.records import publish
from spinescore.runtime import (
    Scorer,
    Study,
    StudyReport,
    html,
    load_study,
    presentation_states,
    secondary_captures,
    structured_report,
)
from spinescore.runtime.machine.processor import processor_name

__all__ = ["RESULTS", "SCHEMA", "main", "measure"]

SCHEMA = "spinescore.resultcost/1"
_SEED = 1_000_003

Times = list[tuple[float, float]]  # wall and processor time


def _saved(*made: Any) -> None:
    for ds in made:
        ds.save_as(io.BytesIO(), enforce_file_format=True)


RESULTS: dict[str, Callable[[Study, StudyReport], object]] = {
    "structured_report": lambda study, report: _saved(structured_report(study, report)),
    "secondary_captures": lambda study, report: _saved(*secondary_captures(study, report)),
    "presentation_states": lambda study, report: _saved(*presentation_states(study, report)),
    "html": html,
}


def measure(processes: int, again: int, bundle: str) -> dict[str, Any]:
    """The figures of every result."""
    from spinescore.runtime.phantom import write_study

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_study(_SEED, folder / "study")
        with Scorer.open(bundle, device="cpu") as scorer:
            report = scorer.score(load_study(*sorted((folder / "study").glob("*.dcm"))))
        (folder / "report.json").write_text(report.to_json(), encoding="utf-8")
        for kind in RESULTS:
            runs = [_child(kind, folder, again) for _ in range(processes)]
            found[kind] = {
                "first_ms": _figures([run[0] for run in runs]),
                "next_ms": _figures([times for run in runs for times in run[1:]]),
            }
    return found


def _child(kind: str, folder: Path, again: int) -> Times:
    """The times of one kind of result in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, "--child", kind, str(folder), "--again", str(again)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [(wall, cpu) for wall, cpu in json.loads(done.stdout)]


def _times(kind: str, folder: Path, again: int) -> Times:
    """Make a result of the study in `folder` 1 + `again` times."""
    study = load_study(*sorted((folder / "study").glob("*.dcm")))
    report = StudyReport.from_json((folder / "report.json").read_bytes())
    times = []
    for _ in range(1 + again):
        wall, cpu = time.perf_counter(), time.process_time()
        RESULTS[kind](study, report)
        times.append(((time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3))
    return times


def _figures(times: Times) -> dict[str, float]:
    wall, cpu = np.array(times).T
    return {
        "median": round(float(np.median(wall)), 1),
        "max": round(float(wall.max()), 1),
        "cpu_median": round(float(np.median(cpu)), 1),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m spinescore.benchmarks.resultcost", description=__doc__)
    parser.add_argument("--processes", type=int, default=20, metavar="N", help="processes for each result (20)")
    parser.add_argument("--again", type=int, default=10, metavar="N", help="times after the first in a process (10)")
    parser.add_argument("--bundle", default="phantom-reference", metavar="B", help="bundle (phantom-reference)")
    parser.add_argument("--out", type=Path, metavar="F", help="write the figures as JSON")
    parser.add_argument("--child", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child:
        print(json.dumps(_times(arguments.child[0], Path(arguments.child[1]), arguments.again)))
        return 0
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    machine = {"system": platform.platform(), "processor": processor_name(), "cores": os.cpu_count(), "load": load}
    record = {
        "schema": SCHEMA,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": machine,
        "protocol": " ".join(str(__doc__).split()),
        **measure(arguments.processes, arguments.again, arguments.bundle),
    }
    publish(record, arguments.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
