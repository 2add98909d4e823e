"""A fault of an object, a study or a delivery: a code of the table of codes, and a sentence."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from traceback import walk_tb
from typing import Literal

from spinescore.runtime.codes import CODES

__all__ = ["LATER", "Denied", "Fault", "Refusal", "Refused", "Unsent", "place_of"]

Refusal = Literal["address", "tls", "title", "certificate", "associations", "no-space", "limits", "object", "fault"]
LATER = ("no-space", "spool-unwritable", "audit-not-written")  # it can be taken in when an operator has corrected that

_MOST_FRAMES = 4


@dataclass(frozen=True)
class Fault:
    """A code of `spinescore.runtime.CODES` and a sentence without patient data."""

    code: str
    message: str

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"{self.code!r} is no code of the table; add it to codes.json")


class Refused(Exception):
    """An object that was not taken in. Nothing of it is left in the spool; the sender has to keep it."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"{fault.code}: {fault.message}")
        self.fault = fault


class Unsent(ConnectionError):
    """Nothing was sent, or the server has certainly taken nothing: the next attempt need not ask first."""


class Denied(Unsent):
    """A server does not accept the credential that the configuration has for it; the message names the credential."""


def place_of(error: BaseException) -> str:
    """Return the kind of an exception and the last lines that led to it; its own text may name a patient."""
    frames = [f"{Path(frame.f_code.co_filename).name} line {line}" for frame, line in walk_tb(error.__traceback__)]
    return " < ".join([type(error).__name__, *frames[: -_MOST_FRAMES - 1 : -1]])
