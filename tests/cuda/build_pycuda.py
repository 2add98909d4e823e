"""Build pycuda for the driver double, without GPU, driver or nvcc: build_pycuda.py [PYTHON].

Installs into the environment of PYTHON (this one by default) unless it is there already. Needs g++ and CUDA's headers:
those of a toolkit where one is found, else those of NVIDIA's packages on the package index. Where there is no g++ it
says so and leaves the tests to skip.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from double import cuda_headers

from spinescore.benchmarks.gpu.carry import NotBuilt, build_pycuda, run_step

HEADERS = ("nvidia-cuda-runtime==13.0.*", "nvidia-cuda-crt==13.0.*", "nvidia-cuda-profiler-api==13.0.*")


def main() -> int:
    python = sys.argv[1] if len(sys.argv) > 1 else sys.executable
    if (
        subprocess.run(
            [python, "-c", "import importlib.util as i, sys; sys.exit(not i.find_spec('pycuda'))"]
        ).returncode
        == 0
    ):
        return 0
    if sys.platform != "linux" or not shutil.which("g++"):
        print("pycuda is not built: this needs Linux and g++", file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        try:
            build(python, Path(folder))
        except NotBuilt as error:
            print(error, file=sys.stderr)
            return 1
    return 0


def build(python: str, folder: Path) -> None:
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    headers = cuda_headers() or fetch_headers(pip, folder / "headers")
    run_step([*pip, "install", "setuptools>=77", "wheel", "numpy>=2.2"])
    empty = folder / "build"
    empty.mkdir()
    run_step([*pip, "install", str(build_pycuda(python, headers, empty))])


def fetch_headers(pip: list[str], folder: Path) -> Path:
    run_step([*pip, "install", "--no-deps", "--target", str(folder), *HEADERS])
    return next(folder.glob("nvidia/cu*/include"))


if __name__ == "__main__":
    sys.exit(main())
