"""`spinescore associate TABLES --exposure CSV`: does a unit's exposure go with what becomes of the same unit?"""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from spinescore.runtime.outputs.figures import FIGURE_FORMATS, figure_formats, rendered
from spinescore.runtime.verbs import NOTHING_SCORED, OK, UsageError, check_paths, say, show, show_json

__all__ = ["add_arguments", "run"]

_FILES = ("association.json", "association.md", "forest.png")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `spinescore associate`."""
    text = "the folder that `spinescore cohort` wrote, with unit_changes.csv"
    parser.add_argument("tables", type=Path, metavar="TABLES", help=text)
    text = "CSV with columns patient, level, exposure (0 or 1), those to adjust for, and optionally study"
    parser.add_argument("--exposure", type=Path, required=True, metavar="CSV", help=text)
    text = "columns of that file to adjust for, as numbers"
    parser.add_argument("--adjust", nargs="+", default=[], metavar="COLUMN", help=text)
    text = (
        "CSV with patient_id (as the exposure names patients) and the tables' patient_key, else issuer if there is one"
    )
    parser.add_argument("--patients", type=Path, metavar="CSV", help=text)
    text = "of several bundles in the tables, the one whose SHA-256 begins so; reader for readers' grades"
    parser.add_argument("--bundle", metavar="B", help=text)
    text = f"write {', '.join(_FILES)}; the picture needs matplotlib"
    parser.add_argument("--out", type=Path, metavar="DIR", help=text)
    text = "formats of the picture besides PNG"
    parser.add_argument("--figures", type=figure_formats, default=("png",), metavar="svg,pdf", help=text)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the tables")
    parser.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Analyse, print and write. Exit status: 0 done, 2 unreadable input or a missing extra, 3 nothing to analyse."""
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
        say("name patients by the tables' patient_key, or say with --patients which key each of yours has")
        return NOTHING_SCORED
    document = associate(study)
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if arguments.out is not None:
        _write(arguments, document, text, markdown(document))
    (show_json if arguments.json else show)((text if arguments.json else markdown(document)).removesuffix("\n"))
    return OK


def _check(arguments: argparse.Namespace) -> None:
    """Refuse, before any work, what cannot be done."""
    from spinescore.runtime.verbs.compare import check_out

    check_paths(path for path in (arguments.tables, arguments.exposure, arguments.patients) if path is not None)
    check_out(arguments.out)
    if len(set(arguments.adjust)) < len(arguments.adjust) or {"patient", "level", "exposure"} & set(arguments.adjust):
        raise UsageError("--adjust names columns beside patient, level and exposure, each of them once")
    for library, extra, what in (
        ("statsmodels", "association", "odds ratios are computed"),
        *([("matplotlib", "plots", "the picture is drawn")] if arguments.out is not None else []),
    ):
        if find_spec(library) is None:
            raise UsageError(f'{what} with {library}, which is missing: pip install "spinescore[{extra}]"')


def _write(arguments: argparse.Namespace, document: dict[str, Any], text: str, tables: str) -> None:
    from spinescore.runtime.files import write_atomic
    from spinescore.runtime.followup.associationtext import forest_figure

    folder: Path = arguments.out
    written = [write_atomic(folder / name, data) for name, data in zip(_FILES, (text, tables), strict=False)]
    figure = forest_figure(document)
    for file_format in FIGURE_FORMATS:
        place = folder / f"forest.{file_format}"
        if figure is not None and file_format in arguments.figures:
            written.append(write_atomic(place, rendered(figure, file_format)))
        else:
            place.unlink(missing_ok=True)  # one of before would show another analysis
    if figure is None:
        say(f"no {_FILES[2]}: there is no odds ratio; the notes say why")
    say(f"written: {', '.join(map(str, written))}")
