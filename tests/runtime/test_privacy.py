"""No message, name of a file, or result other than DICOM objects identifies the patient."""

from __future__ import annotations

import base64
import re
from importlib import util
from pathlib import Path

import pytest

from helpers import tiny
from helpers.identified_study import WHO, WORDS, write_study
from spinescore.runtime import cli

FORMATS = ["json", "html", "png", "csv"] + ["sr", "gsps", "sc"] * (util.find_spec("highdicom") is not None)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    return str(tiny.write_bundle(tmp_path_factory.mktemp("bundle")))


def assert_nowhere(words, out: Path, *said: str) -> None:
    for text in (*said, *(path.relative_to(out).as_posix() for path in out.rglob("*"))):
        assert not [word for word in words if word.lower() in text.lower()]
    results = [path for path in out.rglob("*") if path.is_file() and path.suffix != ".dcm"]
    assert results
    for path in results:
        data = path.read_bytes()
        pictures = [base64.b64decode(found) for found in re.findall(rb"base64,([A-Za-z0-9+/=]+)", data)]
        for content in (data, *pictures):
            seen = content.decode("latin-1").lower()
            assert not [w for w in words if w.lower() in seen or "\0".join(w.lower()) in seen], path.name


HARMLESS: dict[str, tuple[bytes, bytes]] = {}
NO_DATE = {"date": (b"19470131", b"1947XX31")}
NO_TEXT = {"name": (b"Quorvexel", b"Quor\xff\x81xel"), "id": (b"MRN7355608", b"MRN735\\\xfe08")}
PLACES = {"place": (b"Hospivorna", b"Hosp\x1bvorna"), "number": (b"ACC88123", b"ACC\x0088\xff3")}


@pytest.mark.parametrize("changes", [HARMLESS, NO_DATE, NO_TEXT, PLACES], ids=["plain", "date", "text", "places"])
def test_a_patient_is_nowhere_but_in_dicom(bundle, tmp_path, capsys, changes):
    words = [*WORDS, "1947XX31", "Quor", "MRN735", "ACC\0", "Hosp"]
    study, out = write_study(tmp_path / "in", **changes), tmp_path / "out"
    formats = [name for name in FORMATS if name != "sr" or not changes]  # they share their reading; that one takes 1 s
    status = cli.main(["score", str(study), "--bundle", bundle, "--out", str(out), "--format", ",".join(formats)])
    said = capsys.readouterr()
    assert status == 0, said.err
    assert_nowhere(words, out, said.out, said.err)


def test_a_patient_is_in_no_message_about_what_was_refused(bundle, tmp_path, capsys):
    study, out = write_study(tmp_path / "in"), tmp_path / "out"
    for number, path in enumerate(sorted(study.iterdir())):
        path.write_bytes(path.read_bytes()[: 3000 + 9000 * number])
    assert cli.main(["score", str(study), "--bundle", bundle, "--out", str(out), "--format", "json,html,csv,png"]) == 3
    said = capsys.readouterr()
    assert "rejected (corrupt-pixels)" in said.err
    assert_nowhere(WORDS, out, said.out, said.err)


def test_crops_name_no_patient(bundle, tmp_path, capsys):
    assert (
        cli.main(["crops", str(write_study(tmp_path / "in")), "--bundle", bundle, "--out", str(tmp_path / "out")]) == 0
    )
    said = capsys.readouterr()
    assert_nowhere(WORDS, tmp_path / "out", said.out, said.err)


def test_anonymous_results_hold_neither_uids_nor_dates_nor_file_names(bundle, tmp_path, capsys):
    study, out = write_study(tmp_path / "in"), tmp_path / "out"
    (study / "cervical.dcm").rename(study / "Zarnith_neck.dcm")
    (study / "Zarnith_letter.txt").write_text("no radiograph", encoding="utf-8")
    command = ["score", str(study), "--bundle", bundle, "--out", str(out), "--anonymous"]
    assert cli.main([*command, "--format", "json,html,csv,png"]) == 0
    said = capsys.readouterr()
    assert_nowhere([*WORDS, "1.2.3.4", "20260105", "2026-01-05", "_neck", "_letter"], out, said.out, said.err)


@pytest.mark.skipif("sr" not in FORMATS, reason="highdicom is not installed")
def test_dicom_results_carry_the_patient_as_they_must(bundle, tmp_path, capsys):
    import pydicom

    study, out = write_study(tmp_path / "in"), tmp_path / "out"
    command = ["score", str(study), "--bundle", bundle, "--out", str(out)]
    assert cli.main([*command, "--format", "sr", "--anonymous"]) == 4
    assert "names the patient" in capsys.readouterr().err
    assert not out.exists()
    assert cli.main([*command, "--format", "sr"]) == 0
    ds = pydicom.dcmread(out / "sr.dcm")
    assert (ds.PatientID, ds.PatientName) == (WHO["PatientID"], WHO["PatientName"])
