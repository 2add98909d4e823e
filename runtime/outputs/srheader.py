"""The structured report without its content items (PS3.3 A.35.13), and the whole document."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
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


def document_header(report: StudyReport, evidence: Sequence[Dataset]) -> Dataset:
    """Return the elements before the content items; `finished` sets the dates and the character set."""
    source, name = evidence[0], content_name(report)
    own = {argument.title().replace("_", ""): value for argument, value in equipment(report).items()}
    ds = _dataset(**own)
    copy_elements(source, ds, IDENTITY)
    ds.SOPClassUID, ds.SOPInstanceUID = _COMPREHENSIVE_3D_SR, stable_uid("sr", "instance", name)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = source.StudyInstanceUID, stable_uid("sr", "series", name)
    ds.Modality, ds.SeriesNumber, ds.InstanceNumber = "SR", SERIES_NUMBERS["sr"], 1
    ds.SeriesDescription = "mSASSS (not a medical device)"
    ds.InstanceCreationDate = ds.InstanceCreationTime = ds.ContentDate = ds.ContentTime = ""  # `finished` sets them
    scheme = _dataset(CodingSchemeDesignator=codes.PRIVATE_SCHEME, CodingSchemeVersion=software_version())
    scheme.CodingSchemeName = "spinescore's codes for the mSASSS"
    scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
    ds.CodingSchemeIdentificationSequence = [scheme]
    processing = _dataset(**own, ContributionDescription=contribution(report))
    processing.PurposeOfReferenceCodeSequence = _concept("109102", "Processing Equipment")
    ds.ContributingEquipmentSequence = [*_acquisition(source), processing]
    ds.CompletionFlag, ds.VerificationFlag, ds.PreliminaryFlag = "COMPLETE", "UNVERIFIED", "PRELIMINARY"
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.PerformedProcedureCodeSequence = []
    own_study, *others = _evidence(evidence)
    ds.CurrentRequestedProcedureEvidenceSequence = [own_study]
    if others:
        ds.PertinentOtherEvidenceSequence = others
    ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "CONTINUOUS"
    ds.ConceptNameCodeSequence = _concept("126000", "Imaging Measurement Report")
    ds.ContentTemplateSequence = [_dataset(MappingResource="DCMR", TemplateIdentifier="1500")]
    return ds


def _dataset(**elements: Any) -> Dataset:
    from pydicom.dataset import Dataset

    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def _concept(code: str, meaning: str) -> list[Dataset]:
    return [_dataset(CodeValue=code, CodingSchemeDesignator="DCM", CodeMeaning=meaning)]


def _acquisition(source: Dataset) -> list[Dataset]:
    """Return the equipment that made the radiograph (PS3.3 C.12.1), if its header states it."""
    if not source.get("Manufacturer"):
        return []
    item = _dataset(ContributionDescription="Acquisition equipment of the source image(s)")
    item.PurposeOfReferenceCodeSequence = _concept("109101", "Acquisition Equipment")
    copy_elements(source, item, ("Manufacturer", "ManufacturerModelName"))
    return [item]


def _evidence(evidence: Sequence[Dataset]) -> list[Dataset]:
    """Return references to the radiographs by study, the document's own study first (PS3.3 C.17.2)."""
    studies: dict[str, dict[str, list[Dataset]]] = {}
    for source in evidence:
        reference = _dataset(ReferencedSOPClassUID=source.SOPClassUID, ReferencedSOPInstanceUID=source.SOPInstanceUID)
        studies.setdefault(source.StudyInstanceUID, {}).setdefault(source.SeriesInstanceUID, []).append(reference)
    return [
        _dataset(
            StudyInstanceUID=study,
            ReferencedSeriesSequence=[
                _dataset(SeriesInstanceUID=one, ReferencedSOPSequence=references) for one, references in series.items()
            ],
        )
        for study, series in studies.items()
    ]


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
