"""Checks the shipped bundle against its own PyTorch networks, rebuilt from its tensors (extras `train`, `export`).

    python -m spinescore.benchmarks.phantom.rebuilt --out DIR            # check, and compare the export with the bundle
    python -m spinescore.benchmarks.phantom.rebuilt --out DIR --write    # and keep the check in the bundle's provenance

The checkpoints that the bundle was exported from are lost. DIR gets checkpoints under the official names
(`checkpoints`); the outputs of the networks of `train.py` with them (PyTorch, normalisation as the manifest states it)
for golden pictures of the bundle, as REF files; and the bundle that the exporter makes of all that, compared with the
REF files. This shows that the bundle computes the same as those networks (layers, strides, normalisation, head). It
cannot show how the first checkpoints were folded and rounded to half.
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

from spinescore.benchmarks.phantom.checkpoints import network, rebuilt_tensors
from spinescore.export.bundle import export_bundle
from spinescore.runtime.bundle import MANIFEST_NAME, Bundle
from spinescore.runtime.files import write_atomic
from spinescore.runtime.manifest import Manifest, NetworkInput

if TYPE_CHECKING:
    from torch import nn

__all__ = ["REBUILT", "main", "pictures", "with_checks"]

BUNDLE = "phantom-reference"
FIELDS = Path(__file__).with_name("phantom-reference.toml")
REBUILT = "of its PyTorch network, rebuilt from the bundle's own tensors"
_MOST_PICTURES = 36


def pictures(bundle: Bundle, kind: str) -> NDArray[np.uint8]:
    """Return golden pictures (N, height, width) of the bundle's `localizer` or `grader`, as its network sees them."""
    with np.load(bundle.path(bundle.manifest.golden[kind])) as golden:
        grey: NDArray[np.uint8] = next(golden[name] for name in golden.files if name.startswith("image_"))
    return grey[:: -(-len(grey) // _MOST_PICTURES)]


def _outputs(module: nn.Module, grey: NDArray[np.uint8], size: NetworkInput) -> NDArray[np.float32]:
    """Return the outputs of the PyTorch network for grey pictures, normalised as the manifest states."""
    import torch

    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (size.mean, size.std))
    images = torch.from_numpy(grey).float().div(255).unsqueeze(1).repeat(1, size.channels, 1, 1)
    with torch.no_grad():
        outputs: NDArray[np.float32] = module((images - mean) / std).numpy()
    return outputs


def write_inputs(bundle: Bundle, folder: Path) -> None:
    """Write `localizer.pth` and `ref-localizer.npz`, and the same for the grader."""
    import torch

    for kind, size, sort in (
        ("localizer", bundle.manifest.localizer.input, "heatmaps"),
        ("grader", bundle.manifest.grader.input, "logits"),
    ):
        module = network(rebuilt_tensors(onnx.load(str(bundle.path(f"{kind}.fp32.onnx")))))
        torch.save(module.state_dict(), folder / f"{kind}.pth")
        grey = pictures(bundle, kind)
        np.savez_compressed(folder / f"ref-{kind}.npz", images=grey, outputs=_outputs(module, grey, size), kind=sort)


def with_checks(document: dict[str, Any], exported: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest `document` with the version and the networks' checks of the manifest `exported`.

    The record of a check names the source of its reference. It has no figure for rounding the weights to half, since
    the reference was computed from halves.
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
        print(f"{name}: {json.dumps(entry['checked'])}; assumed: {entry['assumed']}")
    if arguments.write:
        text = json.dumps(Manifest.from_dict(document).to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_atomic(bundle.folder / MANIFEST_NAME, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
