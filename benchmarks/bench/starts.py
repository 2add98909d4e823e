"""Cold starts in processes of their own, with their memory; warm starts in this one."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import IO, TYPE_CHECKING, Any

from spinescore.benchmarks.bench.figures import figures
from spinescore.benchmarks.bench.memory import NO_FIGURES
from spinescore.benchmarks.bench.rounds import SETTLE_S
from spinescore.runtime import scorer
from spinescore.runtime.errors import EngineError

if TYPE_CHECKING:
    from spinescore.benchmarks.bench.subject import Points, Subject
    from spinescore.runtime.engines.choice import EngineChoice

__all__ = ["is_compiled", "memory", "starts"]

_MODULE = "spinescore.benchmarks.bench.process"
_COMMAND = [sys.executable, "-m", "spinescore.runtime.cli"]
_LONGEST_S = 300.0


def starts(subject: Subject, times: int) -> dict[str, Any]:
    """Cold: from before the process is made to the line that it writes after its first study, and to its end.

    `command` is `spinescore score` on the study, likewise to its end; left out with a number of threads, which it
    cannot be told. Warm: `Scorer.open` again in a process that has opened the bundle before, and the first study
    after it.
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
            opened = time.perf_counter()
            subject.work(scorer)()
            scored = time.perf_counter()
        warm["open"].append((opened - started) * 1e3)
        warm["first_study"].append((scored - opened) * 1e3)
    return {name: {step: figures(ms) for step, ms in found.items()} for name, found in (("cold", cold), ("warm", warm))}


def memory(
    subject: Subject, kind: str, choice: EngineChoice | None, times: int, localizer: str | None = None
) -> dict[str, Any]:
    """Resident and peak bytes of processes that score, and of others with the same networks and imports alone.

    Medians: what an engine takes for the same networks differs by a tenth from process to process.
    """
    study = _asked(subject, memory=True)
    networks = {**study, "networks": True, "device": kind, "choice": None if choice is None else asdict(choice)}
    networks["localizer"] = localizer
    took: dict[str, list[dict[str, int | None]]] = {"study": [], "networks": []}
    for _ in range(times):
        with _process(study) as lines:
            next(lines)
            took["study"].append(next(lines)["memory"])
        with _process(networks) as lines:
            took["networks"].append(next(lines)["memory"])
    found = {name: _medians(each) for name, each in took.items()}
    peaks = [found[name]["peak_bytes"] for name in ("study", "networks")]
    own = None if None in peaks else peaks[0] - peaks[1]
    return {**found, "own_peak_bytes": own, "reason": NO_FIGURES if own is None else None}


def is_compiled() -> bool:
    """Whether Python has the package's modules compiled on the disk, as it has after an installation."""
    return Path(importlib.util.cache_from_source(scorer.__file__)).exists()


def _medians(processes: list[dict[str, int | None]]) -> dict[str, Any]:
    """Each figure's median, and the peak of every process; None where the system does not tell."""
    values = {name: [process[name] for process in processes] for name in processes[0]}
    known = {name: [value for value in each if value is not None] for name, each in values.items()}
    medians = {name: int(median(each)) if each else None for name, each in known.items()}
    return {**medians, "peaks_bytes": values["peak_bytes"]}


def _cold(subject: Subject) -> dict[str, float]:
    time.sleep(SETTLE_S)
    started = time.perf_counter()
    with _process(_asked(subject, memory=False)) as lines:
        steps: dict[str, float] = next(lines)["steps_ms"]
        scored = time.perf_counter()
    ended = time.perf_counter()
    return {"to_first_score": (scored - started) * 1e3, "to_exit": (ended - started) * 1e3, **steps}


def _command(subject: Subject) -> float:
    options = subject.options
    words = [*map(str, subject.study.files), "--bundle", subject.bundle, "--device", subject.device, "--build", "no"]
    for name in ("engine", "precision", "localizer"):
        words += [f"--{name}", options[name]] if options.get(name) else []
    words += [] if options["require_acceptance"] else ["--unaccepted"]
    with tempfile.TemporaryDirectory(prefix="spinescore-") as folder:
        if subject.points:
            points = Path(folder) / "points.json"
            points.write_text(json.dumps(_as_keypoints(subject.points)), encoding="utf-8")
            words += ["--keypoints", str(points)]
        time.sleep(SETTLE_S)
        started = time.perf_counter()
        command = [*_COMMAND, "score", *words]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LONGEST_S)
        took_ms = (time.perf_counter() - started) * 1e3
    if ended.returncode:
        raise _ended("`spinescore score`", ended.returncode, ended.stderr)
    return took_ms


def _as_keypoints(points: Points) -> dict[str, Any]:
    return {
        region: {level: {"centre_px": pair[0], "anterior_px": pair[1]} for level, pair in levels.items()}
        for region, levels in points.items()
    }


def _asked(subject: Subject, memory: bool) -> dict[str, Any]:
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
def _process(asked: dict[str, Any]) -> Iterator[Iterator[dict[str, Any]]]:
    """The lines of the process as it writes them; on leaving, its end is waited for. Raises `EngineError`."""
    with subprocess.Popen(
        [sys.executable, "-m", _MODULE, json.dumps(asked)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None  # both are pipes
        assert child.stderr is not None
        try:
            yield _lines(child.stdout, child)
            child.wait(_LONGEST_S)
        except BaseException:
            child.kill()
            raise
        if child.returncode:
            raise _of_process(child)


def _lines(stdout: IO[str], child: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    for line in stdout:
        yield json.loads(line)
    child.wait(_LONGEST_S)
    raise _of_process(child)


def _of_process(child: subprocess.Popen[str]) -> EngineError:
    said = child.stderr.read() if child.stderr is not None else ""
    return _ended("The process whose start is timed", child.returncode, said)


def _ended(what: str, status: int, said: str) -> EngineError:
    last = (said.strip().splitlines() or ["nothing was said"])[-1]
    return EngineError(f"{what} ended with status {status}: {last}")
