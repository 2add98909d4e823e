"""`spinescore export`: a bundle from trained weights."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spinescore.runtime.errors import BundleError
from spinescore.runtime.verbs import OK, gate, say, show
from spinescore.runtime.verbs.options import positive

__all__ = ["add_arguments", "export_extra", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--localizer",
        metavar="F",
        help="HRNet weights (FILE or FILE:key), an ONNX file or synthetic:hrnet-w32; or cervical=F,lumbar=F",
    )
    text = "another localizer that answers alike, as w18=narrow.pth; repeated, the most accurate first"
    parser.add_argument("--alternative", action="append", default=[], metavar="NAME=F", help=text)
    parser.add_argument(
        "--grader",
        metavar="F",
        help="ResNet weights (FILE or FILE:key), an ONNX file or synthetic:resnet152; or bridge=F,grades=F",
    )
    parser.add_argument("--out", type=Path, metavar="BUNDLE", help="the bundle's folder")
    parser.add_argument("--manifest", type=Path, metavar="F", help="TOML or JSON with any of the manifest's fields")
    parser.add_argument(
        "--print-manifest", action="store_true", help="print every field of such a file with its default, and stop"
    )
    parser.add_argument("--name", help="the bundle's name (that of the folder)")
    parser.add_argument("--version", help="the bundle's version")
    parser.add_argument("--golden", type=Path, nargs="+", default=[], metavar="PATH", help="radiographs to check on")
    parser.add_argument(
        "--golden-studies", type=positive, default=9, metavar="K", help="without --golden: phantoms to check on (9)"
    )
    parser.add_argument(
        "--half-weights",
        action="store_true",
        help="FP32 files alone, their weights stored in half: a third of the size",
    )
    parser.add_argument("--int8", action="store_true", help="add INT8 files, calibrated on the golden inputs")
    parser.add_argument(
        "--engine",
        action="append",
        default=[],
        choices=("tensorrt", "tensorrt-rtx"),
        help="also build TensorRT engines; may be named twice",
    )
    parser.add_argument(
        "--target", action="append", default=[], metavar="CC", help="GPUs of those engines, as engine build has it"
    )
    parser.add_argument(
        "--strict", action="store_true", help="fail where a network cannot be had in half precision or INT8"
    )
    text = "pictures with what your own code gives for them (README); or cervical=R,lumbar=S"
    parser.add_argument("--check-localizer", metavar="REF", help=text)
    parser.add_argument("--check-grader", metavar="REF", help="likewise; or bridge=R,grades=S")
    parser.add_argument(
        "--check-kind", choices=("logits", "probabilities"), help="what a grader's outputs in REF are, if it says not"
    )
    parser.add_argument(
        "--bridge-class", type=int, choices=(0, 1), help="the output of a 2-class network that means bridge"
    )
    parser.set_defaults(verb=run, wrong_usage=parser.error)


def run(arguments: argparse.Namespace) -> int:
    if arguments.print_manifest:
        with export_extra():
            from spinescore.export.fields import commented_manifest
        show(commented_manifest().removesuffix("\n"))
        return OK
    missing = [f"--{name}" for name in ("localizer", "grader", "out") if getattr(arguments, name) is None]
    if missing:
        arguments.wrong_usage(f"the following arguments are required: {', '.join(missing)}")
    with export_extra():
        from spinescore.export.bundle import export_bundle
    from spinescore.runtime.bundle.provenance import trust_lines
    from spinescore.runtime.verbs.engine import build_into
    from spinescore.runtime.verbs.summary import export_summary

    report = export_bundle(
        arguments.localizer,
        arguments.grader,
        arguments.out,
        alternatives=arguments.alternative,
        manifest=arguments.manifest,
        name=arguments.name,
        version=arguments.version,
        golden=arguments.golden,
        golden_studies=arguments.golden_studies,
        precisions=("fp32",) if arguments.half_weights else ("fp32", "fp16"),
        weights="half" if arguments.half_weights else "single",
        int8=arguments.int8,
        strict=arguments.strict,
        check_localizer=arguments.check_localizer,
        check_grader=arguments.check_grader,
        check_kind=arguments.check_kind,
        bridge_class=arguments.bridge_class,
    )
    for note in report.notes:
        say(f"note: {note}")
    for warning in report.warnings:
        say(f"warning: {warning}")
    show(export_summary(report))
    if arguments.int8:
        gate.accept_int8(arguments.out)
    for engine in arguments.engine:
        build_into(arguments.out, engine, arguments.target, precision="int8" if arguments.int8 else "fp16")
    show("\n".join(["", *trust_lines(report.manifest)]))
    return OK


@contextmanager
def export_extra() -> Iterator[None]:
    """Says which extra brings what the exporter needs, where that is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "spinescore").startswith("spinescore"):
            raise
        raise BundleError(
            f'bundles are made and verified with {error.name}, which is missing: pip install "spinescore[export]"'
        ) from error
