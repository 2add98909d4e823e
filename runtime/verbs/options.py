"""Options that several verbs have, and the numbers that options take."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import get_args

from spinescore.runtime.names import BuildMode, DeviceName, EngineName, PrecisionName
from spinescore.runtime.scoring.msasss import DEFAULT_MAX_IMPUTED
from spinescore.runtime.study import REGIONS, Facing

__all__ = [
    "BUNDLE",
    "add_anonymous",
    "add_build",
    "add_engine",
    "add_localizer",
    "add_scorer",
    "add_strict",
    "add_studies",
    "count",
    "milliseconds",
    "positive",
]

BUNDLE = "phantom-reference"


def add_studies(parser: argparse.ArgumentParser) -> None:
    """Files, how they are read and scored, and a reader's points: for what scores studies that are named."""
    text = "DICOM files, folders to walk, zip archives, DICOMDIR; PNG and JPEG files for research"
    parser.add_argument("paths", type=Path, nargs="*", metavar="PATH", help=text)
    text = (
        "in place of PATH a CSV list of files with the columns path and any of study, region, facing, spacing_mm, "
        "patient, study_date, for files whose header does not state them"
    )
    parser.add_argument("--inputs", type=Path, metavar="LIST", help=text)
    parser.set_defaults(wrong_usage=parser.error)
    text = "of several windows or VOI LUTs in a header, use the one that it explains like this (the first)"
    parser.add_argument("--window", metavar="EXPLANATION", help=text)
    text = (
        "region of the radiograph if its header states none, as PNG files; refused if a header states another, or for "
        "several radiographs of one study that state none"
    )
    parser.add_argument("--region", choices=REGIONS, help=text)
    text = "side of the picture to which the patient looks, if the header states none; refused if it states the other"
    parser.add_argument("--facing", choices=get_args(Facing), help=text)
    add_scorer(parser)
    text = (
        'JSON with a reader\'s points: {"cervical": {"C2/C3": {"centre_px": [x, y], "anterior_px": [x, y]}}} of one '
        'study; for several, each under its Study Instance UID: {"1.2.3": {"cervical": ...}}; or a report.json'
    )
    parser.add_argument("--keypoints", type=Path, metavar="F", help=text)
    add_strict(parser)


def add_scorer(parser: argparse.ArgumentParser) -> None:
    """What `scoring.open_scorer` reads."""
    parser.add_argument("--bundle", default=BUNDLE, metavar="B", help=f"folder, or name of a shipped one ({BUNDLE})")
    parser.add_argument("--device", default="auto", choices=get_args(DeviceName), help="where to run (auto)")
    add_engine(parser)
    add_localizer(parser)
    add_build(parser)
    text = "plan to run by, of spinescore plan: a file, none, or auto for what was made here (auto)"
    parser.add_argument("--plan", default="auto", metavar="F", help=text)
    text = f"missing corners of a region that its mean replaces; with more it has no total ({DEFAULT_MAX_IMPUTED})"
    parser.add_argument("--max-imputed", type=count, default=DEFAULT_MAX_IMPUTED, metavar="N", help=text)


def add_engine(parser: argparse.ArgumentParser, unaccepted: bool = True) -> None:
    """`--engine` and `--precision`, and for what scores `--unaccepted`."""
    usual = "the fastest that was accepted here" if unaccepted else "all that there are"
    parser.add_argument("--engine", choices=get_args(EngineName), help=f"what runs the networks ({usual})")
    parser.add_argument("--precision", choices=get_args(PrecisionName), help=f"in which precision ({usual})")
    if unaccepted:
        text = "take an engine that `bundle verify --device` has not accepted here"
        parser.add_argument("--unaccepted", action="store_true", help=text)


def add_localizer(parser: argparse.ArgumentParser) -> None:
    """`--localizer`, for what scores."""
    text = "an alternative localizer of the bundle, as `bundle info` names them (the bundle's own)"
    parser.add_argument("--localizer", metavar="NAME", help=text)


def add_build(parser: argparse.ArgumentParser) -> None:
    """`--build`, for what scores."""
    text = (
        "a GPU's engines, where TensorRT can build and none was accepted, and the check of a CPU's: first (now), while "
        "it scores (background), or not at all; auto: a GPU's first, a CPU's while it scores (auto)"
    )
    parser.add_argument("--build", choices=get_args(BuildMode), default="auto", help=text)


def add_anonymous(parser: argparse.ArgumentParser) -> None:
    text = "leave UIDs, date, patient key and file names out of all results"
    parser.add_argument("--anonymous", action="store_true", help=text)


def add_strict(parser: argparse.ArgumentParser) -> None:
    text = "reject a region where a warning on its radiograph's quality is due"
    parser.add_argument("--strict", action="store_true", help=text)


def count(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


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
