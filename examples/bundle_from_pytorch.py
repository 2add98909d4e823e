"""Make a bundle from PyTorch weights, verify it, and score a synthetic study with it. PyTorch is not needed.

    python examples/bundle_from_pytorch.py localizer.pth grader.pth my-bundle [--manifest F] [--golden PATH]

The same on the command line is `spinescore export`; see docs/weights.md for the forms of weights that are read.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from spinescore.export import export_bundle, read_checkpoint, verify_bundle
from spinescore.runtime import Scorer, SpineScoreError, load_study
from spinescore.runtime.phantom import write_study

# What weights cannot say. `spinescore export --print-manifest` shows every field with its default.
MANIFEST = """
intended_use = "research only"

[localizer]
passes = 2

[grader.input]
preprocessing = "imagenet"
"""


def main() -> int:
    """Export, verify and score. Returns the exit status."""
    options = argparse.ArgumentParser(description="Make a bundle from PyTorch weights.")
    options.add_argument("localizer", type=Path)
    options.add_argument("grader", type=Path)
    options.add_argument("bundle", type=Path)
    options.add_argument("--manifest", type=Path, help="how the networks were trained (the text in this program)")
    options.add_argument("--golden", type=Path, help="radiographs to check the networks on (phantoms)")
    arguments = options.parse_args()
    try:
        look(arguments.localizer)
        look(arguments.grader)
        export(arguments.localizer, arguments.grader, arguments.bundle, arguments.manifest, arguments.golden)
        score_a_phantom(arguments.bundle)
    except SpineScoreError as error:
        print(f"{error.code}: {error}", file=sys.stderr)
        return 1
    return 0


def look(weights: Path) -> None:
    """Print what is in a file of weights. Nothing in the file is executed."""
    tensors = read_checkpoint(weights).tensors
    print(f"{weights.name}: {len(tensors)} tensors, {sum(tensor.size for tensor in tensors.values()):,} numbers")


def export(localizer: Path, grader: Path, bundle: Path, manifest: Path | None, golden: Path | None) -> None:
    """Write the bundle, print what the export took for granted, and run the bundle's golden inputs again."""
    with tempfile.TemporaryDirectory() as folder:
        stated = Path(folder) / "fields.toml"
        stated.write_text(MANIFEST, encoding="utf-8")
        report = export_bundle(
            str(localizer), str(grader), bundle, manifest=manifest or stated, golden=[golden] if golden else []
        )
    for line in (*report.notes, *report.warnings):
        print(line)
    verified = verify_bundle(bundle)
    print(f"verified: {'passed' if verified.passed else 'FAILED'}, FP32 differs by", verified.fp32_difference)


def score_a_phantom(bundle: Path) -> None:
    """Score a synthetic study with the new bundle, to see that it runs."""
    with tempfile.TemporaryDirectory() as folder, Scorer.open(bundle, "cpu", build="no") as scorer:
        write_study(1_500_000, Path(folder))
        report = scorer.score(load_study(folder))
    for region, result in report.regions.items():
        print(region, result.status, result.total, result.reject.message if result.reject else "")


if __name__ == "__main__":
    sys.exit(main())
