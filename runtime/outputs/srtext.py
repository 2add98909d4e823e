"""A structured report of this program as lines of text, read back from its file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinescore.runtime.outputs.codes import PRIVATE_SCHEME
from spinescore.runtime.outputs.corrections import BY_READER, STAR
from spinescore.runtime.text import table
from spinescore.runtime.warned import caught_warnings

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["report_text"]

_NUMBERS = ("MSASSS", "REGION-TOTAL", "DISC-TOTAL", "GRADE")
_REASONS = ("REJECT", "GRADE", "REGION-STATUS", "TOTAL-STATUS")  # for no number, the first of them that is there
_TRACKING = "112039"


def report_text(path: Path) -> str:
    """Return a structured report's scores, or why they are missing. Raises `OSError`, or `InvalidDicomError`."""
    from pydicom import dcmread

    with caught_warnings():
        ds = dcmread(path)
        rows = [(name, _score(item)) for item in _items(ds) if (name := _name(item)) is not None]
        title = f"{ds.SOPClassUID.name}, {ds.get('VerificationFlag', 'unverified').lower()}"
    key = f"\n\n{STAR} {BY_READER}" if any(STAR in score for _, score in rows) else ""
    return f"{title}: {ds.get('SeriesDescription', '')}\n\n{table(rows, ('site', 'score'))}{key}"


def _items(item: Dataset) -> Iterator[Dataset]:
    """Yield the content items below an item, in the order of the document."""
    for one in item.get("ContentSequence", ()):
        yield one
        yield from _items(one)


def _concept(item: Dataset) -> Any:
    """Return the name of an item, which is empty for some."""
    return (item.get("ConceptNameCodeSequence") or ({},))[0]


def _name(item: Dataset) -> str | None:
    """Return the name of a measurement group; None for another item."""
    items = item.get("ContentSequence", ())
    return next((str(one.TextValue) for one in items if _concept(one).get("CodeValue") == _TRACKING), None)


def _score(group: Dataset) -> str:
    items = [one for one in group.ContentSequence if _concept(one).get("CodingSchemeDesignator") == PRIVATE_SCHEME]
    own = {(one.ValueType, _concept(one).CodeValue): one for one in items}
    star = f" {STAR}" if ("CODE", "GRADE-ORIGIN") in own else ""
    for code in _NUMBERS:
        if ("NUM", code) in own:
            (measured,) = own["NUM", code].MeasuredValueSequence
            most = measured.MeasurementUnitsCodeSequence[0].CodeValue.strip("{}").partition(":")[2]
            return f"{float(measured.NumericValue):g} of {most}{star}"
    reasons = [own["CODE", code].ConceptCodeSequence[0].CodeMeaning for code in _REASONS if ("CODE", code) in own]
    return f"{str(reasons[0]).lower()}{star}" if reasons else ""
