"""Checks of arguments. An error names the argument, the value, and the right value or call.

One rule holds for all public calls: an argument of the wrong type raises `TypeError`; one of the right type with a
wrong value, or with something wrong inside it, raises `ValueError`.
"""

from __future__ import annotations

import math
import numbers
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = [
    "check_callable",
    "check_choice",
    "check_event",
    "check_flag",
    "check_kind",
    "check_number",
    "check_open",
    "check_pair",
    "check_path",
    "check_text",
    "check_whole",
    "is_number",
    "shown",
]

_PLAIN = (str, bytes, int, float, complex)
_LENGTH = 60
_SITES_OF_A_REGION = 12
_MOST_PX = 1 << 31


def shown(value: object) -> str:
    """Return a value with its type, for a message; only the type if it is not plain, as it may hold patient data."""
    kind = type(value).__name__
    if value is None:
        return "None"
    return f"{kind} {value!r:.{_LENGTH}}" if isinstance(value, _PLAIN) else f"a {kind}"


def _then(call: str) -> str:
    return f"; call {call}" if call else ""


def check_whole(name: str, value: object, least: int, most: int | None = None) -> None:
    """Raise `TypeError` if a value is no whole number, `ValueError` if it is beyond the bounds."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, got {shown(value)}")
    if number < least or (most is not None and number > most):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} must be {bounds}, got {shown(value)}")


def check_flag(name: str, value: object) -> None:
    """Raise `TypeError` for anything but True and False."""
    if not isinstance(value, bool) and type(value).__name__ not in ("bool", "bool_"):  # the second is NumPy's
        raise TypeError(f"{name} must be True or False, got {shown(value)}")


def check_choice(name: str, value: object, choices: Sequence[Any], call: str = "") -> None:
    """Raise `TypeError` for no text (unless it is a choice, as None), `ValueError` for none of the choices."""
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in choices):
        listed = ", ".join(repr(choice) for choice in choices)
        kind = ValueError if isinstance(value, str) else TypeError
        raise kind(f"{name} must be one of {listed}, got {shown(value)}{_then(call)}")


def check_kind(name: str, value: object, kind: type[Any], call: str = "", *, optional: bool = False) -> None:
    """Raise `TypeError` if a value is not of the `kind`; None is allowed if the argument is `optional`."""
    if not isinstance(value, kind) and not (optional and value is None):
        article = "an" if kind.__name__[0] in "AEIO" else "a"
        expected = f"{article} {kind.__name__}{' or None' if optional else ''}"
        raise TypeError(f"{name} must be {expected}, got {shown(value)}{_then(call)}")


def check_text(name: str, value: object, call: str = "") -> None:
    """Raise `TypeError` if a value is neither text nor None, `ValueError` if it is empty."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be text or None, got {shown(value)}{_then(call)}")
    if value is not None and not value.strip():
        raise ValueError(f"{name} must not be empty; leave it out")


def check_path(name: str, value: object, call: str = "", *, optional: bool = False) -> None:
    """Raise `TypeError` if a value is no path; None is allowed if the argument is `optional`."""
    if not isinstance(value, (str, os.PathLike)) and not (optional and value is None):
        raise TypeError(f"{name} must be a path{' or None' if optional else ''}, got {shown(value)}{_then(call)}")


def check_number(name: str, value: Any, description: str, *, above: float = 0.0, most: float = math.inf) -> float:
    """Return a real number as a float. Raises `TypeError` for no number, `ValueError` unless above < number < most."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be {description}, got {shown(value)}")
    number = float(value)
    if not above < number < most:
        raise ValueError(f"{name} must be {description}, got {number:g}")
    return number


def is_number(value: Any) -> bool:
    """Return whether a value is a finite real number, and neither text nor a truth value."""
    return not isinstance(value, bool) and isinstance(value, numbers.Real) and math.isfinite(value)


def check_pair(
    name: str, value: object, description: str, *, least: float | None = None, above: float | None = None, **texts: Any
) -> tuple[float, float]:
    """Return two finite numbers: the second at least `least`, or both greater than `above`.

    Raises `TypeError` if the value is not iterable, `ValueError` if it is not such a pair. The message has the
    `description` of the numbers. `texts` may hold `got`, the value to show instead, and `call`, the call to recommend.
    """
    can_hold = isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))
    parts = list(value) if can_hold else []  # type: ignore[call-overload]
    numbers_given = [float(part) for part in parts if is_number(part)]
    valid = len(parts) == len(numbers_given) == 2
    valid = valid and (least is None or numbers_given[1] >= least) and (above is None or min(numbers_given) > above)
    if not valid:
        bound = "" if least is None else f", two numbers with a second of at least {least:g}"
        got = texts.get("got", value)
        kind = ValueError if can_hold or (isinstance(value, float) and not math.isfinite(value)) else TypeError
        raise kind(f"{name} is {description}{bound}, got {shown(got)}{_then(texts.get('call', ''))}")
    return numbers_given[0], numbers_given[1]


def check_callable(name: str, value: object) -> None:
    """Raise `TypeError` if a value is neither a function nor None."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a function or None, got {shown(value)}")


def check_event(name: str, value: object) -> None:
    """Raise `TypeError` if a value is neither an event (with `is_set`) nor None."""
    if value is not None and (isinstance(value, type) or not callable(getattr(value, "is_set", None))):
        raise TypeError(f"{name} must be a threading.Event or None, got {shown(value)}; to cancel a study call "
                        f"{name}.set() from another thread")  # fmt: skip


def check_open(
    bundle: object,
    plan: object,
    *,
    threads: object,
    max_imputed_per_region: object,
    largest_image_px: object,
    localizer: object,
    progress: object,
    flags: dict[str, object],
) -> None:
    """Check the arguments of `Scorer.open` that nothing checks later. Raises `TypeError` and `ValueError`."""
    check_path("bundle", bundle, "Scorer.open('phantom-reference'), or with the path of a bundle's folder")
    check_path("plan", plan, optional=True)
    if threads is not None:
        check_whole("threads", threads, 1, os.cpu_count() or 1)
    check_whole("max_imputed_per_region", max_imputed_per_region, 0, _SITES_OF_A_REGION)
    check_whole("largest_image_px", largest_image_px, 1, _MOST_PX)
    check_text("localizer", localizer)
    check_callable("progress", progress)
    for name, value in flags.items():
        check_flag(name, value)
