"""Measures the cost of an export: `python -m spinescore.benchmarks.exporting [--out F]`.

An HRNet-W32 and a ResNet152 under their official names (random weights, batch normalisations with statistics of their
own) are written as .npz files and exported by the command, without INT8, in a process of its own. The figures are that
process' wall time, its processor time in user mode and in the system, and its peak memory. Wall time means something on
a quiet machine alone; processor time changes little with other programs' load. Needs the extra `export`, and a system
that counts the memory of processes (not Windows).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spinescore.benchmarks.harness.child import SPINESCORE, run_child
from spinescore.benchmarks.harness.record import Command
from spinescore.benchmarks.harness.timing import elapsed_ms

__all__ = ["SCHEMA", "main", "measure"]

SCHEMA = "spinescore.exporting/2"
_JOINTS, _LOGITS, _CHANNELS = 12, 8, 3
_MIB = {"darwin": 1 << 20}.get(sys.platform, 1 << 10)  # the unit of ru_maxrss


def measure(localizer: str, grader: str, studies: int, folder: Path) -> dict[str, Any]:
    """Export two random networks, as `hrnet-w32` and `resnet152`, into `folder`; returns the process' figures."""
    if sys.platform == "win32":
        raise SystemExit("The memory of processes is not counted on Windows; measure on Linux or macOS.")
    import resource

    _write_weights(localizer, _JOINTS, folder / "localizer.npz", seed=1)
    _write_weights(grader, _LOGITS, folder / "grader.npz", seed=2)
    words = ["--localizer", "localizer.npz", "--grader", "grader.npz", "--golden-studies", str(studies), "--out", "b"]
    wall_ms = elapsed_ms(lambda: run_child([*SPINESCORE, "export", *words], cwd=folder))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # of the one child that has ended
    return {
        "wall_s": round(wall_ms / 1e3, 1),
        "user_s": round(used.ru_utime, 1),
        "system_s": round(used.ru_stime, 1),
        "peak_mib": round(used.ru_maxrss / _MIB),
    }


def _write_weights(name: str, outputs: int, path: Path, seed: int) -> None:
    from spinescore.export.synthetic import PREFIX, parse_synthetic, random_tensors

    rng = np.random.default_rng(seed)
    tensors = random_tensors(parse_synthetic(PREFIX + name), outputs, _CHANNELS, seed)
    for key, value in tensors.items():
        if key.endswith("running_mean"):
            tensors[key] = rng.normal(0.0, 0.05, value.shape).astype(np.float32)
        elif key.endswith("running_var"):
            tensors[key] = rng.uniform(0.8, 1.25, value.shape).astype(np.float32)
    np.savez(path, **tensors)  # type: ignore[arg-type]


def main(argv: Sequence[str] | None = None) -> int:
    command = Command("exporting", SCHEMA, __doc__)
    add = command.options.add_argument
    add("--localizer", default="hrnet-w32", metavar="L", help="architecture of the localizer (hrnet-w32)")
    add("--grader", default="resnet152", metavar="G", help="architecture of the grader (resnet152)")
    add("--golden-studies", type=int, default=9, metavar="K", help="phantoms to check on (9)")
    arguments = command.start(argv)
    with tempfile.TemporaryDirectory(prefix="spinescore-") as scratch:
        figures = measure(arguments.localizer, arguments.grader, arguments.golden_studies, Path(scratch))
    networks = [arguments.localizer, arguments.grader]
    command.publish({"networks": networks, "golden_studies": arguments.golden_studies, **figures})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
