"""`spinescore compare BASELINE FOLLOWUP [...]`: compare each follow-up with the baseline."""

from __future__ import annotations

import argparse
import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from spinescore.runtime.verbs import (
    NOTHING_SCORED,
    OK,
    UsageError,
    check_out,
    check_paths,
    say,
    show,
    show_json,
    unreadable,
)
from spinescore.runtime.verbs.extras import check_plots
from spinescore.runtime.verbs.options import add_scorer
from spinescore.runtime.verbs.rules import add_rules, rules_of
from spinescore.runtime.verbs.scoring import open_scorer, say_warnings_and_rejects

if TYPE_CHECKING:
    from spinescore.runtime.followup.comparison import Comparison
    from spinescore.runtime.scorer import Scorer
    from spinescore.runtime.scoring.report import StudyReport

__all__ = ["add_arguments", "run"]

_FILES = ("comparison.json", "comparison.png")
_REPORT = "report.json"  # the file of `spinescore score --out` in a study's folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = (
        "earlier study: a report (JSON), a folder with a report.json, a folder with the DICOM files of one study, or a "
        "reader's CSV file (FILE.csv:STUDY if it holds several studies), or TABLES:STUDY for a study in the tables of "
        "spinescore archive"
    )
    parser.add_argument("baseline", type=Path, metavar="BASELINE", help=text)
    parser.add_argument("followups", type=Path, nargs="+", metavar="FOLLOWUP", help="later studies")
    add_rules(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"folder for {' and '.join(_FILES)}")
    parser.add_argument("--no-plot", action="store_true", help="write no picture, which needs matplotlib")
    parser.add_argument("--json", action="store_true", help="print only JSON: one comparison, or several as JSON Lines")
    add_scorer(parser)
    parser.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    from spinescore.runtime.followup.change import compare
    from spinescore.runtime.outputs.results import result_folders

    check_out(arguments.out)
    if arguments.out is not None and not arguments.no_plot:
        check_plots(", or use --no-plot")
    rules = rules_of(arguments)
    with ExitStack() as stack:
        baseline, *followups = _reports([arguments.baseline, *arguments.followups], arguments, stack)
    comparisons = [compare(baseline, followup, rules) for followup in followups]
    count = len(comparisons)
    folders = [] if arguments.out is None else result_folders(arguments.out, count, "followup", _FILES)
    for number, comparison in enumerate(comparisons):
        if folders:
            _write(comparison, folders[number], not arguments.no_plot)
        _show(comparison, arguments.json, number + 1 if count > 1 else None)
    return OK if any(comparison.corners.comparable for comparison in comparisons) else NOTHING_SCORED


def _reports(paths: list[Path], arguments: argparse.Namespace, stack: ExitStack) -> list[StudyReport]:
    """Return the reports, read from files or made by scoring.

    A scorer is opened only when all files were read, for the first study without a report.
    """
    check_paths(path for path in paths if _csv(path) is None and _tables(path) is None)
    read = [_read(path) for path in paths]
    scorer: Scorer | None = None
    reports = []
    for path, report in zip(paths, read, strict=True):
        if report is None:
            scorer = scorer or stack.enter_context(open_scorer(arguments))
            report = _score(path, scorer)
        reports.append(report)
    return reports


def _read(path: Path) -> StudyReport | None:
    """Return the report in a file or folder; None if it is a study to score."""
    from spinescore.runtime.followup.reportfiles import SUFFIXES, read_reports

    if (csv_file := _csv(path)) is not None:
        return _reading(*csv_file)
    if (tables := _tables(path)) is not None:
        return _archived(*tables)
    file = path / _REPORT if path.is_dir() else path
    if not file.is_file() or file.suffix.lower() not in SUFFIXES:
        return None
    try:
        reports = [report for _, report in read_reports(file)]
    except OSError as error:
        raise unreadable(file, error) from error
    if len(reports) != 1:
        raise UsageError(f"{file} holds {len(reports)} reports; name a file with one")
    if isinstance(reports[0], ValueError):
        raise UsageError(f"{file}: {reports[0]}")
    if path.is_dir():
        say(f"{path}: using its {_REPORT}, without scoring again")
    return reports[0]


def _tables(path: Path) -> tuple[Path, str] | None:
    """Return the folder of tables and the study that `path` names (`TABLES:STUDY`); None for other paths."""
    from spinescore.runtime.followup.archivefiles import is_archive

    folder, colon, study = str(path).rpartition(":")
    return (Path(folder), study) if colon and is_archive(Path(folder)) and not path.exists() else None


def _archived(folder: Path, study: str) -> StudyReport:
    """Return the report of a study in the tables of an archive. Raises UsageError if it is not there."""
    from spinescore.runtime.followup.archivefiles import find_study

    try:
        report = find_study(folder, study)
    except ValueError as error:
        raise UsageError(f"{folder}: {error}") from error
    if report is None:
        raise UsageError(f"{folder} has no study {study} in its tables")
    return report


def _csv(path: Path) -> tuple[Path, str | None] | None:
    """Return the CSV file and the study that `path` names (`FILE.csv`, `FILE.csv:STUDY`); None for other paths."""
    if path.is_dir():
        return None
    if path.suffix.lower() == ".csv":
        return path, None
    parts = re.fullmatch(r"(.+?\.csv):(.+)", str(path), re.IGNORECASE)
    return None if parts is None or path.exists() else (Path(parts[1]), parts[2])


def _reading(file: Path, study: str | None) -> StudyReport:
    """Return the study of a reader's CSV file. Raises UsageError unless there is exactly one such study."""
    from spinescore.runtime.followup.readerfiles import read_csv

    check_paths([file])
    try:
        reports = read_csv(file)
    except OSError as error:
        raise unreadable(file, error) from error
    except ValueError as error:
        raise UsageError(f"{file}: {error}") from error
    matching = [report for report in reports if study in (None, report.study.study_instance_uid)]
    if len(matching) != 1:
        names = ", ".join(dict.fromkeys(str(report.study.study_instance_uid) for report in reports[:5]))
        more = ", .." if len(reports) > 5 else ""
        holds = f"holds {len(reports)} readings ({names}{more})"
        if study is None:
            raise UsageError(f"{file} {holds}; name one, as {file}:{reports[0].study.study_instance_uid}")
        raise UsageError(f"{file} has {len(matching) or 'no'} readings of study {study}; it {holds}")
    return matching[0]


def _score(path: Path, scorer: Scorer) -> StudyReport:
    from spinescore.runtime.reading.studies import load_study

    say(f"{path}: scoring")
    report = scorer.score(load_study(path), count_reading=True)
    say_warnings_and_rejects(report)
    return report


def _show(comparison: Comparison, as_json: bool, number: int | None) -> None:
    from spinescore.runtime.followup.comparisontext import comparison_summary

    for warning in comparison.warnings:
        say(f"warning: {warning}")
    if as_json:
        show_json(comparison.to_json(indent=2 if number is None else None))
        return
    if number is not None:
        show(f"Follow-up {number}\n")
    show(comparison_summary(comparison) + ("" if number is None else "\n"))


def _write(comparison: Comparison, folder: Path, plot: bool) -> None:
    from spinescore.runtime.files import write_set

    def picture() -> bytes | None:
        from spinescore.runtime.followup.plots import comparison_png

        return comparison_png(comparison) if plot else None

    written = write_set(folder, dict(zip(_FILES, (comparison.to_json() + "\n", picture), strict=True)))
    say(f"written: {', '.join(map(str, written))}")
