"""`spinescore cohort FOLDER`: many reports to tidy tables and a cumulative probability plot of change."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from spinescore.runtime.verbs import NOTHING_SCORED, OK, UsageError, say
from spinescore.runtime.verbs.compare import add_rules, check_out, check_plots, rules_of

if TYPE_CHECKING:
    from spinescore.runtime.followup.cohort import Change, Cohort
    from spinescore.runtime.followup.comparison import Rules
    from spinescore.runtime.followup.tables import Row

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="reports as JSON or JSON Lines, in any folder below"
    )
    parser.add_argument("--out", type=Path, default=Path("cohort"), metavar="DIR", help="folder for tables (cohort)")
    parser.add_argument("--parquet", action="store_true", help="write each table as Parquet too; needs pyarrow")
    parser.add_argument("--no-plot", action="store_true", help="write no picture; it needs matplotlib")
    add_rules(parser)
    parser.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    from spinescore.runtime.followup.cohort import read_cohort
    from spinescore.runtime.followup.tables import tables_of

    _check(arguments)
    rules = rules_of(arguments)
    cohort = read_cohort(arguments.folder)
    for note in cohort.notes:
        say(note)
    if not cohort.entries:
        say(f"spinescore: no report could be read in {arguments.folder}; `spinescore score --json` makes them")
        return NOTHING_SCORED
    tables = tables_of(cohort, rules)
    whole = cohort.whole_changes(rules)
    written = _write_tables(tables, arguments.out, arguments.parquet)
    written += [] if arguments.no_plot else _write_plot(whole, rules, arguments.out)
    print(_summary(cohort, tables))
    say(f"written: {', '.join(map(str, written))}")
    return OK


def _check(arguments: argparse.Namespace) -> None:
    if not arguments.folder.is_dir():
        raise UsageError(f"there is no folder {arguments.folder}")
    check_out(arguments.out)
    if arguments.parquet and find_spec("pyarrow") is None:
        raise UsageError('Parquet is written with pyarrow, which is missing: pip install "spinescore[parquet]"')
    if not arguments.no_plot:
        check_plots()


def _write_tables(tables: dict[str, list[Row]], folder: Path, parquet: bool) -> list[Path]:
    from spinescore.runtime.followup.tables import csv_text, dictionary, parquet_bytes
    from spinescore.runtime.output import write_atomic

    written = [write_atomic(folder / "columns.csv", dictionary())]
    for name, rows in tables.items():
        written.append(write_atomic(folder / f"{name}.csv", csv_text(name, rows)))
        if parquet:
            written.append(write_atomic(folder / f"{name}.parquet", parquet_bytes(name, rows)))
    return written


def _write_plot(changes: list[Change], rules: Rules, folder: Path) -> list[Path]:
    """One series per bundle; without a change there is no picture, and one of before is removed."""
    from spinescore.runtime.followup.plots import cumulative_png
    from spinescore.runtime.output import write_atomic

    path = folder / "change.png"
    series: dict[str, list[float]] = {}
    for change in changes:
        bundle = change.comparison.followup.bundle
        if change.comparison.total.change is not None:
            name = f"{bundle.name} {bundle.version} {bundle.sha256[:8]}"
            series.setdefault(name, []).append(change.comparison.total.change)
    if not series:
        path.unlink(missing_ok=True)
        say("no patient has two studies with a total, so there is no plot of change")
        return []
    return [
        write_atomic(
            path, cumulative_png(series, rules, "Change of mSASSS from each patient's first study to the last")
        )
    ]


def _summary(cohort: Cohort, tables: dict[str, list[Row]]) -> str:
    patients = {row["patient_key"] for row in tables["studies"]} - {None}
    changes = [row["change"] for row in tables["patients"] if row["change"] is not None]
    lines = [
        f"{len(cohort.entries)} studies of {len(patients)} known patients, {len(cohort.notes)} passed over",
        f"{len(tables['patients'])} courses of two studies or more, {len(tables['changes'])} changes between studies",
    ]
    if alone := cohort.without_course():
        lines.append(f"{alone} studies without patient key or date: they belong to no course")
    if changes:
        progressed = sum(row["progressed"] is True for row in tables["patients"])
        mean = sum(changes) / len(changes)
        lines.append(f"first to last study: mean change {mean:.2f}, {progressed} of {len(changes)} progressed")
    return "\n".join(lines)
