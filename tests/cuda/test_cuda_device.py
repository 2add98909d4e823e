"""The CUDA device without a GPU: each case of cases_*.py in a child process, on the driver double."""

import ast
import subprocess
import sys
from pathlib import Path

import double
import pytest

from spinescore.runtime.bundle import shipped_bundles

CASES = [
    (file.name, node.name.removeprefix("case_"))
    for file in sorted(Path(__file__).parent.glob("cases_*.py"))
    for node in ast.parse(file.read_text(encoding="utf-8")).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("case_")
]
SLOW = ("shipped_bundle_is_accepted",)  # the gate runs whole networks on all golden inputs, in two precisions


@pytest.mark.parametrize(
    ("file", "case"),
    [pytest.param(*case, marks=[pytest.mark.slow] if case[1] in SLOW else []) for case in CASES],
)
def test_on_the_driver_double(libraries, tmp_path, file, case):
    if case == "shipped_bundle" and not shipped_bundles():
        pytest.skip("no bundle ships with this version")
    library, kernels = libraries
    double.run_child(library, file, case, str(kernels), str(tmp_path))


def test_there_are_cases():
    assert len(CASES) > 10


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("pycuda", "ModuleNotFoundError('No module named pycuda', name='pycuda')", "pip install 'spinescore[cuda]'"),
        ("pycuda", "ImportError('libcuda.so.1: cannot open shared object file')", "install the NVIDIA driver"),
        ("pycuda", "ImportError('undefined symbol: cuCtxCreate_v4')", "update the NVIDIA driver"),
        ("pycuda", "ImportError('undefiniertes Symbol: cuCtxCreate_v4')", "update the NVIDIA driver"),
        ("pycuda", "ImportError('libcurand.so.10: cannot open shared object file')", "--no-deps pycuda), or use"),
        ("pycuda", "ImportError('numpy.core.multiarray failed to import')", "build it anew for this Python"),
        ("pycuda", "ModuleNotFoundError('No module named pytools', name='pytools')", "(pip install pytools), or use"),
    ],
)
def test_without_pycuda_or_driver(name, error, message):
    code = f"""
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            raise {error}
sys.meta_path.insert(0, Finder())
from spinescore.runtime import DeviceError
from spinescore.runtime.devices import open_device
try:
    open_device("cuda")
except DeviceError as refused:
    print(refused)
print(*open_device("auto").warnings)
"""
    found = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    refused, warned = found.stdout.splitlines()
    assert refused.startswith("Device cuda is not available: ")
    assert message in refused
    assert warned == f"Scored on the CPU. {refused}"
