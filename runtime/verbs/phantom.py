"""`spinescore phantom`: draw synthetic studies with known truth."""

from __future__ import annotations

import argparse
from pathlib import Path

from spinescore.runtime.verbs import OK, check_out, say
from spinescore.runtime.verbs.options import positive, seed

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed", type=seed, required=True, metavar="N", help="seed of the first patient; the next one has N + 1"
    )
    parser.add_argument("--count", type=positive, default=1, metavar="K", help="number of patients (default: 1)")
    text = "number of studies of each patient, two years apart, with progression (default: 1)"
    parser.add_argument("--visits", type=positive, default=1, metavar="V", help=text)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder that gets a folder for each study"
    )
    parser.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    from spinescore.runtime.phantom import write_study

    check_out(arguments.out)
    for number in range(arguments.seed, arguments.seed + arguments.count):
        for visit in range(arguments.visits):
            folder = arguments.out / (f"phantom-{number}" + (f"-visit-{visit + 1}" if visit else ""))
            write_study(number, folder, visit)
            say(str(folder))
    return OK
