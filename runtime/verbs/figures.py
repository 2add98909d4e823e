"""The option `--figures`: the formats of pictures besides PNG."""

from __future__ import annotations

import argparse

from spinescore.runtime.outputs.figures import FIGURE_FORMATS

__all__ = ["add_figures"]


def add_figures(parser: argparse.ArgumentParser, pictures: str = "the picture") -> None:
    """Add `--figures`, for verbs that draw `pictures`: PNG and the formats that it names."""

    def formats(text: str) -> tuple[str, ...]:
        names = [name.strip().lower() for name in text.split(",")]
        for name in names:
            if name not in FIGURE_FORMATS:
                raise argparse.ArgumentTypeError(
                    f"there is no format of figures {name!r}; the formats are {', '.join(FIGURE_FORMATS)}"
                )
        return tuple(dict.fromkeys(("png", *names)))

    text = f"formats of {pictures} besides PNG: svg, pdf or both"
    parser.add_argument("--figures", type=formats, default=("png",), metavar="F[,F]", help=text)
