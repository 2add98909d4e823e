"""Checks for optional packages: a message names a missing one with the line that installs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from spinescore.runtime.errors import BundleError
from spinescore.runtime.verbs import UsageError

__all__ = ["check_library", "check_plots", "export_extra"]


def check_library(library: str, extra: str, purpose: str, advice: str = "") -> None:
    """Raise UsageError if a library is missing. `purpose` says what it is for, such as `the picture is drawn`."""
    if find_spec(library) is None:
        raise UsageError(f'{purpose} with {library}, which is missing: pip install "spinescore[{extra}]"{advice}')


def check_plots(advice: str = "") -> None:
    """Raise UsageError if pictures cannot be drawn."""
    check_library("matplotlib", "plots", "the picture is drawn", advice)


@contextmanager
def export_extra() -> Iterator[None]:
    """Turn a missing package of the exporter into BundleError, which names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "spinescore").startswith("spinescore"):
            raise
        raise BundleError(
            f'bundles are made and verified with {error.name}, which is missing: pip install "spinescore[export]"'
        ) from error
