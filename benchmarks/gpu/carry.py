"""Write the folder that lets `spinescore.benchmarks.gpu` run on a GPU machine that has no network.

    python -m spinescore.benchmarks.gpu.carry DIR [--python PYTHON] [--cuda-headers DIR]

Run it at the root of a checkout, on a machine with g++ and CUDA's headers; no GPU, no driver and no nvcc are needed.
DIR must lie inside the checkout. PYTHON is an interpreter of the GPU machine's version and platform (default:
python3.12). DIR then holds:

    *.whl       pycuda, built against an empty stand-in for the driver; pydicom; and the packages that both need
    spinescore  links to the checkout's folders in place of an installation, and the package's name and version

The GPU machine must have NumPy, OpenCV, ONNX and ONNX Runtime. The command to run there is printed last.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from spinescore.runtime.machine.packages import software_version

__all__ = ["NotBuilt", "build_pycuda", "link_checkout", "main", "run_step"]

PYCUDA = "pycuda==2026.1"
FOLDERS = ("runtime", "export", "kernels", "benchmarks")
SITE = "/tmp/spinescore-site"  # where the wheels are installed on the GPU machine


class NotBuilt(Exception):
    """A step failed; the message is its command and what it printed."""


def build_pycuda(python: str, headers: Path, folder: Path) -> Path:
    """Return a wheel of pycuda for this interpreter. It is built in `folder`, which must be empty.

    `python` must have setuptools, wheel and numpy. Raises `NotBuilt`.
    """
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    run_step(
        [*pip, "download", "--no-deps", "--no-build-isolation", "--no-binary", "pycuda", "-d", str(folder), PYCUDA]
    )
    with tarfile.open(next(folder.glob("pycuda-*.tar.gz"))) as archive:
        if hasattr(tarfile, "data_filter"):
            archive.extractall(folder, filter="data")
        else:  # Python before 3.10.12
            archive.extractall(folder)
    source = next(path for path in folder.glob("pycuda-*") if path.is_dir())
    stub = folder / "stub"
    stub.mkdir()
    (stub / "empty.cpp").touch()
    run_step(["g++", "-shared", "-Wl,-soname,libcuda.so.1", "-o", str(stub / "libcuda.so"), str(stub / "empty.cpp")])
    settings = ["--no-cuda-enable-curand", f"--cudadrv-lib-dir={stub}", "--cxxflags=-O1"]
    run_step([python, "configure.py", f"--cuda-root={headers.parent}", *settings], cwd=source)
    linked = ["env", f"LDFLAGS={os.environ.get('LDFLAGS', '')} -Wl,--no-as-needed"]  # otherwise the stub is left out
    run_step([*linked, *pip, "wheel", "--no-build-isolation", "--no-deps", "-w", str(folder / "wheel"), str(source)])
    return next((folder / "wheel").glob("pycuda-*.whl"))


def link_checkout(checkout: Path, folder: Path) -> None:
    """Write `folder`/spinescore, relative links to the checkout's folders, and the package's metadata beside it."""
    package = folder / "spinescore"
    package.mkdir(parents=True)
    for name in FOLDERS:
        (package / name).symlink_to(os.path.relpath(checkout / name, package), target_is_directory=True)
    metadata = folder / f"spinescore-{software_version()}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: spinescore\nVersion: {software_version()}\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the folder. Returns 0 if it was written, 1 if a step failed, 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m spinescore.benchmarks.gpu.carry", description="A folder for a GPU machine without a network."
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to write, inside the checkout; it is replaced")
    parser.add_argument(
        "--python", default="python3.12", help="an interpreter of the GPU machine's version (python3.12)"
    )
    parser.add_argument(
        "--cuda-headers", type=Path, default=Path("/usr/local/cuda/include"), metavar="DIR", help="folder with cuda.h"
    )
    chosen = parser.parse_args(arguments)
    checkout, folder = Path.cwd(), chosen.folder.absolute()
    fault = _usage_fault(checkout, folder, chosen.python, chosen.cuda_headers)
    if fault:
        print(fault, file=sys.stderr)
        return 2
    try:
        _write(checkout, folder, chosen.python, chosen.cuda_headers)
    except (NotBuilt, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    carried = shlex.quote(folder.relative_to(checkout).as_posix())
    size = sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    print(f"{carried} holds {size / 2**20:.1f} MiB; carry it beside the checkout, and run there, at its root:")
    print(
        f"python3 -m pip install -q --no-index --no-deps --target {SITE} {carried}/*.whl && "
        f'PYTHONPATH={carried}:{SITE} python3 -m spinescore.benchmarks.gpu --out "$OUT/gpu.json" --minutes 8'
    )
    return 0


def _usage_fault(checkout: Path, folder: Path, python: str, headers: Path) -> str | None:
    if not all((checkout / name).is_dir() for name in FOLDERS):
        return f"{checkout} is not the root of a checkout: it has no {', '.join(FOLDERS)}; change to it first."
    if checkout not in folder.parents:
        return f"{folder} lies outside of the checkout {checkout}: its links would lead nowhere. Name a folder inside."
    if folder.exists() and not (folder / "spinescore").is_dir():
        return f"{folder} exists and this command did not write it; name another folder, or delete it."
    if not shutil.which(python):
        return f"There is no interpreter {python}; name one with --python."
    if not (headers / "cuda.h").is_file():
        return f"{headers} has no cuda.h; name the folder of CUDA's headers with --cuda-headers."
    return None if shutil.which("g++") else "g++ was not found; install it to build pycuda."


def _write(checkout: Path, folder: Path, python: str, headers: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        environment, built, wheels = (Path(scratch) / name for name in ("environment", "built", "wheels"))
        run_step([python, "-m", "venv", str(environment)])
        own = str(environment / "bin" / "python")
        pip = [own, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        run_step([*pip, "install", "setuptools>=77", "wheel", "numpy>=2.2"])
        built.mkdir()
        wheel = build_pycuda(own, headers, built)
        run_step([*pip, "wheel", "-w", str(wheels), str(wheel), "pydicom>=3.0.1"])
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in wheels.glob("*.whl"):
            if not path.name.startswith("numpy-"):
                shutil.copy(path, folder)
    link_checkout(checkout, folder)


def run_step(command: list[str], cwd: Path | None = None) -> None:
    """Run a command. Raises `NotBuilt` if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=cwd, check=False)
    if done.returncode:
        raise NotBuilt(f"{' '.join(command)} failed:\n{(done.stderr or done.stdout).strip()[-2000:]}")


if __name__ == "__main__":
    sys.exit(main())
