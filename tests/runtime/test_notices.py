"""Warnings as fields: each has its code, region, source and values, and the report keeps the sentences as they were."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from helpers import dicom_files, tiny
from helpers.golden_bundle import write_golden_bundle
from helpers.scoring import CERVICAL, LUMBAR
from spinescore.kernels.cache import user_cache
from spinescore.runtime import CODES, Scorer, StudyReport, __version__, anonymous, load_study
from spinescore.runtime.notices import Notice, as_notice, findings_of, notice
from spinescore.runtime.opening import checking
from spinescore.runtime.scoring.report import report_schema
from spinescore.runtime.study import Reject, Study

VALIDATOR = jsonschema.Draft202012Validator(report_schema())
STUDY = Study((CERVICAL.radiograph, LUMBAR.radiograph))
SAID = notice("same-uid", "a and b", "lumbar", "a", other="b")


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    with Scorer.open(tiny.write_bundle(tmp_path_factory.mktemp("bundle")), "cpu") as opened:
        yield opened


def check(report):
    """What holds of every report."""
    VALIDATOR.validate(json.loads(report.to_json()))
    assert StudyReport.from_json(report.to_json()) == report
    assert report.warnings == tuple(dict.fromkeys(found.message for found in report.notices))
    assert all(type(text) is str for text in report.warnings)
    for found in report.notices:
        assert (found.severity, CODES[found.code].severity) == ("warning", "warning")
        assert set(found.values) <= set(CODES[found.code].values)
    assert set(report.notices) >= {found for found in report.findings if found.severity == "warning"}
    told = [(found.code, found.message) for found in report.findings if found.severity == "reject"]
    assert [(reject.code, reject.message) for reject in report.rejects] == told
    assert {region.reject for region in report.regions.values() if region.reject} <= set(report.rejects)
    assert report.software_version == __version__
    return {found.code: found for found in report.notices}


def test_a_notice_is_its_sentence():
    assert SAID == "a and b"
    assert json.dumps([SAID]) == '["a and b"]'
    for same in (copy.deepcopy(SAID), pickle.loads(pickle.dumps(SAID)), as_notice(SAID)):
        assert (same, same.code, same.region, same.source) == ("a and b", "same-uid", "lumbar", "a")
        assert same.values == {"other": "b"}
    assert SAID.saying("c").values == SAID.values
    assert SAID.at("cervical", "z").region == "lumbar"
    assert notice("no-files", "none").at("cervical", "z").source == "z"
    assert as_notice("plain") == Notice("plain", "other")
    assert [found.code for found in findings_of(["plain", SAID, SAID])] == ["other", "same-uid"]


def test_a_notice_is_renamed_in_all_its_texts():
    said = notice("several-radiographs", "x, not y", scored="x", others=["y", "x"])
    found = said.renamed(lambda text: text.replace("x", "1"), "1")
    assert (str(found), found.source, found.values) == ("1, not y", "1", {"scored": "1", "others": ["y", "1"]})


@pytest.mark.parametrize("code", ["not-dicom", "test-time", "budget"])
def test_only_warnings_make_notices(code):
    with pytest.raises(KeyError, match=code):
        notice(code, "It is so.")


def test_what_reading_met_has_its_region_and_file(scorer, tmp_path):
    pixels = tiny.draw("cervical", rows=512).radiograph.pixels
    tags = {
        "BodyPartExamined": "CSPINE",
        "PatientOrientation": ["P", "F"],
        "RescaleSlope": "0",
        "WindowCenter": "127.5",
    }
    tags |= {"WindowWidth": "255", "VOILUTFunction": "ODD"}
    dicom_files.write(dicom_files.radiograph_dataset(pixels, 8, **tags), tmp_path / "neck.dcm")
    (tmp_path / "letter.txt").write_text("no radiograph", encoding="utf-8")
    report = scorer.score(load_study(tmp_path))
    found = check(report)
    assert found["file-skipped"].source == "letter.txt"
    assert found["file-skipped"].values == {"reason": "not-dicom"}
    slope, window = found["greyscale-ignored"], found["greyscale-adjusted"]
    assert (slope.region, slope.source, slope.values) == ("cervical", "neck.dcm", {"tag": "RescaleSlope"})
    assert (window.region, window.source, window.values) == ("cervical", "neck.dcm", {"tag": "VOILUTFunction"})


def test_an_anonymous_study_names_no_file_in_values(scorer, tmp_path):
    pixels = tiny.draw("cervical", rows=512).radiograph.pixels
    for number in (1, 2):
        tags = {"BodyPartExamined": "CSPINE", "PatientOrientation": ["P", "F"], "RescaleSlope": "0"}
        ds = dicom_files.radiograph_dataset(pixels + number, 8, SOPInstanceUID=f"1.2.{number}", **tags)
        dicom_files.write(ds, tmp_path / f"Zarnith{number}.dcm")
    report = scorer.score(anonymous(load_study(tmp_path)))
    found = check(report)
    assert found["several-radiographs"].values["scored"].startswith("radiograph ")
    assert "Zarnith" not in report.to_json()


def test_the_choice_of_radiographs(scorer):
    cervical = STUDY.radiographs[0]
    again = replace(cervical, source="again", sop_instance_uid="1.2.9")
    found = check(scorer.score(Study((cervical, again))))
    said = found["several-radiographs"]
    assert said.region == cervical.region
    assert {said.values["scored"], *said.values["others"]} == {cervical.source or cervical.sop_instance_uid, "again"}
    found = check(scorer.score(Study((cervical,)), keypoints={"lumbar": {"L1/L2": ((1, 2), (3, 4))}}))
    assert found["points-unused"].region == "lumbar"


def test_what_was_skipped(scorer):
    report = scorer.score(STUDY, 1e-3)
    said = check(report)["steps-skipped"]
    assert said.values == {"steps": list(report.skipped), "budget_ms": 1e-3}
    assert set(report.skipped) <= set(CODES)


def test_one_list_has_all_rejects(scorer):
    blank = replace(STUDY.radiographs[0], pixels=np.zeros_like(STUDY.radiographs[0].pixels))
    wrong = replace(STUDY.radiographs[1], pixels=np.ascontiguousarray(STUDY.radiographs[1].pixels[:, ::-1] // 8))
    report = scorer.score(Study((blank, wrong), rejects=(Reject("not-dicom", "x is no DICOM.", "x"),)))
    check(report)
    assert [(reject.code, reject.region) for reject in report.rejects][:2] == [
        ("not-dicom", None),
        ("blank", "cervical"),
    ]
    assert report.regions["lumbar"].reject in report.rejects
    assert report.rejects[-1].region == "lumbar"


def test_a_sentence_of_the_caller_has_the_code_other(tmp_path):
    from spinescore.runtime.devices import open_device

    bundle = checking.Bundle.open(tiny.write_bundle(tmp_path / "b"))
    with Scorer(bundle, open_device("cpu"), warnings=("The box is new.",)) as scorer:
        report = scorer.score(STUDY)
    assert check(report)["other"].message == "The box is new."


@pytest.fixture
def unaccepted(tmp_path, monkeypatch):
    """A bundle whose INT8 would be checked with the OpenVINO that is here."""
    monkeypatch.setattr(checking, "installed_openvino", lambda: "openvino 2026.4.1")
    monkeypatch.setattr(checking, "instruction_sets", lambda: ("avx2",))
    monkeypatch.setattr("spinescore.runtime.engines.choice.find_spec", lambda name: True)
    for variable in ("SPINESCORE_CACHE", "SPINESCORE_CHECK", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    return write_golden_bundle(tmp_path / "b", int8=True)


def no_home():
    raise RuntimeError("Could not determine home directory.")


def homes(monkeypatch, tmp_path, kind):
    """Sets the environment; returns the folder that a warning names."""
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    if kind == "no home":
        monkeypatch.setattr(Path, "home", no_home)
        return None
    if kind == "home is a file":
        monkeypatch.setattr(Path, "home", lambda: tmp_path / "file")
        return str(user_cache())
    name = {"XDG is a file": "XDG_CACHE_HOME", "cache is a file": "SPINESCORE_CACHE"}[kind]
    monkeypatch.setenv(name, str(tmp_path / "file"))
    return str(user_cache())


@pytest.mark.parametrize("kind", ["no home", "home is a file", "XDG is a file", "cache is a file"])
def test_without_a_folder_that_can_be_written_one_warning_says_so(unaccepted, monkeypatch, tmp_path, kind):
    folder = homes(monkeypatch, tmp_path, kind)
    with Scorer.open(unaccepted, "cpu") as scorer:
        report = scorer.score(STUDY)
    found = check(report)
    assert [one.code for one in report.notices] == ["cache-not-writable"]
    said = found["cache-not-writable"]
    assert said.values == {"folder": folder, "variable": "SPINESCORE_CACHE"}
    assert "set SPINESCORE_CACHE to a folder of this user's own" in said.message
    assert report.device.engine.startswith("onnxruntime")
    assert report.regions["cervical"].status == "scored"


def test_another_home_folder_is_told(unaccepted, monkeypatch, tmp_path):
    """As of a service's account: the engine was accepted elsewhere, and no check may run."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    with Scorer.open(unaccepted, "cpu", build="no") as scorer:
        report = scorer.score(STUDY)
    assert [one.code for one in report.notices] == ["engine-unchecked"]
    values = check(report)["engine-unchecked"].values
    assert (values["engine"], values["precisions"]) == ("openvino 2026.4.1", ["int8"])
    assert values["folder"] == str(user_cache())


def test_a_relative_cache_folder_of_xdg_is_ignored(monkeypatch, tmp_path):
    monkeypatch.delenv("SPINESCORE_CACHE")
    monkeypatch.setenv("LOCALAPPDATA" if checking.os.name == "nt" else "XDG_CACHE_HOME", "here")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert user_cache().is_relative_to(tmp_path)
