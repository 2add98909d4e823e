"""A record's plots as PNG files in memory; they need matplotlib. Line styles, markers and hatches differ, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spinescore.runtime.outputs.figures import rendered

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

__all__ = ["plots"]

# Okabe and Ito's palette, safe for colour-blind readers.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#767676", "#8B4513")
_MARKERS = "osD^vP*X<"
_HATCHES = {"read": "", "localize": "///", "crop": "xxx", "grade": "...", "rest": "\\\\\\"}
_DPI = 110

Record = Mapping[str, Any]


def plots(record: Record) -> dict[str, bytes]:
    """Return file name -> PNG for every plot that the record has figures for."""
    steady = [result for result in record["results"] if result["steady"]]
    loaded = [result for result in record["results"] if result["load"]]
    files = {}
    if steady:
        files["latency.png"] = _panels(steady, _distribution)
        files["stages.png"] = _stages(steady)
    if loaded:
        files["load.png"] = _panels(loaded, _load)
    return files


def _panels(results: Sequence[Record], draw: Any) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.9 * len(results)), dpi=_DPI)
    for axes, result in zip(np.ravel(figure.subplots(len(results), 1, squeeze=False)), results, strict=True):
        draw(axes, result)
        axes.set_title(_title(result), loc="left", fontsize=11)
        axes.grid(alpha=0.25, which="both")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9)
    figure.tight_layout()
    return rendered(figure)


def _distribution(axes: Axes, result: Record) -> None:
    """Draw the share of studies that took at most x ms; markers at the median, the 90th and the 99th percentile."""
    part = result["steady"]
    series = [("whole study", part["whole"]), ("its networks alone", part["networks"])]
    series += [(peer["title"], peer["whole"]) for peer in part["peers"] if peer["whole"]]
    for number, (name, figures) in enumerate(series):
        count = figures["n"]
        ordered = np.sort([min(figures["samples_ms"]), *figures["samples_ms"]])
        share = 100 * np.arange(count + 1) / count
        style: dict[str, Any] = {"color": _COLOURS[number % len(_COLOURS)], "marker": _MARKERS[number % len(_MARKERS)]}
        marked = sorted({int(np.ceil(q * count)) for q in (0.5, 0.9, 0.99)})
        label = f"{name} ({figures['p50']:.0f} ms)"
        style |= {"linewidth": 2.4 if number == 0 else 1.2, "markevery": marked, "markersize": 6}
        axes.step(ordered, share, "--" if number == 1 else "-", where="post", label=label, **style)
    axes.set(xlabel="milliseconds (marked: median, 90th and 99th percentile)", ylabel="share of studies, %")
    axes.set_ylim(0, 102)
    medians = [figures["p50"] for _, figures in series]
    if max(medians) > 4 * min(medians):
        axes.set_xscale("log")
        _plain_ticks(axes.xaxis)


def _plain_ticks(axis: Axis) -> None:
    """Let a logarithmic axis have ticks at 1, 2, 5, 10, .., written as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _stages(results: Sequence[Record]) -> bytes:
    """Draw the medians of the stages, end to end, above those of the networks alone."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.2 + 1.7 * len(results)), dpi=_DPI)
    for axes, result in zip(np.ravel(figure.subplots(len(results), 1, squeeze=False)), results, strict=True):
        part = result["steady"]
        medians = {name: figures["p50"] for name, figures in part["stages"].items() if name != "total"}
        medians["rest"] = max(0.0, part["whole"]["p50"] - sum(medians.values()))
        left = 0.0
        for number, (name, ms) in enumerate(medians.items()):
            look = {"facecolor": "white", "edgecolor": _COLOURS[number], "hatch": _HATCHES.get(name, "")}
            axes.barh(1, ms, 0.6, left, linewidth=1.2, label=f"{name} {ms:.1f} ms", **look)
            left += ms
        axes.barh(0, part["networks"]["p50"], 0.6, color="#767676", label=f"networks {part['networks']['p50']:.1f} ms")
        axes.set_yticks([1, 0], ["whole study", "networks alone"])
        axes.set(ylim=(-0.5, 1.5), xlabel="milliseconds, medians")
        axes.set_title(_title(result), loc="left", fontsize=11)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.05), frameon=False, fontsize=9)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.tight_layout()
    return rendered(figure)


def _load(axes: Axes, result: Record) -> None:
    """Draw median (line) and 99th percentile (dashes) of the latency at each rate; dotted, the closed loop's rate."""
    for number, step in enumerate(result["load"]):
        x = [rate["achieved_per_s"] for rate in step["open_loop"]]
        look: dict[str, Any] = {"color": _COLOURS[number], "marker": _MARKERS[number], "markersize": 6}
        for percentile, line in (("p50", "-"), ("p99", "--")):
            label = f"{step['concurrent']} at once, {percentile}"
            axes.plot(x, [rate["latency"][percentile] for rate in step["open_loop"]], line, label=label, **look)
        label = f"{step['concurrent']} at once, most"
        axes.axvline(step["most_per_s"], color=_COLOURS[number], linestyle=":", linewidth=1 + number, label=label)
    axes.set(xlabel="studies per second", ylabel="milliseconds from\nthe intended arrival", yscale="log")
    axes.set_xlim(left=0)
    _plain_ticks(axes.yaxis)


def _title(result: Record) -> str:
    device = result["device"]
    return f"{result['bundle']['name']} on {device['name']}: {device['engine']}, {device['precision']}"
