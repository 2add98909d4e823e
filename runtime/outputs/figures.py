"""Figures of matplotlib as files in memory; the same figure always gives the same bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FIGURE_FORMATS", "figure_files", "rendered"]

FIGURE_FORMATS = ("png", "svg", "pdf")

_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def rendered(figure: Figure, file_format: str = "png") -> bytes:
    """Return the figure as a file in one of `FIGURE_FORMATS`; text stays text in SVG and PDF."""
    import matplotlib as mpl

    data = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "spinescore", "svg.fonttype": "none", "pdf.fonttype": 42}):
        figure.savefig(data, format=file_format, metadata=_METADATA[file_format])
    return data.getvalue()


def figure_files(name: str, figure: Figure | None, formats: Sequence[str]) -> dict[str, Callable[[], bytes] | None]:
    """Return a figure's files for `write_set`: in these formats, and None for the others or without a figure."""
    return {
        f"{name}.{one}": partial(rendered, figure, one) if figure is not None and one in formats else None
        for one in dict.fromkeys((*formats, *FIGURE_FORMATS))
    }
