"""The command line: `spinescore VERB ...`. What the verbs do stands in `spinescore.runtime.verbs`.

Reports go to standard output, messages to standard error. Exit status: 0 at least one region was scored (or the verb
did its work), 1 unexpected fault, 2 wrong usage, 3 nothing could be scored, 4 bundle, checkpoint, engine or device
refused, 5 scored but over budget.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from spinescore.runtime.errors import BudgetExceeded, InputRejected, SpineScoreError
from spinescore.runtime.msasss import DEFAULT_MAX_IMPUTED
from spinescore.runtime.verbs import (
    FAULT,
    NOTHING_SCORED,
    OK,
    OVER_BUDGET,
    REFUSED,
    USAGE,
    UsageError,
    bundle,
    gate,
    nobody_reads,
    plan,
    scoring,
    write_utf8,
)

__all__ = ["main"]

_INTERRUPTED = 130  # what a shell expects after Ctrl-C
_DEBUG = "SPINESCORE_DEBUG"

_BUNDLE = "phantom-reference"
_DEMO_SEED = 1_000_003  # the shipped bundle was trained on seeds below 100,000
_STATUSES = """\
exit status: 0 at least one region was scored, 1 unexpected fault, 2 wrong usage, 3 nothing could be scored,
4 bundle, checkpoint, engine or device refused, 5 scored but over budget"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Wrong options end in `SystemExit(2)`, as argparse has it."""
    arguments = _parser().parse_args(argv)
    write_utf8()
    try:
        status = int(arguments.verb(arguments))
        print(end="", flush=True)
        return status
    except UsageError as error:
        return _fail(USAGE, str(error))
    except InputRejected as error:
        return _fail(NOTHING_SCORED, f"{error.code}: {error}")
    except BudgetExceeded as error:
        return _fail(OVER_BUDGET, str(error))
    except SpineScoreError as error:
        return _fail(REFUSED, str(error))
    except KeyboardInterrupt:
        return _fail(_INTERRUPTED, "interrupted")
    except Exception as error:
        if isinstance(error, OSError) and nobody_reads():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains again at exit
            return OK
        if os.environ.get(_DEBUG):
            traceback.print_exc()
        if isinstance(error, PermissionError) and error.filename is not None:
            where = error.filename2 or error.filename
            return _fail(REFUSED, f"{where}: {error.strerror}; close what holds it open, or choose another place")
        return _fail(FAULT, f"unexpected {type(error).__name__}: {error} (set {_DEBUG}=1 to see where)")


def _fail(status: int, message: str) -> int:
    print(f"spinescore: {message}", file=sys.stderr, flush=True)
    return status


Verbs = argparse._SubParsersAction  # the type that add_subparsers gives has no public name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spinescore",
        description="Scores a lateral spine study (DICOM) with the mSASSS. Not a medical device.",
        epilog=_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added = parser.add_subparsers(metavar="VERB", required=True)
    for add in (
        _add_demo,
        _add_score,
        _add_export,
        _add_bundle,
        _add_engine,
        _add_phantom,
        _add_crops,
        _add_compare,
        _add_cohort,
        _add_bench,
        _add_plan,
        _add_evaluate,
        _add_doctor,
    ):
        add(added)
    return parser


def _add_demo(added: Verbs[argparse.ArgumentParser]) -> None:
    parser = added.add_parser("demo", help="score a synthetic study with the shipped bundle")
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="folder to write (demo)")
    parser.add_argument("--seed", type=_count, default=_DEMO_SEED, metavar="N", help="seed of the phantom")
    _add_bundle_and_device(parser)
    _add_strict(parser)
    parser.set_defaults(verb=scoring.demo)


def _add_score(added: Verbs[argparse.ArgumentParser]) -> None:
    parser = added.add_parser("score", help="score DICOM files or folders")
    _add_paths(parser)
    _add_window(parser)
    _add_bundle_and_device(parser)
    _add_keypoints(parser)
    _add_strict(parser)
    parser.add_argument(
        "--budget-ms", type=_milliseconds, metavar="N", help="latency budget; what has no time is skipped"
    )
    parser.add_argument("--hard", action="store_true", help="give a study up as soon as its budget cannot be kept")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for results; those of before are replaced")
    _add_format(parser)
    parser.add_argument("--json", action="store_true", help="print reports alone: one as JSON, several as JSON Lines")
    parser.add_argument(
        "--anonymous", action="store_true", help="leave UIDs, date, patient key and file names out of all results"
    )
    parser.set_defaults(verb=scoring.score)


def _add_crops(added: Verbs[argparse.ArgumentParser]) -> None:
    parser = added.add_parser("crops", help="write the regions exactly as the grader sees them")
    _add_paths(parser)
    _add_window(parser)
    _add_bundle_and_device(parser)
    _add_keypoints(parser)
    _add_strict(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for PNG files and index.csv")
    parser.set_defaults(verb=scoring.crops)


def _add_export(added: Verbs[argparse.ArgumentParser]) -> None:
    parser = added.add_parser("export", help="make a bundle from trained weights")
    parser.add_argument(
        "--localizer",
        required=True,
        metavar="F",
        help="HRNet weights, an ONNX file or synthetic:hrnet-w32; or cervical=F,lumbar=F",
    )
    text = "another localizer that answers alike, as w18=narrow.pth; repeated, the most accurate first"
    parser.add_argument("--alternative", action="append", default=[], metavar="NAME=F", help=text)
    parser.add_argument(
        "--grader",
        required=True,
        metavar="F",
        help="ResNet weights, an ONNX file or synthetic:resnet152; or bridge=F,grades=F",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="the bundle's folder")
    parser.add_argument("--manifest", type=Path, metavar="F", help="TOML or JSON with any of the manifest's fields")
    parser.add_argument("--name", help="the bundle's name (that of the folder)")
    parser.add_argument("--version", help="the bundle's version")
    parser.add_argument("--golden", type=Path, nargs="+", default=[], metavar="PATH", help="radiographs to check on")
    parser.add_argument(
        "--golden-studies", type=_positive, default=9, metavar="K", help="without --golden: phantoms to check on (9)"
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
    parser.set_defaults(verb=bundle.export)


def _add_bundle(added: Verbs[argparse.ArgumentParser]) -> None:
    parser = added.add_parser("bundle", help="show or verify a bundle")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    for name, verb, text in (
        ("info", bundle.bundle_info, "what the bundle is and holds"),
        ("verify", bundle.bundle_verify, "check its files and run its golden inputs"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("bundle", help="a folder, or the name of a bundle that ships with the package")
        action.add_argument("--json", action="store_true", help="print JSON")
        action.set_defaults(verb=verb)
        if verb is bundle.bundle_verify:
            gate.add_arguments(action)


def _add_engine(added: Verbs[argparse.ArgumentParser]) -> None:
    from spinescore.runtime.verbs import engine

    engine.add_arguments(added.add_parser("engine", help="build, list or verify TensorRT engines"))


def _add_phantom(added: Verbs[argparse.ArgumentParser]) -> None:
    parser = added.add_parser("phantom", help="draw synthetic studies with known truth")
    parser.add_argument("--seed", type=_count, required=True, metavar="N", help="seed of the first study")
    parser.add_argument("--count", type=_positive, default=1, metavar="K", help="number of studies (1)")
    text = "studies of each patient, two years apart, with progression (1)"
    parser.add_argument("--visits", type=_positive, default=1, metavar="V", help=text)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="gets a folder for each study")
    parser.set_defaults(verb=scoring.phantom)


def _add_compare(added: Verbs[argparse.ArgumentParser]) -> None:
    from spinescore.runtime.verbs import compare

    parser = added.add_parser("compare", help="what changed between two studies of a patient")
    compare.add_arguments(parser)
    _add_bundle_and_device(parser)


def _add_cohort(added: Verbs[argparse.ArgumentParser]) -> None:
    from spinescore.runtime.verbs import cohort

    cohort.add_arguments(added.add_parser("cohort", help="many reports as tables, with a plot of change"))


def _add_bench(added: Verbs[argparse.ArgumentParser]) -> None:
    from spinescore.benchmarks.bench import verb

    verb.add_arguments(added.add_parser("bench", help="measure the latency of this machine"))


def _add_plan(added: Verbs[argparse.ArgumentParser]) -> None:
    plan.add_arguments(added.add_parser("plan", help="find the most accurate way to run within a budget"))


def _add_evaluate(added: Verbs[argparse.ArgumentParser]) -> None:
    from spinescore.benchmarks.agreement import verb

    verb.add_arguments(added.add_parser("evaluate", help="agreement of grades with a reader's"))


def _add_doctor(added: Verbs[argparse.ArgumentParser]) -> None:
    parser = added.add_parser("doctor", help="what this machine can run, and what is missing for the rest")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(verb=scoring.doctor)


def _add_paths(parser: argparse.ArgumentParser) -> None:
    text = "DICOM files, folders to walk, zip archives, DICOMDIR; PNG and JPEG files for research"
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help=text)


def _add_window(parser: argparse.ArgumentParser) -> None:
    text = "of several windows or VOI LUTs in a header, use the one that it explains like this (the first)"
    parser.add_argument("--window", metavar="EXPLANATION", help=text)


def _add_bundle_and_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", default=_BUNDLE, metavar="B", help=f"folder, or name of a shipped one ({_BUNDLE})")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="where to run (auto)")
    gate.add_engine_arguments(parser)
    gate.add_localizer_argument(parser)
    gate.add_build_argument(parser)
    text = "plan to run by, of spinescore plan: a file, none, or auto for what was made here (auto)"
    parser.add_argument("--plan", default="auto", metavar="F", help=text)
    text = f"missing corners of a region that its mean replaces; with more it has no total ({DEFAULT_MAX_IMPUTED})"
    parser.add_argument("--max-imputed", type=_count, default=DEFAULT_MAX_IMPUTED, metavar="N", help=text)


def _add_keypoints(parser: argparse.ArgumentParser) -> None:
    text = 'JSON with a reader\'s points: {"cervical": {"C2/C3": {"centre_px": [x, y], "anterior_px": [x, y]}}}'
    parser.add_argument("--keypoints", type=Path, metavar="F", help=text)


def _add_strict(parser: argparse.ArgumentParser) -> None:
    text = "reject a region where a warning on its radiograph's quality is due"
    parser.add_argument("--strict", action="store_true", help=text)


def _add_format(parser: argparse.ArgumentParser) -> None:
    from spinescore.runtime.outputs.results import DEFAULT_FORMATS, FORMATS

    def formats(text: str) -> list[str]:
        asked = [name.strip().lower() for name in text.split(",")]
        unknown = [name for name in asked if name not in FORMATS]
        if unknown:
            raise argparse.ArgumentTypeError(f"there is no format {unknown[0]!r}; the formats are {', '.join(FORMATS)}")
        return asked

    text = f"what --out writes, of {', '.join(FORMATS)} ({','.join(DEFAULT_FORMATS)})"
    parser.add_argument("--format", type=formats, metavar="F,F", help=text)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def _positive(text: str) -> int:
    if (number := _count(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _milliseconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of milliseconds above 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
