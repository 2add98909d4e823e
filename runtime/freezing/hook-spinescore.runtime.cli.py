# PyInstaller's hook for the command line, which imports its verbs by name.
from PyInstaller.utils.hooks import collect_data_files, collect_submodules

_PARTS = (
    "spinescore.runtime.verbs",
    "spinescore.export",
    "spinescore.benchmarks.agreement",
    "spinescore.benchmarks.bench",
    "spinescore.runtime.phantom",
)
_TRAINING = ("spinescore.benchmarks.phantom.networks", "spinescore.benchmarks.phantom.train")  # they need PyTorch

hiddenimports = [name for part in _PARTS for name in collect_submodules(part, filter=lambda n: n not in _TRAINING)]
datas = collect_data_files("spinescore.benchmarks")
excludedimports = ["keras", "pytest", "tensorflow", "torch"]
