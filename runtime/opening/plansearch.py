"""Find the most accurate way to run a bundle within a budget, from measurements that the caller makes.

The order of accuracy, best first (`accuracy`):

    1. two localizer passes before one; then antialiased inputs before one sample a pixel; then heatmaps averaged over
       the bundle's scales and flips before those of one run. The bundle was made with the former, and no record says
       how much the latter costs.
    2. the bundle's own localizer before its alternatives, in the order of the manifest
    3. the share of grades that flip against the reference; then how far points move (median). Both come from the
       acceptance records of this machine, and are within the tolerances for every accepted engine. The reference, FP32
       on ONNX Runtime, has neither. Each localizer is its own reference.

Threads, and whether both views run at once, change no result: among those the fastest is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spinescore.runtime.acceptance import AcceptanceRecord
from spinescore.runtime.engines.choice import REFERENCE, EngineChoice
from spinescore.runtime.errors import EngineError
from spinescore.runtime.manifest import Manifest
from spinescore.runtime.opening.plan import Candidate, Setting
from spinescore.runtime.scoring.budget import Effort

__all__ = [
    "SCREENING_RUNS",
    "AcceptedEngine",
    "Search",
    "accuracy",
    "engines",
    "least_runs",
    "percentile_ms",
    "search",
    "settings",
    "shortfall",
]

SCREENING_RUNS = 5  # of every setting; a setting whose median is too slow is not measured further
_BLOCK_RUNS = 20

Run = tuple[str, list[float]]  # the engine with its version, and the milliseconds of each study
Measure = Callable[[Setting, int], Run]


@dataclass(frozen=True)
class AcceptedEngine:
    """An engine that may be used, and what it costs in accuracy by its record; the reference costs nothing."""

    choice: EngineChoice
    corners: int = 0
    grade_flips: int = 0
    median_shift_px: float = 0.0

    @classmethod
    def of(cls, record: AcceptanceRecord) -> AcceptedEngine:
        figures = record.figures
        return cls(record.choice, figures.corners, figures.grade_flips, figures.median_shift_px)


def engines(records: Sequence[AcceptanceRecord], kind: str) -> list[AcceptedEngine]:
    """Return the engines of the records, and on a CPU the reference before them."""
    return [*([AcceptedEngine(REFERENCE)] if kind == "cpu" else []), *map(AcceptedEngine.of, records)]


def settings(
    engine: AcceptedEngine, manifest: Manifest, kind: str, cores: int, localizer: str | None = None
) -> list[Setting]:
    """Return all settings of the engine, those with less effort included.

    On a CPU there are settings for all cores and for half of them, and for both views at once and one by one.
    """
    antialiased = max(manifest.localizer.input.antialias, manifest.grader.input.antialias) > 1
    on_cpu, choice = kind == "cpu", engine.choice
    return [
        Setting(choice.engine, choice.precision, threads, Effort(passes, antialias, apart, test_time), localizer)
        for threads in (sorted({cores, max(1, cores // 2)}, reverse=True) if on_cpu else [None])
        for apart in ((False, True) if on_cpu else (False,))
        for passes in range(manifest.localizer.passes, 0, -1)
        for antialias in ((True, False) if antialiased else (True,))
        for test_time in ((True, False) if manifest.localizer.averaging.runs > 1 else (False,))
    ]


def accuracy(candidate: Candidate, localizers: Sequence[str | None]) -> tuple[int, bool, bool, int, float, float]:
    """Return a key by which the most accurate candidate sorts first; the module's text has the order.

    `localizers` are the manifest's, in its order (`Localizer.names`).
    """
    setting, flips = candidate.setting, candidate.grade_flips / max(candidate.corners, 1)
    rank, effort = localizers.index(setting.localizer), setting.effort
    less = (-effort.passes, not effort.antialias, not effort.test_time)
    return (*less, rank, flips, candidate.median_shift_px)


def percentile_ms(times_ms: Sequence[float], percentile: float) -> float:
    """Return the percentile of the times by the nearest rank."""
    return sorted(times_ms)[_rank(percentile, len(times_ms)) - 1]


def _rank(percentile: float, count: int) -> int:
    return max(math.ceil(percentile / 100 * count), 1)


def least_runs(percentile: float) -> int:
    """Return the fewest runs for which the percentile, below 100, is not simply the slowest run."""
    return math.ceil(100 / (100 - percentile))


@dataclass(frozen=True)
class Search:
    """The measurements, the number of the candidate to take (None if none fits), and why engines were left out."""

    candidates: tuple[Candidate, ...]
    choice: int | None
    left_out: tuple[str, ...]


def search(
    pairs: Sequence[tuple[AcceptedEngine, Setting]],
    budget_ms: float,
    percentile: float,
    runs: int,
    measure: Measure,
) -> Search:
    """Find the most accurate setting that keeps the budget at the percentile. `pairs` follow the manifest's localizers.

    Every setting is measured briefly. The settings whose median keeps the budget are then measured in full, the most
    accurate first and among equal ones the fastest, until one keeps the budget at the percentile. A setting is given up
    as soon as it cannot keep it. If no setting does, the fastest is measured in full all the same, to say by how much
    it misses. Raises `EngineError` if no engine can be opened.
    """
    left_out: dict[str, None] = {}
    tried: list[tuple[AcceptedEngine, Setting]] = []
    measured: list[Candidate] = []
    for engine, setting in pairs:
        try:
            measured.append(_candidate(engine, setting, measure(setting, min(SCREENING_RUNS, runs)), None))
            tried.append((engine, setting))
        except EngineError as error:  # noqa: PERF203  # each engine may be refused for itself
            left_out[str(error)] = None
    if not measured:
        raise EngineError(f"No engine of this bundle could be measured. {' '.join(left_out)}")

    def keeps_budget(number: int, patient: bool = False) -> bool:
        engine, setting = tried[number]
        framework, times_ms = "", list[float]()
        while len(times_ms) < runs:
            framework, more = measure(setting, min(_BLOCK_RUNS, runs - len(times_ms)))
            times_ms += more
            late = sum(ms > budget_ms for ms in times_ms)
            if not patient and late > runs - _rank(percentile, runs):  # it can no longer keep the budget
                break
        whole = percentile if len(times_ms) >= runs else None
        measured[number] = _candidate(engine, setting, (framework, times_ms), whole)
        tail_ms = measured[number].tail_ms
        return tail_ms is not None and tail_ms <= budget_ms

    localizers = list(dict.fromkeys(setting.localizer for _, setting in tried))
    order = sorted(range(len(measured)), key=lambda n: (accuracy(measured[n], localizers), measured[n].p50_ms))
    choice = next((n for n in order if measured[n].p50_ms <= budget_ms and keeps_budget(n)), None)
    fastest = min(range(len(measured)), key=lambda n: measured[n].p50_ms)
    if choice is None and measured[fastest].tail_ms is None and keeps_budget(fastest, patient=True):
        choice = fastest
    return Search(tuple(measured), choice, tuple(left_out))


def shortfall(result: Search, budget_ms: float, percentile: float) -> str:
    """Return, for a search in which nothing fits, by how much it misses the budget and what would fit."""
    tails = [(one.tail_ms, str(one.setting)) for one in result.candidates if one.tail_ms is not None]
    tail_ms, nearest = min(tails)
    fastest_ms = min(one.p50_ms for one in result.candidates)
    lines = [
        f"Nothing keeps {budget_ms:g} ms at the {percentile:g}th percentile. The nearest, {nearest}, takes "
        f"{tail_ms:.1f} ms: {tail_ms - budget_ms:.1f} ms too long ({tail_ms / budget_ms:.2f} times the budget).",
        f"What would fit: --budget-ms {math.ceil(tail_ms)}, by what was measured just now.",
    ]
    if fastest_ms <= budget_ms:
        lines.append(f"Half of the studies keep it: the fastest median is {fastest_ms:.1f} ms (see --percentile).")
    return "\n".join([*lines, *result.left_out])


def _candidate(engine: AcceptedEngine, setting: Setting, run: Run, percentile: float | None) -> Candidate:
    framework, times_ms = run
    return Candidate(
        setting,
        framework,
        engine.corners,
        engine.grade_flips,
        round(engine.median_shift_px, 6),
        runs=len(times_ms),
        p50_ms=round(percentile_ms(times_ms, 50), 3),
        tail_ms=None if percentile is None else round(percentile_ms(times_ms, percentile), 3),
    )
