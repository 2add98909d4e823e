"""`spinescore demo`: draw a synthetic study and score it."""

from __future__ import annotations

import argparse
from pathlib import Path

from spinescore.runtime.jsonfile import read_json
from spinescore.runtime.verbs import check_out, say, show
from spinescore.runtime.verbs.options import add_scorer, add_strict, seed
from spinescore.runtime.verbs.scoring import open_scorer, say_warnings_and_rejects, status_of, wait_for_check

__all__ = ["add_arguments", "run"]

_DEMO_SEED = 1_000_003  # the shipped bundle was trained on seeds below 100,000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="DIR", help="folder for the study and results (default: demo)"
    )
    text = f"seed of the synthetic study; the same seed gives the same study (default: {_DEMO_SEED})"
    parser.add_argument("--seed", type=seed, default=_DEMO_SEED, metavar="N", help=text)
    add_scorer(parser)
    add_strict(parser)
    parser.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    from spinescore.runtime.outputs.results import write_results
    from spinescore.runtime.phantom import write_study
    from spinescore.runtime.reading.studies import load_study
    from spinescore.runtime.verbs.summary import study_summary

    check_out(arguments.out)
    folder = arguments.out / "study"
    say(f"drawing the synthetic study {arguments.seed} in {folder}")
    write_study(arguments.seed, folder)
    with open_scorer(arguments) as scorer:
        study = load_study(*sorted(folder.glob("*.dcm")))
        report = scorer.score(study, strict=arguments.strict, count_reading=True)
        say_warnings_and_rejects(report)
        written = write_results(study, report, arguments.out, formats=("json", "html", "png"))
        show(study_summary(report, _read_truth(folder / "truth.json")))
        say(f"written: {', '.join(map(str, written))}")
        wait_for_check(scorer)
    return status_of(report)


def _read_truth(path: Path) -> dict[str, int]:
    """Return the grade that the phantom was drawn with, by site."""
    document = read_json(path)
    discs = [disc for region in document["regions"].values() for disc in region["discs"]]
    return {corner["site"]: corner["grade"] for disc in discs for corner in disc["corners"]}
