"""The observers in the structured report (PS3.16 TID 1001): the software as a device, readers as persons.

The document has the software and all readers as observers. What a reader set has that reader alone: the group of a
corner, and the items on a disc's points and on a region that cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from spinescore.runtime.machine.packages import software_version
from spinescore.runtime.outputs.contentitems import code_item, name_item, text_item, uid_item
from spinescore.runtime.outputs.corrections import changes_in_words, when
from spinescore.runtime.outputs.dicomobjects import MANUFACTURER
from spinescore.runtime.outputs.uids import stable_uid
from spinescore.runtime.scoring.applied import AppliedCorrection
from spinescore.runtime.scoring.report import StudyReport

__all__ = ["Encode", "correction_words", "device_observer", "person_name", "person_observer"]

Encode = Callable[[str], bytes]  # encodes text in the document's character set

_COMPONENTS = 5  # of a person's name


def device_observer(report: StudyReport, encode: Encode) -> Iterator[bytes]:
    """Yield the observing device: this software with the bundle (TID 1002, TID 1004)."""
    bundle = report.bundle
    yield code_item("HAS OBS CONTEXT", ("121005", "DCM", "Observer Type"), ("121007", "DCM", "Device"))
    uid = stable_uid("device", bundle.sha256, software_version())
    yield uid_item("HAS OBS CONTEXT", ("121012", "DCM", "Device Observer UID"), uid)
    for number, concept, words in (
        ("121013", "Name", MANUFACTURER),
        ("121014", "Manufacturer", MANUFACTURER),
        ("121015", "Model Name", bundle.name),
        ("121016", "Serial Number", bundle.sha256),
    ):
        yield text_item("HAS OBS CONTEXT", (number, "DCM", f"Device Observer {concept}"), encode(words))


def person_observer(reader: str, encode: Encode) -> list[bytes]:
    """Return the items of an observing person (TID 1002, TID 1003)."""
    return [
        code_item("HAS OBS CONTEXT", ("121005", "DCM", "Observer Type"), ("121006", "DCM", "Person")),
        name_item("HAS OBS CONTEXT", ("121008", "DCM", "Person Observer Name"), encode(person_name(reader))),
    ]


def person_name(reader: str) -> str:
    """Return a reader's name as a DICOM person name (PS3.5 6.2), with its delimiters replaced if they are not valid."""
    plain = reader.replace("\\", "/").replace("=", "-").strip()
    return plain if plain.count("^") < _COMPONENTS else plain.replace("^", " ")


def correction_words(correction: AppliedCorrection) -> str:
    """Return a correction as one text: reader, time, changes, and the comment."""
    changes = "; ".join(changes_in_words(correction))
    comment = "" if correction.comment is None else f". Comment: {' '.join(correction.comment.split())}"
    return f"Corrected by {correction.reader}, {when(correction)}: {changes}{comment}"
