"""Pictures of change as PNG files in memory. They need matplotlib, and contain nothing that names a patient.

Shape and words tell everything apart; colour only helps (Okabe and Ito's palette, safe for colour-blind readers).
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.followup.comparison import (
    Comparison,
    CornerChange,
    RegionChange,
    Rules,
    TotalChange,
    UnitChange,
)
from spinescore.runtime.followup.comparisontext import amount, corner_event, signed, source_line, verdict_words
from spinescore.runtime.outputs.figures import rendered

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["comparison_png", "cumulative_figure", "cumulative_percent"]

_BLUE, _VERMILION, _GREY = "#0072B2", "#D55E00", "#767676"
_COLOURS = (_BLUE, _VERMILION, "#009E73", "#CC79A7", "black")
_MARKERS = "osD^v"
_DPI = 110
_GRADES = ("0\nnormal", "1\nerosion,\nsclerosis,\nsquaring", "2\nsyndesmo-\nphyte", "3\nbridge")


def comparison_png(comparison: Comparison) -> bytes:
    """Return a picture of both studies' grades at the 24 sites, with an arrow and a word for each change."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.7), dpi=_DPI)
    all_axes = figure.subplots(1, 2)
    imputed = _imputed(comparison)
    for axes, (name, region) in zip(all_axes, comparison.regions.items(), strict=True):
        _draw_region(axes, name, region, imputed)
    figure.suptitle(_title(comparison), fontsize=13, x=0.02, y=0.985, ha="left", va="top")
    verdict = textwrap.fill(f"{_interval(comparison)}. {_verdict(comparison)}", 150)
    figure.text(0.02, 0.945, verdict, fontsize=10, va="top")
    _legend(figure, bool(imputed))
    note = "; ".join(map(source_line, dict.fromkeys((comparison.baseline.bundle, comparison.followup.bundle))))
    figure.text(0.02, 0.012, _plain(textwrap.shorten(note, 170, placeholder=" ...")), fontsize=8.5, color=_GREY)
    figure.subplots_adjust(left=0.085, right=0.985, top=0.84, bottom=0.16, wspace=0.22)
    return rendered(figure)


def cumulative_figure(series: Mapping[str, Sequence[Comparison]], rules: Rules) -> Figure:
    """Return the cumulative probability plot of changes from first to last study, with intervals as thin lines.

    It has a point per patient, sorted by change (Landewe and van der Heijde 2004). `series` has the patients'
    comparisons by name: a bundle, a reader or an arm.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 5.4), dpi=_DPI)
    axes = figure.subplots()
    has_intervals = False
    for number, (name, comparisons) in enumerate(series.items()):
        pairs = [(part.total.change, part.total.expected) for part in comparisons if part.total.change is not None]
        pairs.sort(key=lambda pair: pair[0])
        percent, ordered = cumulative_percent([change for change, _ in pairs])
        colour, style = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)] + "-"
        label = f"{_plain(name)} (n = {len(ordered)})"
        axes.plot(percent, ordered, style, color=colour, linewidth=0.8, markersize=5, label=label)
        bounds = [(x, *one.interval) for x, (_, one) in zip(percent, pairs, strict=True) if one is not None]
        if bounds:
            has_intervals = True
            x, low, high = zip(*bounds, strict=True)
            beside = np.array(x) + 0.4 * number  # else series with equal numbers of patients hide each other's lines
            axes.vlines(beside, low, high, color=colour, linewidth=0.8, alpha=0.5, zorder=1)
    if has_intervals:
        axes.plot([], [], "|", color=_GREY, markersize=11, label="95 % interval by the network's own probabilities")
    _thresholds(axes, rules)
    axes.set(xlim=(-1.5, 101.5), xlabel="cumulative percentage of patients", ylabel="change of mSASSS, units")
    axes.set_title(_cumulative_title(series), loc="left", fontsize=11)
    axes.margins(y=0.12)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.11), frameon=False, fontsize=9, ncols=2)
    figure.tight_layout()
    return figure


def _cumulative_title(series: Mapping[str, Sequence[Comparison]]) -> str:
    title = "Change of mSASSS from each patient's first study to the last"
    days = [part.interval_days for parts in series.values() for part in parts if part.interval_days is not None]
    if not days:
        return title
    least, middle, most = (float(value) / 365.25 for value in np.percentile(days, (0, 50, 100)))
    span = f"{least:.1f} to {most:.1f}" if f"{least:.1f}" != f"{most:.1f}" else f"{middle:.1f}"
    return f"{title}\n{span} years between them, median {middle:.1f}"


def _thresholds(axes: Axes, rules: Rules) -> None:
    """Draw a line at each threshold of the rules, with a legend entry, and a line at no change without one."""
    axes.axhline(0, color=_GREY, linewidth=1, zorder=0)
    text = f"progression: {rules.progression_units:g} or more"
    axes.axhline(rules.progression_units, color=_GREY, linestyle="--", linewidth=1, zorder=0, label=text)
    for number, units in enumerate(units for units in rules.no_progression_units if units != 0):
        style = (":", "-.")[number % 2]
        text = f"no progression: {units:g} or less"
        axes.axhline(units, color=_GREY, linestyle=style, linewidth=1, zorder=0, label=text)


def cumulative_percent(changes: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return cumulative percentages and the sorted changes: patient i of n stands at 100 (i - 0.5) / n."""
    ordered = np.sort(np.asarray(changes, np.float64))
    return 100 * (np.arange(len(ordered)) + 0.5) / len(ordered), ordered


def _draw_region(axes: Axes, name: str, region: RegionChange, imputed: frozenset[str]) -> None:
    places = [(2.6 * number + side, unit, corner) for number, unit in enumerate(region.units)
              for side, corner in enumerate(unit.corners)]  # fmt: skip
    for number in range(0, len(region.units), 2):
        axes.axhspan(2.6 * number - 0.8, 2.6 * number + 1.8, color="black", alpha=0.045, linewidth=0)
    for y, unit, corner in places:
        _draw_corner(axes, y, unit, corner, corner.site in imputed)
    axes.set_yticks([y for y, _, _ in places], [corner.site for _, _, corner in places], fontsize=9)
    axes.set_xticks(range(4), _GRADES, fontsize=9)
    axes.set(xlim=(-0.35, 4.95), ylim=(places[-1][0] + 0.9, -0.9))
    axes.tick_params(length=0)
    axes.grid(axis="x", alpha=0.25)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_title(f"{name}: {_amounts(region.total)}", loc="left", fontsize=11)


def _draw_corner(axes: Axes, y: float, unit: UnitChange, corner: CornerChange, imputed: bool) -> None:
    before, after = corner.baseline, corner.followup
    if before is not None:
        axes.plot(before, y, "o", markersize=9.5, markerfacecolor="white", markeredgecolor="black", zorder=3)
    if after is not None:
        axes.plot(after, y, "o", markersize=5.5, color=_BLUE, zorder=4)
    if before is not None and after is not None and before != after:
        arrow = {"arrowstyle": "-|>", "color": _VERMILION, "lw": 1.8, "shrinkA": 6, "shrinkB": 4}
        axes.annotate("", (after, y), (before, y), arrowprops=arrow, zorder=2)
    event = corner_event(unit, corner) if corner.change is not None else _missing(corner, imputed)
    if event:
        weight = "bold" if corner.change else "normal"
        axes.text(3.25, y, _short(event), va="center", fontsize=8.5, weight=weight, color="black")
    if corner.change is None:
        axes.plot(-0.2, y, "P" if imputed else "x", markersize=7, color=_GREY, markeredgewidth=1.6)


def _missing(corner: CornerChange, imputed: bool) -> str:
    study = "baseline" if corner.baseline is None else "follow-up"
    text = "no grade in either" if corner.baseline is None and corner.followup is None else f"no grade at {study}"
    return f"{text}, imputed" if imputed else text


def _imputed(comparison: Comparison) -> frozenset[str]:
    """Return the sites that a total counts with the region's mean."""
    corners = comparison.corner_changes()
    return frozenset(corner.site for corner in corners if "imputed" in (corner.not_comparable or ""))


def _plain(text: str) -> str:
    """Return text from a file, safe for SVG and for matplotlib, which takes text between dollar signs as formula."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return printable.replace("$", "\\$")


def _short(event: str) -> str:
    return event.replace("erosion, sclerosis or squaring", "to grade 1").replace(", ", ",\n")


def _legend(figure: Figure, imputed: bool) -> None:
    from matplotlib.lines import Line2D

    looks: dict[str, dict[str, Any]] = {
        "baseline": {"marker": "o", "color": "black", "markersize": 9.5, "markerfacecolor": "white"},
        "follow-up": {"marker": "o", "color": _BLUE, "markersize": 5.5},
        "changed": {"marker": ">", "linestyle": "-", "color": _VERMILION},
        "no grade to compare": {"marker": "x", "color": _GREY, "markersize": 7},
    }
    if imputed:
        text = "no grade to compare; its region's mean counts in the total"
        looks[text] = {"marker": "P", "color": _GREY, "markersize": 7}
    handles = [Line2D([], [], label=label, **{"linestyle": "", **look}) for label, look in looks.items()]
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.015, 0.03), ncols=5, frameon=False, fontsize=9)


def _title(comparison: Comparison) -> str:
    low, high = comparison.total.possible
    open_ = f" (possible {low:+g} to {high:+g})" if low < high else ""
    return f"mSASSS {_amounts(comparison.total)}{open_}"


def _interval(comparison: Comparison) -> str:
    """Return the dates of both studies and the days between them."""
    dates = (comparison.baseline.study_date, comparison.followup.study_date)
    first, second = (f"{text[:4]}-{text[4:6]}-{text[6:]}" if text else "no date" for text in dates)
    days = "" if comparison.interval_days is None else f", {comparison.interval_days} days"
    return f"{first} to {second}{days}"


def _verdict(comparison: Comparison) -> str:
    """Return the verdict, the expected change, and the smallest detectable change."""
    progression, expected = comparison.progression, comparison.total.expected
    words = verdict_words(progression)
    text = f"{words[:1].upper()}{words[1:]}."
    if expected is not None:
        low, high = expected.interval
        text += f" Expected {expected.mean:+.1f}, 95 % interval {low:+.1f} to {high:+.1f}"
        text += " by the network's own probabilities."
    return text if progression.sdc is None else f"{text} Smallest detectable change {progression.sdc:g}."


def _amounts(total: TotalChange) -> str:
    change = "" if total.change is None else f", change {signed(total.change)}"
    return f"{amount(total.baseline)} \N{RIGHTWARDS ARROW} {amount(total.followup)}{change}"
