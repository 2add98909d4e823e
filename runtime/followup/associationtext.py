"""An analysis of association as Markdown, and as a forest plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from spinescore.runtime.outputs.markdown import markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["forest_figure", "markdown"]

_DPI = 150
_MODELS = ("unadjusted", "adjusted")


def markdown(document: Mapping[str, Any]) -> str:
    """Return the analysis as Markdown; `-` means that a value could not be estimated, and the notes say why."""
    blocks = ["# Exposure and change of the same vertebral unit", _summary(document)]
    for name, outcome in document["outcomes"].items():
        blocks += [f"## {_words(name)}", *_outcome(outcome)]
    if document["left_out"]:
        rows = [(entry["reason"], entry["count"]) for entry in document["left_out"]]
        blocks += ["## Left out", markdown_table(("reason", "count"), rows)]
    if document["notes"]:
        blocks += ["## Notes", "\n".join(f"- {note}" for note in document["notes"])]
    return "\n\n".join(blocks) + "\n"


def forest_figure(document: Mapping[str, Any]) -> Figure | None:
    """Return a plot of the exposure's odds ratios with their 95 % intervals; None if there is none."""
    from matplotlib.figure import Figure

    rows = list(_ratios(document))
    if not rows:
        return None
    figure = Figure(figsize=(9.0, 1.6 + 0.55 * len(rows)), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    for y, (_, model, ratio) in enumerate(rows):
        filled = "black" if model == "unadjusted" else "white"
        axes.plot([ratio["low"], ratio["high"]], [y, y], color="black", linewidth=1.4, zorder=2)
        axes.plot(ratio["odds_ratio"], y, "s", markersize=8, color="black", markerfacecolor=filled, zorder=3)
        axes.text(1.02, y, _interval(ratio), transform=axes.get_yaxis_transform(), va="center")
    axes.axvline(1, color="0.6", linewidth=1, zorder=0)
    axes.set_xscale("log")
    low, high = min(r["low"] for _, _, r in rows), max(r["high"] for _, _, r in rows)
    axes.set_xlim(min(low, 0.8) / 1.15, max(high, 1.25) * 1.15)
    ticks = [tick for tick in _TICKS if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    if len(ticks) > _MOST_TICKS:
        ticks = [tick for tick in ticks if tick in _TICKS[::3]]  # powers of ten
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(rows)), [f"{_words(name)}, {model}" for name, model, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("odds ratio of exposed to unexposed units (logarithmic)")
    title = f"{document['units']} vertebral units of {document['patients']} patients, 95 % intervals"
    axes.set_title(title, fontsize=10)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    return figure


_TICKS = tuple(factor * 10.0**power for power in range(-12, 13) for factor in (1, 2, 5))
_MOST_TICKS = 9


def _ratios(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield the outcome, the model and the numbers of each odds ratio of the exposure."""
    for name, outcome in document["outcomes"].items():
        for model in _MODELS:
            if outcome[model] is not None and outcome[model]["odds_ratios"]:
                yield name, model, outcome[model]["odds_ratios"][0]


def _summary(document: Mapping[str, Any]) -> str:
    between, days = "", document["interval_days"]
    if days is not None:
        between = f" that are {days['least']} to {days['most']} days apart (median {days['median']:g})"
    adjusted = ", ".join(document["adjusted_for"])
    return (
        f"{document['units']} vertebral units of {document['patients']} patients, {document['exposed_units']} of them "
        f"exposed, between two studies{between}."
        + (f" Adjusted for {adjusted}." if adjusted else "")
        + " Odds ratios are by generalized estimating equations (binomial, exchangeable within the patient)."
    )


def _outcome(outcome: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"At risk: {outcome['at_risk']}, {outcome['units']} of {outcome['patients']} patients; "
        f"{outcome['events']} with the event."
    )
    rows = [
        (word, yes, no, no + yes, "-" if no + yes == 0 else f"{100 * yes / (no + yes):.1f} %")
        for word, (no, yes) in zip(("unexposed", "exposed"), outcome["table"], strict=True)
    ]
    yield markdown_table(("unit", "event", "no event", "all", "with event"), rows)
    share = outcome["in_unexposed"]
    if share["share"] is not None:
        part = f"{share['events']} of {share['of']} ({100 * share['share']:.1f} %)"
        yield f"{part} arose in units without the exposure."
    header = ("model", "column", "odds ratio", "95 % interval", "p", "units", "patients")
    yield markdown_table(header, list(_models(outcome)))
    trend = outcome["trend"]
    if trend["patients"]:
        yield "Patients by their number of exposed units at risk:"
        shown = ("exposed units", "patients", "with the event", "events")
        columns = ("exposed_units", "patients", "with_event", "events")
        yield markdown_table(shown, [[row[column] for column in columns] for row in trend["patients"]])
    if trend["z"] is not None:
        yield f"Trend over patients (Cochran and Armitage): z = {trend['z']:.2f}, p = {_p(trend['p'])}."


def _models(outcome: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    for name, model in ((name, outcome[name]) for name in _MODELS if outcome[name] is not None):
        counts = (model["units"], model["patients"])
        if model["reason"] is not None:
            yield (name, "exposure", "-", "-", "-", *counts)
        for ratio in model["odds_ratios"]:
            bounds = f"{_number(ratio['low'])} to {_number(ratio['high'])}"
            yield (name, ratio["column"], _number(ratio["odds_ratio"]), bounds, _p(ratio["p"]), *counts)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float) -> str:
    return f"{value:.2f}" if 0.1 <= value < 100 else f"{value:.3g}"


def _interval(ratio: Mapping[str, float]) -> str:
    return f"{_number(ratio['odds_ratio'])} ({_number(ratio['low'])} to {_number(ratio['high'])})"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
