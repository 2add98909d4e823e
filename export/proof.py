"""Compares an exported network with the outputs of the owner's own code for the same grey pictures.

The comparison covers the whole way from grey to output: normalisation, channels, layers, head. It shows that the export
computes the trained network. It cannot show the meaning of the outputs (class order, keypoints).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from spinescore.export.ends import softmax
from spinescore.export.mistakes import explain
from spinescore.export.networks import columns_of
from spinescore.export.reference import Kind, Reference, read_reference
from spinescore.export.sessions import Runner
from spinescore.export.sources import Network, split_sources
from spinescore.runtime.acceptance.comparison import difference_of_range
from spinescore.runtime.engines.half import store_half
from spinescore.runtime.errors import CheckpointError
from spinescore.runtime.manifest import NetworkInput
from spinescore.runtime.scoring.networks import HEATMAP_STRIDE

__all__ = ["TOLERANCE", "prove"]

TOLERANCE = 1e-4  # of the range of the reference's outputs

_KEYS = {"localizer": ("cervical", "lumbar"), "grader": ("bridge", "grades")}


def prove(
    networks: Sequence[Network], references: str | None, size: NetworkInput, kind: Kind | None, stored_half: bool
) -> None:
    """Compare `networks`, all localizers or all graders, with REF files; record the result in each network.

    `references` is a file, or `cervical=R,lumbar=S` or `bridge=R,grades=S` for two networks; None checks nothing.
    `kind` is the kind of a grader's outputs if the file does not state it. With `stored_half`, the difference that
    rounding the stored weights makes is recorded too. Raises `CheckpointError` if a network's outputs differ.
    """
    if references is None:
        return
    keys = _KEYS[networks[0].kind]
    paths = split_sources(references, keys)
    if len(paths) != len(networks):
        one = f"one file ({keys[0]}=, {keys[1]}= are of two)" if len(networks) == 1 else f"{keys[0]}=REF,{keys[1]}=REF"
        raise CheckpointError(
            f"--check-{networks[0].kind} {references}: {len(networks)} network(s) to check; give {one}"
        )
    for network in networks:
        path = Path(paths[""] if len(paths) == 1 else paths[network.role])
        network.checked = _check(network, path, size, kind, stored_half)


def _check(network: Network, path: Path, size: NetworkInput, kind: Kind | None, stored_half: bool) -> dict[str, Any]:
    source = network.provenance["source"]
    if network.model is None:
        raise CheckpointError(f"{source}: random weights cannot be checked; leave --check-{network.kind} out")
    shape = [network.outputs]
    if network.kind == "localizer":
        shape += [size.height // HEATMAP_STRIDE, size.width // HEATMAP_STRIDE]
    reference = read_reference(path, (size.height, size.width), tuple(shape), kind)
    if network.classes:
        reference = replace(reference, outputs=reference.outputs[:, columns_of(network.classes)])
    runner = Runner(network.model)
    outputs = runner(reference.grey, size, label=f"{network.stem}: check")
    outputs = softmax(outputs) if reference.kind == "probabilities" else outputs
    difference = difference_of_range(reference.outputs, outputs)
    if not difference <= TOLERANCE:
        raise CheckpointError(_refusal(network, runner, reference, size, difference))
    record = {
        "reference": reference.source,
        "sha256": reference.sha256,
        "bytes": reference.bytes,
        "pictures": len(reference.grey),
        "kind": reference.kind,
        "difference_of_range": difference,
        "largest_difference": float(np.abs(outputs - reference.outputs).max()),
        "range": float(np.ptp(reference.outputs)),
    }
    if stored_half:
        rounded = Runner(store_half(network.model))(reference.grey, size)
        rounded = softmax(rounded) if reference.kind == "probabilities" else rounded
        record["stored_difference_of_range"] = difference_of_range(reference.outputs, rounded)
    return record


def _refusal(network: Network, runner: Runner, reference: Reference, size: NetworkInput, difference: float) -> str:
    head = (
        f"{network.provenance['source']} does not give what {reference.source} says: {difference:.1e} of the outputs' "
        f"range off, {TOLERANCE:.0e} is allowed, so nothing was written."
    )
    reason = explain(network, runner, reference, size, difference, TOLERANCE)
    if reason is not None:
        return f"{head} It would be {reason.difference:.1e} off with {reason.mistake}. {reason.remedy}"
    return (
        f"{head} None of the usual mistakes (normalisation, channel order, logits or probabilities, class order, axes, "
        "pixel alignment) explains it. Weights do not tell strides, activations, BatchNorm's epsilon or upsampling: if "
        "yours are not the official ones, export the network to ONNX from its framework and give that file. Compute "
        "the outputs in evaluation mode and in float32 (on a GPU without TF32 and mixed precision)"
    )
