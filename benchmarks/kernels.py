"""Registers and memory of every CUDA kernel on every architecture, as ptxas gives them. Needs nvcc, no GPU.

python -m spinescore.benchmarks.kernels --out benchmarks/results/kernels.json
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spinescore.kernels.build import SOURCES, KernelBuildError, compile_fatbin, find_nvcc, resources
from spinescore.runtime.files import write_atomic

__all__ = ["main", "measure"]


def measure(nvcc: Path) -> dict[str, Any]:
    """The record: nvcc's version, and per kernel and architecture its registers, shared memory, stack and spills."""
    kernels: dict[str, dict[str, dict[str, int]]] = {}
    sizes: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for source in SOURCES:
            target = Path(folder) / f"{source}.fatbin"
            for found in resources(compile_fatbin(source, target, nvcc)):
                numbers = asdict(found)
                name, architecture = numbers.pop("kernel"), numbers.pop("architecture")
                kernels.setdefault(name, {})[f"sm_{architecture}"] = numbers
            sizes[source] = target.stat().st_size
    return {
        "what": "resources of the CUDA kernels as compiled (ptxas); nothing ran on a GPU",
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "nvcc": _version(nvcc),
        "fatbin_bytes": sizes,
        "kernels": {name: dict(sorted(per.items(), key=_number)) for name, per in sorted(kernels.items())},
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m spinescore.benchmarks.kernels", description=__doc__)
    parser.add_argument("--out", type=Path, help="write the record to this JSON file (default: print it)")
    out = parser.parse_args(arguments).out
    nvcc = find_nvcc()
    if nvcc is None:
        print("nvcc was not found: put it on PATH, or set CUDA_HOME to the CUDA toolkit.", file=sys.stderr)
        return 2
    try:
        text = json.dumps(measure(nvcc), indent=1) + "\n"
        if out is None:
            print(text, end="")
        else:
            write_atomic(out, text)
    except (KernelBuildError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _version(nvcc: Path) -> str:
    said = subprocess.run([str(nvcc), "--version"], capture_output=True, text=True, check=True).stdout
    return said.strip().splitlines()[-1]


def _number(item: tuple[str, object]) -> int:
    return int(item[0].removeprefix("sm_"))


if __name__ == "__main__":
    sys.exit(main())
