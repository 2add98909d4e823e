"""A study without the data that identify its patient: fields are removed, messages lose what they quote of a header.

A header may hold a name anywhere, also in the place of a code. Our messages quote a header's values (as `repr` does),
so quotations can be found and left out. Values that were not quoted are searched for as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from spinescore.runtime.arguments import shown
from spinescore.runtime.codes import REJECT_CODES
from spinescore.runtime.notices import as_notice, notice
from spinescore.runtime.reading.quality import printable
from spinescore.runtime.study import FROM_LIBRARY, Finding, Radiograph, Reject, Study

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["anonymous", "known_modality", "nameless"]

# An apostrophe within a word opens nothing; a quotation that was cut short reaches to the end.
_QUOTED = re.compile(r"""(?<!\w)b?(['"])(?:\\.|(?!\1).)*(?:\1|$)""", re.DOTALL)
_LEFT_OUT = "(left out)"
_FREE_TEXT = frozenset({"AE", "AS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"})
_LEAST_LETTERS = 4  # of a value that is searched for: shorter ones occur in ordinary words
_MODALITY_CODES = (  # PS3.3 C.7.3.1.1.1
    "AR AU BI BMD CR CT CTPROTOCOL DG DMS DOC DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL IVOCT IVUS "
    "KER KO LEN LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PLAN PR PT PX REG RESP RF RG "
    "RTDOSE RTIMAGE RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF STAIN TEXTUREMAP TG US "
    "VA XA XAPROTOCOL XC "
)


def anonymous(study: Study) -> Study:
    """Return the study without its patient's identity, its date and the names of its files.

    Removed are study and SOP instance UIDs, date, patient key, headers (so that no DICOM result can refer to the
    original) and file names; radiographs are numbered in their order. Rejects keep their code and region, with the
    code's general message. Warnings remain if they quote neither a file's name nor a library's message about a file;
    what they quote of the header is left out. The pixels are not changed: a name that is burned into them remains.
    """
    if not isinstance(study, Study):
        raise TypeError(f"study must be a Study, got {shown(study)}; call anonymous(load_study(path))")
    names = {image.source: f"radiograph {number}" for number, image in enumerate(study.radiographs, 1)}
    radiographs = tuple(
        replace(
            image,
            sop_instance_uid=None,
            study_instance_uid=None,
            study_date=None,
            patient_key=None,
            header=None,
            source=f"radiograph {number}",
            modality=known_modality(image.modality),
            warnings=_warnings(image, f"radiograph {number}"),
            findings=tuple(_finding(finding, image, f"radiograph {number}") for finding in image.findings),
        )
        for number, image in enumerate(study.radiographs, 1)
    )
    rejects = tuple(
        Reject(reject.code, f"{name}: {REJECT_CODES[reject.code]}", name, reject.region)
        for number, reject in enumerate(study.rejects, 1)
        for name in (names.get(reject.source, f"refused file {number}"),)
    )
    count = len(study.warnings)
    text = f"warnings left out because they may name files: {count}"
    left_out = (notice("warnings-left-out", text, count=count),) if count else ()
    return Study(radiographs, rejects, warnings=left_out, read_ms=study.read_ms)


def _warnings(image: Radiograph, name: str) -> tuple[str, ...]:
    """Return the image's warnings with its new name, without those of libraries."""
    own = [warning for warning in image.warnings if not warning.startswith(FROM_LIBRARY)]

    def rename(text: str) -> str:
        return nameless(text.replace(image.source, name) if image.source else text, image.header)

    return tuple(as_notice(warning).renamed(rename, name) for warning in own)


def _finding(finding: Finding, image: Radiograph, name: str) -> Finding:
    old = printable(image.source)
    message = finding.message.replace(old, name) if old else finding.message
    return replace(finding, source=name, message=nameless(message, image.header))


def nameless(message: str, header: Dataset | None) -> str:
    """Return the message without its quotations, and without any free text of the header."""
    message = _QUOTED.sub(_LEFT_OUT, message)
    for value in sorted(set(_values(header)), key=len, reverse=True):
        message = message.replace(value, _LEFT_OUT)
    return message


def known_modality(modality: str | None) -> str | None:
    """Return the modality if the standard has it, else OT (other)."""
    return modality if modality is None or modality in _MODALITY_CODES.split() else "OT"


def _values(header: Dataset | None) -> Iterator[str]:
    """Yield the parts of all free text in a header."""
    for tag in [] if header is None else list(header.keys()):
        with suppress(Exception):  # no message quotes an element that cannot be read
            element = header[tag]  # type: ignore[index]
            if element.VR in _FREE_TEXT:
                parts = str(element.value if isinstance(element.value, str) else "\\".join(map(str, element.value)))
                yield from (part for part in re.split(r"[\\^=]", parts) if len(part.strip()) >= _LEAST_LETTERS)
