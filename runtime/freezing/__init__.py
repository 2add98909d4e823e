"""What PyInstaller has to know of this package, found by it through the entry point `pyinstaller40`.

`hook-spinescore.runtime.py` brings the modules that are imported by name when they are first asked for, the shipped
bundles and other data, and the optional packages that are installed where the program is frozen.
`hook-spinescore.runtime.followup.py` and `hook-spinescore.runtime.cli.py` add change over time and the verbs if the
program imports them: these bring pandas, Matplotlib and more where they are installed. The hook in `rthooks` runs
at the start of the frozen program and lets it start worker processes: it calls `freeze_support`.

Other freezers need the same, and the program has to call `spinescore.runtime.freeze_support()` first of all.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["hook_dirs"]


def hook_dirs() -> list[str]:
    """The folder of the hooks, for PyInstaller's entry point."""
    return [str(Path(__file__).parent)]
