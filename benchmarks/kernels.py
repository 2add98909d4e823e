"""Registers and memory of every CUDA kernel on every architecture, as ptxas reports them. Needs nvcc, no GPU.

python -m spinescore.benchmarks.kernels --out benchmarks/results/kernels.json
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spinescore.benchmarks.harness.child import run_child
from spinescore.benchmarks.harness.record import Command
from spinescore.kernels.build import SOURCES, KernelBuildError, compile_fatbin, find_nvcc, resources

__all__ = ["main", "measure"]

SCHEMA = "spinescore.kernels/1"


def measure(nvcc: Path) -> dict[str, Any]:
    """Compile all kernels; returns registers, shared memory, stack and spills of each on each architecture."""
    kernels: dict[str, dict[str, dict[str, int]]] = {}
    sizes: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for source in SOURCES:
            target = Path(folder) / f"{source}.fatbin"
            for usage in resources(compile_fatbin(source, target, nvcc)):
                numbers = asdict(usage)
                name, architecture = numbers.pop("kernel"), numbers.pop("architecture")
                kernels.setdefault(name, {})[f"sm_{architecture}"] = numbers
            sizes[source] = target.stat().st_size
    return {
        "nvcc": _version(nvcc),
        "fatbin_bytes": sizes,
        "kernels": {name: dict(sorted(per.items(), key=_number)) for name, per in sorted(kernels.items())},
    }


def main(argv: Sequence[str] | None = None) -> int:
    command = Command("kernels", SCHEMA, __doc__)
    command.start(argv)
    nvcc = find_nvcc()
    if nvcc is None:
        print("nvcc was not found: put it on PATH, or set CUDA_HOME to the CUDA toolkit.", file=sys.stderr)
        return 2
    try:
        command.publish(measure(nvcc))
    except (KernelBuildError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _version(nvcc: Path) -> str:
    return run_child([str(nvcc), "--version"]).strip().splitlines()[-1]


def _number(item: tuple[str, object]) -> int:
    return int(item[0].removeprefix("sm_"))


if __name__ == "__main__":
    sys.exit(main())
