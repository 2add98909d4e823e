"""Reports that do not identify the patient: `anonymous`, `spinescore score --anonymous`, and `--window`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydicom import dcmread

from helpers import tiny
from helpers.dicom_files import picture, radiograph_dataset, write
from helpers.scoring import checked
from helpers.tiny_study import TOTAL, write_study
from spinescore.runtime import Scorer, Study, anonymous, cli, load_study
from spinescore.runtime.errors import REJECT_CODES

SECRETS = ("SECRET", "1.2.3.4", "20260105", "P-1", "Test^Case")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return tiny.write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study whose files are named after the patient. Some are refused, skipped, doubtful or copies."""
    folder = write_study(tmp_path / "SECRET^NAME")
    for path in sorted(folder.glob("*.dcm")):
        path.rename(path.with_name(f"SECRET-{path.name}"))
    (folder / "SECRET.txt").write_text("nothing")
    write(radiograph_dataset(picture(8), 8, SOPInstanceUID="1.2.9", Rows=4000), folder / "SECRET-short")
    copy = dcmread(folder / "SECRET-lumbar.dcm")
    copy.SeriesDescription = "CERVICAL LAT"
    path = write(copy, folder / "SECRET-lumbar.dcm")
    path.write_bytes(path.read_bytes().replace(b"20260105", b"SECRETS!"))  # of which pydicom warns
    (folder / "SECRET-copy").write_bytes(path.read_bytes())
    return folder


def everything(study: Study) -> str:
    """All fields, which `repr` leaves out."""
    parts = [study, *study.radiographs, *study.rejects, *(one for image in study.radiographs for one in image.findings)]
    return "\n".join(str(vars(part)) for part in parts)


def test_nothing_is_left_that_names(folder: Path) -> None:
    study = load_study(folder)
    assert "SECRET" in everything(study)
    bare = anonymous(study)
    assert not [secret for secret in SECRETS if secret in everything(bare)]
    assert (bare.study_instance_uid, bare.study_date, bare.patient_key) == (None, None, None)
    assert len(bare.radiographs) == len(study.radiographs) == 2
    for number, (image, before) in enumerate(zip(bare.radiographs, study.radiographs, strict=True), 1):
        assert image.source == f"radiograph {number}"
        assert (image.sop_instance_uid, image.study_instance_uid, image.study_date) == (None, None, None)
        assert (image.patient_key, image.header) == (None, None)
        assert image.pixels is before.pixels
        assert (image.region, image.facing, image.spacing_mm) == (before.region, before.facing, before.spacing_mm)
    (reject,) = bare.rejects
    assert (reject.code, reject.region) == ("corrupt-pixels", "cervical")
    assert REJECT_CODES["corrupt-pixels"] in reject.message
    assert bare.read_ms == study.read_ms


def test_warnings_that_quote_nothing_remain(folder: Path) -> None:
    warnings = [warning for image in anonymous(load_study(folder)).radiographs for warning in image.warnings]
    assert any("contradicts itself about the region" in warning for warning in warnings)
    assert not any(warning.startswith("pydicom") for warning in warnings)


def test_report_and_files_name_nothing(folder: Path, bundle: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert cli.main(["score", str(folder), "--bundle", str(bundle), "--anonymous", "--json", "--out", str(out)]) == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert report["total"]["value"] == TOTAL
    assert report["study"] == {"study_instance_uid": None, "study_date": None, "patient_key": None}
    assert {region["radiograph"]["source"] for region in report["regions"].values()} == {"radiograph 1", "radiograph 2"}
    written = [path for path in sorted(out.rglob("*")) if path.is_file()]
    assert {"report.json", "overlay-cervical.png", "overlay-lumbar.png"} <= {path.name for path in written}
    everything = said.out + said.err + "".join(str(path.relative_to(out)) for path in written)
    everything += "".join(path.read_bytes().decode("latin-1") for path in written)
    assert not [secret for secret in SECRETS if secret in everything]


def test_grades_are_the_same(folder: Path, bundle: Path) -> None:
    study = load_study(folder)
    with Scorer.open(bundle, "cpu") as scorer:
        named, bare = checked(scorer.score(study)), checked(scorer.score(anonymous(study)))
    for region in named.regions:
        assert bare.regions[region].discs == named.regions[region].discs
    assert bare.total == named.total


def test_window_is_chosen_on_the_command_line(bundle: Path, tmp_path: Path, capsys) -> None:
    folder = write_study(tmp_path / "study")
    for path in folder.glob("*.dcm"):
        ds = dcmread(path)
        ds.WindowCenter, ds.WindowWidth = ["20", "127.5"], ["10", "255"]  # the first shows black and white alone
        ds.WindowCenterWidthExplanation = ["CONTRAST", "WHOLE RANGE"]
        write(ds, path)
    totals = []
    for more in ([], ["--window", "whole range"], ["--window", "other"]):
        cli.main(["score", str(folder), "--bundle", str(bundle), "--json", *more])
        report = json.loads(capsys.readouterr().out)
        totals.append(report["total"]["value"])
    assert totals[1] == TOTAL
    assert totals[0] != TOTAL
    assert totals[2] == totals[0]
    assert any("no window has the explanation 'other'" in warning for warning in report["warnings"])
