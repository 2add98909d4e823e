"""Pictures of change, as PNG files in memory; they need matplotlib, and hold nothing that names a patient.

Everything is told apart by shape and words; colour only helps (Okabe and Ito's palette, safe for colour-blind readers).
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.followup.comparison import Comparison, CornerChange, RegionChange, Rules, UnitChange
from spinescore.runtime.followup.summary import amount, corner_event

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["comparison_png", "cumulative_percent", "cumulative_png"]

_BLUE, _VERMILION, _GREY = "#0072B2", "#D55E00", "#767676"
_MARKERS = "osD^v"
_DPI = 110
_GRADES = ("0\nnormal", "1\nerosion,\nsclerosis,\nsquaring", "2\nsyndesmo-\nphyte", "3\nbridge")


def comparison_png(comparison: Comparison) -> bytes:
    """Both studies' grades at each of the 24 sites, with an arrow and a word where one changed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7.2), dpi=_DPI)
    all_axes = figure.subplots(1, 2)
    for axes, (name, region) in zip(all_axes, comparison.regions.items(), strict=True):
        _draw_region(axes, name, region)
    figure.suptitle(_title(comparison), fontsize=13, x=0.02, y=0.985, ha="left", va="top")
    _legend(figure)
    bundle = comparison.followup.bundle
    note = textwrap.shorten(f"Bundle {bundle.name} {bundle.version}: {bundle.intended_use}", 150, placeholder=" ...")
    figure.text(0.02, 0.012, note, fontsize=8.5, color=_GREY)
    figure.subplots_adjust(left=0.085, right=0.985, top=0.87, bottom=0.17, wspace=0.22)
    return _png(figure)


def cumulative_png(changes: Mapping[str, Sequence[float]], rules: Rules, title: str) -> bytes:
    """Cumulative probability plot (Landewe and van der Heijde 2004): each patient a point, sorted by change.

    `changes`: name of a series (a bundle) to its patients' changes.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 5.2), dpi=_DPI)
    axes = figure.subplots()
    colours = (_BLUE, _VERMILION, "#009E73", "#CC79A7", "black")
    for number, (name, values) in enumerate(changes.items()):
        percent, ordered = cumulative_percent(values)
        style = _MARKERS[number % len(_MARKERS)] + "-"
        label = f"{name} (n = {len(ordered)})"
        axes.plot(
            percent, ordered, style, color=colours[number % len(colours)], linewidth=0.8, markersize=5, label=label
        )
    for units, dash in ((rules.progression_units, "--"), (0.0, "-")):
        axes.axhline(units, color=_GREY, linestyle=dash, linewidth=1, zorder=0)
    axes.annotate(
        f"progression: {rules.progression_units:g} or more",
        (100, rules.progression_units),
        xytext=(0, -4),
        textcoords="offset points",
        ha="right",  # where the points are mostly higher
        va="top",
        fontsize=9,
        color=_GREY,
    )
    axes.set(xlim=(-1.5, 101.5), xlabel="cumulative percentage of patients", ylabel="change of mSASSS, units")
    axes.set_title(title, loc="left", fontsize=11)
    axes.margins(y=0.12)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.11), frameon=False, fontsize=9)
    figure.tight_layout()
    return _png(figure)


def cumulative_percent(changes: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cumulative percentages and the changes in their order: patient i of n stands at 100 (i - 0.5) / n."""
    ordered = np.sort(np.asarray(changes, np.float64))
    return 100 * (np.arange(len(ordered)) + 0.5) / len(ordered), ordered


def _draw_region(axes: Axes, name: str, region: RegionChange) -> None:
    places = [(2.6 * number + side, unit, corner) for number, unit in enumerate(region.units)
              for side, corner in enumerate(unit.corners)]  # fmt: skip
    for number in range(0, len(region.units), 2):
        axes.axhspan(2.6 * number - 0.8, 2.6 * number + 1.8, color="black", alpha=0.045, linewidth=0)
    for y, unit, corner in places:
        _draw_corner(axes, y, unit, corner)
    axes.set_yticks([y for y, _, _ in places], [corner.site for _, _, corner in places], fontsize=9)
    axes.set_xticks(range(4), _GRADES, fontsize=9)
    axes.set(xlim=(-0.35, 4.95), ylim=(places[-1][0] + 0.9, -0.9))
    axes.tick_params(length=0)
    axes.grid(axis="x", alpha=0.25)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_title(f"{name}: {_amounts(region.total.baseline, region.total.followup)}", loc="left", fontsize=11)


def _draw_corner(axes: Axes, y: float, unit: UnitChange, corner: CornerChange) -> None:
    before, after = corner.baseline, corner.followup
    if before is not None:
        axes.plot(before, y, "o", markersize=9.5, markerfacecolor="white", markeredgecolor="black", zorder=3)
    if after is not None:
        axes.plot(after, y, "o", markersize=5.5, color=_BLUE, zorder=4)
    if before is not None and after is not None and before != after:
        arrow = {"arrowstyle": "-|>", "color": _VERMILION, "lw": 1.8, "shrinkA": 6, "shrinkB": 4}
        axes.annotate("", (after, y), (before, y), arrowprops=arrow, zorder=2)
    event = corner_event(unit, corner) if corner.change is not None else _missing(corner)
    if event:
        weight = "bold" if corner.change else "normal"
        axes.text(3.25, y, _short(event), va="center", fontsize=8.5, weight=weight, color="black")
    if corner.change is None:
        axes.plot(-0.2, y, "x", markersize=7, color=_GREY, markeredgewidth=1.6)


def _missing(corner: CornerChange) -> str:
    if corner.baseline is None and corner.followup is None:
        return "no grade in either"
    return "no grade at baseline" if corner.baseline is None else "no grade at follow-up"


def _short(event: str) -> str:
    return event.replace("erosion, sclerosis or squaring", "to grade 1").replace(", ", ",\n")


def _legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [], [], marker="o", linestyle="", color="black", markersize=9.5, markerfacecolor="white", label="baseline"
        ),
        Line2D([], [], marker="o", linestyle="", color=_BLUE, markersize=5.5, label="follow-up"),
        Line2D([], [], marker=">", linestyle="-", color=_VERMILION, label="changed"),
        Line2D([], [], marker="x", linestyle="", color=_GREY, markersize=7, label="no grade to compare"),
    ]
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.015, 0.03), ncols=4, frameon=False, fontsize=9)


def _title(comparison: Comparison) -> str:
    total, days = comparison.total, comparison.interval_days
    text = f"mSASSS {_amounts(total.baseline, total.followup)}"
    if total.change is not None:
        text += f", change {'' if total.change <= 0 else '+'}{amount(total.change)}"
    text += (
        f" (possible {total.possible[0]:+d} to {total.possible[1]:+d})" if total.possible[0] < total.possible[1] else ""
    )
    return text if days is None else f"{text}, {days} days apart"


def _amounts(before: float | None, after: float | None) -> str:
    return f"{amount(before)} \N{RIGHTWARDS ARROW} {amount(after)}"


def _png(figure: Figure) -> bytes:
    """The same figure gives the same bytes."""
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()
