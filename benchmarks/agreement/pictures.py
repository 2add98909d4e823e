"""Pictures of agreement as PNG bytes: confusion matrix, ROC curves, Bland-Altman plot. Readable without colour."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["bland_altman_picture", "confusion_picture", "roc_picture"]

_DOTS_PER_INCH = 150
_STYLES = ("-", "--", "-.", ":")  # one per grade; grey alone tells too little apart
_MINUS = "\N{MINUS SIGN}"  # as on the axes
_MARKERS = ("o", "s", "^", "D")


def confusion_picture(document: Mapping[str, Any]) -> bytes:
    """Counts, and in each row the share of the reference's corners; the darker, the larger that share."""
    confusion = np.array(document["confusion"])
    rows = confusion.sum(axis=1, keepdims=True)
    shares = np.divide(confusion, rows, out=np.zeros(confusion.shape), where=rows > 0)
    figure, axes = _figure(5.2, 4.8)
    axes.imshow(shares, cmap="Greys", vmin=0, vmax=1.25)
    for (row, column), count in np.ndenumerate(confusion):
        share = f"\n{100 * shares[row, column]:.1f} %" if rows[row, 0] else ""
        colour = "white" if shares[row, column] > 0.6 else "black"
        axes.text(column, row, f"{count}{share}", ha="center", va="center", color=colour)
    axes.set_xticks(range(4))
    labels = [f"{grade}\n(n={rows[grade, 0]})" for grade in range(4)]
    axes.set_yticks(range(4), labels, multialignment="center")
    axes.set_xlabel("predicted grade")
    axes.set_ylabel("reference grade")
    kappa = "undefined" if document["kappa_quadratic"] is None else f"{document['kappa_quadratic']:.3f}"
    title = f"{confusion.sum()} corners: accuracy {document['accuracy']:.3f}, quadratic kappa {kappa}"
    axes.set_title(title, fontsize=10)
    return _png(figure)


def roc_picture(document: Mapping[str, Any]) -> bytes:
    """Each grade against the rest, with its own line and marker."""
    figure, axes = _figure(5.2, 5.2)
    axes.plot([0, 1], [0, 1], color="0.75", linewidth=1)
    for grade, curve in enumerate(document["roc"]["per_grade"]):
        if curve["auc"] is None:
            continue
        axes.plot(
            curve["false_positive_rate"],
            curve["true_positive_rate"],
            linestyle=_STYLES[grade],
            marker=_MARKERS[grade],
            markevery=0.12,
            markersize=5,
            color=str(0.15 * grade),
            label=f"grade {grade}: AUC {curve['auc']:.3f}",
        )
    axes.set_aspect("equal")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_xlabel(f"false positive rate (1 {_MINUS} specificity)")
    axes.set_ylabel("true positive rate (sensitivity)")
    axes.set_title(f"One grade against the rest, {document['roc']['corners']} corners", fontsize=10)
    axes.legend(loc="lower right", handlelength=4)
    return _png(figure)


def bland_altman_picture(document: Mapping[str, Any]) -> bytes:
    """Difference of the totals over their mean; larger circles are several studies at one place."""
    totals, limits = document["totals"], document["bland_altman"]
    places = [((t["predicted"] + t["reference"]) / 2, t["predicted"] - t["reference"]) for t in totals]
    (x, y), counts = np.unique(np.array(places).T, axis=1, return_counts=True)
    figure, axes = _figure(6.4, 4.4)
    axes.scatter(x, y, s=22 * counts, facecolor="0.8", edgecolor="black", linewidth=0.8, zorder=3)
    lines = [("bias", "-", "bias:")]
    if limits["sd"] > 0:  # else three labels would stand on one line
        lines += [("upper", "--", "bias + 1.96 SD:"), ("lower", "--", f"bias {_MINUS} 1.96 SD:")]
    for name, style, text in lines:
        axes.axhline(limits[name], color="black", linestyle=style, linewidth=1)
        axes.annotate(
            f"{text} {limits[name]:+.1f}".replace("-", _MINUS),
            (1.01, limits[name]),
            xycoords=("axes fraction", "data"),
            va="center",
            annotation_clip=False,
        )
    axes.axhline(0, color="0.75", linewidth=1, zorder=0)
    axes.set_xlabel("mean of predicted and reference mSASSS")
    axes.set_ylabel(f"predicted {_MINUS} reference")
    several = "; larger circles: several at one place" if counts.max() > 1 else ""
    axes.set_title(f"{len(totals)} studies{several}", fontsize=10)
    return _png(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    return figure, axes


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return file.getvalue()
