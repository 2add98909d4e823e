"""The public names, and that importing them stays lean."""

import subprocess
import sys
from importlib import metadata
from typing import get_args

import pytest

import spinescore.runtime as door

NAMES = {"Scorer", "Study", "Radiograph", "StudyReport", "load_study", "load_radiograph", "SpineScoreError",
         "InputRejected", "CheckpointError", "BundleError", "EngineError", "DeviceError", "OutputError",
         "BudgetExceeded", "Cancelled", "SelfTestError", "load_studies", "radiograph_from_array",
         "anonymous", "html", "presentation_states", "secondary_captures", "structured_report", "freeze_support",
         "write_results", "CODES", "Code", "Finding", "Correction", "correct", "corrections_of",
         "keypoints_of"}  # fmt: skip
TYPES = {"BuildMode", "DeviceName", "EngineName", "Facing", "Keypoints", "PrecisionName", "Region", "StudyInput"}


def test_the_public_names():
    assert set(door.__all__) == NAMES | TYPES
    assert list(door.__all__) == [
        *sorted(name for name in door.__all__ if name.isupper()),
        *sorted(name for name in door.__all__ if not name.isupper()),
    ]
    assert set(dir(door)) >= NAMES | TYPES
    for name in NAMES - {"CODES"}:
        assert getattr(door, name).__name__ == name


def test_the_names_of_options_are_those_that_are_accepted():
    from spinescore.runtime.devices import DEVICES
    from spinescore.runtime.engines import ENGINES, PRECISIONS
    from spinescore.runtime.opening.request import BUILDS
    from spinescore.runtime.study import REGIONS

    types = (door.DeviceName, door.EngineName, door.PrecisionName, door.BuildMode, door.Region)
    assert tuple(map(get_args, types)) == (DEVICES, tuple(ENGINES), PRECISIONS, BUILDS, REGIONS)


def test_the_version_is_that_of_the_package():
    assert door.__version__ == metadata.version("spinescore")


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="no attribute 'Scores'"):
        _ = door.Scores


@pytest.mark.parametrize(
    "statement",
    [
        "import spinescore.runtime",
        "from spinescore.runtime import Scorer, Study, StudyReport",
        "from spinescore.runtime import *",
    ],
)
def test_importing_loads_numpy_at_most(statement):
    heavy = ("cv2", "onnxruntime", "onnx", "pydicom", "highdicom", "torch", "tensorflow", "h5py", "spinescore.export")
    code = f"{statement}\nimport sys\nprint(*[name for name in {heavy!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not found.stdout.strip()
