"""Arguments that cannot be: an error at once that names the argument, what was given, and what to do."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.dicom_files import radiograph_dataset
from helpers.scoring import CERVICAL, LUMBAR, assert_found
from helpers.tiny import write_bundle
from spinescore.runtime import Scorer, Study, anonymous, load_radiograph, load_studies, load_study
from spinescore.runtime.arguments import shown

IMAGE = CERVICAL.radiograph


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def scorer(bundle):
    with Scorer.open(bundle, "cpu") as opened:
        yield opened


STUDIES: list[tuple[Any, str]] = [
    (None, "study must be a Study, .* got None; call score"),
    (3, "study must be a Study, .* got int 3"),
    ("folder", r"got str 'folder'; call score\(load_study\(path\)\)"),
    (Path("folder"), r"study is read from files .*got a \w*Path; .*load_study"),
    (b"DICM", "got bytes"),
    (IMAGE.pixels, "study must be .* got a ndarray; call score"),
    ([IMAGE.pixels], "got a ndarray in it; read files with load_study, arrays with radiograph_from_array"),
    (["a.dcm"], "got str 'a.dcm' in it; read files with load_study"),
    ({"neck": IMAGE}, "there is no region str 'neck'"),
    ({3: IMAGE}, "there is no region int 3"),
    ({"cervical": "a.dcm"}, "the cervical image must be .* got str 'a.dcm'; read files with load_radiograph"),
    ({"cervical": None}, "the cervical image must be .* got None"),
    (Study((IMAGE.pixels,)), "must be Radiograph objects, got a ndarray"),
    (replace(IMAGE, region="neck"), "region of cervical.dcm must be one of"),
    (replace(IMAGE, facing="west"), "facing of cervical.dcm must be one of"),
    (replace(IMAGE, turn_deg=45), "turn_deg of cervical.dcm must be one of .* got int 45"),
    (replace(IMAGE, pixels=IMAGE.pixels.tolist()), "the pixels of cervical.dcm must be a NumPy array"),
    (replace(IMAGE, table=None), "its table"),
    (replace(IMAGE, table=np.arange(256)), "its table"),
]


@pytest.mark.parametrize(("study", "message"), STUDIES)
def test_studies(scorer, study, message) -> None:
    for call in (scorer.score, scorer.try_score, scorer.crops):
        with pytest.raises((TypeError, ValueError), match=message):
            call(study)


CALLS: list[tuple[dict[str, Any], str]] = [
    ({"cancel": True}, "cancel must be a threading.Event or None, got bool True"),
    ({"cancel": threading.Event}, "cancel must be a threading.Event"),
    ({"hard": 1}, "hard must be True or False, got int 1"),
    ({"strict": "no"}, "strict must be True or False, got str 'no'"),
    ({"budget_ms": float("nan")}, "budget_ms"),
    ({"budget_ms": True}, "budget_ms"),
    ({"budget_ms": "80"}, "budget_ms"),
    ({"keypoints": 3}, "keypoints must be a mapping .* got int 3"),
    ({"keypoints": [[1, 2]]}, "keypoints must be a mapping .* got a list"),
    ({"keypoints": {"cervical": {"C2/C3": [["1", "2"], ["3", "4"]]}}}, "cervical C2/C3 needs"),
    ({"keypoints": {"cervical": {"C2/C3": [[True, False], [True, True]]}}}, "cervical C2/C3 needs"),
    ({"keypoints": {"cervical": {"C2/C3": [[1j, 2], [3, 4]]}}}, "cervical C2/C3 needs"),
    ({"keypoints": {"cervical": {"C2/C3": None}}}, "cervical C2/C3 needs"),
    ({"keypoints": {"cervical": {"C2/C3": np.zeros((6, 2, 2))}}}, "cervical C2/C3 needs"),
    ({"keypoints": {"cervical": {1: [[1, 2], [3, 4]]}}}, "no level 1"),
]


@pytest.mark.parametrize(("options", "message"), CALLS)
def test_options_of_a_call(scorer, options, message) -> None:
    for call in (scorer.score, scorer.try_score):
        with pytest.raises((TypeError, ValueError), match=message):
            call(IMAGE, **options)


OPEN: list[tuple[dict[str, Any], str]] = [
    ({"bundle": None}, r"bundle must be a path, got None; call Scorer.open"),
    ({"threads": 999_999}, f"threads must be from 1 to {os.cpu_count()}, got int 999999"),
    ({"threads": 0}, "threads must be from 1"),
    ({"threads": "2"}, "threads must be a whole number, got str '2'"),
    ({"threads": True}, "threads must be a whole number"),
    ({"max_imputed_per_region": "3"}, "max_imputed_per_region must be a whole number, got str '3'"),
    ({"max_imputed_per_region": -1}, "max_imputed_per_region must be from 0 to 12, got int -1"),
    ({"largest_image_px": -1}, "largest_image_px must be from 1"),
    ({"largest_image_px": 1e8}, "largest_image_px must be a whole number, got float 100000000.0"),
    ({"device": "gpu"}, "device 'gpu'; choose one of auto, cpu, cuda"),
    ({"engine": "torch"}, "engine 'torch'"),
    ({"precision": 16}, "precision must be one of fp32, bf16, fp16, int8, got int 16"),
    ({"build": "later"}, "there is no build 'later'; choose one of auto, no, now, background"),
    ({"progress": 3}, "progress must be a function or None, got int 3"),
    ({"localizer": 3}, "localizer must be text or None"),
    ({"plan": 3}, "plan must be a path or None, got int 3"),
    ({"budget_ms": -1}, "budget_ms"),
    ({"warm_up": "yes"}, "warm_up must be True or False"),
    ({"require_acceptance": 0}, "require_acceptance must be True or False, got int 0"),
    ({"self_test_studies": 0}, "self_test_studies"),
]


@pytest.mark.parametrize(("options", "message"), OPEN)
def test_options_of_opening(bundle, options, message) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Scorer.open(**{"bundle": bundle, "device": "cpu", **options})


LOADS: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], str]] = [
    (load_study, ("nope",), {}, "there is no file or folder str 'nope'; give the path"),
    (load_study, ("nope", Path("neither")), {}, "there is no file or folder"),
    (load_studies, (["nope"],), {}, "there is no file or folder"),
    (load_studies, ("folder",), {}, r"files must be several paths, got str 'folder'; call load_studies\(\[path\]\)"),
    (load_studies, (b"",), {}, "files must be several paths"),
    (load_studies, (None,), {}, "files must be several paths, got None"),
    (load_studies, (radiograph_dataset(),), {}, "files must be several paths, got a Dataset"),
    (load_study, (None,), {}, "a path, bytes or a binary stream, got NoneType"),
    (load_radiograph, (np.zeros((200, 200), np.uint8),), {}, "got ndarray; .* arrays? to radiograph_from_array"),
    (load_radiograph, (b"",), {"max_pixels": "3"}, "max_pixels must be a whole number"),
    (load_study, (b"",), {"max_pixels": -1}, "max_pixels must be at least 1"),
    (load_study, (b"",), {"window": 3}, "window must be text or None"),
    (load_studies, ([b""],), {"on_demand": "yes"}, "on_demand must be True or False"),
    (anonymous, (None,), {}, r"study must be a Study, got None; call anonymous\(load_study"),
]


@pytest.mark.parametrize(("call", "given", "options", "message"), LOADS)
def test_reading(call, given, options, message) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call(*given, **options)


def test_one_missing_file_of_several_is_a_reject(tmp_path) -> None:
    study = load_study(tmp_path, "nope.dcm")
    assert [(reject.code, reject.source) for reject in study.rejects] == [("not-dicom", "nope.dcm")]


def test_sound_ones_pass(scorer, bundle) -> None:
    event = threading.Event()
    report = scorer.score(
        (image for image in (IMAGE, LUMBAR.radiograph)), cancel=event, strict=np.bool_(False), hard=False
    )
    assert_found(report.regions["cervical"], CERVICAL)
    assert_found(report.regions["lumbar"], LUMBAR)
    threads = np.int64(1)
    with Scorer.open(bundle, "cpu", threads=threads, max_imputed_per_region=0, progress=print, plan=None) as other:
        assert other.score(IMAGE).regions["cervical"].total == report.regions["cervical"].total


def test_what_messages_show_of_a_value() -> None:
    ds = radiograph_dataset()
    assert shown(ds) == "a Dataset"
    assert shown({"PatientID": "P-1"}) == "a dict"
    assert shown("x" * 500) == "str '" + "x" * 59
    assert shown(None) == "None"


def test_a_scorer_is_opened() -> None:
    with pytest.raises(TypeError, match=r"bundle must be a Bundle, got str 'phantom-reference'; call Scorer.open"):
        Scorer("phantom-reference", "cpu")


def test_an_effort_is_one(scorer) -> None:
    with pytest.raises(TypeError, match="effort must be an Effort, got int 2"):
        scorer.give(2)
