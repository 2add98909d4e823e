"""How many processes score on this machine, each with how many threads: as asked, or by a short measurement.

Networks scale badly over threads: two processes with one thread each do more than one with two. The measurement scores
the first studies of the run in turn with each split of the cores, and their rows count like all others. Engine and
precision are those of the first scorer, and the number of threads changes no result, so every split gives the same
tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, Protocol

from spinescore.runtime.archive.local import Crew, Outcome, Task
from spinescore.runtime.archive.scoring import Request
from spinescore.runtime.machine.memory import memory_bytes
from spinescore.runtime.machine.processor import core_count

__all__ = ["Crews", "Opened", "Outcomes", "splits"]

_WORTH_MEASURING = 200  # studies; fewer are done before a measurement pays
_PROBE_EACH = 12  # studies of each process in the measurement
_SPARE_BYTES = 512 << 20  # for this process and the system
_USUAL_BYTES = 32 << 20  # of a study's pixels; a server does not say it
_STUDY_FACTOR = 2.5  # memory of a study that is scored, as a multiple of its pixels

Opened = Callable[[dict[str, Any]], Request]
Split = tuple[int, "int | None"]  # processes, and threads of each; None leaves the threads to the engine


class Outcomes(Protocol):
    """A way to score many studies."""

    def outcomes(self, tasks: Iterator[Task], total: int, opened: Opened, request: Request) -> Iterator[Outcome]:
        """Yield the outcome of each study, in any order.

        `opened` gets the facts of every scorer that is opened, and returns the request for those that follow.
        """

    def facts(self) -> dict[str, Any]:
        """Return what the log should say of the machine."""


class Crews:
    """Processes on this machine. `workers` and `threads` are None to choose them here."""

    def __init__(
        self,
        workers: int | None,
        threads: int | None,
        timeout_s: float,
        largest_bytes: int,
        say: Callable[[str], None],
        noted: Callable[..., None],
    ) -> None:
        self._workers, self._threads, self._timeout_s = workers, threads, timeout_s
        self._largest_bytes, self._say, self._noted = largest_bytes, say, noted
        self._rates: dict[Split, float] = {}
        self._split: Split = (1, None)
        self._crew: Crew | None = None
        self._facts: dict[str, Any] = {}

    def facts(self) -> dict[str, Any]:
        """Return the split that was chosen, and the studies a second of each that was measured."""
        rates = {f"{count} x {threads}": round(rate, 3) for (count, threads), rate in self._rates.items()}
        return {"processes": self._split[0], "threads": self._split[1], "studies_a_second": rates}

    def outcomes(self, tasks: Iterator[Task], total: int, opened: Opened, request: Request) -> Iterator[Outcome]:
        """Score the studies; the first of them measure, if there are enough and the split was not asked for."""
        try:
            self._split = splits(self._workers, self._threads)[0]
            self._open(1, replace(request, threads=self._split[1]), opened)
            candidates = self._possible()
            if len(candidates) > 1 and total >= _WORTH_MEASURING:
                for split in candidates:
                    yield from self._probe(self._with(split, opened), split, tasks)
                self._split = max(self._rates, key=lambda split: self._rates[split])
                rates = ", ".join(f"{count} x {threads}: {rate:.2f}" for (count, threads), rate in self._rates.items())
                self._say(f"studies a second by processes x threads: {rates}")
            else:
                self._split = candidates[0]
            yield from self._with(self._split, opened).outcomes(tasks)
        finally:
            self._close()

    def _open(self, count: int, request: Request, opened: Opened) -> Crew:
        self._close()

        def note_facts(facts: dict[str, Any]) -> None:
            self._facts = facts
            self._request = opened(facts)

        self._crew = Crew(request, count, self._timeout_s, note_facts, self._say, self._noted)
        self._crew.wait_until_open()
        return self._crew

    def _with(self, split: Split, opened: Opened) -> Crew:
        """Return a crew with this split: the present one with more or fewer processes, if its threads are the same."""
        count, threads = split
        request = replace(self._request, threads=threads)
        if self._crew is None or threads != self._crew.threads:
            return self._open(count, request, opened)
        self._crew.resize(count, request)
        self._crew.wait_until_open()
        return self._crew

    def _possible(self) -> list[Split]:
        """Return the splits to try, without those for which the memory does not suffice."""
        if self._facts["device"] != "cpu":
            return [(self._workers or 1, self._split[1])]
        candidates = splits(self._workers, self._threads)
        each = self._facts["memory_bytes"] + 2 * _STUDY_FACTOR * (self._largest_bytes or _USUAL_BYTES)
        most = max(1, int((memory_bytes() - _SPARE_BYTES) // max(each, 1)))
        if self._workers is not None or candidates[0][0] <= most:
            return candidates
        self._say(f"processes that score: at most {most}, because of the memory")
        return [(most, self._threads or max(1, core_count() // most)), *(one for one in candidates if one[0] <= most)]

    def _probe(self, crew: Crew, split: Split, tasks: Iterator[Task]) -> Iterator[Outcome]:
        crew.steady_s = []
        yield from crew.outcomes(islice(tasks, _PROBE_EACH * max(split[0], 2)))
        times = crew.steady_s
        self._rates[split] = (len(times) - 1) / max(times[-1] - times[0], 1e-9) if len(times) > 1 else 0.0

    def _close(self) -> None:
        if self._crew is not None:
            self._crew.close()
            self._crew = None


def splits(workers: int | None, threads: int | None) -> list[Split]:
    """Return the ways to share the cores of this machine that are worth a trial, the likely best one first."""
    cores = core_count()
    if workers is not None or threads is not None:
        each = threads or max(1, cores // (workers or 1))
        return [(workers or max(1, cores // each), each)]
    return list(dict.fromkeys([(cores, 1), (max(1, cores // 2), min(2, cores)), (1, cores)]))
