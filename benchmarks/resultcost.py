"""Measures the cost of a study's results.

`python -m spinescore.benchmarks.resultcost [--processes N] [--bundle B] [--out F]`

A phantom study is scored once. Then each of N processes reads the study and its report, and makes each result: once as
the process's first, and again `--again` times. A time covers the call of the public function and, for DICOM objects,
saving them to memory; it includes imports of the first call, and excludes reading the study. Milliseconds of wall time
and of processor time: the median and the maximum of the processes' first results, and of all others.
"""

from __future__ import annotations

import argparse
import io
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spinescore.benchmarks.harness.child import answer, this_module
from spinescore.benchmarks.harness.record import Command
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

__all__ = ["RESULTS", "SCHEMA", "main", "measure"]

SCHEMA = "spinescore.resultcost/2"
_SEED = 1_000_003

Times = list[tuple[float, float]]  # wall and processor time


def _save(*datasets: Any) -> None:
    for ds in datasets:
        ds.save_as(io.BytesIO(), enforce_file_format=True)


RESULTS: dict[str, Callable[[Study, StudyReport], object]] = {
    "structured_report": lambda study, report: _save(structured_report(study, report)),
    "secondary_captures": lambda study, report: _save(*secondary_captures(study, report)),
    "presentation_states": lambda study, report: _save(*presentation_states(study, report)),
    "html": html,
}


def measure(processes: int, again: int, bundle: str) -> dict[str, Any]:
    """Return the figures of every result."""
    from spinescore.runtime.phantom import write_study

    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_study(_SEED, folder / "study")
        with Scorer.open(bundle, device="cpu") as scorer:
            report = scorer.score(load_study(*sorted((folder / "study").glob("*.dcm"))))
        (folder / "report.json").write_text(report.to_json(), encoding="utf-8")
        for kind in RESULTS:
            child = this_module("resultcost", "--child", kind, str(folder), "--again", str(again))
            runs: list[Times] = [answer(child) for _ in range(processes)]
            results[kind] = {
                "first_ms": _figures([run[0] for run in runs]),
                "next_ms": _figures([times for run in runs for times in run[1:]]),
            }
    return results


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
    command = Command("resultcost", SCHEMA, __doc__)
    add = command.options.add_argument
    add("--processes", type=int, default=20, metavar="N", help="processes for each result (20)")
    add("--again", type=int, default=10, metavar="N", help="repetitions after the first in a process (10)")
    add("--bundle", default="phantom-reference", metavar="B", help="bundle (phantom-reference)")
    add("--child", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    arguments = command.start(argv)
    if arguments.child:
        print(json.dumps(_times(arguments.child[0], Path(arguments.child[1]), arguments.again)))
    else:
        command.publish(measure(arguments.processes, arguments.again, arguments.bundle))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
