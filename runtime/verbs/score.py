"""`spinescore score PATH...`: studies from files to results."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spinescore.runtime.errors import BudgetExceeded, OutputError
from spinescore.runtime.study import Study
from spinescore.runtime.verbs import NOTHING_SCORED, OVER_BUDGET, REFUSED, UsageError, say
from spinescore.runtime.verbs.keypoints import Points, points_by_study, read_keypoints
from spinescore.runtime.verbs.options import add_anonymous, add_studies, milliseconds
from spinescore.runtime.verbs.scoring import (
    as_asked,
    check_folder,
    is_scored,
    open_and_read,
    say_what_was_refused,
    status_of,
)

if TYPE_CHECKING:
    from spinescore.runtime.report import StudyReport
    from spinescore.runtime.scorer import Scorer

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_studies(parser)
    parser.add_argument(
        "--budget-ms", type=milliseconds, metavar="N", help="latency budget; what has no time is skipped"
    )
    parser.add_argument("--hard", action="store_true", help="give a study up as soon as its budget cannot be kept")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for results; those of before are replaced")
    _add_format(parser)
    parser.add_argument("--json", action="store_true", help="print reports alone: one as JSON, several as JSON Lines")
    add_anonymous(parser)
    parser.set_defaults(verb=run)


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


def run(arguments: argparse.Namespace) -> int:
    from spinescore.runtime.outputs import results

    keypoints_file = read_keypoints(arguments.keypoints)
    check_folder(arguments.out)
    if arguments.format is not None and arguments.out is None:
        raise UsageError("--format says what is written to a folder; name it with --out DIR")
    formats = arguments.format or results.DEFAULT_FORMATS
    results.check_formats(formats, arguments.anonymous)
    with open_and_read(arguments) as (scorer, studies):
        keypoints = points_by_study(keypoints_file, studies, arguments.anonymous)
        studies = as_asked(studies, arguments)
        several, all_written, given_up, reports = len(studies) > 1, True, False, []
        if arguments.hard and arguments.budget_ms is None and scorer.bundle.manifest.budget_ms is None:
            raise UsageError("--hard says that a budget must be kept; name it with --budget-ms N")
        folders = None if arguments.out is None else results.study_folders(arguments.out, len(studies))
        try:
            for number, study in enumerate(studies, 1):
                if several:
                    say(f"study {number} of {len(studies)}")
                report = _report(scorer, study, arguments, keypoints[number - 1])
                if report is None:
                    given_up = True
                    if folders is not None:
                        results.remove_results(folders[number - 1])
                    continue
                reports.append(report)
                if folders is not None:
                    own = [name for name in formats if name != "csv" or not several]
                    all_written &= _write(folders[number - 1], study, report, scorer, own)
                _print_report(report, arguments.json, several)
        finally:
            if several and "csv" in formats and reports:
                results.write_rows(arguments.out, reports)
    status = OVER_BUDGET if given_up else status_of(reports)
    return status if all_written or status == NOTHING_SCORED else REFUSED


def _report(
    scorer: Scorer, study: Study, arguments: argparse.Namespace, keypoints: Points | None
) -> StudyReport | None:
    """A study's report; None, once it was said, where the study was given up for a hard budget."""
    try:
        report = scorer.score(study, arguments.budget_ms, keypoints, strict=arguments.strict, hard=arguments.hard)
    except BudgetExceeded as late:
        say(f"spinescore: {late}")
        if late.report is None:
            return None
        report = late.report
    say_what_was_refused(report)
    return report


def _write(folder: Path, study: Study, report: StudyReport, scorer: Scorer, formats: Sequence[str]) -> bool:
    """Write a study's results; says what could not be written, and returns whether all were."""
    from spinescore.runtime.outputs.results import write_results

    try:
        write_results(folder, study, report, scorer.bundle, formats)
    except OutputError as error:
        say(f"not written: {error}")
        return False
    return True


def _print_report(report: StudyReport, as_json: bool, several: bool) -> None:
    """A report for people, or as JSON where it was asked for or where nothing could be scored."""
    from spinescore.runtime.verbs.summary import study_summary

    if as_json or not is_scored(report):
        print(report.to_json(indent=None if several else 2), flush=True)
    else:
        print(study_summary(report) + ("\n" if several else ""), flush=True)
