"""Build pycuda for the driver double, without GPU, driver or nvcc: build_pycuda.py [PYTHON].

Installs into the environment of PYTHON (this one by default) unless it is there already. Needs g++ and CUDA's headers:
those of a toolkit where one is found, else those of NVIDIA's packages on the package index. Where there is no g++ it
says so and leaves the tests to skip.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from double import cuda_headers

PYCUDA = "pycuda==2026.1"
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
        build(python, Path(folder))
    return 0


def build(python: str, folder: Path) -> None:
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    headers = cuda_headers() or fetch_headers(pip, folder / "headers")
    run([*pip, "install", "setuptools>=77", "wheel", "numpy>=2.2"])
    run([*pip, "download", "--no-deps", "--no-build-isolation", "--no-binary", "pycuda", "-d", str(folder), PYCUDA])
    with tarfile.open(next(folder.glob("pycuda-*.tar.gz"))) as archive:
        archive.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    source = next(path for path in folder.glob("pycuda-*") if path.is_dir())
    stub = folder / "stub"
    stub.mkdir()
    (stub / "empty.cpp").touch()
    run(["g++", "-shared", "-Wl,-soname,libcuda.so.1", "-o", str(stub / "libcuda.so"), str(stub / "empty.cpp")])
    settings = ["--no-cuda-enable-curand", f"--cudadrv-lib-dir={stub}", "--cxxflags=-O1"]
    run([python, "configure.py", f"--cuda-root={headers.parent}", *settings], cwd=source)
    linked = {**os.environ, "LDFLAGS": f"{os.environ.get('LDFLAGS', '')} -Wl,--no-as-needed"}  # the stub is empty
    run([*pip, "install", "--no-build-isolation", str(source)], env=linked)


def fetch_headers(pip: list[str], folder: Path) -> Path:
    run([*pip, "install", "--no-deps", "--target", str(folder), *HEADERS])
    return next(folder.glob("nvidia/cu*/include"))


def run(command: list[str], **options: object) -> None:
    done = subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}\n{done.stderr}")


if __name__ == "__main__":
    sys.exit(main())
