"""`spinescore crops PATH...`: the regions exactly as the grader sees them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spinescore.runtime.study import Study
from spinescore.runtime.verbs import NOTHING_SCORED, OK, say
from spinescore.runtime.verbs.keypoints import Points, points_by_study, read_keypoints
from spinescore.runtime.verbs.options import add_studies
from spinescore.runtime.verbs.scoring import (
    check_folder,
    open_and_read,
    say_what_was_refused,
)

if TYPE_CHECKING:
    from spinescore.runtime.scorer import ScoredCrops, Scorer

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_studies(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for PNG files and index.csv")
    parser.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    from spinescore.runtime.outputs.crops import write_crops

    keypoints_file = read_keypoints(arguments.keypoints)
    check_folder(arguments.out)
    with open_and_read(arguments) as (scorer, studies):
        keypoints = points_by_study(keypoints_file, studies)
        count = write_crops(_cropped(scorer, studies, keypoints, arguments.strict), arguments.out)
    say(f"{count} crops and index.csv are in {arguments.out}" if count else "no region could be cropped")
    return OK if count else NOTHING_SCORED


def _cropped(
    scorer: Scorer, studies: Sequence[Study], keypoints: Sequence[Points | None], strict: bool
) -> Iterator[ScoredCrops]:
    for study, points in zip(studies, keypoints, strict=True):
        found = scorer.crops(study, keypoints=points, strict=strict)
        say_what_was_refused(found.report)
        yield found
