"""Options that several verbs share, and the kinds of numbers that options take."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, get_args

from spinescore.runtime.engines.sidecar import FLAVOURS
from spinescore.runtime.names import BuildMode, DeviceName, EngineName, PrecisionName
from spinescore.runtime.scoring.msasss import DEFAULT_MAX_IMPUTED
from spinescore.runtime.study import LEVELS, REGIONS, Facing

__all__ = [
    "BUILDERS",
    "BUNDLE",
    "add_action",
    "add_anonymous",
    "add_build",
    "add_bundle",
    "add_engine",
    "add_localizer",
    "add_scorer",
    "add_strict",
    "add_studies",
    "count",
    "imputed",
    "milliseconds",
    "positive",
    "seed",
]

BUNDLE = "phantom-reference"
_SITES_OF_A_REGION = 2 * len(LEVELS[REGIONS[0]])
_LAST_SEED = 10**12 - 1  # the seed is a part of the Patient ID and other short texts of a file

# The frameworks that build engines, by the name that `--engine` takes, with their import names. The lean runtime only
# runs engines.
BUILDERS = {name.replace("_", "-"): name for name in FLAVOURS if name != "tensorrt_lean"}


def add_studies(parser: argparse.ArgumentParser) -> None:
    """Add the options of a verb that reads and scores studies: files, scorer, and a reader's points."""
    text = "DICOM files, folders (searched with all subfolders), zip archives, DICOMDIR; PNG and JPEG for research"
    parser.add_argument("paths", type=Path, nargs="*", metavar="PATH", help=text)
    text = (
        "a CSV list of files, used instead of PATH, with the column path and any of study, region, facing, "
        "spacing_mm, patient, study_date; for files whose header does not state these"
    )
    parser.add_argument("--inputs", type=Path, metavar="LIST", help=text)
    parser.set_defaults(wrong_usage=parser.error)
    text = "use the window or VOI LUT with this explanation, if a header has several (default: the first)"
    parser.add_argument("--window", metavar="EXPLANATION", help=text)
    text = (
        "region of the radiograph, for headers that state none (or PNG files); an error if a header states the other "
        "region, or if several radiographs of a study state none"
    )
    parser.add_argument("--region", choices=REGIONS, help=text)
    text = (
        "side of the picture to which the patient looks, for headers that state none; an error if a header states the "
        "other side"
    )
    parser.add_argument("--facing", choices=get_args(Facing), help=text)
    add_scorer(parser)
    text = (
        "JSON file with a reader's points, used instead of the localizer's. For one study: "
        '{"cervical": {"C2/C3": {"centre_px": [x, y], "anterior_px": [x, y]}}}; for several, each under its Study '
        'Instance UID: {"1.2.3": {"cervical": ...}}; or a report.json'
    )
    parser.add_argument("--keypoints", type=Path, metavar="F", help=text)
    add_strict(parser)


def add_scorer(parser: argparse.ArgumentParser) -> None:
    """Add the options that `scoring.open_scorer` reads."""
    text = f"bundle to score with: a folder, or the name of a shipped bundle (default: {BUNDLE})"
    parser.add_argument("--bundle", default=BUNDLE, metavar="B", help=text)
    text = "device to run on; auto: a GPU if it can run the bundle, else the CPU (default: auto)"
    parser.add_argument("--device", default="auto", choices=get_args(DeviceName), help=text)
    add_engine(parser)
    add_localizer(parser)
    add_build(parser)
    text = "plan of `spinescore plan` to follow: a file, none, or auto for a plan made on this machine (default: auto)"
    parser.add_argument("--plan", default="auto", metavar="F", help=text)
    text = (
        "most missing corners of a region that are replaced by the region's mean; with more missing, the region has no "
        f"total (default: {DEFAULT_MAX_IMPUTED})"
    )
    parser.add_argument("--max-imputed", type=imputed, default=DEFAULT_MAX_IMPUTED, metavar="N", help=text)


def add_engine(parser: argparse.ArgumentParser, unaccepted: bool = True) -> None:
    """Add `--engine` and `--precision`, and for verbs that score `--unaccepted`."""
    default = "the fastest one accepted on this machine" if unaccepted else "all that are installed"
    text = f"engine that runs the networks (default: {default})"
    parser.add_argument("--engine", choices=get_args(EngineName), help=text)
    text = f"precision of the networks (default: {default})"
    parser.add_argument("--precision", choices=get_args(PrecisionName), help=text)
    if unaccepted:
        text = "allow an engine that `spinescore bundle verify --device` has not accepted on this machine"
        parser.add_argument("--unaccepted", action="store_true", help=text)


def add_localizer(parser: argparse.ArgumentParser) -> None:
    """Add `--localizer`, for verbs that score."""
    text = "alternative localizer of the bundle, as `spinescore bundle info` lists it (default: the bundle's own)"
    parser.add_argument("--localizer", metavar="NAME", help=text)


def add_build(parser: argparse.ArgumentParser) -> None:
    """Add `--build`, for verbs that score."""
    text = (
        "when to build engines for a GPU, or check faster engines of a CPU, if none was accepted yet: now (before "
        "scoring), background (while it scores), no; auto: now on a GPU, background on a CPU (default: auto)"
    )
    parser.add_argument("--build", choices=get_args(BuildMode), default="auto", help=text)


def add_anonymous(parser: argparse.ArgumentParser) -> None:
    text = "leave UIDs, date, patient key and file names out of all results"
    parser.add_argument("--anonymous", action="store_true", help=text)


def add_action(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    """Add an action of a verb, with its meaning in the verb's help and in its own, and return its parser.

    `actions` is the result of `add_subparsers`, whose type argparse does not publish.
    """
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=f"{text[:1].upper()}{text[1:]}.")
    return parser


def add_bundle(parser: argparse.ArgumentParser) -> None:
    """Add the bundle as a positional argument, for verbs that show or change a bundle."""
    parser.add_argument("bundle", metavar="BUNDLE", help="bundle: a folder, or the name of a shipped bundle")


def add_strict(parser: argparse.ArgumentParser) -> None:
    text = "reject a region if there is a warning about its radiograph's quality"
    parser.add_argument("--strict", action="store_true", help=text)


def count(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def imputed(text: str) -> int:
    if (number := count(text)) > _SITES_OF_A_REGION:
        raise argparse.ArgumentTypeError(f"{number} is more than the {_SITES_OF_A_REGION} corners of a region")
    return number


def seed(text: str) -> int:
    if (number := count(text)) > _LAST_SEED:
        raise argparse.ArgumentTypeError(
            f"{number} is too large for the short texts of a file; the last seed is {_LAST_SEED}"
        )
    return number


def positive(text: str) -> int:
    if (number := count(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def milliseconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of milliseconds above 0")
    return number
