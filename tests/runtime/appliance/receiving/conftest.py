"""An Orthanc, and an appliance that follows it."""

import pytest

from helpers.orthanc_double import OrthancDouble


@pytest.fixture
def orthanc():
    with OrthancDouble() as double:
        yield double


@pytest.fixture
def followed(make, orthanc):
    pytest.importorskip("dicomweb_client")
    from helpers.orthanc_followed import Followed

    return Followed(make, orthanc)
