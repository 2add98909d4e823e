"""Measures the cost of a scorer for the program around it.

`python -m spinescore.benchmarks.embedding [--bundle B] [--out F]`

Phantoms on a CPU, as a console embeds the scorer. Wall time; give the machine nothing else to do.

    arrays    two arrays (16 bits, facing given) to the report, `radiograph_from_array` included, beside the same study
              read from DICOM already; in turn, `--runs` times. `ratio` of the medians is to be at most 1.05.
    busy      `try_score` while another thread scores, which returns None: at most 1 ms.
    lateness  a thread that sleeps 5 ms at a time, while another one scores: how much later than that it wakes. p99 is
              to be at most 10 ms. Beside it the system's own lateness: `idle`, and `hashing`, while another thread
              hashes without Python's lock.
    cancel    an event that is set at a random moment of a study: from then until the call has ended, beside the longest
              stage of a study.
    soak      `--studies` different studies (arrays of several sizes, types and noises): resident memory, descriptors
              and threads after each hundred. Memory is to be flat after the first hundred.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.bench.figures import figures
from spinescore.benchmarks.bench.machine import Watch
from spinescore.benchmarks.bench.memory import memory_bytes
from spinescore.benchmarks.bench.subject import draw_study
from spinescore.benchmarks.records import publish
from spinescore.runtime import Cancelled, Radiograph, Scorer, Study, load_study, radiograph_from_array
from spinescore.runtime.machine.processor import core_count, processor_kind, processor_name

__all__ = ["SCHEMA", "main", "measure"]

SCHEMA = "spinescore.embedding/1"

_SLEEP_S = 0.005
_SIDES = (0.4, 0.55, 0.7, 0.85, 1.0)  # of the phantom's, of the studies of a soak
_DTYPES = (np.uint16, np.int16, np.uint8)
_EVERY = 100  # studies between two looks at memory

Figures = dict[str, Any]


def measure(bundle: str, options: dict[str, Any], runs: int, studies: int) -> Figures:
    """All figures of a bundle that is opened with these options of `Scorer.open`."""
    with tempfile.TemporaryDirectory(prefix="spinescore-") as scratch:
        study = load_study(*draw_study(Path(scratch)).files)
    with Scorer.open(bundle, "cpu", build="no", **options) as scorer:
        report = scorer.score(study)
        return {
            "engine": f"{report.device.engine} {report.device.precision}",
            "arrays": _arrays(scorer, study, runs),
            "busy": _busy(scorer, study, runs),
            "lateness": _lateness(scorer, study, runs),
            "cancel": _cancel(scorer, study, runs),
            "soak": _soak(scorer, study, studies),
        }


def _percentiles(values_ms: Sequence[float]) -> Figures:
    """Count and percentiles, without the series itself."""
    return {name: value for name, value in figures(values_ms).items() if name != "samples_ms"}


def _arrays(scorer: Scorer, study: Study, runs: int) -> Figures:
    images = [(_brighter(image), image) for image in study.radiographs]
    read = replace(study, read_ms=None)
    times: dict[str, list[float]] = {"dicom": [], "arrays": []}
    for _ in range(1 + runs):
        with _timed(times["dicom"]):
            scorer.score(read)
        with _timed(times["arrays"]):
            scorer.score([radiograph_from_array(pixels, region=i.region, facing=i.facing) for pixels, i in images])
    medians = {name: float(np.median(taken[1:])) for name, taken in times.items()}
    return {
        **{f"{name}_ms": _percentiles(taken[1:]) for name, taken in times.items()},
        "ratio": round(medians["arrays"] / medians["dicom"], 4),
    }


def _busy(scorer: Scorer, study: Study, runs: int) -> Figures:
    times: list[float] = []
    with _scoring(scorer, study, runs) as scoring:
        while scoring():
            taken: list[float] = []
            with _timed(taken):
                found = scorer.try_score(study)
            if found is None:  # else it scored between two studies of the other thread
                times += taken
            time.sleep(_SLEEP_S)
    return {"try_score_ms": _percentiles(times), "calls": len(times)}


def _lateness(scorer: Scorer, study: Study, runs: int) -> Figures:
    began = time.perf_counter()
    with _scoring(scorer, study, runs) as scoring:
        scored = _late(scoring)
    took_s = time.perf_counter() - began
    with ThreadPoolExecutor(1) as pool:
        hashing = _for_s(took_s)
        pool.submit(_hash, hashing)
        hashed = _late(hashing)
    idle = _late(_for_s(took_s))
    late = {"scoring_ms": scored, "hashing_ms": hashed, "idle_ms": idle}
    return {name: _percentiles(values) for name, values in late.items()}


def _for_s(seconds: float) -> Callable[[], bool]:
    until = time.perf_counter() + seconds
    return lambda: time.perf_counter() < until


def _hash(goes_on: Callable[[], bool]) -> None:
    data = bytes(1 << 24)
    while goes_on():
        hashlib.sha256(data).digest()


def _late(goes_on: Callable[[], bool]) -> list[float]:
    found = []
    while goes_on():
        began = time.perf_counter()
        time.sleep(_SLEEP_S)
        found.append((time.perf_counter() - began - _SLEEP_S) * 1e3)
    return found


def _cancel(scorer: Scorer, study: Study, runs: int) -> Figures:
    whole_s, longest_ms = 0.0, 0.0
    for _ in range(3):
        marks: list[float] = []
        scorer.score(study, on_stage=lambda *_, marks=marks: marks.append(time.perf_counter()))
        marks.append(time.perf_counter())
        whole_s = max(whole_s, marks[-1] - marks[0])
        longest_ms = max(longest_ms, *np.diff(marks) * 1e3)
    random, times, reports = np.random.default_rng(0), [], 0
    for _ in range(runs):
        cancel, at = threading.Event(), [0.0]

        def give_up(cancel: threading.Event = cancel, at: list[float] = at) -> None:
            at[0] = time.perf_counter()
            cancel.set()

        timer = threading.Timer(random.uniform(0, whole_s), give_up)
        timer.start()
        try:
            scorer.score(study, cancel=cancel)
            reports += 1  # it was done before
        except Cancelled:
            times.append((time.perf_counter() - at[0]) * 1e3)
        timer.cancel()
        timer.join()
    return {
        "until_ended_ms": _percentiles(times or [0.0]),
        "longest_stage_ms": round(longest_ms, 3),
        "done_before": reports,
    }


def _soak(scorer: Scorer, study: Study, studies: int) -> Figures:
    looks: list[Figures] = []
    for number in range(studies):
        scorer.score([_other(image, number) for image in study.radiographs])
        if (number + 1) % _EVERY == 0 or number + 1 == studies:
            looks.append({"studies": number + 1, **_held()})
    later = [look["resident_bytes"] for look in looks if look["resident_bytes"] is not None]
    return {"looks": looks, "growth_bytes": later[-1] - later[0] if later else None}


def _held() -> Figures:
    """Return this process' memory, descriptors (None if the system does not count them) and threads."""
    descriptors = Path("/proc/self/fd")
    return {
        "resident_bytes": memory_bytes()["resident_bytes"],
        "descriptors": len(os.listdir(descriptors)) if descriptors.is_dir() else None,  # noqa: PTH208
        "threads": threading.active_count(),
    }


def _other(image: Radiograph, number: int) -> Radiograph:
    """The picture in another size and type, with noise of its own."""
    step = 1 / _SIDES[number % len(_SIDES)]
    pixels = _brighter(image)
    rows, columns = (np.arange(0, length - 1, step).astype(int) for length in pixels.shape)
    random = np.random.default_rng(number)
    greys = pixels[np.ix_(rows, columns)] / max(int(pixels.max()), 1)
    greys = (greys + random.normal(0, 0.01, greys.shape)).clip(0, 1)
    dtype = _DTYPES[number % len(_DTYPES)]
    low, high = (0, 255) if dtype is np.uint8 else (-1000, 3000) if dtype is np.int16 else (0, 4095)
    made: NDArray[Any] = (low + greys * (high - low)).astype(dtype)
    return radiograph_from_array(made, region=image.region, facing=image.facing)


def _brighter(image: Radiograph) -> NDArray[Any]:
    """The pixels, larger is brighter."""
    rising = image.table[-1] >= image.table[0]
    return image.pixels if rising else (int(image.pixels.max()) - image.pixels.astype(np.int32)).astype(np.uint16)


@contextmanager
def _scoring(scorer: Scorer, study: Study, runs: int) -> Iterator[Callable[[], bool]]:
    """Another thread scores so many studies; yields a function that says whether it still does."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: [scorer.score(study) for _ in range(runs)])
        yield lambda: not running.done()
        running.result()


@contextmanager
def _timed(times_ms: list[float]) -> Iterator[None]:
    began = time.perf_counter()
    yield
    times_ms.append((time.perf_counter() - began) * 1e3)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write the record."""
    parser = argparse.ArgumentParser(prog="python -m spinescore.benchmarks.embedding", description=__doc__)
    parser.add_argument("--bundle", default="phantom-reference", metavar="B", help="the bundle (phantom-reference)")
    parser.add_argument("--engine", metavar="E", help="engine (the fastest that was accepted)")
    parser.add_argument("--precision", metavar="P", help="precision (the same)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of the networks (those of the machine)")
    parser.add_argument("--runs", type=int, default=200, metavar="N", help="studies of each figure (200)")
    parser.add_argument("--studies", type=int, default=2000, metavar="N", help="studies of the soak (2000)")
    parser.add_argument("--out", type=Path, metavar="F", help="write the record as JSON")
    arguments = parser.parse_args(argv)
    watch = Watch()
    options = {name: getattr(arguments, name) for name in ("engine", "precision", "threads")}
    found = measure(arguments.bundle, options, arguments.runs, arguments.studies)
    record = {
        "schema": SCHEMA,
        "protocol": " ".join(str(__doc__).split()),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "hardware": {"cpu": processor_name(), "kind": processor_kind(), "cores": os.cpu_count()},
        "conditions": watch.conditions(core_count()),
        "bundle": arguments.bundle,
        "runs": arguments.runs,
        **found,
    }
    publish(record, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
