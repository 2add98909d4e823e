"""Steady state: rounds in which everything that is compared has its turn, so that all see the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spinescore.benchmarks.bench.alone import engine_calls, networks_alone
from spinescore.benchmarks.bench.figures import figures, spread

if TYPE_CHECKING:
    from spinescore.benchmarks.bench.subject import Subject
    from spinescore.benchmarks.peers import Peer
    from spinescore.runtime.scorer import Scorer
    from spinescore.runtime.scoring.report import StudyReport

__all__ = ["SETTLE_S", "Limit", "in_turn", "steady"]

SETTLE_S = 0.2  # the threads of an engine that has just run wait for more work in a loop, and would slow the next one
_STAGES = ("read", "localize", "crop", "grade", "total")
_SEED = 2_000_003
_WHOLE, _NETWORKS = "whole", "networks"


class Limit:
    """At most `runs` rounds, and no new one after `seconds`; one is always run."""

    def __init__(self, runs: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._runs, self._seconds, self._clock = runs, seconds, clock
        self._started = clock()

    def reached(self, done: int) -> bool:
        return done >= self._runs or (done > 0 and self._clock() - self._started >= self._seconds)


def in_turn(
    works: Mapping[str, Callable[[], Any]],
    limit: Limit,
    note: Callable[[str, Any], None] = lambda name, result: None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, list[float]]:
    """Milliseconds of each work, a value per round. `note` is told each result, outside of the timed region.

    The order within a round is drawn anew each time, so that nothing always follows the same.
    """
    found: dict[str, list[float]] = {name: [] for name in works}
    order, names = np.random.default_rng(_SEED), list(works)
    done = 0
    while not limit.reached(done):
        for index in order.permutation(len(names)):
            name = names[index]
            sleep(SETTLE_S)
            started = clock()
            result = works[name]()
            found[name].append((clock() - started) * 1e3)
            note(name, result)
        done += 1
    return found


def steady(
    subject: Subject, scorer: Scorer, peers: Sequence[Peer], warm_up: int, runs: int, seconds: float
) -> dict[str, Any]:
    """The study, its stages, its networks alone and the peers that give the same answers, all timed in turn."""
    work = subject.work(scorer)
    stages: dict[str, list[float]] = {stage: [] for stage in _STAGES}

    def note(name: str, result: Any) -> None:
        for stage in _STAGES if name == _WHOLE else ():
            if (value := getattr(result.timings_ms, stage)) is not None:
                stages[stage].append(value)

    first: StudyReport = work()
    with networks_alone(scorer.bundle, first.device.kind, scorer.choice, subject.options.get("threads")) as networks:
        works = {_WHOLE: work, _NETWORKS: networks, **{f"peer {p.name}": p.score for p in peers if p.same_answers}}
        if warm_up:
            in_turn(works, Limit(warm_up, seconds))
        found = in_turn(works, Limit(runs, seconds), note)
    whole_ms, networks_ms = (float(np.median(found[name])) for name in (_WHOLE, _NETWORKS))
    return {
        "warm_up_rounds": warm_up,
        "rounds": len(found[_WHOLE]),
        "engine_calls": [[*files.values(), batch] for files, batch, _ in engine_calls(scorer.bundle)],
        "whole": figures(found[_WHOLE]),
        "networks": figures(found[_NETWORKS]),
        "stages": {stage: figures(values) for stage, values in stages.items() if values},
        "ratio_of_medians": round(whole_ms / networks_ms, 4),
        "own_ms": round(whole_ms - networks_ms, 2),
        "spread_of_networks": round(spread(found[_NETWORKS]), 3),
        "peers": [_peer(peer, found.get(f"peer {peer.name}"), whole_ms) for peer in peers],
    }


def _peer(peer: Peer, values_ms: list[float] | None, whole_ms: float) -> dict[str, Any]:
    timed = None if values_ms is None else figures(values_ms)
    return {
        **peer.facts(),
        "whole": timed,
        "times_ours": None if values_ms is None else round(float(np.median(values_ms)) / whole_ms, 3),
    }
