"""Anonymous reading quotes nothing of a header, in whatever element a name stands."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
from pydicom import dcmread

from helpers import tiny
from helpers.tiny_study import write_study
from spinescore.runtime import cli
from spinescore.runtime.reading.anonymous import anonymous, known_modality, nameless
from spinescore.runtime.study import Study

SECRET = "SMITH"
KEYWORDS = (
    "VOILUTFunction",
    "Modality",
    "PresentationLUTShape",
    "WindowCenterWidthExplanation",
    "BodyPartExamined",
    "PhotometricInterpretation",
)


@pytest.mark.parametrize(
    ("message", "left"),
    [
        ("VOI LUT Function 'SMITH^JOHN' is unknown", "VOI LUT Function (left out) is unknown"),
        ("the header's window is \"O'SMITH\" (there are: 'A', 'SMITH')", "the header's window is"),
        ("stated as 'SMITH, and then cut sho", "stated as (left out)"),
        ("the discs' points and the picture's grey", "the discs' points and the picture's grey"),
        ("'it\\'s SMITH' said twice: b'SMITH'", "said twice"),
    ],
)
def test_what_is_quoted_is_left_out(message, left):
    said = nameless(message, None)
    assert SECRET not in said
    assert left in said


@pytest.mark.parametrize(("modality", "known"), [("CT", "CT"), ("DX", "DX"), (SECRET, "OT"), (None, None), ("", "OT")])
def test_a_modality_that_is_none_is_not_repeated(modality, known):
    assert known_modality(modality) == known


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_a_name_in_any_code_reaches_no_output(tmp_path, capsys, keyword):
    bundle = tiny.write_bundle(tmp_path / "bundle")
    path = write_study(tmp_path / "in", regions=("lumbar",)) / "lumbar.dcm"
    ds = dcmread(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.WindowCenter, ds.WindowWidth = "2048", "4096"
        setattr(ds, keyword, f"{SECRET}_JOHN")
        ds.save_as(path)
    out = tmp_path / "out"
    asked = ["score", str(path), "--bundle", str(bundle), "--anonymous", "--window", "other", "--out", str(out)]
    cli.main([*asked, "--format", "json,html,csv", "--json"])
    printed = capsys.readouterr()
    written = "".join(file.read_text(encoding="utf-8") for file in out.iterdir())
    assert SECRET not in (printed.out + printed.err + written).upper()


def test_warnings_lose_a_name_that_is_not_quoted(tmp_path):
    ds = dcmread(write_study(tmp_path, regions=("lumbar",)) / "lumbar.dcm")
    image = replace(tiny.draw("lumbar", ((0, 0),) * 6).radiograph, header=ds, warnings=(f"seen {ds.PatientID} here",))
    (found,) = anonymous(Study((image,))).radiographs
    assert found.warnings == ((f"seen {ds.PatientID} here",) if len(ds.PatientID) < 4 else ("seen (left out) here",))
