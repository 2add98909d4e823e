"""The DICOM structured report: Comprehensive 3D SR by TID 1500, Measurement Report (PS3.16 Annex A).

The document names the software, bundle and device that made it, says that it is not a medical device, refers to the
radiographs, and has the findings in the measurement groups of `groups` with the codes of `codes`. It is complete,
preliminary and unverified, also if a reader corrected the report: nobody signed it. Readers are observers beside the
software (`groups`).

pydicom makes its header (`srheader`), and `contentitems` its content. highdicom takes 0.7 s of processor time for the
same content; the tests compare the two element by element.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from spinescore.runtime.arguments import check_kind
from spinescore.runtime.errors import OutputError
from spinescore.runtime.machine.packages import software_version
from spinescore.runtime.outputs import codes
from spinescore.runtime.outputs.contentitems import code_item, container, image_item, number_item, text_item
from spinescore.runtime.outputs.corrections import readers
from spinescore.runtime.outputs.dicomobjects import finished
from spinescore.runtime.outputs.groups import (
    Encode,
    correction_words,
    device_observer,
    measurement_groups,
    person_observer,
)
from spinescore.runtime.outputs.source import check_references, radiograph_of, source_of, study_of
from spinescore.runtime.outputs.srheader import document, document_header
from spinescore.runtime.outputs.words import NOTICE
from spinescore.runtime.scoring.intake import StudyInput
from spinescore.runtime.scoring.report import StudyReport
from spinescore.runtime.study import Region, Study
from spinescore.runtime.warned import caught_warnings

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["structured_report"]

_PIXELS: codes.Triple = ("{pixels}", "UCUM", "Pixels")
_MILLIMETRES: codes.Triple = ("mm", "UCUM", "mm")


def structured_report(study: StudyInput, report: StudyReport, *, created: datetime | None = None) -> Dataset:
    """Return the DICOM structured report of a study: one Comprehensive 3D SR, ready to be saved or sent.

    `study` is the study that was scored, as it was given to `Scorer.score`, and `report` is its report. The headers of
    its radiographs are needed, not the pixels: SOP Class, SOP Instance, Study and Series Instance UID, and the patient
    (DICOM files have headers; an array gets one by `radiograph_from_array(.., header=)`). The document is a new series
    of that study. It has each of the 24 corners with grade, probabilities and point, the discs, the regions and the
    total. It says why a corner has no grade, and why a region was rejected or is missing. `created` is the date and
    time in it, now if it is None. The UIDs do not depend on it.

    Nothing is written or sent: save the dataset with `save_as(path, enforce_file_format=True)`, or use
    `write_results`. Raises OutputError if the report belongs to another study, or if a radiograph has no header that a
    result can refer to.
    """
    check_kind("created", created, datetime, optional=True)
    scored_study = study_of(study, report)
    check_references(report)
    with caught_warnings():  # about values of the source's header
        sources = {
            name: source_of(radiograph, region.radiograph)
            for name, region in report.regions.items()
            if (radiograph := radiograph_of(region, scored_study)) is not None
        }
        evidence = list({ds.SOPInstanceUID: ds for ds in sources.values()}.values()) or [_any_source(scored_study)]
        algorithm, comments = _algorithm(report), _comments(report)
        texts = [*(words for _, _, words in algorithm), *comments]
        header = finished(document_header(report, evidence), evidence[0], created, texts=texts)
        return document(header, _content(report, sources, evidence, algorithm, comments, _encoder(header)))


def _any_source(study: Study) -> Dataset:
    if not study.radiographs:
        raise OutputError(
            "the study holds no radiograph that a structured report could refer to; give its DICOM files, or choose "
            "another format"
        )
    return source_of(study.radiographs[0])


def _algorithm(report: StudyReport) -> list[tuple[str, str, str]]:
    """Return code, meaning and text of the algorithm's items (TID 4019): the bundle, its device and its rules."""
    bundle, device, rules = report.bundle, report.device, report.bundle.rules
    parameters = {
        "bundle_sha256": bundle.sha256,
        **({"localizer": bundle.localizer} if bundle.localizer else {}),
        "software": f"spinescore {software_version()}",
        "device": f"{device.kind} {device.name}",
        "engine": f"{device.engine} {device.precision}",
    }
    if rules is not None:
        parameters |= {"bridge_threshold": f"{rules.bridge_threshold:g}", "abstain_below": f"{rules.abstain_below:g}"}
    return [
        ("111001", "Algorithm Name", bundle.name),
        ("111003", "Algorithm Version", bundle.version),
        *(("111002", "Algorithm Parameters", f"{name}={text}") for name, text in parameters.items()),
    ]


def _comments(report: StudyReport) -> list[str]:
    note = f"{NOTICE} {report.bundle.intended_use}".strip()
    return [note, *map(correction_words, report.corrections)]


def _encoder(header: Dataset) -> Encode:
    """Return a function that encodes text in the header's character set."""
    from pydicom.charset import convert_encodings, encode_string

    encodings = convert_encodings(header.get("SpecificCharacterSet"))
    return lambda words: encode_string(words, encodings)


def _content(
    report: StudyReport,
    sources: dict[Region, Dataset],
    evidence: Iterable[Dataset],
    algorithm: Iterable[tuple[str, str, str]],
    comments: Iterable[str],
    encode: Encode,
) -> Iterator[bytes]:
    """Yield the content items of the root (TID 1500)."""
    language = ("121049", "DCM", "Language of Content Item and Descendants")
    yield code_item("HAS CONCEPT MOD", language, ("en-US", "RFC5646", "English (United States)"))
    yield from device_observer(report, encode)
    for reader in readers(report):
        yield from person_observer(reader, encode)
    procedure = ("168537006", "SCT", "Plain radiography")
    yield code_item("HAS CONCEPT MOD", ("121058", "DCM", "Procedure reported"), procedure)
    entries = [_library_entry(ds) for ds in evidence if "ImagerPixelSpacing" in ds and ds.PatientOrientation]
    if entries:
        group = container(("126200", "DCM", "Image Library Group"), entries)
        yield container(("111028", "DCM", "Image Library"), [group])
    items = [text_item("HAS CONCEPT MOD", (number, "DCM", name), encode(words)) for number, name, words in algorithm]
    groups = measurement_groups(report, sources, items, encode)
    yield container(("126010", "DCM", "Imaging Measurements"), groups)
    for words in comments:
        yield text_item("CONTAINS", ("121106", "DCM", "Comment"), encode(words))


def _library_entry(source: Dataset) -> bytes:
    """Return a radiograph's entry in the image library (TID 1601 with TID 1602 and TID 1603)."""
    orientation, spacing = source.PatientOrientation, source.ImagerPixelSpacing
    rows, columns, horizontal, vertical = (
        number_item((code, "DCM", name), value, unit, "HAS ACQ CONTEXT")
        for code, name, value, unit in (
            ("110910", "Pixel Data Rows", int(source.Rows), _PIXELS),
            ("110911", "Pixel Data Columns", int(source.Columns), _PIXELS),
            ("111026", "Horizontal Pixel Spacing", float(spacing[1]), _MILLIMETRES),
            ("111066", "Vertical Pixel Spacing", float(spacing[0]), _MILLIMETRES),
        )
    )
    toward_row, toward_column = (
        text_item("HAS ACQ CONTEXT", (code, "DCM", f"Patient Orientation {name}"), toward.encode("ascii"))
        for code, name, toward in zip(("111044", "111043"), ("Row", "Column"), orientation, strict=True)
    )
    modality = code_item("HAS ACQ CONTEXT", ("121139", "DCM", "Modality"), codes.MODALITIES[source.SOPClassUID])
    image, items = (source.SOPClassUID, source.SOPInstanceUID), (modality, rows, columns)
    return image_item("CONTAINS", image, *items, toward_row, toward_column, horizontal, vertical)
