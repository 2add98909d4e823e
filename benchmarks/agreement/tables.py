"""The comparison as JSON text, and as Markdown for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from spinescore.benchmarks.agreement.evaluate import ICC_NAMES
from spinescore.benchmarks.agreement.measures import GRADE_FIGURES
from spinescore.benchmarks.agreement.notes import figure_at

__all__ = ["markdown", "to_json"]

_HEADINGS = {"ppv": "PPV", "f1": "F1"}


def to_json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def markdown(document: Mapping[str, Any]) -> str:
    """Tables with 95 % intervals in brackets; `-` is undefined, and the notes say why."""
    inputs, intervals = document["inputs"], document["intervals"]
    blocks = [
        f"# Agreement of {inputs['predicted']['name']} with {inputs['reference']['name']}",
        _summary(document),
        "## Confusion matrix",
        _confusion(document["confusion"]),
        "## Each grade against the rest",
        _per_grade(document),
        "## All grades",
        _table(("figure", "value", "95 % interval"), list(_overall(document))),
        "## Totals",
        _table(("figure", "value", "95 % interval"), list(_totals(document))),
        f"ICC intervals follow from the F distribution, the others from {intervals['resamples']} bootstrap resamples "
        f"of {intervals['clusters']} clusters (unit: {intervals['unit']}; seed {intervals['seed']}).",
    ]
    missing = list(_missing(document))
    if missing:
        blocks += ["## Corners left out", _table(("study", "without a grade", "sites"), missing)]
    if document["notes"]:
        blocks += ["## Notes", "\n".join(f"- {note}" for note in document["notes"])]
    return "\n\n".join(blocks) + "\n"


def _summary(document: Mapping[str, Any]) -> str:
    counts = document["counts"]
    rows = [
        (side, source["name"], source["format"], source["studies"], source["graded"], counts["missing"][side])
        for side, source in document["inputs"].items()
    ]
    table = _table(("side", "name", "format", "studies", "graded corners", "missing"), rows)
    return (
        f"{table}\n\n{counts['pairs']} corners of {counts['studies']} studies have two grades; "
        f"{counts['complete_totals']} studies have two complete totals."
    )


def _confusion(confusion: Sequence[Sequence[int]]) -> str:
    rows = [(f"reference {grade}", *row, sum(row)) for grade, row in enumerate(confusion)]
    rows.append(("all", *(sum(column) for column in zip(*confusion, strict=True)), sum(map(sum, confusion))))
    return _table(("", *(f"predicted {grade}" for grade in range(4)), "all"), rows)


def _per_grade(document: Mapping[str, Any]) -> str:
    roc = document["roc"]
    names = [*GRADE_FIGURES, *(["AUC"] if roc else [])]
    rows = []
    for grade, figures in enumerate(document["per_grade"]):
        areas = [_with(document, roc["per_grade"][grade]["auc"], f"roc.per_grade.{grade}.auc")] if roc else []
        cells = [_with(document, figures[name], f"per_grade.{grade}.{name}") for name in GRADE_FIGURES]
        rows.append((grade, *cells, *areas))
    areas = [_with(document, roc["mean_auc"], "roc.mean_auc")] if roc else []
    rows.append(("mean", *(_with(document, document["mean"][name], f"mean.{name}") for name in GRADE_FIGURES), *areas))
    return _table(("grade", *(_HEADINGS.get(name, name) for name in names)), rows)


def _overall(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for label, name in (("accuracy, four grades", "accuracy"), ("quadratic weighted kappa", "kappa_quadratic")):
        yield label, _number(document[name]), _interval(document["intervals"]["figures"][name])


def _totals(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    drawn = document["intervals"]["figures"]
    for name, label in ICC_NAMES.items():
        icc = document["icc"][name]
        bounds = None if icc["low"] is None else (icc["low"], icc["high"])
        yield f"{label}, {name.replace('_', ' ')}", _number(icc["value"]), _interval(bounds)
    for label, path in (
        ("bias (predicted - reference)", "bland_altman.bias"),
        ("SD of the differences", "bland_altman.sd"),
        ("limit of agreement, lower", "bland_altman.lower"),
        ("limit of agreement, upper", "bland_altman.upper"),
        ("smallest detectable change, from changes", "sdc.from_change.value"),
        ("smallest detectable difference, from single studies", "sdc.from_status.value"),
    ):
        yield label, _number(figure_at(document, path), 2), _interval(drawn[path], 2)


def _missing(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for side, studies in document["missing_corners"].items():
        for entry in studies:
            sites = "all 24" if len(entry["sites"]) == 24 else ", ".join(entry["sites"])
            yield entry["study"], side, sites


def _with(document: Mapping[str, Any], value: float | None, path: str) -> str:
    bounds = document["intervals"]["figures"][path]
    return _number(value) if bounds is None else f"{_number(value)} ({_interval(bounds)})"


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _interval(bounds: Sequence[float] | None, digits: int = 3) -> str:
    return "-" if bounds is None else f"{bounds[0]:.{digits}f} to {bounds[1]:.{digits}f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table whose columns are aligned, so that it reads as plain text too."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(3, *(len(line[column]) for line in cells)) for column in range(len(header))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
