"""The structured report without its content items (PS3.3 A.35.13), and the whole document."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from spinescore.runtime.machine.packages import software_version
from spinescore.runtime.outputs import codes
from spinescore.runtime.outputs.contentitems import CONTENT_SEQUENCE, sequence
from spinescore.runtime.outputs.dicomobjects import MANUFACTURER, SERIES_NUMBERS, contribution, equipment
from spinescore.runtime.outputs.source import IDENTITY, copy_elements
from spinescore.runtime.outputs.uids import content_name, stable_uid
from spinescore.runtime.scoring.report import StudyReport

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["document", "document_header"]

_COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
_PROCESSING: codes.Triple = ("109102", "DCM", "Processing Equipment")
_ACQUISITION: codes.Triple = ("109101", "DCM", "Acquisition Equipment")


def document_header(report: StudyReport, evidence: Sequence[Dataset]) -> Dataset:
    """Return the elements before the content items; `finished` sets the dates and the character set."""
    from pydicom.dataset import Dataset

    source, name, ds = evidence[0], content_name(report), Dataset()
    copy_elements(source, ds, IDENTITY)
    ds.SOPClassUID, ds.SOPInstanceUID = _COMPREHENSIVE_3D_SR, stable_uid("sr", "instance", name)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = source.StudyInstanceUID, stable_uid("sr", "series", name)
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "SR", SERIES_NUMBERS["sr"], 1
    ds.SeriesDescription = "mSASSS (not a medical device)"
    ds.InstanceCreationDate = ds.InstanceCreationTime = ds.ContentDate = ds.ContentTime = ""  # `finished` sets them
    own = equipment(report)
    _describe_equipment(ds, own)
    ds.CodingSchemeIdentificationSequence = [_coding_scheme()]
    ds.ContributingEquipmentSequence = [*_acquisition(source), _contributor(own, _PROCESSING, contribution(report))]
    ds.CompletionFlag, ds.VerificationFlag, ds.PreliminaryFlag = "COMPLETE", "UNVERIFIED", "PRELIMINARY"
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.PerformedProcedureCodeSequence = []
    ds.CurrentRequestedProcedureEvidenceSequence, others = _evidence(evidence)
    if others:
        ds.PertinentOtherEvidenceSequence = others
    ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "CONTINUOUS"
    ds.ConceptNameCodeSequence = [_concept(("126000", "DCM", "Imaging Measurement Report"))]
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "1500"
    ds.ContentTemplateSequence = [template]
    return ds


def _describe_equipment(ds: Dataset, own: dict[str, Any]) -> None:
    ds.Manufacturer, ds.ManufacturerModelName = own["manufacturer"], own["manufacturer_model_name"]
    ds.SoftwareVersions, ds.DeviceSerialNumber = own["software_versions"], own["device_serial_number"]


def _contributor(own: dict[str, Any], purpose: codes.Triple, description: str) -> Dataset:
    """Return an item of Contributing Equipment (PS3.3 C.12.1)."""
    from pydicom.dataset import Dataset

    item = Dataset()
    _describe_equipment(item, own)
    item.PurposeOfReferenceCodeSequence = [_concept(purpose)]
    item.ContributionDescription = description
    return item


def _acquisition(source: Dataset) -> Iterator[Dataset]:
    """Yield the equipment that made the radiograph, if its header states it."""
    from pydicom.dataset import Dataset

    if source.get("Manufacturer"):
        item = Dataset()
        copy_elements(source, item, ("Manufacturer", "ManufacturerModelName"))
        item.PurposeOfReferenceCodeSequence = [_concept(_ACQUISITION)]
        item.ContributionDescription = "Acquisition equipment of the source image(s)"
        yield item


def _concept(triple: codes.Triple) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = triple
    return item


def _coding_scheme() -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodingSchemeDesignator, item.CodingSchemeVersion = codes.PRIVATE_SCHEME, software_version()
    item.CodingSchemeName = "spinescore's codes for the mSASSS"
    item.CodingSchemeResponsibleOrganization = MANUFACTURER
    return item


def _evidence(evidence: Sequence[Dataset]) -> tuple[list[Dataset], list[Dataset]]:
    """Return references to the radiographs of the document's own study, and to those of others (PS3.3 C.17.2)."""
    from pydicom.dataset import Dataset

    studies: dict[str, dict[str, list[Dataset]]] = {}
    for source in evidence:
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
        studies.setdefault(source.StudyInstanceUID, {}).setdefault(source.SeriesInstanceUID, []).append(reference)
    items = []
    for study_uid, series in studies.items():
        item = Dataset()
        item.StudyInstanceUID, item.ReferencedSeriesSequence = study_uid, []
        for series_uid, references in series.items():
            one = Dataset()
            one.SeriesInstanceUID, one.ReferencedSOPSequence = series_uid, references
            item.ReferencedSeriesSequence.append(one)
        items.append(item)
    return items[:1], items[1:]


def document(header: Dataset, items: Iterable[bytes]) -> Dataset:
    """Return the dataset of a header and its encoded content items, which follow all elements of the header."""
    from pydicom import dcmread, dcmwrite
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    dcmwrite(buffer, header, enforce_file_format=True)
    buffer.write(sequence(CONTENT_SEQUENCE, *items))
    buffer.seek(0)
    return dcmread(buffer)
