"""`spinescore cohort FOLDER`: turn many reports into tidy tables and a cumulative probability plot of change."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from spinescore.runtime.outputs.figures import figure_files
from spinescore.runtime.verbs import NOTHING_SCORED, OK, UsageError, check_out, check_paths, say, show
from spinescore.runtime.verbs.extras import check_library, check_plots
from spinescore.runtime.verbs.figures import add_figures
from spinescore.runtime.verbs.rules import add_rules, rules_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from spinescore.runtime.followup.cohort import Change
    from spinescore.runtime.followup.comparison import Rules
    from spinescore.runtime.followup.patientfile import PatientFile
    from spinescore.runtime.followup.tables import Row

__all__ = ["add_arguments", "run"]

_KEYS = "patient_keys.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = (
        "folders with reports (JSON or JSON Lines), searched with all subfolders; files of reports; readers' CSV files"
    )
    parser.add_argument("folder", type=Path, nargs="+", metavar="FOLDER", help=text)
    parser.add_argument(
        "--out", type=Path, default=Path("cohort"), metavar="DIR", help="folder for tables (default: cohort)"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.add_argument("--parquet", action="store_true", help="also write each table as Parquet, which needs pyarrow")
    parser.add_argument("--no-plot", action="store_true", help="write no picture, which needs matplotlib")
    add_figures(parser)
    text = "CSV file with your patient IDs; adds patient_keys.csv with their keys, to join your own tables"
    parser.add_argument("--patients", type=Path, metavar="FILE", help=text)
    text = "column of the patients' file; the picture has a series for each of its values"
    parser.add_argument("--arm", metavar="COLUMN", help=text)
    add_rules(parser)
    parser.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    from spinescore.runtime.files import write_set
    from spinescore.runtime.followup.cohort import read_cohort
    from spinescore.runtime.followup.cohortsummary import cohort_summary, summary_text
    from spinescore.runtime.followup.tables import tables_of

    _check(arguments)
    rules = rules_of(arguments)
    patients, arms = _patients(arguments)
    cohort = read_cohort(*arguments.folder)
    for note in (*cohort.notes, *cohort.remarks):
        say(note)
    if not cohort.entries:
        places = ", ".join(map(str, arguments.folder))
        say(f"spinescore: no report could be read in {places}; `spinescore score --json` makes them")
        return NOTHING_SCORED
    tables = tables_of(cohort, rules)
    whole = cohort.whole_changes(rules)
    figure = None if arguments.no_plot else _plot(whole, rules, arms)
    keys = [entry.report.study.patient_key for entry in cohort.entries]
    files = _table_files(tables, arguments.parquet)
    if patients is not None:
        files[_KEYS] = partial(patients.csv_text, keys)
    written = write_set(arguments.out, {**files, **figure_files("change", figure, arguments.figures)})
    if patients is not None:
        _say_keys(patients, keys, arguments.out / _KEYS)
    if figure is None and not arguments.no_plot:
        say("no patient has two studies with a total, so there is no plot of change")
    summary = cohort_summary(cohort, tables, whole, rules)
    show(json.dumps(summary, indent=2) if arguments.json else summary_text(summary))
    say(f"written: {', '.join(map(str, written))}")
    return OK


def _check(arguments: argparse.Namespace) -> None:
    check_paths(arguments.folder)
    check_out(arguments.out)
    if arguments.parquet:
        check_library("pyarrow", "parquet", "Parquet is written")
    if not arguments.no_plot:
        check_plots(", or use --no-plot")
    if arguments.arm is not None and arguments.patients is None:
        raise UsageError("--arm names a column of the patients' file; give that file too, as --patients FILE")


def _patients(arguments: argparse.Namespace) -> tuple[PatientFile | None, dict[str, str] | None]:
    """Return the user's list of patients, and each patient's arm by key if there are arms."""
    from spinescore.runtime.followup.patientfile import read_patient_file

    if arguments.patients is None:
        return None, None
    try:
        patients = read_patient_file(arguments.patients)
        return patients, None if arguments.arm is None else patients.by_key(arguments.arm)
    except ValueError as error:
        raise UsageError(f"--patients {arguments.patients}: {error}") from error


def _say_keys(patients: PatientFile, keys: Sequence[str | None], path: Path) -> None:
    seen = sum(row["patient_key"] in set(keys) for row in patients.rows)
    say(
        f"{seen} of {len(patients.rows)} patients of the list have a study; {path} holds your identifiers: keep it safe"
    )
    if seen < len(patients.rows):
        say(
            "for the others check that SPINESCORE_PATIENT_KEY is the same as when the reports were made, and that the "
            "list has a column issuer if the images name an issuer of the patient ID"
        )


def _table_files(tables: dict[str, list[Row]], parquet: bool) -> dict[str, Callable[[], bytes | str] | None]:
    """Return the files of the tables; without `parquet`, those of an earlier call are removed."""
    from spinescore.runtime.followup.tables import csv_text, dictionary, parquet_bytes

    files: dict[str, Callable[[], bytes | str] | None] = {"columns.csv": dictionary}
    for name, rows in tables.items():
        files[f"{name}.csv"] = partial(csv_text, name, rows)
        files[f"{name}.parquet"] = partial(parquet_bytes, name, rows) if parquet else None
    return files


def _plot(changes: list[Change], rules: Rules, arms: dict[str, str] | None) -> Figure | None:
    """Return the plot, with a series for each bundle and arm; None without any change."""
    from spinescore.runtime.followup.plots import cumulative_figure
    from spinescore.runtime.outputs.words import bundle_name

    series: dict[str, list[Change]] = {}
    for change in changes:
        bundle = change.comparison.followup.bundle
        if change.comparison.total.change is not None:
            name = f"{bundle_name(bundle)} {bundle.sha256[:8]}".strip()
            arm = arms.get(change.comparison.patient_key or "", "in no arm") if arms is not None else ""
            series.setdefault(f"{arm}, {name}" if arm else name, []).append(change)
    compared = {name: [change.comparison for change in series[name]] for name in sorted(series)}
    return cumulative_figure(compared, rules) if compared else None
