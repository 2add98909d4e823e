# PyInstaller's hook for `spinescore.runtime` (see `spinescore.runtime.freezing`). PyInstaller reads four lists:
# hiddenimports, datas, binaries and excludedimports.
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec

from PyInstaller.utils.hooks import (
    collect_data_files,
    collect_dynamic_libs,
    collect_submodules,
    copy_metadata,
)

from spinescore.runtime.engines import ENGINES
from spinescore.runtime.machine.packages import PACKAGES

# Added only if the program imports them; the second one needs Matplotlib.
_LEFT_OUT = tuple(f"spinescore.runtime.{name}" for name in ("cli", "outputs.figures", "followup", "freezing", "verbs"))
_BY_NAME = (
    "highdicom",
    "imagecodecs",
    "libjpeg",
    "openjpeg",
    "pylibjpeg",
    "rle",
)  # packages that import their modules by name
_MORE_METADATA = ("spinescore", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle")

hiddenimports = collect_submodules("spinescore.runtime", filter=lambda name: not name.startswith(_LEFT_OUT))
hiddenimports += collect_submodules("spinescore.kernels", filter=lambda name: not name.endswith("packaging"))
datas = collect_data_files("spinescore.runtime", excludes=["freezing"]) + collect_data_files("spinescore.kernels")
binaries = []
# Scoring does not need these. A program that exports, or builds engines for a GPU, imports `spinescore.export` itself.
excludedimports = ["keras", "pytest", "spinescore.benchmarks", "spinescore.export", "tensorflow", "torch"]

for name in filter(find_spec, _BY_NAME):
    hiddenimports += collect_submodules(name, filter=lambda module: ".tests" not in module, on_error="ignore")
    datas += collect_data_files(name, excludes=["**/tests"])
for name in filter(find_spec, (name for row in ENGINES.values() if "cpu" in row.precisions for name in row.frameworks)):
    # An engine is imported by name. OpenVINO also opens its plugins and readers by name.
    hiddenimports.append(name)
    datas += collect_data_files(name, subdir="libs", excludes=["**/*.so.*", "**/*.pc"])
    binaries += collect_dynamic_libs(name, search_patterns=["*.dll", "*.dylib", "lib*.so", "lib*.so.*"])
for name in (*PACKAGES, *(same for package in PACKAGES.values() for same in package.same), *_MORE_METADATA):
    with suppress(PackageNotFoundError):  # not installed here
        datas += copy_metadata(name)
