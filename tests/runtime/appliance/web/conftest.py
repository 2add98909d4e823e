"""The HTTP application of an appliance in this process, and a reader in Chromium, which opens once for all tests."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from pydicom import dcmread

from helpers import review_double as double
from helpers.browser import browsing, need_browser
from helpers.review_reader import Reader
from helpers.served import serve, serve_alone
from spinescore.runtime import radiograph_from_array


@pytest.fixture
def served(make, score):
    return serve(make(), score)


@pytest.fixture
def delivered(served, files):
    """The application of an appliance whose study 1 was delivered."""
    served.appliance.receive(*files)
    served.appliance.run(10)
    assert served.appliance.states() == {"1.2.3.4": "delivered"}
    return served


@pytest.fixture
def alone(tmp_path, bundle, score):
    """A function that opens the application of a service for consoles alone."""
    return partial(serve_alone, tmp_path, bundle, score)


@pytest.fixture
def dicom(files):
    return [(path.stem, "application/dicom", path.read_bytes()) for path in files]


@pytest.fixture
def frames(files):
    """The parts of a call with raw frames, and the radiographs of the same arrays."""
    views, parts, radiographs = [], [], []
    for path in files:
        ds = dcmread(path)
        pixels = ds.pixel_array
        assert pixels.dtype == np.uint8
        facts = {"pixel_spacing_mm": [float(side) for side in ds.PixelSpacing], "region": path.stem, "facing": "left"}
        uids = {"study_instance_uid": str(ds.StudyInstanceUID), "sop_instance_uid": None}
        view = {"part": path.stem, "rows": ds.Rows, "columns": ds.Columns, "bits_allocated": 8, **facts, **uids}
        views.append(view)
        parts.append((path.stem, "application/octet-stream", pixels.tobytes()))
        radiographs.append(radiograph_from_array(
            pixels, region=path.stem, spacing_mm=tuple(view["pixel_spacing_mm"]), facing="left",
            study=str(ds.StudyInstanceUID), name=path.stem))  # fmt: skip
    return views, parts, radiographs


@pytest.fixture(scope="session")
def driver():
    need_browser()
    with browsing() as driver:
        yield driver


@pytest.fixture
def reader(driver, service):
    """A reader of the studies of the file's own fixture `service`."""
    with double.serving(service) as url:
        reader = Reader(driver, url)
        driver.get("about:blank")
        driver.get_log("browser")
        driver.get_log("performance")
        yield reader
        assert reader.problems(getattr(service, "allowed", ())) == []
