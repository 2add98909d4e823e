"""Figures of matplotlib as files in memory: PNG for the screen, SVG and PDF for print.

The same figure always gives the same bytes.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinescore.runtime.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FIGURE_FORMATS", "figure_formats", "rendered", "write_figure"]

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


def write_figure(folder: Path, name: str, figure: Figure | None, formats: Sequence[str]) -> list[Path]:
    """Write a figure in these formats, and return the paths. Its other files, of an earlier call, are removed."""
    written = []
    for file_format in dict.fromkeys((*formats, *FIGURE_FORMATS)):
        path = folder / f"{name}.{file_format}"
        if figure is not None and file_format in formats:
            written.append(write_atomic(path, rendered(figure, file_format)))
        else:
            path.unlink(missing_ok=True)
    return written


def figure_formats(text: str) -> tuple[str, ...]:
    """Return PNG, which is always written, and the formats that `--figures svg,pdf` names. For argparse."""
    names = [name.strip().lower() for name in text.split(",")]
    for name in names:
        if name not in FIGURE_FORMATS:
            raise argparse.ArgumentTypeError(
                f"there is no format of figures {name!r}; the formats are {', '.join(FIGURE_FORMATS)}"
            )
    return tuple(dict.fromkeys(("png", *names)))
