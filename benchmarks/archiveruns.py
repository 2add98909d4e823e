"""A run of `spinescore archive` that is measured: when studies are done, and the memory and processor time it takes."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spinescore.benchmarks.harness.processes import descendants, processor_s, proportional_bytes
from spinescore.runtime.archive.crews import Crews, Opened
from spinescore.runtime.archive.layout import Places
from spinescore.runtime.archive.local import Outcome, Task
from spinescore.runtime.archive.manifest import largest_bytes, make_manifest
from spinescore.runtime.archive.run import score_archive
from spinescore.runtime.archive.scoring import Request
from spinescore.runtime.followup.archivefiles import table_files

__all__ = ["Split", "Timed", "run_archive", "tables_digest"]

Split = tuple["int | None", "int | None"]  # processes, and threads of each; None leaves the choice to the run

_SAMPLE_S = 1.0  # a sample takes 10 ms of a core
_SHARD_STUDIES = 16


class Timed:
    """A way to score that notes when each outcome came, and the memory and processor time of all processes meanwhile.

    `watch` is called at each outcome.
    """

    def __init__(self, way: Crews, watch: Callable[[], None]) -> None:
        self._way, self._watch = way, watch
        self.times_s, self.memory, self.workers_s, self.run_s = [0.0], [0], 0.0, 0.0

    def facts(self) -> dict[str, Any]:
        return self._way.facts()

    def outcomes(self, tasks: Iterator[Task], total: int, opened: Opened, request: Request) -> Iterator[Outcome]:
        times: list[float] = []
        with _sampled() as memory:
            for outcome in self._way.outcomes(tasks, total, opened, request):
                times.append(time.perf_counter())
                if len(times) in (1, total):
                    self.workers_s = sum(map(processor_s, descendants())) - self.workers_s
                    self.run_s = time.process_time() - self.run_s
                self._watch()
                yield outcome
        self.times_s, self.memory = times, memory

    @property
    def rate(self) -> float:
        """Studies a second, from the first outcome to the last."""
        return (len(self.times_s) - 1) / max(self.times_s[-1] - self.times_s[0], 1e-9)

    @property
    def core_ms(self) -> float:
        """Processor time of the workers for each study after the first; without meaning if the run chose its split."""
        return self._each_ms(self.workers_s)

    @property
    def run_core_ms(self) -> float:
        """The same of this process, which feeds the workers, writes the tables and takes the samples."""
        return self._each_ms(self.run_s)

    def _each_ms(self, seconds: float) -> float:
        return seconds * 1e3 / max(len(self.times_s) - 1, 1)


def run_archive(
    studies: Path, tables: Path, bundle: str, split: Split, log: list[str], watch: Callable[[], None] = lambda: None
) -> tuple[Timed, Places]:
    """Score a folder of studies into tables with this split; with None the run chooses."""
    places = Places(tables)
    make_manifest(places, "folder", str(studies), _SHARD_STUDIES, log.append)
    way = Timed(Crews(*split, 600.0, largest_bytes(places), log.append, places.note), watch)
    request = Request(
        bundle, "cpu", None, None, None, 3, False, "no", split[1], False, False, str(studies)
    )  # the arguments of the command without options
    score_archive(places, request, way, log.append)
    return way, places


def tables_digest(tables: Path) -> str:
    """Return one hash of all tables in a folder."""
    content = b"".join(path.read_bytes() for path in table_files(tables))
    return hashlib.sha256(content).hexdigest()


@contextmanager
def _sampled() -> Iterator[list[int]]:
    """Yield a list to which the memory of this process and its descendants is added, once a second."""
    samples, done = [_all_memory()], threading.Event()

    def sample() -> None:
        while not done.wait(_SAMPLE_S):
            samples.append(_all_memory())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        samples.append(_all_memory())
        done.set()
        thread.join()


def _all_memory() -> int:
    """Return the proportional set size of this process and its descendants; 0 if the system does not tell it."""
    return sum(map(proportional_bytes, (os.getpid(), *descendants())))
