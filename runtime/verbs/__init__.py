"""The verbs of the command line, and the exit statuses, messages and checks that they share.

Each verb is a module with `add_arguments`, which adds its options, and a function that takes the parsed arguments and
returns the exit status. `cli` lists the verbs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from spinescore.runtime.verbs.streams import say, show, show_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = [
    "FAULT",
    "NOTHING_SCORED",
    "OK",
    "OVER_BUDGET",
    "REFUSED",
    "USAGE",
    "UsageError",
    "check_out",
    "check_out_file",
    "check_paths",
    "say",
    "show",
    "show_json",
    "unreadable",
]

OK, FAULT, USAGE, NOTHING_SCORED, REFUSED, OVER_BUDGET = range(6)


class UsageError(Exception):
    """An argument that is wrong: it names something that does not exist, or cannot be understood."""


def check_paths(paths: Iterable[Path]) -> None:
    """Raise UsageError, before any work, for a file or folder that does not exist."""
    for path in paths:
        if not path.exists():
            raise UsageError(f"there is no file or folder {path}")


def check_out(folder: Path | None, option: str = "--out") -> None:
    """Raise UsageError, before any work, if the folder for results, or a folder above it, cannot be a folder."""
    for path in () if folder is None else (folder, *folder.parents):
        if path.is_dir():
            return
        if path.exists() or path.is_symlink():
            within = "" if path == folder else f"{folder}: "
            kind = "a file" if path.exists() else "a link that leads nowhere"
            raise UsageError(f"{option} {within}{path} is {kind}; name a folder")


def check_out_file(file: Path | None) -> None:
    """Raise UsageError, before any work, if the file for a result is a folder, or lies below a file."""
    if file is None:
        return
    if file.is_dir():
        raise UsageError(f"--out {file} is a folder; name a file")
    check_out(file.parent)


def unreadable(path: Path, error: OSError) -> UsageError:
    """Return the error for a file that cannot be read, with the system's reason."""
    return UsageError(
        f"{path} cannot be read ({error.strerror or type(error).__name__}); check the path and its rights"
    )
