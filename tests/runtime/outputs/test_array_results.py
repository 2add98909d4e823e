"""DICOM results of arrays with a header."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import dicom_results
from helpers.dicom_files import radiograph_dataset
from helpers.scoring import CERVICAL, assert_found
from spinescore.runtime import Study, load_radiograph, radiograph_from_array

WINDOW = {"VOILUTFunction": "LINEAR_EXACT", "WindowCenter": "127.5", "WindowWidth": "255"}


@pytest.mark.parametrize("kind", ["sr", "gsps", "sc"])
def test_dicom_results_of_an_array_are_those_of_its_file(tiny_scorer, kind) -> None:
    pixels = CERVICAL.radiograph.pixels
    ds = radiograph_dataset(pixels, 8, PatientOrientation=["P", "F"], **WINDOW)
    made = []
    for image in (load_radiograph(ds), radiograph_from_array(pixels, header=ds)):
        study = Study((image,), study_instance_uid=image.study_instance_uid)
        report = tiny_scorer.score(study)
        assert_found(report.regions["cervical"], CERVICAL)
        made.append(dicom_results.KINDS[kind](study, report, created=dicom_results.WHEN))
    file, array = ([one.to_json_dict() for one in results] for results in made)
    assert file == array
    assert made[1][0].PatientID == "P-1"


def test_a_presentation_state_of_a_masked_array_has_no_shutter(tiny_scorer) -> None:
    pixels = CERVICAL.radiograph.pixels
    ds = radiograph_dataset(pixels, 8, PatientOrientation=["P", "F"], **WINDOW)
    masked = np.ma.array(pixels, mask=np.zeros(pixels.shape, bool))
    masked[:5] = np.ma.masked
    study = Study((radiograph_from_array(masked, header=ds),))
    (state,) = dicom_results.KINDS["gsps"](study, tiny_scorer.score(study), created=dicom_results.WHEN)
    assert "ShutterShape" not in state
