"""`spinescore evaluate PREDICTED REFERENCE`: agreement with a reader, as tables, JSON and pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from spinescore.runtime.verbs import NOTHING_SCORED, OK, UsageError, check_paths, say

__all__ = ["add_arguments", "run"]

_MOST_RESAMPLES = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `spinescore evaluate`."""
    form = "CSV with columns study, site, grade (and p0..p3, patient, study_date), a report, or a folder of reports"
    parser.add_argument("predicted", type=Path, metavar="PREDICTED", help=form)
    parser.add_argument("reference", type=Path, metavar="REFERENCE", help="the reader's, in the same forms")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write evaluate.json, evaluate.md and the pictures")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the tables")
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="N", help="resamples; 0 for no intervals (1000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the bootstrap (0)")
    parser.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare, print and write. Exit status: 0 compared, 2 unreadable input or a missing extra, 3 nothing in common."""
    from spinescore.benchmarks.agreement import NothingToCompare, ReadingsError, evaluate, read_readings
    from spinescore.benchmarks.agreement.tables import markdown, to_json

    _check(arguments)
    try:
        predicted, reference = read_readings(arguments.predicted), read_readings(arguments.reference)
        document = evaluate(predicted, reference, arguments.bootstrap, arguments.seed)
    except ReadingsError as error:
        raise UsageError(str(error)) from error
    except NothingToCompare as error:
        say(f"spinescore: {error}")
        return NOTHING_SCORED
    if arguments.out is not None:
        written = _write(arguments.out, document)
        say(f"written: {', '.join(map(str, written))}")
    print(to_json(document) if arguments.json else markdown(document), end="")
    return OK


def _check(arguments: argparse.Namespace) -> None:
    """Refuse, before any work, what cannot be done."""
    if not 0 <= arguments.bootstrap <= _MOST_RESAMPLES or arguments.seed < 0:
        raise UsageError(f"--bootstrap must be from 0 to {_MOST_RESAMPLES}, and --seed 0 or more")
    check_paths((arguments.predicted, arguments.reference))
    if arguments.out is not None and arguments.out.exists() and not arguments.out.is_dir():
        raise UsageError(f"--out {arguments.out} is a file; name a folder")
    _need("scipy", "agreement", "intervals are computed")
    if arguments.out is not None:
        _need("matplotlib", "plots", "pictures are drawn")


def _need(library: str, extra: str, what: str) -> None:
    from importlib.util import find_spec

    if find_spec(library) is None:
        raise UsageError(f'{what} with {library}, which is missing: pip install "spinescore[{extra}]"')


def _write(folder: Path, document: dict[str, Any]) -> list[Path]:
    from spinescore.benchmarks.agreement import pictures
    from spinescore.benchmarks.agreement.tables import markdown, to_json
    from spinescore.runtime.output import write_atomic

    files: dict[str, bytes | str] = {"evaluate.json": to_json(document), "evaluate.md": markdown(document)}
    files["confusion.png"] = pictures.confusion_picture(document)
    if document["roc"] is not None:
        files["roc.png"] = pictures.roc_picture(document)
    if len(document["totals"]) > 1:
        files["bland-altman.png"] = pictures.bland_altman_picture(document)
    return [write_atomic(folder / name, data) for name, data in files.items()]
