"""`spinescore console-sdk`: write the C library for consoles, with C++, C# and examples, to a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from spinescore.runtime.verbs import OK, check_out, show

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the argument of `spinescore console-sdk`."""
    text = "folder for the library; earlier files of it there are replaced"
    parser.add_argument("out", type=Path, metavar="DIR", help=text)
    parser.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the library and name its files. Return the exit status."""
    from spinescore.runtime.console import write_sdk

    check_out(arguments.out, "DIR")
    for path in write_sdk(arguments.out):
        show(str(path))
    return OK
