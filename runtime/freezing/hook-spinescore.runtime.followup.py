# PyInstaller's hook for change over time, which imports its modules by name.
from PyInstaller.utils.hooks import collect_submodules

hiddenimports = collect_submodules("spinescore.runtime.followup")
