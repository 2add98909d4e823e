"""Cold starts in processes of their own, with their memory; warm starts in this one."""

from __future__ import annotations

import importlib.util
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from spinescore.benchmarks.harness.child import SPINESCORE, Child, run_child, this_module
from spinescore.benchmarks.harness.environment import NO_FIGURES
from spinescore.benchmarks.harness.timing import SETTLE_S, elapsed_ms, figures
from spinescore.runtime import scorer
from spinescore.runtime.phantom.labelled import keypoints_json

if TYPE_CHECKING:
    from spinescore.benchmarks.harness.subject import Subject
    from spinescore.runtime.engines.choice import EngineChoice

__all__ = ["is_compiled", "memory", "starts"]

_LONGEST_S = 300.0


def starts(subject: Subject, times: int) -> dict[str, Any]:
    """Time cold and warm starts.

    Cold: from before a process is made to the line that it writes after its first study, and to its end. `command` is
    `spinescore score` on the study, likewise to its end; it is left out with a number of threads, since the command has
    no such option. Warm: `Scorer.open` again in a process that has opened the bundle before, and the first study after
    it.
    """
    cold: dict[str, list[float]] = {}
    for _ in range(times):
        for name, value in _cold(subject).items():
            cold.setdefault(name, []).append(value)
        if subject.options.get("threads") is None:
            cold.setdefault("command", []).append(_command(subject))
    warm: dict[str, list[float]] = {"open": [], "first_study": []}
    for _ in range(times):
        time.sleep(SETTLE_S)
        started = time.perf_counter()
        with subject.open() as scorer:
            warm["open"].append((time.perf_counter() - started) * 1e3)
            warm["first_study"].append(elapsed_ms(subject.work(scorer)))
    return {kind: {step: figures(ms) for step, ms in steps.items()} for kind, steps in (("cold", cold), ("warm", warm))}


def memory(
    subject: Subject, kind: str, choice: EngineChoice | None, times: int, localizer: str | None = None
) -> dict[str, Any]:
    """Measure resident and peak bytes of processes that score, and of others with the same networks and imports alone.

    Medians: an engine's memory for the same networks differs by a tenth from process to process.
    """
    study = _request(subject, memory=True)
    chosen = {"choice": None if choice is None else asdict(choice), "localizer": localizer}
    networks = {**study, "networks": True, "device": kind, **chosen}
    used: dict[str, list[dict[str, int | None]]] = {"study": [], "networks": []}
    for _ in range(times):
        for name, request in (("study", study), ("networks", networks)):
            with _process(request) as lines:
                used[name].append(next(line["memory"] for line in lines if "memory" in line))
    medians = {name: _medians(processes) for name, processes in used.items()}
    peaks = [each["peak_bytes"] for each in medians.values()]
    own = None if None in peaks else peaks[0] - peaks[1]
    return {**medians, "own_peak_bytes": own, "reason": NO_FIGURES if own is None else None}


def is_compiled() -> bool:
    """Return whether Python has the package's modules compiled on the disk, as it has after an installation."""
    return Path(importlib.util.cache_from_source(scorer.__file__)).exists()


def _medians(processes: list[dict[str, int | None]]) -> dict[str, Any]:
    """Return each figure's median (None if the system does not tell it), and the peak of every process."""
    values = {name: [process[name] for process in processes] for name in processes[0]}
    told = {name: [value for value in each if value is not None] for name, each in values.items()}
    medians = {name: int(median(each)) if each else None for name, each in told.items()}
    return {**medians, "peaks_bytes": values["peak_bytes"]}


def _cold(subject: Subject) -> dict[str, float]:
    time.sleep(SETTLE_S)
    started = time.perf_counter()
    with _process(_request(subject, memory=False)) as lines:
        steps: dict[str, float] = next(lines)["steps_ms"]
        scored = time.perf_counter()
    ended = time.perf_counter()
    return {"to_first_score": (scored - started) * 1e3, "to_exit": (ended - started) * 1e3, **steps}


def _command(subject: Subject) -> float:
    """Return the milliseconds of `spinescore score` on the study."""
    options = subject.options
    words = [*map(str, subject.study.files), "--bundle", subject.bundle, "--device", subject.device, "--build", "no"]
    for name in ("engine", "precision", "localizer"):
        words += [f"--{name}", options[name]] if options.get(name) else []
    words += [] if options["require_acceptance"] else ["--unaccepted"]
    with tempfile.TemporaryDirectory(prefix="spinescore-") as folder:
        if subject.points:
            points = Path(folder) / "points.json"
            points.write_text(keypoints_json(subject.points), encoding="utf-8")
            words += ["--keypoints", str(points)]
        time.sleep(SETTLE_S)
        return elapsed_ms(lambda: run_child([*SPINESCORE, "score", *words], timeout_s=_LONGEST_S))


def _request(subject: Subject, memory: bool) -> dict[str, Any]:
    return {
        "bundle": subject.bundle,
        "device": subject.device,
        "options": subject.options,
        "files": [str(path) for path in subject.study.files],
        "points": subject.points,
        "memory": memory,
        "networks": False,
        "choice": None,
        "localizer": None,
    }


@contextmanager
def _process(request: dict[str, Any]) -> Iterator[Iterator[dict[str, Any]]]:
    """Yield the lines of `process` as it writes them; on leaving, wait for its end. Raises `EngineError`."""

    def lines() -> Iterator[dict[str, Any]]:
        yield from child
        raise child.failure()

    with Child(this_module("bench.process", json.dumps(request)), _LONGEST_S) as child:
        yield lines()
    if child.status:
        raise child.failure()
