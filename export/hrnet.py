"""HRNet as an ONNX graph, built from its checkpoint's tensors alone.

Sun et al. 2019, arXiv 1902.09212. Names as in leoxiaobin/deep-high-resolution-net.pytorch, lib/models/pose_hrnet.py.
The stem's and the branches' widths, the joints, the input channels, and the number of stages, modules, branches and
blocks follow from the names and shapes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from spinescore.export.graph import Graph
from spinescore.export.relatives import check_hrnet_relatives
from spinescore.export.weights import Weights, conv_norm, residual
from spinescore.runtime.errors import CheckpointError

__all__ = ["build_hrnet"]

_ARCHITECTURE = "HRNet"


def build_hrnet(
    tensors: Mapping[str, NDArray[np.generic]], height_px: int = 256, width_px: int = 192
) -> onnx.ModelProto:
    """Build the graph from `image` (N, channels, height, width) to raw `heatmaps` (N, joints, height / 4, width / 4).

    Raises `CheckpointError` if a tensor is missing, left over or of a wrong shape.
    """
    if height_px % 32 or width_px % 32:
        raise CheckpointError(f"{_ARCHITECTURE}: input {height_px}x{width_px} px; both must be multiples of 32")
    weights = Weights(tensors, _ARCHITECTURE)
    check_hrnet_relatives(weights)
    stem = weights.shape("conv1.weight")
    graph = Graph("hrnet", stem[1] if len(stem) == 4 else 0, height_px, width_px)
    x = graph.relu(conv_norm(graph, weights, "image", "conv1", "bn1", stride=2))
    x = graph.relu(conv_norm(graph, weights, x, "conv2", "bn2", stride=2))
    for block in range(weights.count("layer1")):
        x = residual(graph, weights, x, f"layer1.{block}")
    branches = [x]
    stage = 2
    while weights.names(f"stage{stage}.0."):
        last_stage = not weights.names(f"stage{stage + 1}.0.")
        branches = _transition(graph, weights, branches, stage)
        modules = weights.count(f"stage{stage}")
        for module in range(modules):
            finest_only = last_stage and module == modules - 1
            branches = _module(graph, weights, branches, f"stage{stage}.{module}", finest_only)
        stage += 1
    final, bias = weights.take("final_layer.weight", 4), weights.take("final_layer.bias", 1)
    heatmaps = graph.conv(branches[0], final, bias, name="final_layer")
    weights.close()
    return graph.model(heatmaps, "heatmaps")


def _transition(graph: Graph, weights: Weights, branches: list[str], stage: int) -> list[str]:
    """Return one value per branch of `stage`: old branches as they are or after a 3x3, a new one at half the size.

    The official code feeds every transition from the coarsest old branch. For an old branch that changes width, this
    works in the first transition alone; in later ones its tensors stay unused, which `Weights.close` refuses.
    """
    name = f"transition{stage - 1}"
    result = []
    for branch in range(weights.count(f"stage{stage}.0.branches")):
        if branch >= len(branches):
            x = branches[-1]
            for step in range(weights.count(f"{name}.{branch}")):
                layer = f"{name}.{branch}.{step}"
                x = graph.relu(conv_norm(graph, weights, x, f"{layer}.0", f"{layer}.1", stride=2))
        elif f"{name}.{branch}.0.weight" in weights and len(branches) == 1:
            x = graph.relu(conv_norm(graph, weights, branches[0], f"{name}.{branch}.0", f"{name}.{branch}.1"))
        else:
            x = branches[branch]
        result.append(x)
    return result


def _module(graph: Graph, weights: Weights, branches: list[str], prefix: str, finest_only: bool) -> list[str]:
    """Add residual blocks to every branch; then each branch is the ReLU of the sum of all, in its size and width."""
    values = []
    for branch, value in enumerate(branches):
        x = value
        for block in range(weights.count(f"{prefix}.branches.{branch}")):
            x = residual(graph, weights, x, f"{prefix}.branches.{branch}.{block}")
        values.append(x)
    fused = []
    for target in range(1 if finest_only else len(values)):
        total = ""
        for source, value in enumerate(values):
            y = _fuse(graph, weights, value, f"{prefix}.fuse_layers.{target}.{source}", source - target)
            total = graph.add(total, y, name=f"{prefix}.fuse_layers.{target}.sum{source}") if total else y
        fused.append(graph.relu(total))
    return fused


def _fuse(graph: Graph, weights: Weights, x: str, name: str, coarser: int) -> str:
    """Bring `x` to a branch that is `coarser` steps finer (1x1, then nearest) or -`coarser` steps coarser (3x3s)."""
    if coarser > 0:
        x = conv_norm(graph, weights, x, f"{name}.0", f"{name}.1")
        return graph.upsample(x, 2**coarser, name=f"{name}.2")
    for step in range(-coarser):
        x = conv_norm(graph, weights, x, f"{name}.{step}.0", f"{name}.{step}.1", stride=2)
        if step < -coarser - 1:
            x = graph.relu(x)
    return x
