"""Writes `shipped-torch.npz`: what the shipped bundle's own PyTorch networks, rebuilt from its tensors, give.

    python -m spinescore.benchmarks.phantom.rebuilt --out DIR      # PyTorch 2.13
    cd tests && python -m golden.make_shipped DIR

`localizer` are the heatmaps of every ninth picture of DIR's REF file, one for each region, at every second row and
column; `grader` all logits of the other one. The pictures lie in the bundle (`benchmarks.phantom.rebuilt.pictures`).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from golden.packing import FOLDER, in_steps

EVERY = {"localizer": np.s_[::9, :, ::2, ::2], "grader": np.s_[:]}

if __name__ == "__main__":
    outputs = {}
    for kind, every in EVERY.items():
        with np.load(Path(sys.argv[1]) / f"ref-{kind}.npz") as reference:
            outputs[kind] = in_steps(reference["outputs"][every])
    np.savez_compressed(FOLDER / "shipped-torch.npz", **outputs)
