"""Records before and after a change: ratios of medians with an interval, and a check that noise cannot fail.

Records come in pairs, before and after, best measured in turn, so that a slow hour of the machine disturbs both. Each
pair gives a ratio of medians; several pairs give their geometric mean. The interval is that of a bootstrap (percentiles
2.5 and 97.5): pairs are drawn with replacement, and in each record blocks of neighbouring values (n^(1/3) long: Kuensch
1989, doi 10.1214/aos/1176347265), since slow moments of a machine come together.

A series is called slower only if the whole interval lies above the limit, and if every median after lies above every
median before by the limit times the ratio that medians of the same program differ by. For a program that did not
change, on a machine whose hours differ by up to 15 % either way, four pairs call it slower 3 times in 100,000
(simulated).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.verbs import UsageError

__all__ = ["compare", "ratio_interval", "text"]

SCHEMA = "spinescore.latency-comparison/1"

_LEAST_PAIRS = 4  # to tell a slower program from a slower hour
_SEED = 2_000_003
_JUDGED = ("whole study", "cold start")

Pair = tuple[Sequence[float], Sequence[float]]


def compare(records: Sequence[Mapping[str, Any]], resamples: int, fail_above: float | None) -> dict[str, Any]:
    """Return the ratios, after to before, of every series that all records have.

    `records` are before, after, before, after, .. Raises `UsageError` if they cannot be compared, or not well enough to
    fail a build on.
    """
    if len(records) < 2 or len(records) % 2:
        raise UsageError(f"records come in pairs, before and after; {len(records)} were given")
    notes = _notes(records)
    if fail_above is not None and len(records) < 2 * _LEAST_PAIRS:
        raise UsageError(
            f"--fail-above needs at least {_LEAST_PAIRS} pairs of records, measured in turn: with one pair a slower "
            "hour looks like a slower program"
        )
    if fail_above is not None and notes:
        raise UsageError(f"--fail-above cannot judge these records: {' '.join(notes)}")
    all_series = [_series(record) for record in records]
    shared = [key for key in all_series[0] if all(key in series for series in all_series)]
    if not shared:
        raise UsageError("the records have no bundle and no part in common")
    rows = []
    for bundle, name in shared:
        values = [series[bundle, name] for series in all_series]
        row = _row(list(zip(values[::2], values[1::2], strict=True)), resamples)
        beyond = name in _JUDGED and fail_above is not None and row["interval"][0] > fail_above
        slower = beyond and _apart(values[::2], values[1::2]) > (fail_above or 0)
        rows.append({"bundle": bundle, "series": name, **row, "slower": slower})
    return {
        "schema": SCHEMA,
        "pairs": len(records) // 2,
        "resamples": resamples,
        "fail_above": fail_above,
        "notes": notes,
        "engines": {bundle: [_engines(side, bundle) for side in (records[::2], records[1::2])] for bundle, _ in shared},
        "rows": rows,
        "slower": any(row["slower"] for row in rows),
    }


def ratio_interval(
    pairs: Sequence[Pair], resamples: int, seed: int = _SEED
) -> tuple[float, tuple[float, float], list[float]]:
    """Return the ratio (second to first of each pair), its interval, and each pair's own ratio. Deterministic."""
    rng = np.random.default_rng(seed)
    own = [float(np.median(after) / np.median(before)) for before, after in pairs]
    logs = np.stack([_log_medians(b, resamples, rng) - _log_medians(a, resamples, rng) for a, b in pairs], axis=1)
    drawn = rng.integers(0, len(pairs), (resamples, len(pairs)))
    means = np.take_along_axis(logs, drawn, axis=1).mean(axis=1)
    low, high = np.exp(np.percentile(means, [2.5, 97.5]))
    return float(np.exp(np.mean(np.log(own)))), (float(low), float(high)), own


def text(comparison: Mapping[str, Any]) -> str:
    """Return the rows as a table, with the conclusion below."""
    from spinescore.runtime.text import table

    rows = []
    for row in comparison["rows"]:
        low, high = row["interval"]
        cells = [f"{row['before_ms']:.1f}", f"{row['after_ms']:.1f}", f"{row['ratio']:.3f}", f"{low:.3f} to {high:.3f}"]
        rows.append([row["bundle"], row["series"], *cells, "SLOWER" if row["slower"] else _verdict(low, high)])
    header = ["bundle", "", "before ms", "after ms", "ratio", "95 % interval", ""]
    lines = [table(rows, header), ""]
    lines.append(f"Ratios of medians, after to before; pairs of records: {comparison['pairs']}.")
    for bundle, (before, after) in comparison["engines"].items():
        lines.append(f"{bundle}: {before}" + (f" before, {after} after." if after != before else "."))
    if comparison["pairs"] == 1:
        lines.append("One pair cannot tell a slower program from a slower hour: measure several, in turn.")
    lines += comparison["notes"]
    if comparison["fail_above"] is not None:
        state = "slower" if comparison["slower"] else "not shown to be slower"
        lines.append(f"Limit {comparison['fail_above']:g}: {state}.")
    return "\n".join(lines) + "\n"


def _verdict(low: float, high: float) -> str:
    return "faster" if high < 1 else "slower" if low > 1 else "no difference shown"


def _log_medians(values: Sequence[float], resamples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return logarithms of the medians of block resamples."""
    series = np.asarray(values, np.float64)
    count = len(series)
    block = max(1, round(count ** (1 / 3)))
    starts = rng.integers(0, count - block + 1, (resamples, math.ceil(count / block)))
    index = (starts[..., None] + np.arange(block)).reshape(resamples, -1)[:, :count]
    medians: NDArray[np.float64] = np.log(np.median(series[index], axis=1))
    return medians


def _apart(before: Sequence[Sequence[float]], after: Sequence[Sequence[float]]) -> float:
    """Return the least ratio of a median after to one before, divided by the ratio within a side."""
    medians = [[float(np.median(values)) for values in side] for side in (before, after)]
    within = max(max(side) / min(side) for side in medians)
    return min(medians[1]) / max(medians[0]) / within


def _row(pairs: list[Pair], resamples: int) -> dict[str, Any]:
    ratio, interval, own = ratio_interval(pairs, resamples)
    before, after = (float(np.median([np.median(pair[side]) for pair in pairs])) for side in (0, 1))
    return {
        "before_ms": round(before, 3),
        "after_ms": round(after, 3),
        "ratio": round(ratio, 4),
        "interval": [round(value, 4) for value in interval],
        "pairs": [round(value, 4) for value in own],
    }


def _series(record: Mapping[str, Any]) -> dict[tuple[str, str], Sequence[float]]:
    """Return (bundle, name) -> durations, of the first result of each bundle."""
    series: dict[tuple[str, str], Sequence[float]] = {}
    for result in record["results"]:
        parts: list[tuple[str, Any]] = []
        if result["steady"]:
            parts += [("whole study", result["steady"]["whole"]), ("networks alone", result["steady"]["networks"])]
            parts += [(f"  {stage}", figures) for stage, figures in result["steady"]["stages"].items()]
        if result["starts"]:
            cold, warm = result["starts"]["cold"], result["starts"]["warm"]
            parts += [("cold start", cold["to_first_score"]), ("warm start", warm["open"])]
        for name, figures in parts:
            if figures["samples_ms"] and min(figures["samples_ms"]) > 0:
                series.setdefault((result["bundle"]["name"], name), figures["samples_ms"])
    return series


def _engines(records: Sequence[Mapping[str, Any]], bundle: str) -> str:
    """Return the engines and precisions that ran the bundle."""
    devices = [
        result["device"] for record in records for result in record["results"] if result["bundle"]["name"] == bundle
    ]
    return " and ".join(dict.fromkeys(f"{device['engine']} {device['precision']}" for device in devices))


def _notes(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the doubts about a comparison. Raises `UsageError` if the records are of different studies."""
    studies = {tuple(file["sha256"] for file in record["study"]["files"]) for record in records}
    if len(studies) > 1:
        raise UsageError("the records are of different studies (their files' hashes differ)")
    machines = {(record["hardware"]["cpu"], record["hardware"]["cores"]) for record in records}
    notes = [] if len(machines) == 1 else ["The records are of different machines."]
    dates = [record["date"] for record in records]
    if dates != sorted(dates):
        notes.append("The records were not taken in this order, so not in turn.")
    warned = sum(bool(result["warnings"]) for record in records for result in record["results"])
    if warned:
        notes.append(f"{warned} of the results have warnings of a loaded or restless machine.")
    return notes
