"""Pictures of agreement as PNG, SVG or PDF bytes. Readable without colour.

Confusion matrix, ROC curves, Bland-Altman plots of totals and of changes, and a heat map of the 24 sites.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spinescore.runtime.outputs.figures import rendered
from spinescore.runtime.text import number_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PICTURES", "bland_altman_picture", "confusion_picture", "pictures_of"]

_DOTS_PER_INCH = 150
_STYLES = ("-", "--", "-.", ":")  # one per grade; grey alone tells too little apart
_MINUS = "\N{MINUS SIGN}"  # as on the axes
_MARKERS = ("o", "s", "^", "D")


def confusion_picture(document: Mapping[str, Any], format: str = "png") -> bytes:
    """Draw counts, and in each row the share of the reference's corners; the darker, the larger the share."""
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
    axes.set(xlabel="predicted grade", ylabel="reference grade")
    kappa = "undefined" if document["kappa_quadratic"] is None else f"{document['kappa_quadratic']:.3f}"
    title = f"{number_of(int(confusion.sum()), 'corner')}: accuracy {document['accuracy']:.3f}, quadratic kappa {kappa}"
    axes.set_title(title, fontsize=10)
    return rendered(figure, format)


def roc_picture(document: Mapping[str, Any], format: str = "png") -> bytes:
    """Draw each grade against the rest, with its own line and marker."""
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
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), ylabel="true positive rate (sensitivity)")
    axes.set_xlabel(f"false positive rate (1 {_MINUS} specificity)")
    axes.set_title(f"One grade against the rest, {number_of(document['roc']['corners'], 'corner')}", fontsize=10)
    axes.legend(loc="lower right", handlelength=4)
    return rendered(figure, format)


def bland_altman_picture(document: Mapping[str, Any], format: str = "png") -> bytes:
    """Draw the difference of the totals over their mean; larger circles are several studies at one place."""
    imputed = document["counts"]["imputed_totals"]
    part = f", {imputed} of them with imputed corners" if imputed else ""
    title = f"{number_of(len(document['totals']), 'study')}{part}"
    return _differences(document["totals"], document["bland_altman"], "", title, format)


def change_picture(document: Mapping[str, Any], format: str = "png") -> bytes:
    """Draw the difference of the changes over their mean; larger circles are several patients at one place."""
    change = document["change"]
    title = f"{number_of(change['patients'], 'patient')}, longest interval of each"
    return _differences(change["intervals"], change["bland_altman"], " change of", title, format)


def _differences(
    values: Sequence[Mapping[str, Any]], limits: Mapping[str, Any], of: str, title: str, format: str
) -> bytes:
    figure, axes = _figure(6.4, 4.4)
    places = [
        ((value["predicted"] + value["reference"]) / 2, value["predicted"] - value["reference"]) for value in values
    ]
    (x, y), counts = np.unique(np.round(places, 6).T, axis=1, return_counts=True)
    axes.scatter(x, y, s=22 * counts, facecolor="0.8", edgecolor="black", linewidth=0.8, zorder=3)
    lines = [("bias", "-", "bias:")]
    if limits["sd"] > 0:  # else three labels would stand on one line
        lines += [("upper", "--", "bias + 1.96 SD:"), ("lower", "--", f"bias {_MINUS} 1.96 SD:")]
    for name, style, text in lines:
        axes.axhline(limits[name], color="black", linestyle=style, linewidth=1)
        label, ends = f"{text} {limits[name]:+.1f}".replace("-", _MINUS), ("axes fraction", "data")
        axes.annotate(label, (1.01, limits[name]), xycoords=ends, va="center", annotation_clip=False)
    axes.axhline(0, color="0.75", linewidth=1, zorder=0)
    several = "; larger circles: several at one place" if counts.max() > 1 else ""
    axes.set_xlabel(f"mean of predicted and reference{of} mSASSS")
    axes.set_ylabel(f"predicted {_MINUS} reference{of.removesuffix(' of')}")
    axes.set_title(title + several, fontsize=10)
    return rendered(figure, format)


def sites_picture(document: Mapping[str, Any], format: str = "png") -> bytes:
    """Draw quadratic kappa and number of corners at each of the 24 sites; the darker, the better the agreement."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 6.4), dpi=_DOTS_PER_INCH, layout="constrained")
    all_axes = figure.subplots(1, 2)
    for region, axes in enumerate(all_axes):
        sites = document["per_site"][12 * region : 12 * region + 12]
        kappas = np.array([[np.nan if s["kappa_quadratic"] is None else s["kappa_quadratic"]] for s in sites])
        axes.imshow(np.clip(kappas, 0, 1), cmap="Greys", vmin=0, vmax=1.25, aspect="auto")
        for row, site in enumerate(sites):
            value = site["kappa_quadratic"]
            kappa = "no kappa" if value is None else f"{value:.2f}".replace("-", _MINUS)
            colour = "white" if value is not None and value > 0.75 else "black"
            axes.text(0, row, f"{kappa}   (n={site['corners']})", ha="center", va="center", color=colour)
            if row % 2 and row < 11:  # between two discs
                axes.axhline(row + 0.5, color="black", linewidth=0.8)
        axes.set_yticks(range(12), [site["site"] for site in sites])
        axes.set_xticks([])
        axes.set_title(("cervical", "lumbar")[region], fontsize=10)
    figure.suptitle("Quadratic weighted kappa of each site, with corners compared", fontsize=10)
    return rendered(figure, format)


def pictures_of(document: Mapping[str, Any], formats: Sequence[str] = ("png",)) -> dict[str, bytes]:
    """Return file name -> picture, of `PICTURES` in each format, without pictures that would show nothing."""
    roc = document["roc"]
    shows = {
        "confusion": True,
        "roc": roc is not None and any(curve["auc"] is not None for curve in roc["per_grade"]),
        "bland-altman": len(document["totals"]) > 1,
        "change": document["change"]["patients"] > 1,
        "sites": any(site["corners"] > 1 and site["kappa_quadratic"] is not None for site in document["per_site"]),
    }
    return {
        f"{name}.{format}": draw(document, format)
        for name, draw in PICTURES.items()
        for format in formats
        if shows[name]
    }


PICTURES: dict[str, Callable[[Mapping[str, Any], str], bytes]] = {
    "confusion": confusion_picture,
    "roc": roc_picture,
    "bland-altman": bland_altman_picture,
    "change": change_picture,
    "sites": sites_picture,
}


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    return figure, axes
