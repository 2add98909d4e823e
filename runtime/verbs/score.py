"""`spinescore score PATH...`: read studies, score them, print reports and write results."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from spinescore.runtime.errors import BudgetExceeded, OutputError
from spinescore.runtime.outputs import results
from spinescore.runtime.outputs.formats import DEFAULT_FORMATS, FORMATS, ResultFormat
from spinescore.runtime.outputs.rows import Row, row
from spinescore.runtime.study import Study
from spinescore.runtime.text import one_line
from spinescore.runtime.verbs import (
    FAULT,
    NOTHING_SCORED,
    OK,
    OVER_BUDGET,
    REFUSED,
    UsageError,
    check_out,
    say,
    show,
    show_json,
)
from spinescore.runtime.verbs.faults import told
from spinescore.runtime.verbs.keypoints import Points, points_by_study, read_keypoints
from spinescore.runtime.verbs.options import add_anonymous, add_studies, milliseconds
from spinescore.runtime.verbs.scoring import (
    as_asked,
    heads_of,
    is_scored,
    open_and_read,
    say_warnings_and_rejects,
    status_of,
)
from spinescore.runtime.verbs.streams import ReaderGone

if TYPE_CHECKING:
    from spinescore.runtime.scorer import Scorer
    from spinescore.runtime.scoring.report import StudyReport

__all__ = ["add_arguments", "run"]

_MOST_NAMES = 4  # file names of a study in one message


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_studies(parser)
    text = "latency budget of a study in milliseconds; optional steps that do not fit into it are skipped"
    parser.add_argument("--budget-ms", type=milliseconds, metavar="N", help=text)
    text = "stop scoring a study as soon as its budget cannot be kept"
    parser.add_argument("--hard", action="store_true", help=text)
    text = "folder for results; earlier results in it are replaced"
    parser.add_argument("--out", type=Path, metavar="DIR", help=text)
    _add_format(parser)
    printed = parser.add_mutually_exclusive_group()
    text = "print only the reports: one as JSON, several as JSON Lines"
    printed.add_argument("--json", action="store_true", help=text)
    text = "print only the reports, always as JSON Lines: one report on each line"
    printed.add_argument("--jsonl", action="store_true", help=text)
    add_anonymous(parser)
    parser.set_defaults(verb=run)


def _add_format(parser: argparse.ArgumentParser) -> None:
    def formats(text: str) -> list[ResultFormat]:
        names = [name.strip().lower() for name in text.split(",")]
        unknown = [name for name in names if name not in FORMATS]
        if unknown:
            raise argparse.ArgumentTypeError(f"there is no format {unknown[0]!r}; the formats are {', '.join(FORMATS)}")
        return [name for name in FORMATS if name in names]

    meanings = ", ".join(f"{name} ({form.meaning})" for name, form in FORMATS.items())
    text = f"formats that --out writes, separated by commas: {meanings} (default: {','.join(DEFAULT_FORMATS)})"
    parser.add_argument("--format", type=formats, metavar="F,F", help=text)


def run(arguments: argparse.Namespace) -> int:
    keypoints_file = read_keypoints(arguments.keypoints)
    check_out(arguments.out)
    if arguments.format is not None and arguments.out is None:
        raise UsageError("--format chooses the files in a folder; name the folder with --out DIR")
    formats = arguments.format or DEFAULT_FORMATS
    results.check_formats(formats, arguments.anonymous)
    if sys.stdout is None and arguments.out is None:
        raise OutputError("standard output is closed, and the reports would be lost: name a folder with --out DIR")
    with open_and_read(arguments, on_demand=True) as (scorer, studies):
        keypoints = points_by_study(keypoints_file, heads_of(studies), arguments.anonymous)
        studies = as_asked(studies, arguments)
        if arguments.hard and arguments.budget_ms is None and scorer.bundle.manifest.budget_ms is None:
            raise UsageError("--hard needs a budget that must be kept; give it with --budget-ms N")
        folders = None if arguments.out is None else results.result_folders(arguments.out, len(studies))
        call = _Call(scorer, arguments, formats, len(studies), folders)
        try:
            for number in range(len(studies)):
                call.study(number, partial(studies.__getitem__, number), keypoints[number])
        finally:
            call.write_table()
    return call.status


class _Call:
    """One call of the verb: scores one study after the other, and writes and prints its report.

    A study that cannot be scored, or a file that cannot be written, costs a message and changes `status`. Everything
    else is still done.
    """

    def __init__(
        self,
        scorer: Scorer,
        arguments: argparse.Namespace,
        formats: Sequence[ResultFormat],
        count: int,
        folders: Sequence[Path] | None,
    ) -> None:
        self._scorer, self._arguments, self._count, self._folders = scorer, arguments, count, folders
        self._formats = formats
        self._statuses: list[int] = []  # of the studies with a report; the reports themselves are not kept
        self._rows: list[Row] = []
        self._faults: set[int] = set()  # exit statuses of the errors so far
        self._has_table = count > 1 and folders is not None and "csv" in formats
        self._printing = True

    def study(self, number: int, read: Callable[[], Study], keypoints: Points | None) -> None:
        """Score a study, write its results and print its report. Raises if the report can reach nobody."""
        if self._count > 1:
            say(f"study {number + 1} of {self._count}")
        scored = self._scored(number, read, keypoints)
        if scored is not None:
            study, report = scored
            self._statuses.append(status_of(report))
            if self._has_table:
                self._rows.append(row(report))
            if self._folders is not None:
                self._write(self._folders[number], study, report)
            self._print(report, self._title(number, study) if self._count > 1 else None)

    def _scored(
        self, number: int, read: Callable[[], Study], keypoints: Points | None
    ) -> tuple[Study, StudyReport] | None:
        """Return a study and its report; None, after a message, if it cannot be scored.

        Its earlier results are then removed.
        """
        study = None
        try:
            study = read()
            return study, _report(self._scorer, study, self._arguments, keypoints)
        except Exception as error:
            message = self._told(error)
        place = f"{self._title(number, study)}: " if self._count > 1 else ""
        say(f"spinescore: {place}{message}")
        if self._folders is not None:
            self._guarded(partial(results.remove_results, self._folders[number]))
        return None

    def _title(self, number: int, study: Study | None) -> str:
        """Return a study's number and the names of its first radiographs."""
        names = ", ".join(image.source for image in study.radiographs[:_MOST_NAMES]) if study else "not read"
        return f"study {number + 1} of {self._count}" + (f" ({names})" if names else "")

    def _write(self, folder: Path, study: Study, report: StudyReport) -> None:
        own = [name for name in self._formats if name != "csv" or self._count == 1]
        self._guarded(partial(results.write_results, study, report, folder, formats=own))

    def write_table(self) -> None:
        """Write the rows of several studies as one table."""
        if self._rows:
            self._guarded(partial(results.write_rows, self._arguments.out, self._rows))

    def _guarded(self, step: Callable[[], object]) -> None:
        """Call a function that writes, and print a message if it fails."""
        try:
            step()
        except OutputError as error:
            self._faults.add(REFUSED)
            say(f"not written: {error} (code {error.code})")
        except Exception as error:
            say(f"not written: {self._told(error)}")

    def _told(self, error: Exception) -> str:
        """Return the message for an error, and remember its exit status."""
        status, message = told(error)
        self._faults.add(status)
        return message

    def _print(self, report: StudyReport, title: str | None) -> None:
        """Print a report for people, or as JSON if that was requested or nothing could be scored.

        `title` names the study if there are several.
        If standard output fails, the other studies are still scored if their results go to a folder.
        """
        if not self._printing:
            return
        as_json = self._arguments.json or self._arguments.jsonl
        try:
            text, print_text = _printed(report, as_json, title, self._arguments.jsonl)
            print_text(text)
        except (ReaderGone, OutputError) as error:
            self._printing = False
            if self._folders is None:
                raise
            if isinstance(error, OutputError):
                self._faults.add(REFUSED)
                say(f"not printed: {error}; the results are in {self._arguments.out}")
        except Exception as error:
            say(f"not printed: {self._told(error)}")

    @property
    def status(self) -> int:
        """The exit status: a fault of this program counts most, then refused or unwritten parts, then the budget."""
        faults, statuses = self._faults, self._statuses
        if FAULT in faults:
            return FAULT
        if not statuses and faults:
            return next(status for status in (REFUSED, OVER_BUDGET, NOTHING_SCORED) if status in faults)
        if all(status == NOTHING_SCORED for status in statuses):
            return OVER_BUDGET if OVER_BUDGET in faults else NOTHING_SCORED
        if REFUSED in faults:
            return REFUSED
        return OVER_BUDGET if OVER_BUDGET in {*faults, *statuses} else OK


def _report(scorer: Scorer, study: Study, arguments: argparse.Namespace, keypoints: Points | None) -> StudyReport:
    """Return a study's report, even if it came too late for a hard budget. Raises the errors of `Scorer.score`."""
    try:
        report = scorer.score(
            study,
            arguments.budget_ms,
            keypoints,
            strict=arguments.strict,
            hard=arguments.hard,
            count_reading=True,
        )
    except BudgetExceeded as late:
        if late.report is None:
            raise
        say(f"spinescore: {late}")
        report = late.report
    say_warnings_and_rejects(report)
    return report


def _printed(report: StudyReport, as_json: bool, title: str | None, lines: bool) -> tuple[str, Callable[[str], None]]:
    """Return the text of a report, and the function that prints it. With a title it is one of several."""
    from spinescore.runtime.verbs.summary import study_summary

    if as_json or not is_scored(report):
        return report.to_json(indent=2 if title is None and not lines else None), show_json
    return study_summary(report) if title is None else f"{one_line(title)}\n\n{study_summary(report)}\n", show
