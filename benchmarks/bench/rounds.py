"""Rounds of one study, with its networks alone and the peers in turn; and different studies, each scored once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spinescore.benchmarks.bench.alone import engine_calls, networks_alone
from spinescore.benchmarks.harness.timing import Limit, figures, in_turn, spread
from spinescore.runtime.errors import InputRejected

if TYPE_CHECKING:
    from spinescore.benchmarks.harness.subject import Subject
    from spinescore.benchmarks.peers import Peer
    from spinescore.runtime.phantom.labelled import PhantomStudy
    from spinescore.runtime.scorer import Scorer
    from spinescore.runtime.scoring.report import StudyReport

__all__ = ["steady", "studies"]

_STAGES = ("read", "localize", "crop", "grade", "total")
_WHOLE, _NETWORKS = "whole", "networks"


def steady(
    subject: Subject, scorer: Scorer, peers: Sequence[Peer], warm_up: int, runs: int, seconds: float
) -> dict[str, Any]:
    """Time the study, its stages, its networks alone and the peers that give the same answers."""
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
        times_ms = in_turn(works, Limit(runs, seconds), note)
    whole_ms, networks_ms = (float(np.median(times_ms[name])) for name in (_WHOLE, _NETWORKS))
    return {
        "warm_up_rounds": warm_up,
        "rounds": len(times_ms[_WHOLE]),
        "engine_calls": [[*files.values(), batch] for files, batch, _ in engine_calls(scorer.bundle)],
        "whole": figures(times_ms[_WHOLE]),
        "networks": figures(times_ms[_NETWORKS]),
        "stages": {stage: figures(values) for stage, values in stages.items() if values},
        "ratio_of_medians": round(whole_ms / networks_ms, 4),
        "own_ms": round(whole_ms - networks_ms, 2),
        "spread_of_networks": round(spread(times_ms[_NETWORKS]), 3),
        "peers": [_peer(peer, times_ms.get(f"peer {peer.name}"), whole_ms) for peer in peers],
    }


def _peer(peer: Peer, values_ms: list[float] | None, whole_ms: float) -> dict[str, Any]:
    if values_ms is None:
        return {**peer.facts(), "whole": None, "times_ours": None}
    times_ours = round(float(np.median(values_ms)) / whole_ms, 3)
    return {**peer.facts(), "whole": figures(values_ms), "times_ours": times_ours}


def studies(
    subject: Subject,
    scorer: Scorer,
    given: Sequence[PhantomStudy],
    source: str,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Time each study once, from its paths to the report, until `seconds` are over.

    Files are read once beforehand, so that they are in the page cache, like those of the repeated study. A study that
    cannot be read, or has no region scored, is counted in `not_scored` and not timed.
    """
    values: list[float] = []
    not_scored = 0
    limit = Limit(len(given), seconds)
    for number, study in enumerate(given):
        if limit.reached(number):
            break
        _warm(study.files)
        work = subject.on(study).work(scorer)
        started = clock()
        try:
            scored = any(region.status == "scored" for region in work().regions.values())
            values += [(clock() - started) * 1e3] if scored else []
        except InputRejected:
            scored = False
        not_scored += not scored
    return {
        "source": source,
        "given": len(given),
        "scored": len(values),
        "not_scored": not_scored,
        "whole": figures(values) if values else None,
    }


def _warm(paths: Sequence[Path]) -> None:
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            with suppress(OSError):
                file.read_bytes()
