"""NVIDIA's own tools on the kernels: compute-sanitizer finds wrong accesses and races, ncu reads the GPU's counters.

They leave the GPU's clocks as they are.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spinescore.benchmarks.gpu.record import FAILED, PASSED, Failed, Figures, Record, Skipped

__all__ = ["run"]

_CUDA = Path("/usr/local/cuda/bin")
_SUMMARIES = {
    "memcheck": re.compile(r"ERROR SUMMARY: (\d+) errors?"),
    "racecheck": re.compile(r"RACECHECK SUMMARY: \d+ hazards? displayed \((\d+) errors?"),
}
_METRICS = {  # of ncu -> the name of the figure
    "gpu__time_duration.sum": "ns",
    "dram__bytes_read.sum": "dram_read_bytes",
    "dram__bytes_write.sum": "dram_written_bytes",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "dram_percent_of_peak",
    "lts__t_sectors_op_read.sum": "l2_sectors_read",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "sm_percent_of_peak",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "occupancy_percent",
    "launch__registers_per_thread": "registers",
}


def run(record: Record, options: Any) -> None:
    """Run the part `tools`."""
    for left, tool in ((3, "memcheck"), (2, "racecheck")):
        record.check(f"compute-sanitizer {tool}", lambda t=tool, n=left: _sanitized(t, record.left_s / n, options))  # type: ignore[misc]
    record.check("ncu", lambda: _counted(record.left_s, options))


def _sanitized(tool: str, seconds: float, options: Any) -> Figures:
    """Run the quick checks of the kernels under one of the sanitizer's tools."""
    settings = ["--tool", tool, "--target-processes", "application-only", "--report-api-errors", "no"]
    output, inner = _part_under("compute-sanitizer", settings, "kernels", seconds, options, quick=True)
    statuses = [check["status"] for check in inner.document["checks"]]
    summary = _SUMMARIES[tool].search(output)
    if summary is None or PASSED not in statuses:
        raise Skipped(f"compute-sanitizer {tool} did not get to its end: {_ending(output)}")
    figures = {"errors": int(summary[1]), "checks": len(statuses), "checks_passed": statuses.count(PASSED)}
    if figures["errors"]:
        lines = [line for line in output.splitlines() if line.startswith("=========")]
        raise Failed(" ".join(line.strip("= ") for line in lines[1:7]), figures)
    if FAILED in statuses:
        raise Failed(f"{statuses.count(FAILED)} checks of the kernels fail under it", figures)
    return figures


def _counted(seconds: float, options: Any) -> Figures:
    """Return the counters of each kernel by its number and name."""
    settings = ["--csv", "--page", "raw", "--print-units", "base", "--clock-control", "none"]
    settings += ["--target-processes", "application-only", "--metrics", ",".join(_METRICS)]
    output, _ = _part_under("ncu", settings, "launches", seconds, options, quick=options.quick)
    lines = [line for line in output.splitlines() if line.startswith('"')]
    rows = [row for row in csv.DictReader(lines) if row["ID"]]  # without the row of the units
    if not rows:
        raise Skipped(f"ncu read no counters: {_ending(output)}")
    return {
        f"{row['ID']} {row['Kernel Name']}": {
            figure: float(row[metric].replace(",", "")) for metric, figure in _METRICS.items() if row.get(metric)
        }
        for row in rows
    }


def _part_under(
    program: str, settings: Sequence[str], part: str, seconds: float, options: Any, *, quick: bool
) -> tuple[str, Record]:
    """Run a part of this command under a program. Returns what both printed, and the part's own record."""
    path = shutil.which(program) or shutil.which(program, path=str(_CUDA))
    if path is None:
        raise Skipped(f"{program} is not installed: it is neither on PATH nor in {_CUDA}")
    record = Record.start(options.scratch / f"{part}-under-{program}.json", {})
    words = ["--out", str(record.path), "--part", part, "--scratch", str(options.scratch)]
    words += ["--seconds", f"{0.8 * seconds:.1f}", *(["--quick"] if quick else [])]
    process = subprocess.Popen(
        [path, *settings, *options.command, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=max(seconds, 1.0))
    except subprocess.TimeoutExpired as error:
        raise Skipped(f"{program} took longer than {seconds:.0f} s") from error
    finally:
        if process.poll() is None:
            _end(process)
            process.communicate()
    return output, Record.resume(record.path)


def _end(process: subprocess.Popen[str]) -> None:
    """End a program and the part that it started."""
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)


def _ending(output: str) -> str:
    return " ".join(output.strip().splitlines()[-3:])[-400:] or "it printed nothing"
