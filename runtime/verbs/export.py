"""`spinescore export`: make a bundle from trained weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from spinescore.runtime.verbs import OK, check_out, gate, say, show
from spinescore.runtime.verbs.extras import export_extra
from spinescore.runtime.verbs.options import BUILDERS, positive

if TYPE_CHECKING:
    from spinescore.export.bundle import ExportReport

__all__ = ["add_arguments", "run"]

_PASSED_ON = (
    "manifest", "name", "version", "golden", "golden_studies", "int8", "strict", "check_localizer", "check_grader",
    "check_kind", "bridge_class",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `spinescore export`."""
    _add_networks(parser)
    _add_bundle(parser)
    _add_checks(parser)
    parser.set_defaults(verb=run, wrong_usage=parser.error)


def _add_networks(parser: argparse.ArgumentParser) -> None:
    text = "HRNet weights (FILE or FILE:key), an ONNX file or synthetic:hrnet-w32; or cervical=F,lumbar=F"
    parser.add_argument("--localizer", metavar="F", help=text)
    text = (
        "alternative localizer with the same outputs, such as w18=narrow.pth; repeatable, the most accurate one first"
    )
    parser.add_argument("--alternative", action="append", default=[], metavar="NAME=F", help=text)
    text = "ResNet weights (FILE or FILE:key), an ONNX file or synthetic:resnet152; or bridge=F,grades=F"
    parser.add_argument("--grader", metavar="F", help=text)
    text = "output of a 2-class network that means bridge"
    parser.add_argument("--bridge-class", type=int, choices=(0, 1), help=text)


def _add_bundle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="BUNDLE", help="folder of the new bundle")
    text = "TOML or JSON file with any fields of the manifest; the other fields get their defaults"
    parser.add_argument("--manifest", type=Path, metavar="F", help=text)
    text = "print such a file with every field and its default, and stop"
    parser.add_argument("--print-manifest", action="store_true", help=text)
    parser.add_argument("--name", help="name of the bundle (default: the name of its folder)")
    parser.add_argument("--version", help="version of the bundle")
    text = "write only FP32 files, with weights stored in half precision: a third of the size"
    parser.add_argument("--half-weights", action="store_true", help=text)
    text = "also write INT8 files, calibrated on the golden inputs"
    parser.add_argument("--int8", action="store_true", help=text)
    text = "also build engines of TensorRT or TensorRT-RTX; repeatable"
    parser.add_argument("--engine", action="append", default=[], choices=sorted(BUILDERS), help=text)
    text = "GPUs of those engines, as in `spinescore engine build`"
    parser.add_argument("--target", action="append", default=[], metavar="CC", help=text)
    text = "fail if a network cannot be written in half precision or INT8"
    parser.add_argument("--strict", action="store_true", help=text)


def _add_checks(parser: argparse.ArgumentParser) -> None:
    text = "radiographs that become the bundle's golden inputs, on which it is checked and calibrated"
    parser.add_argument("--golden", type=Path, nargs="+", default=[], metavar="PATH", help=text)
    text = "number of synthetic studies to use as golden inputs without --golden (default: 9)"
    parser.add_argument("--golden-studies", type=positive, default=9, metavar="K", help=text)
    text = "pictures with the outputs of your own code (see docs/weights.md); or cervical=R,lumbar=S"
    parser.add_argument("--check-localizer", metavar="REF", help=text)
    text = "likewise for the grader; or bridge=R,grades=S"
    parser.add_argument("--check-grader", metavar="REF", help=text)
    text = "kind of a grader's outputs in REF, if REF does not state it"
    parser.add_argument("--check-kind", choices=("logits", "probabilities"), help=text)


def run(arguments: argparse.Namespace) -> int:
    """Export a bundle, print its summary, and build the engines that were asked for."""
    if arguments.print_manifest:
        return _print_manifest()
    missing = [f"--{name}" for name in ("localizer", "grader", "out") if getattr(arguments, name) is None]
    if missing:
        arguments.wrong_usage(f"the following arguments are required: {', '.join(missing)}")
    check_out(arguments.out.parent)
    from spinescore.runtime.bundle.provenance import trust_lines
    from spinescore.runtime.verbs.summary import export_summary

    report = _export(arguments)
    for note in report.notes:
        say(f"note: {note}")
    for warning in report.warnings:
        say(f"warning: {warning}")
    show(export_summary(report))
    if arguments.int8:
        gate.accept_int8(arguments.out)
    for engine in arguments.engine:
        from spinescore.runtime.verbs.engine import build_into

        build_into(arguments.out, engine, arguments.target, precision="int8" if arguments.int8 else "fp16")
    show("\n".join(["", *trust_lines(report.manifest)]))
    return OK


def _print_manifest() -> int:
    with export_extra():
        from spinescore.export.fields import commented_manifest
    show(commented_manifest().removesuffix("\n"))
    return OK


def _export(arguments: argparse.Namespace) -> ExportReport:
    with export_extra():
        from spinescore.export.bundle import export_bundle
    return export_bundle(
        arguments.localizer,
        arguments.grader,
        arguments.out,
        alternatives=arguments.alternative,
        precisions=("fp32",) if arguments.half_weights else ("fp32", "fp16"),
        weights="half" if arguments.half_weights else "single",
        **{name: getattr(arguments, name) for name in _PASSED_ON},
    )
