"""`spinescore score --max-imputed`: how many missing corners of a region its mean may replace."""

import json

import numpy as np
import pytest

from helpers import dicom_files, tiny
from spinescore.runtime import cli


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return str(tiny.write_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A cervical radiograph of which the first and the last disc cannot be found: four missing corners."""
    drawn = tiny.draw("cervical")
    pixels = drawn.radiograph.pixels.copy()
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    for point in drawn.points[[0, 5]].reshape(-1, 2):
        pixels[(x - point[0]) ** 2 + (y - point[1]) ** 2 <= 15**2] = 0
    window = {"VOILUTFunction": "LINEAR_EXACT", "WindowCenter": "127.5", "WindowWidth": "255"}
    dataset = dicom_files.radiograph_dataset(pixels, 8, PatientOrientation=["P", "F"], **window)
    return str(dicom_files.write(dataset, tmp_path_factory.mktemp("study") / "cervical.dcm"))


@pytest.mark.parametrize(("most", "total"), [("3", None), ("4", 12 * 12 / 8), ("0", None)])
def test_as_many_missing_corners_as_allowed_are_imputed(bundle, study, most, total, capsys):
    assert cli.main(["score", study, "--bundle", bundle, "--json", "--max-imputed", most]) == 0
    region = json.loads(capsys.readouterr().out)["regions"]["cervical"]
    assert (region["missing"], region["range"]) == (4, [12, 24])
    assert region["total"] == total
    status = {corner["status"] for disc in region["discs"] for corner in disc["corners"]}
    assert status == {"scored", "unreadable" if total is None else "imputed"}


@pytest.mark.parametrize("most", ["-1", "x", "1.5"])
def test_what_is_no_number_of_corners_is_refused(study, most):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["score", study, "--max-imputed", most])
