"""What the DICOM outputs take over from a radiograph's header: identity, references, character set.

Headers are what devices write, and highdicom is strict, so it is handed a new dataset that holds what is needed and
nothing else. What identifies the patient and the study is taken over as it is, too long or not: a shortened ID would
be another patient's. Values that the standard does not allow where a result needs a valid one (a birth date that is no
date, a sex other than M, F and O) become empty. What pydicom and highdicom warn of is the caller's to catch.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from spinescore.runtime.arguments import shown
from spinescore.runtime.errors import OutputError
from spinescore.runtime.reading.dates import calendar_date, time_of_day
from spinescore.runtime.reading.display import SOP_CLASSES
from spinescore.runtime.reading.orientation import ORIENTATIONS
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
    "check_references",
    "radiograph_of",
    "scored_radiographs",
    "set_character_set",
    "source_of",
    "study_of",
    "untrusted_radiographs",
]

_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")

# Type 2 in every image and result: present, and empty where it is not known (PS3.3 C.7.1.1, C.7.2.1).
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
_CALENDAR = {"PatientBirthDate": calendar_date, "StudyDate": calendar_date, "StudyTime": time_of_day}
_FORMS = {  # PS3.5 6.2
    "PatientSex": re.compile("[MFO]"),
    "PatientIdentityRemoved": re.compile("YES|NO"),
}
_CHARACTER_SETS: tuple[list[str], ...] = ([], ["ISO_IR 100"], ["ISO_IR 192"])  # ASCII, Latin-1, UTF-8


def study_of(study: StudyInput, report: StudyReport) -> Study:
    """The study, once it is sure that `report` is of it.

    Both must have one Study Instance UID, or none, and each region's radiograph must be in the study: the one with its
    SOP Instance UID or, if it has none, its name, and with its rows and columns. Raises OutputError if not, and what
    `as_study` does for what is no study.
    """
    if not isinstance(report, StudyReport):
        raise TypeError(f"report must be a StudyReport, got {shown(report)}; read JSON with StudyReport.from_json")
    found = as_study(study)
    of, given = report.study.study_instance_uid, found.study_instance_uid
    if of != given:
        raise OutputError(
            f"the report is of the study {of or 'without a UID'}, not of the study {given or 'without a UID'} that was "
            "given with it; give the study that was scored"
        )
    for name, region in report.regions.items():
        if region.radiograph is None:
            continue
        radiograph = radiograph_of(region, found)
        if radiograph is None:
            raise OutputError(
                f"the radiograph of the {name} region is not in the study; give the study that was scored"
            )
        if not has_scored_pixels(radiograph, region.radiograph):
            raise OutputError(
                f"the pixels of the {name} radiograph {radiograph.source} are not those that the report was made "
                "from; give the study that was scored"
            )
    return found


def radiograph_of(region: RegionReport, study: Study) -> Radiograph | None:
    """The radiograph that a region's report speaks of; None where it speaks of none, or the study has it not.

    A SOP Instance UID tells it, and the name only where there is none or where two have the same: a file may have been
    renamed since.
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


def scored_radiographs(study: Study, report: StudyReport) -> Iterator[tuple[Region, Radiograph, RegionReport]]:
    """Each region that was scored, with its radiograph, which `study_of` has found."""
    for name, region in report.regions.items():
        if region.status == "scored" and (radiograph := radiograph_of(region, study)) is not None:
            yield name, radiograph, region


def untrusted_radiographs(study: Study, report: StudyReport) -> Iterator[tuple[Region, Radiograph, RegionReport]]:
    """Each region that was rejected with points, with its radiograph."""
    for name, region in report.regions.items():
        if region.untrusted_points and (radiograph := radiograph_of(region, study)) is not None:
            yield name, radiograph, region


def check_references(report: StudyReport) -> None:
    """Raise OutputError if the two radiographs have one SOP Instance UID, by which results refer to them."""
    images = [region.radiograph for region in report.regions.values() if region.radiograph is not None]
    uids = [image.sop_instance_uid for image in images if image.sop_instance_uid is not None]
    if len(set(uids)) < len(uids):
        raise OutputError(
            f"{' and '.join(image.source for image in images)} have one SOP Instance UID, and DICOM results could not "
            "tell them apart; give one of them a UID of its own, or choose another format"
        )


def source_of(radiograph: Radiograph, info: RadiographInfo | None = None) -> Dataset:
    """A dataset with what results need of the radiograph's header, and with its character set where that is valid.

    `info` is what the report says of the radiograph; its Patient Orientation is that of the stored picture.

    Raises OutputError where the radiograph has no header (arrays, anonymous reading), or one without the UIDs that
    results refer to.
    """
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

    header = radiograph.header
    name = radiograph.source or "the radiograph"
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
                "send the file again from the modality or the archive, or choose another format"
            )
        setattr(ds, keyword, uid)
    referred = {known: kind.name for known, kind in SOP_CLASSES.items() if not kind.retired}
    if ds.SOPClassUID not in referred:
        raise OutputError(
            f"{name} is of the SOP class {UID(ds.SOPClassUID).name}; DICOM results refer to "
            f"{', '.join(referred.values())} images. Choose another format"
        )
    _copy_identity(ds, header)
    _copy_image(ds, header, radiograph, info)
    declared = _declared(header)
    if declared:
        ds.SpecificCharacterSet = declared
    return ds


def set_character_set(ds: Dataset, source: Dataset, more: Iterable[str] = ()) -> None:
    """Give `ds` the first character set that holds all of its text and `more`: the source's, ASCII, Latin-1, UTF-8.

    Names with undeclared Latin-1 letters are common, and then declared. Raises nothing: UTF-8 holds everything.
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
    """The header's character sets where all are defined terms (PS3.3 C.12.1.1.2), else none."""
    from pydicom.charset import python_encoding

    found = value(header, "SpecificCharacterSet")
    terms = [str(term) for term in ([found] if isinstance(found, str) else found or ())]
    return terms if all(term in python_encoding and term != "ISO_IR 6" for term in terms) else []


def _foreign_texts(ds: Dataset) -> set[tuple[str, bool]]:
    """All text that is not ASCII, and whether it is a person's name."""
    from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR

    governed = (element for element in ds.iterall() if element.VR in CUSTOMIZABLE_CHARSET_VR and element.value)
    found = {(str(element.value), element.VR == "PN") for element in governed}
    return {(words, is_name) for words, is_name in found if not words.isascii()}


def _survives(words: str, is_name: bool, terms: list[str]) -> bool:
    """Whether text is the same after it was written and read in a character set."""
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
        found = _text(header, keyword)
        if keyword in _CALENDAR:
            found = _CALENDAR[keyword](found) or ""
        elif keyword in _FORMS and not _FORMS[keyword].fullmatch(found):
            found = ""
        if found or keyword in _TYPE_2:
            setattr(ds, keyword, found)
    if ds.get("PatientIdentityRemoved") == "YES":  # then one of the two is required (PS3.3 C.7.1.1)
        methods = value(header, "DeidentificationMethodCodeSequence")
        if methods:
            ds.DeidentificationMethodCodeSequence = methods
        elif "DeidentificationMethod" not in ds:
            ds.DeidentificationMethod = "not stated"


def _text(header: Dataset, keyword: str) -> str:
    """An element's text on one line; a person's name is one text and no sequence of letters."""
    from pydicom.valuerep import PersonName

    found = value(header, keyword)
    words = str(found) if isinstance(found, PersonName) else whole(header, keyword) or ""
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
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            found = value(header, keyword)
            if found is not None:
                setattr(ds, keyword, found)
