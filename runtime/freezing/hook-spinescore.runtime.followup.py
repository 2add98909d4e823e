# PyInstaller's hook of change over time, whose modules are imported by name.
from PyInstaller.utils.hooks import collect_submodules

hiddenimports = collect_submodules("spinescore.runtime.followup")
