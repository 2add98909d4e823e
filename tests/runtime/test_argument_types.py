"""One rule for all public calls: `TypeError` for an argument of the wrong type, `ValueError` for a wrong value."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from helpers.scoring import CERVICAL, LUMBAR
from helpers.tiny import write_bundle
from spinescore import runtime
from spinescore.runtime import Scorer, Study, StudyReport, followup

IMAGE = CERVICAL.radiograph
STUDY = Study((IMAGE, LUMBAR.radiograph))

# The arguments that a call needs, apart from the one that is tried.
_SOUND: dict[str, Any] = {
    "study": STUDY,
    "pixels": IMAGE.pixels,
    "files": [b""],
    "file": b"",
    "cohort": followup.read_cohort(),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Iterator[SimpleNamespace]:
    with Scorer.open(write_bundle(tmp_path_factory.mktemp("plain")), "cpu") as scorer:
        report = scorer.score(STUDY)
        folder = tmp_path_factory.mktemp("folder")
        yield SimpleNamespace(scorer=scorer, report=report, folder=folder)


# Records are left out: the calls that take them check them.
def _calls() -> Iterator[tuple[str, Callable[[Any], Callable[..., Any]]]]:
    """Yield the name of each public function and method, and how to get it."""
    for module in (runtime, followup):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isfunction(value):
                yield name, lambda made, value=value: value
    for kind, attribute in ((Scorer, "scorer"), (StudyReport, "report")):
        for name, value in vars(kind).items():
            if callable(getattr(kind, name)) and not name.startswith("_") and not inspect.isclass(value):
                yield f"{kind.__name__}.{name}", lambda made, name=name, on=attribute: getattr(getattr(made, on), name)


CALLS = dict(_calls())
ARGUMENTS = [
    (name, parameter)
    for name, call in CALLS.items()
    for parameter in inspect.signature(call(SimpleNamespace(scorer=Scorer, report=StudyReport))).parameters
    if parameter != "self"
]


def sound(made: SimpleNamespace, call: Callable[..., Any]) -> dict[str, Any]:
    known = {**_SOUND, "report": made.report, "baseline": made.report, "followup": made.report, "folder": made.folder,
             "text": made.report.to_json()}  # fmt: skip
    needed = [p for p in inspect.signature(call).parameters.values() if p.default is p.empty]
    return {p.name: known.get(p.name) for p in needed if p.kind is not p.VAR_POSITIONAL}


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_an_argument_of_the_wrong_type(made, name, argument) -> None:
    call = CALLS[name](made)
    parameter = inspect.signature(call).parameters[argument]
    arguments = sound(made, call)
    if parameter.kind is parameter.VAR_POSITIONAL:
        with pytest.raises(TypeError):
            call(*arguments.values(), object())
        return
    with pytest.raises(TypeError, match="object"):
        call(**{**arguments, argument: object()})


VALUES: list[tuple[str, dict[str, Any], str]] = [
    ("Scorer.score", {"study": {"neck": IMAGE}}, "there is no region str 'neck'"),
    ("Scorer.score", {"study": {"cervical": None}}, "the cervical image must be .* got None"),
    ("Scorer.score", {"study": [3]}, "got int 3 in it"),
    ("Scorer.score", {"study": Study((IMAGE.pixels,))}, "must be Radiograph objects, got a ndarray"),
    ("Scorer.score", {"study": replace(IMAGE, pixels=[[1]])}, "the pixels of cervical.dcm must be a NumPy array"),
    ("Scorer.score", {"study": replace(IMAGE, region=3)}, "the region of cervical.dcm must be one of"),
    ("Scorer.score", {"study": {"lumbar": IMAGE}}, "shows the cervical spine and was given as the lumbar image"),
    ("Scorer.score", {"budget_ms": 0}, "budget_ms must be a number of milliseconds above 0, got 0"),
    ("Scorer.score", {"budget_ms": np.float32("nan")}, "budget_ms"),
    ("Scorer.score", {"hard": True}, "hard needs a budget_ms"),
    ("Scorer.score", {"keypoints": {"neck": {}}}, "'neck' is not a region"),
    ("Scorer.score", {"keypoints": {"cervical": 3}}, "'cervical' is not a region with its levels"),
    ("Scorer.try_score", {"budget_ms": -1}, "budget_ms"),
    ("Scorer.crops", {"study": [None]}, "got None in it"),
    ("Scorer.open", {"device": "gpu"}, "there is no device 'gpu'"),
    ("Scorer.open", {"engine": "torch"}, "there is no engine 'torch'"),
    ("Scorer.open", {"threads": 0}, "threads must be from 1"),
    ("Scorer.open", {"self_test_studies": 0}, "self_test_studies must be at least 1, got int 0"),
    ("Scorer.open", {"self_test_minutes": -1.5}, "self_test_minutes must be a number of minutes above 0"),
    ("Scorer.open", {"budget_ms": float("inf")}, "budget_ms"),
    ("StudyReport.to_json", {"indent": -1}, "indent must be at least 0"),
    ("StudyReport.from_json", {"text": "{}"}, "no report of the schema"),
    ("radiograph_from_array", {"pixels": IMAGE.pixels.astype(float)}, "pixels must hold"),
    ("radiograph_from_array", {"region": "neck"}, "region must be one of"),
    ("radiograph_from_array", {"spacing_mm": (0.1, "x")}, "spacing_mm is"),
    ("radiograph_from_array", {"spacing_mm": 0.0}, "spacing_mm is"),
    ("radiograph_from_array", {"window": (1, 0)}, "window is"),
    ("radiograph_from_array", {"study_date": "tomorrow"}, "study_date must be a date"),
    ("load_studies", {"files": ["nope"]}, "there is no file or folder"),
    ("load_radiograph", {"max_pixels": 0}, "max_pixels must be at least 1"),
    ("write_results", {"formats": ["pdf"]}, "there is no format 'pdf'"),
]


@pytest.mark.parametrize(("name", "arguments", "message"), VALUES)
def test_a_wrong_value(made, name, arguments, message) -> None:
    call = CALLS[name](made)
    with pytest.raises(ValueError, match=message):
        call(**{**sound(made, call), **arguments})


@pytest.mark.parametrize("budget_ms", [np.float32(1e6), np.int64(1_000_000), 1_000_000])
def test_any_real_number_is_a_budget(made, budget_ms) -> None:
    assert made.scorer.score(IMAGE, budget_ms).budget_ms == 1e6
