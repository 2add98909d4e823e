"""Messages without what a header says, for reading that is to be anonymous.

A header may hold a name anywhere, also where a code is expected. Messages quote a header's values (as `repr` does), so
that here they can be told from our own words and left out; values that were not quoted are looked for besides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["known_modality", "nameless"]

# An apostrophe within a word opens nothing; a quotation that was cut short reaches to the end.
_QUOTED = re.compile(r"""(?<!\w)b?(['"])(?:\\.|(?!\1).)*(?:\1|$)""", re.DOTALL)
_LEFT_OUT = "(left out)"
_FREE_TEXT = frozenset({"AE", "AS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"})
_LEAST_LETTERS = 4  # of a value that is looked for: shorter ones are found in ordinary words
_MODALITY_CODES = (  # PS3.3 C.7.3.1.1.1
    "AR AU BI BMD CR CT CTPROTOCOL DG DMS DOC DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL IVOCT IVUS "
    "KER KO LEN LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PLAN PR PT PX REG RESP RF RG "
    "RTDOSE RTIMAGE RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF STAIN TEXTUREMAP TG US "
    "VA XA XAPROTOCOL XC "
)


def nameless(message: str, header: Dataset | None) -> str:
    """The message without what it quotes, and without any free text of the header."""
    message = _QUOTED.sub(_LEFT_OUT, message)
    for value in sorted(set(_values(header)), key=len, reverse=True):
        message = message.replace(value, _LEFT_OUT)
    return message


def known_modality(modality: str | None) -> str | None:
    """The modality if it is one of the standard's, else OT for another."""
    return modality if modality is None or modality in _MODALITY_CODES.split() else "OT"


def _values(header: Dataset | None) -> Iterator[str]:
    for tag in [] if header is None else list(header.keys()):
        with suppress(Exception):  # an element that cannot be read is quoted nowhere
            element = header[tag]  # type: ignore[index]
            if element.VR in _FREE_TEXT:
                parts = str(element.value if isinstance(element.value, str) else "\\".join(map(str, element.value)))
                yield from (part for part in re.split(r"[\\^=]", parts) if len(part.strip()) >= _LEAST_LETTERS)
