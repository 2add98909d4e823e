"""The comparison as JSON text, and as Markdown for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spinescore.benchmarks.agreement.evaluate import ICC_NAMES
from spinescore.benchmarks.agreement.measures import GRADE_FIGURES
from spinescore.benchmarks.agreement.notes import figure_at
from spinescore.runtime.outputs.markdown import markdown_table
from spinescore.runtime.text import number_of

__all__ = ["markdown", "to_json"]

_HEADINGS = {"ppv": "PPV", "f1": "F1"}
_WHY_INTERVAL = {
    True: "Intervals by the F distribution take each total as another patient's, which they are here.",
    False: "Several totals are one patient's, so that the F distribution does not hold for their ICC.",
}
_FIGURES = ("figure", "n", "value", "95 % interval", "interval by")


def to_json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def markdown(document: Mapping[str, Any]) -> str:
    """Return tables with 95 % intervals in brackets; `-` is undefined, and the notes give the reason."""
    inputs, intervals, why = document["inputs"], document["intervals"], _WHY_INTERVAL[document["icc"]["independent"]]
    blocks = [
        f"# Agreement of {inputs['predicted']['name']} with {inputs['reference']['name']}",
        _summary(document),
        "## Confusion matrix",
        _confusion(document["confusion"]),
        "## Each grade against the rest",
        _per_grade(document),
        "## All grades",
        markdown_table(("figure", "value", "95 % interval"), list(_overall(document))),
        "## Each site",
        markdown_table(("site", "corners", "accuracy", "quadratic weighted kappa"), list(_sites(document))),
        "## Totals",
        markdown_table(_FIGURES, list(_totals(document))),
        "## Change",
        *_change(document),
        f"Bootstrap intervals are from {intervals['resamples']} bootstrap resamples of {intervals['clusters']} "
        f"clusters (unit: {intervals['unit']}; seed {intervals['seed']}). {why}",
    ]
    if document["totals_left_out"]:
        left_out = [(entry["study"], entry["reason"]) for entry in document["totals_left_out"]]
        blocks += ["## Studies without two totals", markdown_table(("study", "why"), left_out)]
    missing = list(_missing(document))
    if missing:
        blocks += ["## Corners left out", markdown_table(("study", "without a grade", "sites"), missing)]
    if document["notes"]:
        blocks += ["## Notes", "\n".join(f"- {note}" for note in document["notes"])]
    return "\n\n".join(blocks) + "\n"


def _summary(document: Mapping[str, Any]) -> str:
    counts = document["counts"]
    rows = [
        (side, source["name"], source["format"], source["studies"], source["graded"], counts["missing"][side])
        for side, source in document["inputs"].items()
    ]
    table = markdown_table(("side", "name", "format", "studies", "graded corners", "missing"), rows)
    return (
        f"{table}\n\nTwo grades: {number_of(counts['pairs'], 'corner')} of {number_of(counts['studies'], 'study')}. "
        f"Two totals: {number_of(counts['complete_totals'], 'study')} with all corners, {counts['imputed_totals']} "
        f"more with imputed corners (at most {document['missing_rule']['max_imputed_per_region']} of a region's 12). "
        f"No total on a side: {number_of(counts['left_out_totals'], 'study')}."
    )


def _confusion(confusion: Sequence[Sequence[int]]) -> str:
    rows = [(f"reference {grade}", *row, sum(row)) for grade, row in enumerate(confusion)]
    rows.append(("all", *(sum(column) for column in zip(*confusion, strict=True)), sum(map(sum, confusion))))
    return markdown_table(("", *(f"predicted {grade}" for grade in range(4)), "all"), rows)


def _per_grade(document: Mapping[str, Any]) -> str:
    has_roc = document["roc"] is not None
    rows = []
    for grade in range(4):
        paths = [f"per_grade.{grade}.{name}" for name in GRADE_FIGURES] + [f"roc.per_grade.{grade}.auc"] * has_roc
        rows.append((grade, *(_with(document, path) for path in paths)))
    paths = [f"mean.{name}" for name in GRADE_FIGURES] + ["roc.mean_auc"] * has_roc
    rows.append(("mean", *(_with(document, path) for path in paths)))
    names = [*GRADE_FIGURES, *["AUC"] * has_roc]
    return markdown_table(("grade", *(_HEADINGS.get(name, name) for name in names)), rows)


def _overall(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for label, name in (("accuracy, four grades", "accuracy"), ("quadratic weighted kappa", "kappa_quadratic")):
        yield label, _number(document[name]), _interval(document["intervals"]["figures"][name])


def _sites(document: Mapping[str, Any]) -> Iterator[tuple[str, int, str, str]]:
    for site in document["per_site"]:
        yield site["site"], site["corners"], _number(site["accuracy"]), _number(site["kappa_quadratic"])


def _totals(document: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    studies = number_of(document["icc"]["studies"], "study")
    patients = number_of(document["sdc"]["from_change"]["patients"], "patient")
    yield from _icc(document, "icc", studies, document["icc"]["independent"])
    yield from _limits(document, "bland_altman", studies)
    yield _row(document, "smallest detectable change, from changes", "sdc.from_change.value", patients, 2)
    label = "smallest detectable difference, from single studies"
    yield _row(document, label, "sdc.from_status.value", studies, 2)


def _change(document: Mapping[str, Any]) -> Iterator[str]:
    change = document["change"]
    if not change["patients"]:
        yield "No patient has two dated studies with enough comparable corners on both sides."
        return
    patients = number_of(change["patients"], "patient")
    rows = [*_icc(document, "change.icc", patients, True), *_limits(document, "change.bland_altman", patients)]
    tables = []
    for label, n, path, event in _events(change):
        rows.append(_row(document, f"{label}, same on both sides", f"{path}.agreement", n, 3))
        rows.append(_row(document, f"{label}, kappa", f"{path}.kappa", n, 3))
        (neither, predicted), (reference, both) = event["table"]
        tables.append((label, n, both, predicted, reference, neither))
    yield markdown_table(_FIGURES, rows)
    yield markdown_table(("event", "n", "both sides", "predicted alone", "reference alone", "neither"), tables)
    yield (
        "A change is that of the comparable corners between a patient's first and last study with one (12 / n times "
        "the sum over a region's n corners that are graded at both)."
    )


def _events(change: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    progression = change["progression"]
    low, high = progression["years"]
    label = f"progression (>= {progression['units']:g} units in {low:g} to {high:g} years)"
    yield label, number_of(progression["patients"], "patient"), "change.progression", progression
    for place, event in change["new_syndesmophytes"].items():
        path = f"change.new_syndesmophytes.{place}"
        yield f"new syndesmophyte, per {place}", number_of(event[f"{place}s"], place), path, event


def _icc(document: Mapping[str, Any], path: str, n: str, independent: bool) -> Iterator[tuple[object, ...]]:
    """Yield ICCs; intervals are by the F distribution if all patients differ, else by the bootstrap over patients."""
    for name, label in ICC_NAMES.items():
        words = f"{label}, {name.replace('_', ' ')}"
        if independent:
            value, low, high = (figure_at(document, f"{path}.{name}.{key}") for key in ("value", "low", "high"))
            bounds = None if low is None or high is None else (low, high)
            yield words, n, _number(value), _interval(bounds), "F distribution"
        else:
            yield _row(document, words, f"{path}.{name}.value", n, 3)


def _limits(document: Mapping[str, Any], path: str, n: str) -> Iterator[tuple[object, ...]]:
    for label, name in (
        ("bias (predicted - reference)", "bias"),
        ("SD of the differences", "sd"),
        ("limit of agreement, lower", "lower"),
        ("limit of agreement, upper", "upper"),
    ):
        yield _row(document, label, f"{path}.{name}", n, 2)


def _row(document: Mapping[str, Any], label: str, path: str, n: str, digits: int) -> tuple[object, ...]:
    bounds, unit = document["intervals"]["figures"][path], document["intervals"]["unit"]
    return label, n, _number(figure_at(document, path), digits), _interval(bounds, digits), f"bootstrap by {unit}"


def _missing(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield each missing corner once: under `both` if neither side graded it."""
    missing = document["missing_corners"]
    neither = {entry["study"]: entry["sites"] for entry in missing["both"]}
    for side, studies in missing.items():
        for entry in studies:
            listed = () if side == "both" else neither.get(entry["study"], ())
            if sites := [site for site in entry["sites"] if site not in listed]:
                yield entry["study"], side, "all 24" if len(sites) == 24 else ", ".join(sites)


def _with(document: Mapping[str, Any], path: str) -> str:
    value, bounds = figure_at(document, path), document["intervals"]["figures"][path]
    return _number(value) if bounds is None else f"{_number(value)} ({_interval(bounds)})"


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _interval(bounds: Sequence[float] | None, digits: int = 3) -> str:
    return "-" if bounds is None else f"{bounds[0]:.{digits}f} to {bounds[1]:.{digits}f}"
