"""Measures the cost of a scorer for the program around it.

`python -m spinescore.benchmarks.embedding [--bundle B] [--out F]`

Phantoms on a CPU, as a console embeds the scorer. Wall time; give the machine nothing else to do.

    arrays    from two arrays (16 bits, facing given) to the report, `radiograph_from_array` included, beside the same
              study already read from DICOM; in turn, `--runs` times. The target for the `ratio` of medians is 1.05.
    busy      `try_score` while another thread scores, which returns None; the target is 1 ms.
    lateness  a thread sleeps 5 ms at a time while another one scores: how late it wakes. The target for p99 is 10 ms.
              Beside it the system's own lateness: `idle`, and `hashing`, while another thread hashes without Python's
              lock.
    cancel    an event is set at a random moment of a study: the time until the call has ended, beside the longest stage
              of a study.
    soak      `--studies` different studies (arrays of several sizes, types and noises): resident memory, descriptors
              and threads after each hundred. Memory should be flat after the first hundred.
"""

from __future__ import annotations

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
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.harness.environment import memory_bytes
from spinescore.benchmarks.harness.record import Command
from spinescore.benchmarks.harness.timing import elapsed_ms, figures
from spinescore.runtime import Cancelled, Radiograph, Scorer, Study, load_study, radiograph_from_array
from spinescore.runtime.phantom.labelled import write_labelled_study

__all__ = ["SCHEMA", "main", "measure"]

SCHEMA = "spinescore.embedding/2"

_SLEEP_S = 0.005
_SIDES = (0.4, 0.55, 0.7, 0.85, 1.0)  # of the phantom's, of the studies of a soak
_DTYPES = (np.uint16, np.int16, np.uint8)
_EVERY = 100  # studies between two looks at memory

Figures = dict[str, Any]


def measure(bundle: str, options: dict[str, Any], runs: int, studies: int) -> Figures:
    """Return all figures of a bundle that is opened with these options of `Scorer.open`."""
    with tempfile.TemporaryDirectory(prefix="spinescore-") as scratch:
        study = load_study(*write_labelled_study(Path(scratch)).files)
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


def _figures(values_ms: Sequence[float]) -> Figures:
    return figures(values_ms, samples=False)


def _arrays(scorer: Scorer, study: Study, runs: int) -> Figures:
    images = [(_brighter(image), image) for image in study.radiographs]
    read = replace(study, read_ms=None)
    times: dict[str, list[float]] = {"dicom": [], "arrays": []}

    def from_arrays() -> object:
        return scorer.score([radiograph_from_array(pixels, region=i.region, facing=i.facing) for pixels, i in images])

    for _ in range(1 + runs):
        times["dicom"].append(elapsed_ms(lambda: scorer.score(read)))
        times["arrays"].append(elapsed_ms(from_arrays))
    medians = {name: float(np.median(taken[1:])) for name, taken in times.items()}
    return {
        **{f"{name}_ms": _figures(taken[1:]) for name, taken in times.items()},
        "ratio": round(medians["arrays"] / medians["dicom"], 4),
    }


def _busy(scorer: Scorer, study: Study, runs: int) -> Figures:
    times: list[float] = []
    with _scoring(scorer, study, runs) as scoring:
        while scoring():
            began = time.perf_counter()
            report = scorer.try_score(study)
            if report is None:  # else it scored between two studies of the other thread
                times.append((time.perf_counter() - began) * 1e3)
            time.sleep(_SLEEP_S)
    return {"try_score_ms": _figures(times), "calls": len(times)}


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
    return {name: _figures(values) for name, values in late.items()}


def _for_s(seconds: float) -> Callable[[], bool]:
    until = time.perf_counter() + seconds
    return lambda: time.perf_counter() < until


def _hash(running: Callable[[], bool]) -> None:
    data = bytes(1 << 24)
    while running():
        hashlib.sha256(data).digest()


def _late(running: Callable[[], bool]) -> list[float]:
    """Return by how many milliseconds each sleep was too long."""
    late_ms: list[float] = []
    while not late_ms or running():
        late_ms.append(elapsed_ms(lambda: time.sleep(_SLEEP_S)) - _SLEEP_S * 1e3)
    return late_ms


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
            reports += 1  # the study ended before the event was set
        except Cancelled:
            times.append((time.perf_counter() - at[0]) * 1e3)
        timer.cancel()
        timer.join()
    return {
        "until_ended_ms": _figures(times or [0.0]),
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
    """Return the picture in another size and type, with its own noise."""
    step = 1 / _SIDES[number % len(_SIDES)]
    pixels = _brighter(image)
    rows, columns = (np.arange(0, length - 1, step).astype(int) for length in pixels.shape)
    random = np.random.default_rng(number)
    greys = pixels[np.ix_(rows, columns)] / max(int(pixels.max()), 1)
    greys = (greys + random.normal(0, 0.01, greys.shape)).clip(0, 1)
    dtype = _DTYPES[number % len(_DTYPES)]
    low, high = (0, 255) if dtype is np.uint8 else (-1000, 3000) if dtype is np.int16 else (0, 4095)
    changed: NDArray[Any] = (low + greys * (high - low)).astype(dtype)
    return radiograph_from_array(changed, region=image.region, facing=image.facing)


def _brighter(image: Radiograph) -> NDArray[Any]:
    """Return the pixels so that larger is brighter."""
    rising = image.table[-1] >= image.table[0]
    return image.pixels if rising else (int(image.pixels.max()) - image.pixels.astype(np.int32)).astype(np.uint16)


@contextmanager
def _scoring(scorer: Scorer, study: Study, runs: int) -> Iterator[Callable[[], bool]]:
    """Score `runs` studies in another thread; yields a function that returns whether it still scores."""
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: [scorer.score(study) for _ in range(runs)])
        yield lambda: not running.done()
        running.result()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write the record."""
    command = Command("embedding", SCHEMA, __doc__)
    add = command.options.add_argument
    add("--bundle", default="phantom-reference", metavar="B", help="the bundle (phantom-reference)")
    add("--engine", metavar="E", help="engine (the fastest that was accepted)")
    add("--precision", metavar="P", help="precision (the fastest that was accepted)")
    add("--threads", type=int, metavar="N", help="threads of the networks (those of the machine)")
    add("--runs", type=int, default=200, metavar="N", help="studies of each figure (200)")
    add("--studies", type=int, default=2000, metavar="N", help="studies of the soak (2000)")
    arguments = command.start(argv)
    options = {name: getattr(arguments, name) for name in ("engine", "precision", "threads")}
    measured = measure(arguments.bundle, options, arguments.runs, arguments.studies)
    command.publish({"bundle": arguments.bundle, "runs": arguments.runs, **measured})
    return 0


if __name__ == "__main__":
    sys.exit(main())
