"""The options of `compare` and `cohort` that define progression."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from spinescore.runtime.jsonfile import read_json
from spinescore.runtime.verbs import UsageError

if TYPE_CHECKING:
    from spinescore.runtime.followup.comparison import Rules

__all__ = ["add_rules", "rules_of", "window_years"]

_MAX_BYTES = 16_000_000  # of an evaluate.json


def add_rules(parser: argparse.ArgumentParser) -> None:
    """Add the options of the rules, with their defaults."""
    add = parser.add_argument
    add(
        "--progression",
        type=_number,
        default=2.0,
        metavar="UNITS",
        help="smallest change that is progression (default: 2)",
    )
    text = "largest changes that are no progression, separated by commas (default: 0,0.5)"
    add("--no-progression", type=_numbers, default=(0.0, 0.5), metavar="UNITS[,..]", help=text)
    add("--rate-years", type=_years, default=2.0, metavar="N", help="years of the rate and of progression (default: 2)")
    text = (
        "years between two studies that get a verdict (default: --rate-years less and plus a quarter, such as 1.5-2.5)"
    )
    add("--window-years", type=window_years, metavar="LEAST-MOST", help=text)
    text = "judge intervals outside of that window by their rate; without this option they get no verdict"
    add("--by-rate", action="store_true", help=text)
    text = "fewest years between two studies that get a rate (default: 1)"
    add("--min-rate-years", type=_amount, default=1.0, metavar="N", help=text)
    text = "most corners of a region's 12 that may lack a grade in one of the studies (default: 3)"
    add("--max-not-comparable", type=int, choices=range(12), default=3, metavar="N", help=text)
    text = "smallest detectable change to show beside a verdict: units, or an evaluate.json of `spinescore evaluate`"
    add("--sdc", type=str, metavar="UNITS|FILE", help=text)


def rules_of(arguments: argparse.Namespace) -> Rules:
    """Return the rules that the options state. Raises UsageError for a wrong `--sdc`."""
    from spinescore.runtime.followup.comparison import Rules

    return Rules(
        progression_units=arguments.progression,
        no_progression_units=arguments.no_progression,
        rate_years=arguments.rate_years,
        window_years=arguments.window_years,
        judge_by_rate=arguments.by_rate,
        min_rate_years=arguments.min_rate_years,
        max_not_comparable=arguments.max_not_comparable,
        sdc=None if arguments.sdc is None else _sdc(arguments.sdc),
    )


def _sdc(text: str) -> float:
    """Return the number, or that of an `evaluate.json`: from changes if it has one, else from single studies."""
    try:
        return _amount(text)
    except argparse.ArgumentTypeError:
        path = Path(text)
    if not path.exists():
        raise UsageError(f"--sdc {text} is neither a number from 0 on nor a file; give units, as --sdc 2.2")
    try:
        stated = read_json(path, _MAX_BYTES)["sdc"]
        values = [stated[name]["value"] for name in ("from_change", "from_status")]
        return _amount(str(next(value for value in values if value is not None)))
    except StopIteration:
        raise UsageError(f"{path} states no smallest detectable change; give units, as --sdc 2.2") from None
    except (OSError, ValueError, LookupError, TypeError, RecursionError, argparse.ArgumentTypeError):
        raise UsageError(f"{path} is no evaluate.json of `spinescore evaluate`; give units, as --sdc 2.2") from None


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return number


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(map(_number, text.split(",")))


def _amount(text: str) -> float:
    if (number := _number(text)) < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return number


def _years(text: str) -> float:
    if (number := _number(text)) <= 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return number


def window_years(text: str) -> tuple[float, float]:
    """Return the least and the greatest number of years in `LEAST-MOST`. Raises ArgumentTypeError."""
    least, _, most = text.partition("-")
    try:
        window = float(least), float(most)
    except ValueError:
        window = (math.nan, math.nan)
    if not 0 <= window[0] <= window[1] < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no window of years; write it as 1.5-2.5")
    return window
