"""Hooks for PyInstaller, which finds them through the entry point `pyinstaller40`.

`hook-spinescore.runtime.py` adds the modules that are imported by name at their first use, the shipped bundles and
other data, and the optional packages that are installed. `hook-spinescore.runtime.followup.py` and
`hook-spinescore.runtime.cli.py` add change over time and the verbs, if the program imports them; these bring pandas,
Matplotlib and more, if they are installed. The hook in `rthooks` runs at the start of the frozen program and calls
`freeze_support`, so that the program can start worker processes.

Other freezers need the same files, and the program must call `spinescore.runtime.freeze_support()` first.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["hook_dirs"]


def hook_dirs() -> list[str]:
    """Return the folder of the hooks, for PyInstaller's entry point."""
    return [str(Path(__file__).parent)]
