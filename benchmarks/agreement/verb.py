"""`spinescore evaluate PREDICTED REFERENCE`: agreement with a reader, as tables, JSON and pictures."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spinescore.runtime.outputs.figures import FIGURE_FORMATS
from spinescore.runtime.scoring.msasss import DEFAULT_MAX_IMPUTED
from spinescore.runtime.verbs import NOTHING_SCORED, OK, UsageError, check_out, check_paths, say, show, show_json
from spinescore.runtime.verbs.extras import check_library
from spinescore.runtime.verbs.figures import add_figures
from spinescore.runtime.verbs.rules import window_years

__all__ = ["add_arguments", "run"]

_MOST_RESAMPLES = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `spinescore evaluate`."""
    form = "CSV with columns study, site, grade (and p0..p3, patient, study_date), a report, or a folder of reports"
    parser.add_argument("predicted", type=Path, metavar="PREDICTED", help=form)
    parser.add_argument("reference", type=Path, metavar="REFERENCE", help="the reader's grades, in the same forms")
    text = "folder for evaluate.json, evaluate.md and the pictures"
    parser.add_argument("--out", type=Path, metavar="DIR", help=text)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the tables")
    text = "resamples; 0 for no intervals (default: 1000)"
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="N", help=text)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the bootstrap (default: 0)")
    text = "most missing corners of a region's 12 with which it has a total or a change (default: 3)"
    parser.add_argument("--max-imputed", type=int, default=DEFAULT_MAX_IMPUTED, metavar="N", help=text)
    text = "smallest change that is progression (default: 2)"
    parser.add_argument("--progression", type=float, default=2.0, metavar="UNITS", help=text)
    text = "years between two studies that get a verdict (default: 1.5-2.5)"
    parser.add_argument("--window-years", type=window_years, default=(1.5, 2.5), metavar="LEAST-MOST", help=text)
    text = "number of readers whose mean a score is, for the smallest detectable change (default: 1)"
    parser.add_argument("--readers", type=int, default=1, metavar="K", help=text)
    add_figures(parser, "the pictures")
    parser.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare, print and write. Exit status: 0 compared, 2 unreadable input or a missing extra, 3 nothing in common."""
    from spinescore.benchmarks.agreement import NothingToCompare, ReadingsError, Rules, evaluate, read_readings
    from spinescore.benchmarks.agreement.tables import markdown, to_json

    _check(arguments)
    try:
        predicted, reference = read_readings(arguments.predicted), read_readings(arguments.reference)
        rules = Rules(arguments.progression, arguments.window_years, arguments.readers)
        document = evaluate(predicted, reference, arguments.bootstrap, arguments.seed, arguments.max_imputed, rules)
    except ReadingsError as error:
        raise UsageError(str(error)) from error
    except NothingToCompare as error:
        say(f"spinescore: {error}")
        return NOTHING_SCORED
    if arguments.out is not None:
        written = _write(arguments.out, document, arguments.figures)
        say(f"written: {', '.join(map(str, written))}")
    text = to_json(document) if arguments.json else markdown(document)
    (show_json if arguments.json else show)(text.removesuffix("\n"))
    return OK


def _check(arguments: argparse.Namespace) -> None:
    """Raise `UsageError` for invalid options, before any work."""
    if not 0 <= arguments.bootstrap <= _MOST_RESAMPLES or arguments.seed < 0:
        raise UsageError(f"--bootstrap must be from 0 to {_MOST_RESAMPLES}, and --seed 0 or more")
    if not 0 <= arguments.max_imputed < 12:
        raise UsageError("--max-imputed must be from 0 to 11")
    if not 1 <= arguments.readers <= 100:
        raise UsageError("--readers must be from 1 to 100")
    if not math.isfinite(arguments.progression):
        raise UsageError("--progression must be a number of units")
    check_paths((arguments.predicted, arguments.reference))
    check_out(arguments.out)
    check_library("scipy", "agreement", "intervals are computed")
    if arguments.out is not None:
        check_library("matplotlib", "plots", "pictures are drawn")


def _write(folder: Path, document: dict[str, Any], formats: Sequence[str]) -> list[Path]:
    from spinescore.benchmarks.agreement import pictures
    from spinescore.benchmarks.agreement.tables import markdown, to_json
    from spinescore.runtime.files import write_set

    files: dict[str, bytes | str | None] = {"evaluate.json": to_json(document), "evaluate.md": markdown(document)}
    files |= pictures.pictures_of(document, formats)
    for name in pictures.PICTURES:
        if f"{name}.png" not in files:
            say(f"no {name}.png: there is nothing to show; the notes say why")
    possible = (f"{name}.{format}" for name in pictures.PICTURES for format in FIGURE_FORMATS)
    return write_set(folder, files | {file: None for file in possible if file not in files})
