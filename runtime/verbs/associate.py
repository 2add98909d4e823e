"""`spinescore associate TABLES --exposure CSV`: test whether an exposure and change go together, unit by unit."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from spinescore.runtime.outputs.figures import figure_files
from spinescore.runtime.verbs import NOTHING_SCORED, OK, UsageError, check_out, check_paths, say, show, show_json
from spinescore.runtime.verbs.extras import check_library, check_plots
from spinescore.runtime.verbs.figures import add_figures

__all__ = ["add_arguments", "run"]

_FILES = ("association.json", "association.md", "forest.png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `spinescore associate`."""
    text = "folder that `spinescore cohort` wrote, with unit_changes.csv"
    parser.add_argument("tables", type=Path, metavar="TABLES", help=text)
    text = "CSV file with the columns patient, level, exposure (0 or 1), columns to adjust for, and optionally study"
    parser.add_argument("--exposure", type=Path, required=True, metavar="CSV", help=text)
    text = "columns of that file to adjust for; their values must be numbers"
    parser.add_argument("--adjust", nargs="+", default=[], metavar="COLUMN", help=text)
    text = (
        "CSV file that maps the exposure's patients: column patient_id with the tables' patient_key; without "
        "patient_key, with issuer if the images name one"
    )
    parser.add_argument("--patients", type=Path, metavar="CSV", help=text)
    text = "bundle to analyse if the tables have several: the beginning of its SHA-256, or reader for readers' grades"
    parser.add_argument("--bundle", metavar="B", help=text)
    text = f"folder for {', '.join(_FILES)}; the picture needs matplotlib"
    parser.add_argument("--out", type=Path, metavar="DIR", help=text)
    add_figures(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the tables")
    parser.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Analyse, print and write. Returns 3 if there is nothing to analyse. Raises UsageError for wrong input."""
    from spinescore.runtime.followup.association import associate
    from spinescore.runtime.followup.associationinput import AssociationInputError, read_study
    from spinescore.runtime.followup.associationtext import markdown

    _check(arguments)
    try:
        study = read_study(arguments.tables, arguments.exposure, arguments.adjust, arguments.patients, arguments.bundle)
    except AssociationInputError as error:
        raise UsageError(str(error)) from error
    if not study.units:
        reasons = "; ".join(f"{reason}: {count}" for reason, count in study.left_out.items())
        say(f"spinescore: no unit has both a change and an exposure ({reasons or 'the tables are empty'})")
        say("name patients by the tables' patient_key, or give the key of each of your patients with --patients")
        return NOTHING_SCORED
    document = associate(study)
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if arguments.out is not None:
        _write(arguments, document, text, markdown(document))
    (show_json if arguments.json else show)((text if arguments.json else markdown(document)).removesuffix("\n"))
    return OK


def _check(arguments: argparse.Namespace) -> None:
    """Raise UsageError, before any work, for wrong paths, wrong columns or a missing library."""
    check_paths(path for path in (arguments.tables, arguments.exposure, arguments.patients) if path is not None)
    check_out(arguments.out)
    if len(set(arguments.adjust)) < len(arguments.adjust) or {"patient", "level", "exposure"} & set(arguments.adjust):
        raise UsageError("--adjust names columns beside patient, level and exposure, each of them once")
    check_library("statsmodels", "association", "odds ratios are computed")
    if arguments.out is not None:
        check_plots()


def _write(arguments: argparse.Namespace, document: dict[str, Any], text: str, tables: str) -> None:
    from spinescore.runtime.files import write_set
    from spinescore.runtime.followup.associationtext import forest_figure

    figure = forest_figure(document)
    files = {_FILES[0]: text, _FILES[1]: tables, **figure_files("forest", figure, arguments.figures)}
    written = write_set(arguments.out, files)
    if figure is None:
        say(f"no {_FILES[2]}: there is no odds ratio; see the notes for the reason")
    say(f"written: {', '.join(map(str, written))}")
