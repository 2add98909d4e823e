"""A summary of a cohort's tables, as numbers and as text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from spinescore.runtime.followup.cohort import Change, Cohort
from spinescore.runtime.followup.comparison import Rules
from spinescore.runtime.text import number_of

__all__ = ["cohort_summary", "summary_text"]

_MOST_LINES = 20
_MET = {"met": True, "not_met": False, "not_known": None}

Rows = Sequence[Mapping[str, Any]]


def cohort_summary(cohort: Cohort, tables: Mapping[str, Rows], whole: Sequence[Change], rules: Rules) -> dict[str, Any]:
    """Return counts of studies, patients and changes, the verdicts from first to last study, and the left out."""
    changes = [change.comparison for change in whole if change.comparison.total.change is not None]
    values = [one.total.change for one in changes if one.total.change is not None]
    verdicts = Counter(one.progression.verdict or "no verdict" for one in changes)
    reasons = Counter(one.progression.reason for one in changes if one.progression.verdict is None)
    numbers = range(len(rules.no_progression_units))
    rules_met = [[one.progression.no_progression[number].met for one in changes] for number in numbers]
    return {
        "studies": len(cohort.entries),
        "patients": len({row["patient_key"] for row in tables["studies"]} - {None}),
        "courses": len(tables["patients"]),
        "changes": len(tables["changes"]),
        "repeats": len(tables["repeats"]),
        "without_course": cohort.without_course(),
        "first_to_last": {
            "changes": len(changes),
            "mean_change": round(sum(values) / len(values), 3) if values else None,
            "verdicts": {name: verdicts[name] for name in ("progression", "no progression", "undecided", "no verdict")},
            "no_verdict_reasons": dict(sorted((str(reason), count) for reason, count in reasons.items())),
            "progression_units": rules.progression_units,
            "no_progression": [
                {"units": units, **{name: met.count(value) for name, value in _MET.items()}}
                for units, met in zip(rules.no_progression_units, rules_met, strict=True)
            ],
        },
        "left_out": [dict(row) for row in tables["left_out"]],
        "passed_over": list(cohort.notes),
        "remarks": list(cohort.remarks),
        "notices": [asdict(notice) for notice in cohort.notices],
    }


def summary_text(summary: Mapping[str, Any]) -> str:
    """Return the summary as lines for a terminal; a long list of patients left out is cut."""
    lines = [
        f"{number_of(summary['studies'], 'study')} of {number_of(summary['patients'], 'patient')} with a key; "
        f"passed over: {len(summary['passed_over'])}",
        f"{number_of(summary['courses'], 'course')} (a patient's studies by one bundle or reader) with two studies or "
        f"more, {number_of(summary['changes'], 'change')} from one study to the next",
    ]
    if repeats := summary["repeats"]:
        lines.append(f"{number_of(repeats, 'further study')} of the same patient and day (table repeats)")
    if missing := summary["without_course"]:
        lines.append(f"{number_of(missing, 'study')} without patient key or date, in no course")
    lines += _first_to_last(summary["first_to_last"])
    lines += _left_out(summary["left_out"])
    return "\n".join(lines)


def _first_to_last(counts: Mapping[str, Any]) -> list[str]:
    if not counts["changes"]:
        return []
    verdicts = counts["verdicts"]
    judged = counts["changes"] - verdicts["no verdict"]
    lines = [
        f"from first to last study: mean change {counts['mean_change']:.2f} in "
        f"{number_of(counts['changes'], 'course')}; "
        f"{verdicts['progression']} of {judged} progressed by {counts['progression_units']:g} units or more"
        + (f", {verdicts['undecided']} undecided by missing corners" if verdicts["undecided"] else "")
    ]
    lines += [_no_progression(rule, verdicts["no verdict"]) for rule in counts["no_progression"] if judged]
    lines += [f"  {count} without a verdict: {reason}" for reason, count in _briefly(counts["no_verdict_reasons"])]
    return lines


def _no_progression(rule: Mapping[str, Any], without_verdict: int) -> str:
    undecided = rule["not_known"] - without_verdict
    judged = rule["met"] + rule["not_met"] + undecided
    text = f"  no progression, a change of at most {rule['units']:g}: {rule['met']} of {judged}"
    return text + (f", {undecided} undecided" if undecided else "")


def _briefly(reasons: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return reasons with counts; all intervals outside of the window are counted together."""
    counts: Counter[str] = Counter()
    for reason, count in reasons.items():
        _, years, window = reason.partition(" years lie outside of ")
        counts[f"the interval lies outside of {window}" if years else reason] += count
    return sorted(counts.items())


def _left_out(rows: Rows) -> list[str]:
    if not rows:
        return []
    patients = len({row["patient_key"] or row["reports"] for row in rows})
    lines = [f"{patients} left out of first to last study (table left_out):"]
    for row in rows[:_MOST_LINES]:
        source = f"{row['scored_by']} {(row['bundle_sha256'] or '')[:8]}".strip()
        lines.append(f"  {row['patient_key'] or row['reports']}: {row['reason']} ({source})")
    return lines + ([f"  and {len(rows) - _MOST_LINES} more"] if len(rows) > _MOST_LINES else [])
