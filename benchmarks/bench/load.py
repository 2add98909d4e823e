"""Many studies at once: how many a machine scores in a second, and the latency of each at a given rate.

Open loop: studies arrive by a clock of their own, whether or not earlier ones are done. The latency of a study counts
from its intended arrival. A loop that sends the next study when the last one is done would ask least when the machine
is slowest, and its percentiles would leave out the waiting (coordinated omission).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spinescore.benchmarks.harness.timing import figures

if TYPE_CHECKING:
    from spinescore.benchmarks.harness.subject import Subject

__all__ = ["Served", "arrivals", "closed_loop", "load", "open_loop"]

_SHARES = (0.3, 0.5, 0.7, 0.9)  # of the throughput that a closed loop reaches
_LEAST = 5  # studies at each rate
_SEED = 2_000_003

Clock = Callable[[], float]
Serve = Callable[[int], Any]  # the worker's number


@dataclass(frozen=True)
class Served:
    """Latencies from the intended arrival, in that order; `seconds` last from the start to the last end."""

    latencies_ms: list[float]
    seconds: float

    @property
    def per_s(self) -> float:
        return len(self.latencies_ms) / self.seconds


def load(subject: Subject, most: int, seconds: float, cores: int) -> list[dict[str, Any]]:
    """Measure 1, 2, 4 .. `most` studies at once; each worker has a scorer and an equal share of the cores."""
    counts = sorted({*(2**power for power in range(most.bit_length()) if 2**power < most), most})
    return [_with_workers(subject, count, seconds / len(counts), max(1, cores // count)) for count in counts]


def _with_workers(subject: Subject, workers: int, seconds: float, threads: int) -> dict[str, Any]:
    share = seconds / (1 + len(_SHARES))
    with ExitStack() as opened:
        works = [subject.work(opened.enter_context(subject.open(threads))) for _ in range(workers)]
        for work in works:
            work()
        most = closed_loop(lambda worker: works[worker](), workers, share)
        steps = []
        for rate in (share_of * most.per_s for share_of in _SHARES):
            served = open_loop(arrivals(rate, share, _SEED), lambda worker: works[worker](), workers)
            steps.append(
                {
                    "offered_per_s": round(rate, 4),
                    "achieved_per_s": round(min(rate, served.per_s), 4),  # the last may arrive well before the end
                    "latency": figures(served.latencies_ms),
                }
            )
    return {"concurrent": workers, "threads_each": threads, "most_per_s": round(most.per_s, 4), "open_loop": steps}


def arrivals(per_s: float, seconds: float, seed: int) -> list[float]:
    """Return the seconds at which studies arrive, as a Poisson process with at least five arrivals. Deterministic.

    Given their number, the arrivals of a Poisson process are uniform over its time, here `count / per_s` seconds.
    """
    count = max(_LEAST, round(per_s * seconds))
    times = np.random.default_rng(seed).uniform(0, count / per_s, count)
    return [float(at) for at in np.sort(times)]


def open_loop(
    arrivals_s: Sequence[float],
    serve: Serve,
    workers: int,
    clock: Clock = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Served:
    """Serve the arrivals in order, each by the first worker that is free."""
    latencies = [0.0] * len(arrivals_s)
    numbers, lock = iter(range(len(arrivals_s))), threading.Lock()
    started = clock()

    def work(worker: int) -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            intended = started + arrivals_s[number]
            if (early := intended - clock()) > 0:
                sleep(early)
            serve(worker)
            latencies[number] = (clock() - intended) * 1e3

    _side_by_side(work, workers)
    return Served(latencies, clock() - started)


def closed_loop(serve: Serve, workers: int, seconds: float, clock: Clock = time.perf_counter) -> Served:
    """Let every worker serve one study after the other for `seconds`. The latencies leave out all waiting."""
    latencies: list[float] = []
    started = clock()

    def work(worker: int) -> None:
        while True:
            began = clock()
            serve(worker)
            now = clock()
            latencies.append((now - began) * 1e3)
            if now - started >= seconds:
                return

    _side_by_side(work, workers)
    return Served(latencies, clock() - started)


def _side_by_side(work: Callable[[int], None], workers: int) -> None:
    """Run the work in `workers` threads. After all have ended, an error of one of them is raised here."""
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers)))
