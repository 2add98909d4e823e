"""An Orthanc, an appliance that follows it, and files of the size of radiographs."""

from pathlib import Path

import pytest

from helpers import dicom_files
from helpers.orthanc_double import OrthancDouble


@pytest.fixture
def orthanc():
    with OrthancDouble() as double:
        yield double


@pytest.fixture
def followed(make, orthanc):
    from helpers.orthanc_followed import Followed

    return Followed(make, orthanc)


@pytest.fixture(scope="session")
def radiographs(tmp_path_factory) -> list[Path]:
    """Two files of more than a mebibyte each, so that they take many PDUs."""
    folder = tmp_path_factory.mktemp("study")
    return [
        dicom_files.write(dicom_files.radiograph_dataset(dicom_files.picture(rows=rows, columns=1024)), folder / name)
        for name, rows in (("a.dcm", 640), ("b.dcm", 800))
    ]
