"""A study whose headers name a patient in words that occur nowhere else, so that a test finds each of them."""

from __future__ import annotations

from pathlib import Path

from helpers import dicom_files, tiny
from helpers.tiny_study import GRADES

WHO = {
    "PatientName": "Quorvexel^Zarnith",
    "PatientID": "MRN7355608",
    "IssuerOfPatientID": "Hospivorna",
    "OtherPatientIDs": "ALT9921471",
    "PatientBirthDate": "19470131",
    "PatientBirthName": "Wixelbur",
    "PatientAddress": "Glimmenstrasse",
    "PatientTelephoneNumbers": "5550173",
    "PatientComments": "Knowsthemayor",
    "AccessionNumber": "ACC88123",
    "ReferringPhysicianName": "Doktorzilch",
    "OperatorsName": "Radiogrubb",
    "InstitutionName": "Clinivast",
    "InstitutionAddress": "Placamundi",
    "StudyID": "STID4471",
    "RequestingPhysician": "Bittendorf",
}
WORDS = [part for word in WHO.values() for part in word.split("^")]
PARTS = {"cervical": "CSPINE", "lumbar": "LSPINE"}
WINDOW = {"VOILUTFunction": "LINEAR_EXACT", "WindowCenter": "127.5", "WindowWidth": "255"}


def write_study(folder: Path, **changes: tuple[bytes, bytes]) -> Path:
    """Both regions of the patient; `changes` replace bytes in the files, as devices write what no library would."""
    for region, part in PARTS.items():
        pixels = tiny.draw(region, GRADES, rows=512).radiograph.pixels
        tags = {"BodyPartExamined": part, "PatientOrientation": ["P", "F"], **WHO, **WINDOW}
        path = dicom_files.write(dicom_files.radiograph_dataset(pixels, 8, **tags), folder / f"{region}.dcm")
        data = path.read_bytes()
        for old, new in changes.values():
            assert data.count(old) == 1
            assert len(old) == len(new)
            data = data.replace(old, new)
        path.write_bytes(data)
    return folder
