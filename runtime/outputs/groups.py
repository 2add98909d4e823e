"""The structured report's measurement groups (TID 1501 and TID 1410): corners, discs, regions, the study.

A corner's group is a planar ROI at its disc's anterior point in the radiograph. A disc's group is the line from its
centre to its anterior point. Coordinates are those of PS3.3 C.18.6.1.2: 0.0\\0.0 is the outer corner of the first
pixel, not its centre, so they are half a pixel larger than the report's. A corner without a grade has a qualitative
evaluation instead of the number. If it was imputed or is unreadable (114006, DCM, "Measurement failure"), it has no
probabilities either. A disc that was not localized has no ROI.

The document has the software (a device) and all readers (persons) as observers (TID 1001). The group of a corner that a
reader graded has the reader alone as its observer, and neither algorithm nor
probabilities. For a disc with points by a reader, and for a region that a reader could not read, the reader observes
the item that says so; the rest of these groups is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from spinescore.runtime.errors import OutputError
from spinescore.runtime.machine.packages import software_version
from spinescore.runtime.outputs import codes
from spinescore.runtime.outputs.contentitems import (
    code_item,
    container,
    name_item,
    number_item,
    region_item,
    text_item,
    uid_item,
)
from spinescore.runtime.outputs.corrections import changes_in_words, grades_before, when
from spinescore.runtime.outputs.dicomobjects import MANUFACTURER
from spinescore.runtime.outputs.uids import stable_uid
from spinescore.runtime.outputs.words import REGION_MAX, STUDY_MAX
from spinescore.runtime.scoring.applied import AppliedCorrection
from spinescore.runtime.scoring.expected import Expected
from spinescore.runtime.scoring.report import CornerReport, DiscReport, RegionReport, StudyReport, TotalReport
from spinescore.runtime.study import Region

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = [
    "HALF_PIXEL",
    "Encode",
    "correction_words",
    "device_observer",
    "measurement_groups",
    "person_name",
    "person_observer",
]

Encode = Callable[[str], bytes]  # encodes text in the document's character set

HALF_PIXEL = 0.5  # added to our coordinates (integers are pixel centres) it gives those of DICOM

_FAILURE: codes.Triple = ("114006", "DCM", "Measurement failure")
_METHOD: codes.Triple = ("370129005", "SCT", "Measurement Method")
_MODIFIER: codes.Triple = ("106233006", "SCT", "Topographical modifier")
_COUNT: codes.Triple = ("1", "UCUM", "no units")
_DEGREES: codes.Triple = ("deg", "UCUM", "degree")
_COMPONENTS = 5  # of a person's name
_FRACTION, _CORNER_SCALE, _DISC_SCALE = (codes.scale(most) for most in (1, 3, 6))


def measurement_groups(
    report: StudyReport, sources: Mapping[Region, Dataset], algorithm: Sequence[bytes], encode: Encode
) -> list[bytes]:
    """Return all groups of a report: that of the study, then those of each region, its discs and their corners.

    `sources` are the headers of the scored radiographs. `algorithm` are the items of TID 4019, which each group
    repeats. Raises OutputError if a source is missing.
    """
    maker = _Groups(report, algorithm, encode)
    groups = [maker.study(report.total)]
    for name, region in report.regions.items():
        groups.append(maker.region(name, region))
        if region.discs and name not in sources:
            raise OutputError(
                f"the radiograph of the {name} region is not in the study; give the study that the report was made of"
            )
        for disc in region.discs:
            groups.append(maker.disc(disc, sources[name]))
            groups.extend(maker.corner(corner, disc, sources[name]) for corner in disc.corners)
    return groups


class _Groups:
    """Makes the groups of one study, each as an encoded content item."""

    def __init__(self, report: StudyReport, algorithm: Sequence[bytes], encode: Encode) -> None:
        self._algorithm = algorithm
        self._study_uid = report.study.study_instance_uid or ""
        self._before = grades_before(report)
        self._observers: dict[str, list[bytes]] = {}  # the reader who changed it last, by site, level or region
        for correction in report.corrections:
            sites = [change.where for change in correction.grades]
            levels = [change.where for change in correction.points]
            observer = person_observer(correction.reader, encode)
            self._observers |= dict.fromkeys((*sites, *levels, *correction.unreadable), observer)

    def study(self, total: TotalReport) -> bytes:
        content = _scores("MSASSS", total.value, total.range, total.expected, STUDY_MAX)
        return self._group("mSASSS", _site(codes.SPINE), [*content, _evaluation("TOTAL-STATUS", total.status)])

    def region(self, name: Region, region: RegionReport) -> bytes:
        content = _scores("REGION-TOTAL", region.total, region.range, region.expected, REGION_MAX)
        content += [_number("UNSCORED", region.missing, _COUNT), _evaluation("REGION-STATUS", region.status)]
        if region.status == "scored":
            imputed = any(corner.status == "imputed" for disc in region.discs for corner in disc.corners)
            status = "INCOMPLETE" if region.total is None else "IMPUTED" if imputed else "COMPLETE"
            content.append(_evaluation("TOTAL-STATUS", status))
        if region.reject is not None:
            reader = self._observers.get(name, []) if region.reject.code == "reader-unreadable" else []
            content.append(_evaluation("REJECT", codes.reject_code(region.reject.code), *reader))
        return self._group(name, _site(codes.REGION_SITES[name]), content)

    def disc(self, disc: DiscReport, source: Dataset) -> bytes:
        content = [
            _number("CONFIDENCE", disc.confidence, _FRACTION),
            _number("ROTATION", disc.rotation_deg, _DEGREES),
        ]
        if disc.total is not None:
            content.append(_number("DISC-TOTAL", disc.total, _DISC_SCALE))
        if disc.level in self._observers:
            content.append(_evaluation("POINTS-ORIGIN", "READER", *self._observers[disc.level]))
        line = _roi(source, disc, disc.centre_px, disc.anterior_px)
        return self._group(disc.level, _site(codes.DISCS[disc.level]), content, "DISC", line)

    def corner(self, corner: CornerReport, disc: DiscReport, source: Dataset) -> bytes:
        numbers, evaluations = [], []
        if corner.grade is not None:
            numbers.append(_number("GRADE", corner.grade, _CORNER_SCALE))
        else:
            evaluations.append(_evaluation("GRADE", _FAILURE if corner.status == "unreadable" else corner.status))
        by_reader = corner.grade_from == "reader"
        if by_reader:
            evaluations.append(_evaluation("GRADE-ORIGIN", "READER"))
            before = self._before.get(corner.site)
            numbers += [] if before is None else [_number("GRADE-BEFORE", before, _CORNER_SCALE)]
        elif corner.probabilities is not None and corner.status in ("scored", "abstained"):
            numbers += [_number(f"P{grade}", p, _FRACTION) for grade, p in enumerate(corner.probabilities)]
        vertebra, endplate = codes.corner_site(corner.site)
        site, point = _site(vertebra, endplate, codes.ANTERIOR), _roi(source, disc, disc.anterior_px)
        observer = self._observers[corner.site] if by_reader else ()
        return self._group(corner.site, site, [*numbers, *evaluations], "CORNER", point, observer)

    def _group(
        self,
        name: str,
        site: bytes,
        content: Sequence[bytes],
        finding: str | None = None,
        roi: Sequence[bytes] = (),
        observer: Sequence[bytes] = (),
    ) -> bytes:
        """Return a group: with a `roi` a planar ROI; with an `observer`, a reader, not the algorithm's."""
        tracking = stable_uid("tracking", self._study_uid, name)
        items = [
            text_item("HAS OBS CONTEXT", ("112039", "DCM", "Tracking Identifier"), name.encode("ascii")),
            uid_item("HAS OBS CONTEXT", ("112040", "DCM", "Tracking Unique Identifier"), tracking),
            *observer,
        ]
        if finding is not None:
            items.append(code_item("CONTAINS", ("121071", "DCM", "Finding"), codes.private(finding)))
        items.append(code_item("CONTAINS", _METHOD, codes.private("MSASSS")))
        items += [site, *(() if observer else self._algorithm), *content, *roi]
        return container(("125007", "DCM", "Measurement Group"), items, "1410" if roi else "1501")


def _number(name: str, value: float, unit: codes.Triple) -> bytes:
    return number_item(codes.private(name), value, unit)


def _evaluation(name: str, value: str | codes.Triple, *context: bytes) -> bytes:
    coded = codes.private(value.upper()) if isinstance(value, str) else value
    return code_item("CONTAINS", codes.private(name), coded, *context)


def _scores(name: str, total: float | None, span: tuple[int, int], expected: Expected | None, most: int) -> list[bytes]:
    """Return a total, the lowest and highest possible one, and the expected one, as far as they are known."""
    values = {name: total, "LOWEST": span[0], "HIGHEST": span[1]}
    if expected is not None:
        low, high = expected.interval
        values |= {"EXPECTED": expected.mean, "EXPECTED-LOW": low, "EXPECTED-HIGH": high}
    return [_number(key, value, codes.scale(most)) for key, value in values.items() if value is not None]


def _roi(source: Dataset, disc: DiscReport, *points_px: tuple[float, float]) -> list[bytes]:
    """Return the item of points of a disc in its radiograph; none if the disc was not localized."""
    image = (source.SOPClassUID, source.SOPInstanceUID)
    return [region_item(np.array(points_px, np.float64) + HALF_PIXEL, image)] if disc.confidence > 0 else []


def _site(place: codes.Triple, *modifiers: codes.Triple) -> bytes:
    """Return a finding site with its topographical modifiers."""
    modified = (code_item("HAS CONCEPT MOD", _MODIFIER, modifier) for modifier in modifiers)
    return code_item("HAS CONCEPT MOD", ("363698007", "SCT", "Finding Site"), place, *modified)


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
