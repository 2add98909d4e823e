"""Which way to run a bundle is the most accurate within a budget: from measurements, without measuring anything itself.

The order of accuracy, best first (`accuracy`):

    1. two localizer passes before one, then antialiased inputs before one sample a pixel, then heatmaps averaged over
       the bundle's scales and flips before those of one run: what the bundle was made with before what was not, since
       no record says what the difference costs
    2. the bundle's own localizer before its alternatives, in the order of the manifest, which is that of its maker
    3. the share of grades that flip against the reference, then how far points move (median), by the acceptance
       records of this machine: within the tolerances, which every accepted engine keeps. The reference itself, FP32 on
       ONNX Runtime, has none of either. Each localizer is its own reference.

Threads, and whether both views run at once, change no result: of those the fastest is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spinescore.runtime.acceptance import AcceptanceRecord
from spinescore.runtime.errors import EngineError
from spinescore.runtime.manifest import Manifest
from spinescore.runtime.opening.plan import Candidate, Setting
from spinescore.runtime.scoring.budget import Effort

__all__ = [
    "SCREENING_RUNS",
    "Engine",
    "Search",
    "accuracy",
    "engines",
    "least_runs",
    "percentile_ms",
    "search",
    "settings",
    "shortfall",
]

SCREENING_RUNS = 5  # of every setting; what is too slow in their median is given up
_BLOCK_RUNS = 20

Run = tuple[str, list[float]]  # the engine with its version, and the milliseconds of each study
Measure = Callable[[Setting, int], Run]


@dataclass(frozen=True)
class Engine:
    """An engine that may be used, with its cost by the acceptance record; the reference has none."""

    engine: str
    precision: str
    corners: int = 0
    grade_flips: int = 0
    median_shift_px: float = 0.0

    @classmethod
    def of(cls, record: AcceptanceRecord) -> Engine:
        found = record.figures
        return cls(record.engine, record.precision, found.corners, found.grade_flips, found.median_shift_px)


def engines(records: Sequence[AcceptanceRecord], kind: str) -> list[Engine]:
    """Those that were accepted, and on a CPU the reference."""
    return [*([Engine("onnxruntime", "fp32")] if kind == "cpu" else []), *map(Engine.of, records)]


def settings(engine: Engine, manifest: Manifest, kind: str, cores: int, localizer: str | None = None) -> list[Setting]:
    """All ways to run the engine: with less effort; on a CPU all cores or half of them, the views at once or apart."""
    antialiased = max(manifest.localizer.input.antialias, manifest.grader.input.antialias) > 1
    on_cpu = kind == "cpu"
    return [
        Setting(engine.engine, engine.precision, threads, Effort(passes, antialias, apart, test_time), localizer)
        for threads in (sorted({cores, max(1, cores // 2)}, reverse=True) if on_cpu else [None])
        for apart in ((False, True) if on_cpu else (False,))
        for passes in range(manifest.localizer.passes, 0, -1)
        for antialias in ((True, False) if antialiased else (True,))
        for test_time in ((True, False) if manifest.localizer.averaging.runs > 1 else (False,))
    ]


def accuracy(candidate: Candidate, localizers: Sequence[str | None]) -> tuple[int, bool, bool, int, float, float]:
    """Smaller is more accurate; see the module. `localizers` are those of the manifest (`Localizer.names`)."""
    setting, flips = candidate.setting, candidate.grade_flips / max(candidate.corners, 1)
    rank, effort = localizers.index(setting.localizer), setting.effort
    less = (-effort.passes, not effort.antialias, not effort.test_time)
    return (*less, rank, flips, candidate.median_shift_px)


def percentile_ms(times_ms: Sequence[float], percentile: float) -> float:
    """The smallest of the times that so many per cent do not exceed (nearest rank)."""
    return sorted(times_ms)[_rank(percentile, len(times_ms)) - 1]


def _rank(percentile: float, count: int) -> int:
    return max(math.ceil(percentile / 100 * count), 1)


def least_runs(percentile: float) -> int:
    """With fewer, the percentile would be the slowest run by rule. `percentile` is below 100."""
    return math.ceil(100 / (100 - percentile))


@dataclass(frozen=True)
class Search:
    """What was measured, the number of the candidate to take (None: nothing fits), and why engines were left out."""

    candidates: tuple[Candidate, ...]
    choice: int | None
    left_out: tuple[str, ...]


def search(
    pairs: Sequence[tuple[Engine, Setting]], budget_ms: float, percentile: float, runs: int, measure: Measure
) -> Search:
    """The most accurate setting that keeps the budget at the percentile. `pairs` are in the order of the localizers.

    Every setting is measured briefly. Those whose median keeps the budget are then measured in full, the most accurate
    first and of equal ones the fastest, until one keeps it at the percentile; each is given up as soon as it cannot.
    Where none does, the fastest is measured in full all the same, so that it can be said by how much. Raises
    `EngineError` where no engine could be opened.
    """
    left_out: dict[str, None] = {}
    tried: list[tuple[Engine, Setting]] = []
    found: list[Candidate] = []
    for engine, setting in pairs:
        try:
            found.append(_candidate(engine, setting, measure(setting, min(SCREENING_RUNS, runs)), None))
            tried.append((engine, setting))
        except EngineError as error:  # noqa: PERF203  # each engine may be refused for itself
            left_out[str(error)] = None
    if not found:
        raise EngineError(f"No engine of this bundle could be measured. {' '.join(left_out)}")

    def in_full(number: int, patient: bool = False) -> bool:
        engine, setting = tried[number]
        framework, times_ms = "", list[float]()
        while len(times_ms) < runs:
            framework, more = measure(setting, min(_BLOCK_RUNS, runs - len(times_ms)))
            times_ms += more
            late = sum(ms > budget_ms for ms in times_ms)
            if not patient and late > runs - _rank(percentile, runs):  # it cannot be kept any more
                break
        whole = percentile if len(times_ms) >= runs else None
        found[number] = _candidate(engine, setting, (framework, times_ms), whole)
        return _fits(found[number], budget_ms)

    localizers = list(dict.fromkeys(setting.localizer for _, setting in tried))
    order = sorted(range(len(found)), key=lambda n: (accuracy(found[n], localizers), found[n].p50_ms))
    choice = next((n for n in order if found[n].p50_ms <= budget_ms and in_full(n)), None)
    fastest = min(range(len(found)), key=lambda n: found[n].p50_ms)
    if choice is None and found[fastest].tail_ms is None and in_full(fastest, patient=True):
        choice = fastest
    return Search(tuple(found), choice, tuple(left_out))


def shortfall(found: Search, budget_ms: float, percentile: float) -> str:
    """Where nothing fits: by how much, and what would."""
    tails = [(one.tail_ms, str(one.setting)) for one in found.candidates if one.tail_ms is not None]
    tail_ms, nearest = min(tails)
    fastest_ms = min(one.p50_ms for one in found.candidates)
    lines = [
        f"Nothing keeps {budget_ms:g} ms at the {percentile:g}th percentile. The nearest, {nearest}, takes "
        f"{tail_ms:.1f} ms: {tail_ms - budget_ms:.1f} ms too long ({tail_ms / budget_ms:.2f} times the budget).",
        f"What would fit: --budget-ms {math.ceil(tail_ms)}, by what was measured just now.",
    ]
    if fastest_ms <= budget_ms:
        lines.append(f"Half of the studies keep it: the fastest median is {fastest_ms:.1f} ms (see --percentile).")
    return "\n".join([*lines, *found.left_out])


def _candidate(engine: Engine, setting: Setting, run: Run, percentile: float | None) -> Candidate:
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


def _fits(candidate: Candidate, budget_ms: float) -> bool:
    return candidate.tail_ms is not None and candidate.tail_ms <= budget_ms
