"""Measures how often the loads of the CUDA kernels wait for each other, from their machine code (SASS). Needs no GPU.

    python -m spinescore.benchmarks.waits [--sources DIR] [--out F]

The kernels are compiled by nvcc for each architecture and disassembled by nvdisasm (with CUDA, or from PyPI:
`nvidia-cuda-nvdisasm`). A thread runs its instructions in order and stops at the first that reads a value which is
still on its way from memory. Each basic block is run so on paper: an instruction takes one cycle, a load `LATENCY`
cycles, and `waits` is the time that the block stands still, in latencies. Eight loads that are one after the other wait
eight times; eight that are sent before the first value is used wait once. Other threads hide waits on a GPU, so that
this is a comparison of two versions of a kernel and no time.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spinescore.benchmarks.harness.record import to_json
from spinescore.kernels.build import FLAGS, SOURCES, KernelBuildError, architectures, find_nvcc
from spinescore.runtime.files import write_atomic

__all__ = ["LATENCY", "Block", "blocks_of", "find_nvdisasm", "main", "measure", "waits"]

LATENCY = 400  # cycles from a load to its value: about that of an L2 hit
FEWEST_LOADS = 8  # of a block that is listed

Block = list[str]  # instructions, without addresses

_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(.*?);")
_LABEL = re.compile(r"^\.L_\w+:", re.MULTILINE)
_KERNEL = re.compile(r"^\.text\.(\w+):", re.MULTILINE)
_PREDICATE = re.compile(r"^@!?U?P\w+\s+")
_BRANCH = re.compile(r"^(BRA|BRX|EXIT|RET|CALL|BSYNC)\b")


def find_nvdisasm(nvcc: Path) -> Path | None:
    """Returns nvdisasm: beside nvcc, on PATH, or from the package `nvidia-cuda-nvdisasm`."""
    beside = shutil.which("nvdisasm", path=nvcc.parent) or shutil.which("nvdisasm")
    if beside:
        return Path(beside)
    try:
        files = importlib.metadata.files("nvidia-cuda-nvdisasm") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.stem == "nvdisasm"), None)


def measure(nvcc: Path, nvdisasm: Path, sources: Path, codes: tuple[int, ...]) -> dict[str, Any]:
    """Returns the record: for each kernel and architecture its blocks with `FEWEST_LOADS` loads or more."""
    kernels: dict[str, dict[str, list[dict[str, float]]]] = {}
    for source in SOURCES:
        for code in codes:
            for name, blocks in blocks_of(_sass(sources / f"{source}.cu", code, nvcc, nvdisasm)):
                listed = [block for block in blocks if _loads(block) >= FEWEST_LOADS]
                kernels.setdefault(name, {})[f"sm_{code}"] = [
                    {"instructions": len(block), "loads": _loads(block), "waits": round(waits(block), 1)}
                    for block in listed
                ]
    return {
        "what": "waits of the CUDA kernels' loads, read from their machine code; nothing ran on a GPU",
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "latency_cycles": LATENCY,
        "kernels": dict(sorted(kernels.items())),
    }


def blocks_of(sass: str) -> Iterator[tuple[str, list[Block]]]:
    """Yields each kernel's name and basic blocks from the text that nvdisasm prints."""
    parts = _KERNEL.split(sass)[1:]
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        blocks: list[Block] = []
        for labelled in _LABEL.split(text):
            block: Block = []
            for instruction in _INSTRUCTION.findall(labelled):
                block.append(instruction)
                if _BRANCH.match(_PREDICATE.sub("", instruction)):
                    blocks.append(block)
                    block = []
            blocks.append(block)
        yield name, [block for block in blocks if block]


def waits(block: Block) -> float:
    """Returns how long an in-order thread stands still in this block, in load latencies."""
    ready: dict[str, int] = {}  # register -> the cycle at which its load ends
    now = still = 0
    for instruction in block:
        registers = re.findall(r"\bR\d+\b", _PREDICATE.sub("", instruction))
        needed = max((ready.get(register, 0) for register in registers), default=0)
        still += max(needed - now, 0)
        now = max(needed, now) + 1
        if "LDG" in instruction:
            ready[registers[0]] = now + LATENCY
    return still / LATENCY


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m spinescore.benchmarks.waits", description=__doc__)
    parser.add_argument("--sources", type=Path, metavar="DIR", help="folder with other versions of the .cu files")
    parser.add_argument("--out", type=Path, metavar="F", help="write the record to this JSON file (default: print it)")
    chosen = parser.parse_args(arguments)
    nvcc = find_nvcc()
    nvdisasm = find_nvdisasm(nvcc) if nvcc else None
    if nvcc is None or nvdisasm is None:
        missing = "nvcc was not found: install CUDA" if nvcc is None else "nvdisasm was not found: install the package"
        print(f"{missing}{'' if nvcc is None else ' nvidia-cuda-nvdisasm'}.", file=sys.stderr)
        return 2
    sources = chosen.sources or Path(sys.modules[find_nvcc.__module__].__file__ or "").parent
    try:
        text = to_json(measure(nvcc, nvdisasm, sources, architectures(nvcc)))
        if chosen.out is None:
            print(text, end="")
        else:
            write_atomic(chosen.out, text)
    except (KernelBuildError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _loads(block: Block) -> int:
    return sum("LDG" in instruction for instruction in block)


def _sass(source: Path, code: int, nvcc: Path, nvdisasm: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        _run([str(nvcc), *FLAGS, f"-arch=sm_{code}", "--cubin", "-o", str(cubin), str(source)])
        return _run([str(nvdisasm), "-c", str(cubin)])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise KernelBuildError(f"{command[0]} failed: {done.stderr.strip()[-1000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
