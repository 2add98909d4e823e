"""`spinescore crops PATH...`: the regions exactly as the grader sees them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spinescore.runtime.errors import OutputError
from spinescore.runtime.study import Study
from spinescore.runtime.verbs import NOTHING_SCORED, OK, UsageError, say
from spinescore.runtime.verbs.keypoints import Points, points_by_study, read_keypoints
from spinescore.runtime.verbs.options import add_anonymous, add_studies
from spinescore.runtime.verbs.scoring import as_asked, check_folder, open_and_read, say_what_was_refused

if TYPE_CHECKING:
    from spinescore.runtime.scorer import ScoredCrops, Scorer

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_studies(parser)
    text = "folder for PNG files, named after their studies, and index.csv; what is there stays"
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace the crops of these studies that are there")
    add_anonymous(parser)
    parser.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    from spinescore.runtime.outputs.crops import study_names, write_crops

    keypoints_file = read_keypoints(arguments.keypoints)
    _check_index(arguments.out)
    with open_and_read(arguments) as (scorer, studies):
        keypoints = points_by_study(keypoints_file, studies, arguments.anonymous)
        studies = as_asked(studies, arguments)
        names = study_names(studies)
        if not arguments.overwrite:
            _check_crops(arguments.out, names)
        cropped = _cropped(scorer, studies, keypoints, arguments.strict)
        count = write_crops(zip(names, cropped, strict=True), arguments.out)
    say(f"{count} crops and index.csv are in {arguments.out}" if count else "no region could be cropped")
    return OK if count else NOTHING_SCORED


def _check_index(folder: Path) -> None:
    """Refuse, before any work, a folder that is a file or has another's `index.csv`."""
    from spinescore.runtime.outputs.crops import read_index

    check_folder(folder)
    try:
        read_index(folder)
    except OutputError as error:
        raise UsageError(str(error)) from error


def _check_crops(folder: Path, names: Sequence[str]) -> None:
    """Refuse, before anything is scored, to overwrite crops."""
    from spinescore.runtime.outputs.crops import crops_there

    if (there := crops_there(folder, names)) is not None:
        raise UsageError(
            f"{there} is there already, from an earlier call with the same study: add --overwrite to replace that "
            "study's crops, or name another folder with --out"
        )


def _cropped(
    scorer: Scorer, studies: Sequence[Study], keypoints: Sequence[Points | None], strict: bool
) -> Iterator[ScoredCrops]:
    for study, points in zip(studies, keypoints, strict=True):
        found = scorer.crops(study, keypoints=points, strict=strict)
        say_what_was_refused(found.report)
        yield found
