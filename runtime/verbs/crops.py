"""`spinescore crops PATH...`: write the pictures that networks see, by a bundle or only by a manifest file."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from spinescore.runtime.errors import OutputError
from spinescore.runtime.study import Study
from spinescore.runtime.verbs import NOTHING_SCORED, OK, UsageError, check_out, say
from spinescore.runtime.verbs.keypoints import Points, points_by_study, read_keypoints, true_points, truth_files
from spinescore.runtime.verbs.options import BUNDLE, add_anonymous, add_studies
from spinescore.runtime.verbs.scoring import (
    as_asked,
    heads_of,
    open_and_read,
    read_on_demand,
    say_warnings_and_rejects,
    study_reader,
)

if TYPE_CHECKING:
    from spinescore.runtime.outputs.crops import PictureFile
    from spinescore.runtime.scorer import Scorer
    from spinescore.runtime.scoring.training import TrainingInputs

__all__ = ["add_arguments", "run"]

Grades = Mapping[str, float | None]  # site -> grade; half points are readers' means


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_studies(parser)
    text = "folder for PNG files, named after their studies, and index.csv; other files in it stay"
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=text)
    text = (
        "manifest file of an export (TOML or JSON), used instead of a bundle: writes pictures as its networks will see "
        "them, around the points of --keypoints or of phantoms' truth.json; needs no network"
    )
    parser.add_argument("--manifest", type=Path, metavar="F", help=text)
    text = "with --manifest: also write the localizer's pictures, with the points in their pixels"
    parser.add_argument("--localizer-inputs", action="store_true", help=text)
    text = (
        "file with true grades for index.csv: a CSV file or report as `spinescore evaluate` reads it, or truth.json "
        "(default: the truth.json of phantoms)"
    )
    parser.add_argument("--truth", type=Path, metavar="F", help=text)
    parser.add_argument("--overwrite", action="store_true", help="replace earlier crops of these studies")
    add_anonymous(parser)
    parser.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    _check_index(arguments.out)
    grades = _true_grades(arguments)
    if arguments.manifest is not None:
        count = _write_untrained(arguments, grades)
    elif arguments.localizer_inputs:
        raise UsageError(
            "--localizer-inputs writes the pictures of a manifest's localizer: name the manifest file with --manifest "
            "(an empty file has every default)"
        )
    else:
        count = _write_scored(arguments, grades)
    say(f"{count} pictures and index.csv are in {arguments.out}" if count else "no region could be cropped")
    return OK if count else NOTHING_SCORED


def _write_scored(arguments: argparse.Namespace, grades: Mapping[str, Grades]) -> int:
    """Write the pictures that a bundle's grader sees; return their number."""
    keypoints_file = read_keypoints(arguments.keypoints)
    with open_and_read(arguments, on_demand=True) as (scorer, studies):
        keypoints = points_by_study(keypoints_file, heads_of(studies), arguments.anonymous)
        return _write(arguments, studies, keypoints, grades, partial(_scored, scorer, arguments.strict))


def _scored(scorer: Scorer, strict: bool, study: Study, points: Points | None, grades: Grades) -> Iterable[PictureFile]:
    from spinescore.runtime.outputs.crops import scored_files

    crops = scorer.crops(study, keypoints=points, strict=strict)
    say_warnings_and_rejects(crops.report)
    return scored_files(crops, grades)


def _write_untrained(arguments: argparse.Namespace, grades: Mapping[str, Grades]) -> int:
    """Write the pictures that networks with this manifest will see; return their number."""
    from spinescore.runtime.scoring.training import TrainingInputs
    from spinescore.runtime.verbs.extras import export_extra

    _check_no_network(arguments)
    with export_extra():
        from spinescore.export.untrained import untrained_manifest

        manifest = untrained_manifest(arguments.manifest)
    keypoints_file = read_keypoints(arguments.keypoints)
    with (
        read_on_demand(study_reader(arguments, on_demand=True)) as studies,
        TrainingInputs(manifest, arguments.localizer_inputs) as inputs,
    ):
        heads = heads_of(studies)
        if keypoints_file is None:
            points = true_points(arguments.paths)
            keypoints = [points.get(study.study_instance_uid or "") for study in heads]
            if not any(keypoints):
                raise UsageError(
                    "pictures are cut around points: give them with --keypoints F (phantoms have truth.json)"
                )
        else:
            keypoints = list(points_by_study(keypoints_file, heads, arguments.anonymous))
        return _write(arguments, studies, keypoints, grades, partial(_seen, inputs, arguments.strict))


def _seen(
    inputs: TrainingInputs, strict: bool, study: Study, points: Points | None, grades: Grades
) -> Iterable[PictureFile]:
    from spinescore.runtime.outputs.crops import seen_files
    from spinescore.runtime.scoring.intake import given_points

    seen = inputs.of(study, given_points(points), strict)
    for warning in dict.fromkeys(seen.warnings):
        say(f"warning: {warning}")
    for message in seen.left_out:
        say(f"left out: {message}")
    return seen_files(seen, grades)


def _write(
    arguments: argparse.Namespace,
    studies: Sequence[Study],
    keypoints: Sequence[Points | None],
    grades: Mapping[str, Grades],
    pictures: Callable[[Study, Points | None, Grades], Iterable[PictureFile]],
) -> int:
    """Write the `pictures` of each study, one study after the other; return their number."""
    from spinescore.runtime.outputs.crops import write_crops

    truth = _grades_of_studies(grades, heads_of(studies), arguments.truth)
    studies = as_asked(studies, arguments)
    names = _names(studies, arguments)
    return write_crops(zip(names, map(pictures, studies, keypoints, truth), strict=True), arguments.out)


def _check_no_network(arguments: argparse.Namespace) -> None:
    """Raise UsageError for options that choose networks or how they run."""
    options = ("engine", "precision", "localizer", "unaccepted")
    unfit = [name for name in options if getattr(arguments, name)]
    unfit += [name for name, usual in (("bundle", BUNDLE), ("device", "auto")) if getattr(arguments, name) != usual]
    if unfit:
        raise UsageError(f"--manifest cuts pictures without networks: leave out --{unfit[0]}, or --manifest")


def _names(studies: Sequence[Study], arguments: argparse.Namespace) -> list[str]:
    """Return a name for each study. Raises UsageError, before any work, if pictures would be overwritten."""
    from spinescore.runtime.outputs.crops import crops_there, study_names

    heads = heads_of(studies)
    has_uid = [bool(head.study_instance_uid) and not arguments.anonymous for head in heads]
    # A study without a UID is named after its pixels; for that it is read once more.
    names = study_names(heads[number] if has_uid[number] else studies[number] for number in range(len(studies)))
    if not arguments.overwrite and (existing := crops_there(arguments.out, names)) is not None:
        raise UsageError(
            f"{existing} is there already, from an earlier call with the same study: add --overwrite to replace that "
            "study's pictures, or name another folder with --out"
        )
    return names


def _check_index(folder: Path) -> None:
    """Raise UsageError, before any work, for a folder that is a file or has the `index.csv` of another program."""
    from spinescore.runtime.outputs.crops import read_index

    check_out(folder)
    try:
        read_index(folder)
    except OutputError as error:
        raise UsageError(str(error)) from error


def _true_grades(arguments: argparse.Namespace) -> dict[str, Grades]:
    """Return grades by study and site, from phantoms' `truth.json` in the folders of PATH, then from `--truth`."""
    from spinescore.runtime.followup.readings import ReadingsError, read_readings

    files = [*truth_files(arguments.paths), *([] if arguments.truth is None else [arguments.truth])]
    grades: dict[str, Grades] = {}
    try:
        for file in files:
            for study, sites in read_readings(file).corners.items():
                grades[study] = {site: reading.grade for site, reading in sites.items()}
    except ReadingsError as error:
        raise UsageError(str(error)) from error
    return grades


def _grades_of_studies(grades: Mapping[str, Grades], studies: Sequence[Study], truth: Path | None) -> list[Grades]:
    """Return each study's grades; print a warning if there is a file of `truth` without grades for some."""
    by_study = [grades.get(study.study_instance_uid or "", {}) for study in studies]
    without = sum(not sites for sites in by_study)
    if truth is not None and without:
        say(
            f"warning: {truth} has no grades of {without} of {len(by_study)} studies; its column study must hold Study "
            "Instance UIDs, or the names in the list of --inputs"
        )
    return by_study
