"""`spinescore compare BASELINE FOLLOWUP [...]`: each follow-up against the baseline."""

from __future__ import annotations

import argparse
import re
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from spinescore.runtime.verbs import NOTHING_SCORED, OK, UsageError, check_paths, say, show, show_json
from spinescore.runtime.verbs.options import add_scorer
from spinescore.runtime.verbs.rules import add_rules, rules_of
from spinescore.runtime.verbs.scoring import open_scorer

if TYPE_CHECKING:
    from spinescore.runtime.followup.comparison import Comparison
    from spinescore.runtime.scorer import Scorer
    from spinescore.runtime.scoring.report import StudyReport

__all__ = ["add_arguments", "check_out", "check_plots", "run"]

_REPORT = "report.json"  # what `spinescore score --out` leaves in a study's folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = (
        "a report (JSON), a folder with a report.json, DICOM files of one study in a folder, or a reader's CSV file "
        "(FILE.csv:STUDY where it holds several)"
    )
    parser.add_argument("baseline", type=Path, metavar="BASELINE", help=text)
    parser.add_argument("followups", type=Path, nargs="+", metavar="FOLLOWUP", help="likewise, each against BASELINE")
    add_rules(parser)
    parser.add_argument("--out", type=Path, metavar="DIR", help="write comparison.json and comparison.png")
    parser.add_argument("--no-plot", action="store_true", help="write no picture; it needs matplotlib")
    parser.add_argument("--json", action="store_true", help="print JSON: one comparison, or several as JSON Lines")
    add_scorer(parser)
    parser.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    from spinescore.runtime.followup.change import compare

    check_out(arguments.out)
    if arguments.out is not None and not arguments.no_plot:
        check_plots()
    rules = rules_of(arguments)
    with ExitStack() as stack:
        baseline, *followups = _reports([arguments.baseline, *arguments.followups], arguments, stack)
    comparisons = [compare(baseline, followup, rules) for followup in followups]
    for number, comparison in enumerate(comparisons, 1):
        several = len(comparisons) > 1
        if arguments.out is not None:
            folder = arguments.out / f"followup-{number}" if several else arguments.out
            _write(comparison, folder, not arguments.no_plot)
        _show(comparison, arguments.json, number if several else None)
    return OK if any(comparison.corners.comparable for comparison in comparisons) else NOTHING_SCORED


def check_out(folder: Path | None) -> None:
    """Refuse, before any work, a folder for results that is a file."""
    if folder is not None and folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file; name a folder")


def check_plots() -> None:
    """Refuse, before any work, pictures that cannot be drawn."""
    if find_spec("matplotlib") is None:
        raise UsageError(
            'the picture is drawn with matplotlib, which is missing: pip install "spinescore[plots]", or use --no-plot'
        )


def _reports(paths: list[Path], arguments: argparse.Namespace, stack: ExitStack) -> list[StudyReport]:
    """The reports, read or made; a scorer is opened for the first study that has none, once everything is there."""
    check_paths(path for path in paths if _csv(path) is None)
    read = [_read(path) for path in paths]
    scorer: Scorer | None = None
    found = []
    for path, report in zip(paths, read, strict=True):
        if report is None:
            scorer = scorer or stack.enter_context(open_scorer(arguments))
            report = _score(path, scorer)
        found.append(report)
    return found


def _read(path: Path) -> StudyReport | None:
    """The report that `path` is or holds; None where it is a study to score."""
    from spinescore.runtime.followup.reading import SUFFIXES, read_reports

    if (named := _csv(path)) is not None:
        return _reading(*named)
    file = path / _REPORT if path.is_dir() else path
    if not file.is_file() or file.suffix.lower() not in SUFFIXES:
        return None
    try:
        reports = [report for _, report in read_reports(file)]
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror or type(error).__name__})") from error
    if len(reports) != 1:
        raise UsageError(f"{file} holds {len(reports)} reports; name a file with one")
    if isinstance(reports[0], ValueError):
        raise UsageError(f"{file}: {reports[0]}")
    if path.is_dir():
        say(f"{path}: taking {_REPORT} as it stands there")
    return reports[0]


def _csv(path: Path) -> tuple[Path, str | None] | None:
    """The CSV file and the study in it that `path` names (`FILE.csv`, `FILE.csv:STUDY`); None where it names none."""
    if path.is_dir():
        return None
    if path.suffix.lower() == ".csv":
        return path, None
    named = re.fullmatch(r"(.+?\.csv):(.+)", str(path), re.IGNORECASE)
    return None if named is None or path.exists() else (Path(named[1]), named[2])


def _reading(file: Path, study: str | None) -> StudyReport:
    """The study of a reader's CSV file. Raises UsageError where it is not there, or not the only one."""
    from spinescore.runtime.followup.readers import read_csv

    check_paths([file])
    try:
        reports = read_csv(file)
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror or type(error).__name__})") from error
    except ValueError as error:
        raise UsageError(f"{file}: {error}") from error
    found = [report for report in reports if study in (None, report.study.study_instance_uid)]
    if len(found) != 1:
        names = ", ".join(dict.fromkeys(str(report.study.study_instance_uid) for report in reports[:5]))
        more = ", .." if len(reports) > 5 else ""
        holds = f"holds {len(reports)} readings ({names}{more})"
        if study is None:
            raise UsageError(f"{file} {holds}; name one, as {file}:{reports[0].study.study_instance_uid}")
        raise UsageError(f"{file} has {len(found) or 'no'} readings of study {study}; it {holds}")
    return found[0]


def _score(path: Path, scorer: Scorer) -> StudyReport:
    from spinescore.runtime.reading.studies import load_study

    say(f"{path}: scoring")
    report = scorer.score(load_study(path), count_reading=True)
    for warning in report.warnings:
        say(f"warning: {warning}")
    for reject in dict.fromkeys([*report.rejects, *(region.reject for region in report.regions.values())]):
        if reject is not None:
            say(f"rejected ({reject.code}): {reject.message}")
    return report


def _show(comparison: Comparison, as_json: bool, number: int | None) -> None:
    from spinescore.runtime.followup.summary import comparison_summary

    for warning in comparison.warnings:
        say(f"warning: {warning}")
    if as_json:
        show_json(comparison.to_json(indent=2 if number is None else None))
        return
    if number is not None:
        show(f"Follow-up {number}\n")
    show(comparison_summary(comparison) + ("" if number is None else "\n"))


def _write(comparison: Comparison, folder: Path, plot: bool) -> None:
    from spinescore.runtime.files import write_atomic

    written = [write_atomic(folder / "comparison.json", comparison.to_json() + "\n")]
    picture = folder / "comparison.png"
    if plot:
        from spinescore.runtime.followup.plots import comparison_png

        written.append(write_atomic(picture, comparison_png(comparison)))
    else:
        picture.unlink(missing_ok=True)  # it would show another comparison
    say(f"written: {', '.join(map(str, written))}")
