"""Checks the shipped bundle against its own PyTorch networks, rebuilt from its tensors (extras `train`, `export`).

    python -m spinescore.benchmarks.phantom.rebuilt --out DIR            # check, and compare the export with the bundle
    python -m spinescore.benchmarks.phantom.rebuilt --out DIR --write    # and keep the check in the bundle's provenance

The checkpoints that the bundle was exported from are gone. Its ONNX files hold their weights with each batch
normalisation folded into its convolution. DIR gets checkpoints under the official names, in which every batch
normalisation is the identity up to its bias; what the networks of `train.py` give with them (PyTorch, normalisation as
the manifest states it) for golden pictures of the bundle, as REF files; and the bundle that the exporter makes of all
that, held against the REF files. This shows that the bundle computes what those networks compute (layers, strides,
normalisation, head). How the first checkpoints were folded and rounded to half, it cannot show.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from spinescore.export.blocks import TORCH_EPSILON
from spinescore.export.bundle import export_bundle
from spinescore.runtime.bundle import MANIFEST_NAME, Bundle
from spinescore.runtime.files import write_atomic
from spinescore.runtime.manifest import Manifest, NetworkInput

if TYPE_CHECKING:
    from torch import nn

__all__ = ["REBUILT", "main", "pictures", "rebuilt_tensors", "with_checks"]

BUNDLE = "phantom-reference"
FIELDS = Path(__file__).with_name("phantom-reference.toml")
REBUILT = "of its PyTorch network, rebuilt from the bundle's own tensors"
_MOST_PICTURES = 36

Tensors = dict[str, NDArray[np.float32]]


def rebuilt_tensors(model: onnx.ModelProto) -> Tensors:
    """The tensors of a PyTorch checkpoint from which the exporter makes the graph `model` again.

    A convolution's bias becomes that of the batch normalisation behind it. Names are those of the official HRNet and of
    torchvision's ResNet. `model` is a graph of this exporter, its weights stored as single or half.
    """
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    values = {name.removesuffix(".half"): value.astype(np.float32) for name, value in stored.items()}
    gamma, variance = _identity()
    tensors: Tensors = {}
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        weight, bias = (values[name] for name in node.input[1:])
        tensors[f"{node.name}.weight"] = weight.T if node.op_type == "Gemm" else weight
        norm = _norm_of(node.name)
        tensors[f"{norm or node.name}.bias"] = bias
        if norm:
            parts = {"weight": gamma, "running_mean": np.float32(0), "running_var": variance}
            tensors |= {f"{norm}.{part}": np.full(bias.shape, value, np.float32) for part, value in parts.items()}
    return tensors


def _norm_of(conv: str) -> str:
    """The name of the batch normalisation behind a convolution; "" behind the last layers, which have none."""
    if conv in ("final_layer", "fc"):
        return ""
    prefix, dot, last = conv.rpartition(".")
    return f"{prefix}{dot}{last.replace('conv', 'bn') if last.startswith('conv') else int(last) + 1}"


def _identity() -> tuple[np.float32, np.float32]:
    """Gamma and variance of a batch normalisation whose scale is 1, far nearer than single precision can tell."""
    variances = (1 + np.arange(1 << 20) * 2.0**-23).astype(np.float32)
    roots = np.sqrt(variances.astype(np.float64) + TORCH_EPSILON)
    gammas = roots.astype(np.float32)
    best = int(np.argmin(np.abs(gammas / roots - 1)))
    return gammas[best], variances[best]


def pictures(bundle: Bundle, kind: str) -> NDArray[np.uint8]:
    """Golden pictures (N, height, width) of the bundle's `localizer` or `grader`, grey as its network sees them."""
    with np.load(bundle.path(bundle.manifest.golden[kind])) as golden:
        found: NDArray[np.uint8] = next(golden[name] for name in golden.files if name.startswith("image_"))
    return found[:: -(-len(found) // _MOST_PICTURES)]


def _module(kind: str, tensors: Tensors) -> nn.Module:
    """The network as `train.py` has it, with these tensors, for inference."""
    import torch

    from spinescore.benchmarks.phantom.networks import HRNet, ResNet

    stem, channels = tensors["conv1.weight"].shape[:2]
    if kind == "localizer":
        joints, width = tensors["final_layer.weight"].shape[:2]
        module: nn.Module = HRNet(width, joints, channels, stem=stem)
    else:
        module = ResNet(width=stem, outputs=len(tensors["fc.bias"]), channels=channels)
    module.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in tensors.items()})
    return module.eval()


def _given(module: nn.Module, grey: NDArray[np.uint8], size: NetworkInput) -> NDArray[np.float32]:
    """Return the outputs of the PyTorch network for grey pictures, normalised as the manifest states."""
    import torch

    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (size.mean, size.std))
    images = torch.from_numpy(grey).float().div(255).unsqueeze(1).repeat(1, size.channels, 1, 1)
    with torch.no_grad():
        outputs: NDArray[np.float32] = module((images - mean) / std).numpy()
    return outputs


def write_inputs(bundle: Bundle, folder: Path) -> None:
    """Write `localizer.pth`, `ref-localizer.npz`, and those of the grader."""
    import torch

    for kind, size, sort in (
        ("localizer", bundle.manifest.localizer.input, "heatmaps"),
        ("grader", bundle.manifest.grader.input, "logits"),
    ):
        module = _module(kind, rebuilt_tensors(onnx.load(str(bundle.path(f"{kind}.fp32.onnx")))))
        torch.save(module.state_dict(), folder / f"{kind}.pth")
        grey = pictures(bundle, kind)
        np.savez_compressed(folder / f"ref-{kind}.npz", images=grey, outputs=_given(module, grey, size), kind=sort)


def with_checks(document: dict[str, Any], exported: dict[str, Any]) -> dict[str, Any]:
    """The manifest `document` with the version of the manifest `exported`, and what that says of its networks' checks.

    The record of a check names how its reference was made. It has no figure of the weights' rounding to half: the
    reference was made of halves.
    """
    networks = {}
    for name, entry in document["provenance"]["networks"].items():
        proven = exported["provenance"]["networks"][name]
        checked = {**proven["checked"], "reference": f"{proven['checked']['reference']} {REBUILT}"}
        checked.pop("stored_difference_of_range", None)
        networks[name] = {**entry, "checked": checked, "assumed": proven["assumed"]}
    provenance = {**document["provenance"], "networks": networks}
    return {**document, "version": exported["version"], "provenance": provenance}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m spinescore.benchmarks.phantom.rebuilt", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="checkpoints, REF files and the export")
    parser.add_argument("--write", action="store_true", help="keep the check in the shipped bundle's provenance")
    arguments = parser.parse_args(argv)
    folder: Path = arguments.out
    folder.mkdir(parents=True, exist_ok=True)
    bundle = Bundle.open(BUNDLE)
    write_inputs(bundle, folder)
    report = export_bundle(
        str(folder / "localizer.pth"),
        str(folder / "grader.pth"),
        folder / BUNDLE,
        manifest=FIELDS,
        precisions=("fp32",),
        weights="half",
        check_localizer=str(folder / "ref-localizer.npz"),
        check_grader=str(folder / "ref-grader.npz"),
    )
    for path in report.manifest.files:
        same = (report.folder / path).read_bytes() == bundle.path(path).read_bytes()
        print(f"{path}: {'the same bytes as' if same else 'OTHER bytes than'} in the shipped bundle")
    document = with_checks(bundle.manifest.to_dict(), report.manifest.to_dict())
    for name, entry in document["provenance"]["networks"].items():
        print(f"{name}: {json.dumps(entry['checked'])}; taken for granted: {entry['assumed']}")
    if arguments.write:
        text = json.dumps(Manifest.from_dict(document).to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomic(bundle.folder / MANIFEST_NAME, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
