"""The radiographs of a report, and the parts of their headers that DICOM results take over.

Devices write headers of any quality, and highdicom is strict. So it gets a new dataset with the needed elements only.
The identity of patient and study is taken over unchanged, even if it is too long: a shortened ID would be another
patient's. Values that the standard does not allow in a result (a birth date that is no date, a sex other than M, F
and O) become empty. The caller catches warnings of pydicom and highdicom.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from spinescore.runtime.arguments import shown
from spinescore.runtime.errors import OutputError
from spinescore.runtime.reading.dates import calendar_date, time_of_day
from spinescore.runtime.reading.orientation import ORIENTATIONS
from spinescore.runtime.reading.sopclasses import SOP_CLASSES
from spinescore.runtime.reading.sourcenames import told_apart
from spinescore.runtime.reading.tags import text, value, whole
from spinescore.runtime.scoring.intake import StudyInput, as_study
from spinescore.runtime.scoring.pixelidentity import has_scored_pixels
from spinescore.runtime.scoring.report import RadiographInfo, RegionReport, StudyReport
from spinescore.runtime.study import Radiograph, Region, Study

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = [
    "IDENTITY",
    "LOSSY",
    "check_references",
    "copy_elements",
    "radiograph_of",
    "scored_radiographs",
    "set_character_set",
    "source_of",
    "study_of",
    "untrusted_radiographs",
]

_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")

# Type 2 in every image and result: present, and empty if it is not known (PS3.3 C.7.1.1, C.7.2.1).
_TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
_OPTIONAL = ("IssuerOfPatientID", "StudyDescription", "PatientIdentityRemoved", "DeidentificationMethod")
_DESCRIPTIONS = ("StudyDescription", "DeidentificationMethod", "Manufacturer", "ManufacturerModelName")
IDENTITY = (*_TYPE_2, *_OPTIONAL, "DeidentificationMethodCodeSequence")
LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
_CALENDAR = {"PatientBirthDate": calendar_date, "StudyDate": calendar_date, "StudyTime": time_of_day}
_FORMS = {  # PS3.5 6.2
    "PatientSex": re.compile("[MFO]"),
    "PatientIdentityRemoved": re.compile("YES|NO"),
}
_CHARACTER_SETS: tuple[list[str], ...] = ([], ["ISO_IR 100"], ["ISO_IR 192"])  # ASCII, Latin-1, UTF-8


def study_of(study: StudyInput, report: StudyReport) -> Study:
    """Return the study, after a check that `report` belongs to it.

    Both must have the same Study Instance UID, or none. Each region's radiograph must be in the study, with the same
    SOP Instance UID (or the same name if it has none), rows and columns. Raises OutputError if not, and the errors of
    `as_study` for a wrong `study`.
    """
    if not isinstance(report, StudyReport):
        raise TypeError(f"report must be a StudyReport, got {shown(report)}; read JSON with StudyReport.from_json")
    checked = as_study(study)
    own, other = report.study.study_instance_uid, checked.study_instance_uid or None
    if own != other:
        raise OutputError(
            f"the report is of the study {own or 'without a UID'}, not of the study {other or 'without a UID'} that "
            "was given with it; give the study that was scored"
        )
    for name, region in report.regions.items():
        if region.radiograph is None:
            continue
        radiograph = radiograph_of(region, checked)
        if radiograph is None:
            text = f"the radiograph of the {name} region is not in the study"
            raise OutputError(f"{text}; give the study that was scored")
        if not has_scored_pixels(radiograph, region.radiograph):
            raise OutputError(
                f"the pixels of the {name} radiograph {radiograph.source} are not those that the report was made "
                "from; give the study that was scored"
            )
    return checked


def radiograph_of(region: RegionReport, study: Study) -> Radiograph | None:
    """Return the radiograph of a region's report; None if the report has none or the study does not contain it.

    It is found by its SOP Instance UID, because its file may have been renamed. The name counts only if there is no
    UID, or if two radiographs have the same one.
    """
    info = region.radiograph
    if info is None:
        return None
    identity = (info.sop_instance_uid, info.rows, info.columns)
    named = told_apart(study.radiographs)  # as the report names them
    images = [image for image in named if (image.sop_instance_uid, image.rows, image.columns) == identity]
    if info.sop_instance_uid is None or len(images) > 1:
        images = [image for image in images if image.source == info.source]
    return images[0] if images else None


def scored_radiographs(study: Study, report: StudyReport) -> list[tuple[Region, Radiograph, RegionReport]]:
    """Return each scored region: its name, its radiograph and its report. Call `study_of` first."""
    return [seen for seen in _with_radiographs(study, report) if seen[2].status == "scored"]


def untrusted_radiographs(study: Study, report: StudyReport) -> list[tuple[Region, Radiograph, RegionReport]]:
    """Return each rejected region that has points: its name, its radiograph and its report."""
    return [seen for seen in _with_radiographs(study, report) if seen[2].untrusted_points]


def _with_radiographs(study: Study, report: StudyReport) -> list[tuple[Region, Radiograph, RegionReport]]:
    images = {name: radiograph_of(region, study) for name, region in report.regions.items()}
    return [(name, image, report.regions[name]) for name, image in images.items() if image is not None]


def check_references(report: StudyReport) -> None:
    """Raise OutputError if the two radiographs have one SOP Instance UID, by which results refer to them."""
    images = [region.radiograph for region in report.regions.values() if region.radiograph is not None]
    uids = [image.sop_instance_uid for image in images if image.sop_instance_uid is not None]
    if len(set(uids)) < len(uids):
        raise OutputError(
            f"{' and '.join(image.source for image in images)} have one SOP Instance UID, and DICOM results could not "
            "tell them apart; give one of them a UID of its own, or choose another format"
        )


def copy_elements(source: Dataset, target: Dataset, keywords: Iterable[str]) -> None:
    """Copy the elements that `source` has to `target`."""
    for keyword in keywords:
        if keyword in source:
            setattr(target, keyword, source[keyword].value)


def source_of(radiograph: Radiograph, info: RadiographInfo | None = None) -> Dataset:
    """Return a dataset with the elements of the radiograph's header that results need.

    It has the header's character set if that is valid. Its Patient Orientation is that of the stored picture, as the
    report's `info` on the radiograph says.

    Raises OutputError if the radiograph has no header (an array, anonymous reading), or a header without the UIDs that
    results refer to.
    """
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

    header, name = radiograph.header, radiograph.source or "the radiograph"
    if header is None:
        raise OutputError(
            f"{name} has no DICOM header, and DICOM results must refer to one; score the original DICOM files and not "
            "anonymously, give an array its header (radiograph_from_array(pixels, header=dataset)), or choose another "
            "format"
        )
    ds = Dataset()
    for keyword in _UIDS:
        uid = whole(header, keyword) or ""
        if not _UID.fullmatch(uid) or len(uid) > 64:
            raise OutputError(
                f"the header of {name} has no valid {keyword}, and DICOM results must refer to it; "
                "set it in the header that is given with the array, send the file again from the modality or the "
                "archive, or choose another format"
            )
        setattr(ds, keyword, uid)
    allowed = {uid: kind.name for uid, kind in SOP_CLASSES.items() if kind.referenced}
    if ds.SOPClassUID not in allowed:
        raise OutputError(
            f"{name} is of the SOP class {UID(ds.SOPClassUID).name}; DICOM results refer to "
            f"{', '.join(allowed.values())} images. Choose another format"
        )
    _copy_identity(ds, header)
    _copy_image(ds, header, radiograph, info)
    if declared := _declared(header):
        ds.SpecificCharacterSet = declared
    return ds


def set_character_set(ds: Dataset, source: Dataset, more: Iterable[str] = ()) -> None:
    """Set the first character set that can hold all text of `ds` and `more`: the source's, ASCII, Latin-1 or UTF-8.

    Names with Latin-1 letters that the header does not declare are common; the result declares them. Raises nothing,
    since UTF-8 holds every text.
    """
    declared = source.get("SpecificCharacterSet") or ()
    texts = _foreign_texts(ds) | {(words, False) for words in more if not words.isascii()}
    for terms in ([declared] if isinstance(declared, str) else list(declared), *_CHARACTER_SETS):
        if all(terms and _survives(words, is_name, terms) for words, is_name in texts):
            break
    if terms:
        ds.SpecificCharacterSet = terms
    elif "SpecificCharacterSet" in ds:
        del ds.SpecificCharacterSet


def _declared(header: Dataset) -> list[str]:
    """Return the header's character sets if all are defined terms (PS3.3 C.12.1.1.2), else none."""
    from pydicom.charset import python_encoding

    stated = value(header, "SpecificCharacterSet")
    terms = [str(term) for term in ([stated] if isinstance(stated, str) else stated or ())]
    return terms if all(term in python_encoding and term != "ISO_IR 6" for term in terms) else []


def _foreign_texts(ds: Dataset) -> set[tuple[str, bool]]:
    """Return all texts that are not ASCII, each with whether it is a person's name."""
    from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR

    elements = (element for element in ds.iterall() if element.VR in CUSTOMIZABLE_CHARSET_VR and element.value)
    texts = {(str(element.value), element.VR == "PN") for element in elements}
    return {(words, is_name) for words, is_name in texts if not words.isascii()}


def _survives(words: str, is_name: bool, terms: list[str]) -> bool:
    """Return whether a text stays the same when it is written and read in a character set."""
    from pydicom import dcmread, dcmwrite
    from pydicom.dataset import Dataset

    keyword, probe, buffer = "PatientName" if is_name else "PatientComments", Dataset(), io.BytesIO()
    probe.SpecificCharacterSet = terms
    setattr(probe, keyword, words)
    try:
        dcmwrite(buffer, probe, implicit_vr=False, little_endian=True)
        return str(dcmread(io.BytesIO(buffer.getvalue()), force=True).get(keyword)) == words
    except (UnicodeError, ValueError, LookupError):
        return False


def _copy_identity(ds: Dataset, header: Dataset) -> None:
    for keyword in (*_TYPE_2, *_OPTIONAL, "Manufacturer", "ManufacturerModelName"):
        words = _text(header, keyword)
        if keyword in _CALENDAR:
            words = _CALENDAR[keyword](words) or ""
        elif keyword in _FORMS and not _FORMS[keyword].fullmatch(words):
            words = ""
        if words or keyword in _TYPE_2:
            setattr(ds, keyword, words)
    if ds.get("PatientIdentityRemoved") == "YES":  # then one of the two is required (PS3.3 C.7.1.1)
        methods = value(header, "DeidentificationMethodCodeSequence")
        if methods:
            ds.DeidentificationMethodCodeSequence = methods
        elif "DeidentificationMethod" not in ds:
            ds.DeidentificationMethod = "not stated"


def _text(header: Dataset, keyword: str) -> str:
    """Return an element's text on one line; a person's name counts as one text, not as a list of parts."""
    from pydicom.valuerep import PersonName

    stated = value(header, keyword)
    words = str(stated) if isinstance(stated, PersonName) else whole(header, keyword) or ""
    words = "".join(letter if letter.isprintable() else " " for letter in words).strip()
    return words[:64] if keyword in _DESCRIPTIONS else words


def _copy_image(ds: Dataset, header: Dataset, radiograph: Radiograph, info: RadiographInfo | None) -> None:
    ds.Modality = radiograph.modality or "OT"
    ds.Rows, ds.Columns, ds.SamplesPerPixel = radiograph.rows, radiograph.columns, 1
    facing = info.facing if info is not None else None
    ds.PatientOrientation = list(ORIENTATIONS[info.turn_deg, facing]) if info is not None and facing is not None else []
    if radiograph.spacing_mm is not None:
        ds.ImagerPixelSpacing = [f"{side:.8g}" for side in radiograph.spacing_mm]
    if text(header, "LossyImageCompression") == "01":
        ds.LossyImageCompression = "01"
        for keyword in LOSSY[1:]:
            stated = value(header, keyword)
            if stated is not None:
                setattr(ds, keyword, stated)
