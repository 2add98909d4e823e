"""`--region` and `--facing`: facts that the user states because the file does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers import dicom_files, tiny
from helpers.tiny_study import GRADES, write_study
from spinescore.runtime import cli
from spinescore.runtime.files import write_png

REGION_TOTAL = sum(map(sum, GRADES))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    """A bundle whose localizer has 12 heatmaps for both regions, so that no picture shows its region."""
    return str(tiny.write_bundle(tmp_path_factory.mktemp("bundle"), heads=12))


def film(folder: Path, kind: str = "png", facing: str = "left", name: str = "film", **tags: Any) -> str:
    """A file with a lumbar radiograph that states neither region nor facing, unless `tags` do."""
    folder.mkdir(exist_ok=True)
    path, pixels = folder / f"{name}.{kind}", tiny.draw("lumbar", GRADES, facing=facing, heads=12).radiograph.pixels
    if kind == "png":
        return str(write_png(path, pixels))
    window = {"VOILUTFunction": "LINEAR_EXACT", "WindowCenter": "127.5", "WindowWidth": "255"}
    given = {"StudyInstanceUID": "1.2.3.4", "PixelSpacing": [0.3, 0.3], "BodyPartExamined": None, **window, **tags}
    return str(dicom_files.write(dicom_files.radiograph_dataset(pixels, 8, **given), path))


def score(bundle: str, capsys, *words: str) -> tuple[int, dict | None, str]:
    status = cli.main(["score", *words, "--bundle", bundle, "--json"])
    said = capsys.readouterr()
    return status, json.loads(said.out) if said.out else None, said.err


@pytest.mark.parametrize("kind", ["png", "dcm"])
@pytest.mark.parametrize("facing", ["left", "right"])
@pytest.mark.parametrize("anonymous", [[], ["--anonymous"]])
def test_a_film_that_states_nothing_is_scored(bundle, tmp_path, capsys, kind, facing, anonymous):
    path = film(tmp_path, kind, facing)
    words = [path, "--region", "lumbar", "--facing", facing, *anonymous]
    status, report, said = score(bundle, capsys, *words)
    lumbar = report["regions"]["lumbar"]
    assert (status, lumbar["total"], lumbar["radiograph"]["facing"]) == (0, REGION_TOTAL, facing)
    (note,) = (warning for warning in report["warnings"] if "stated by the user" in warning)
    assert f"region lumbar and the facing {facing}" in note
    assert ("film" in said) is not bool(anonymous)


def test_without_the_option_the_message_names_it(bundle, tmp_path, capsys):
    status, _, said = score(bundle, capsys, film(tmp_path))
    assert status == 3
    assert "--region" in said


def test_crops_take_them_too(bundle, tmp_path, capsys):
    words = [film(tmp_path), "--bundle", bundle, "--out", str(tmp_path / "out"), "--region", "lumbar"]
    assert cli.main(["crops", *words]) == 0
    lines = (tmp_path / "out" / "index.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 7
    assert all(",lumbar," in line for line in lines[1:])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--region", "cervical"], "states the region lumbar, --region states cervical"),
        (["--facing", "right"], "states the facing left, --facing states right"),
    ],
)
@pytest.mark.parametrize("verb", ["score", "crops"])
def test_a_header_that_states_something_else_is_not_overruled(bundle, tmp_path, capsys, options, named, verb):
    study = write_study(tmp_path / "in", regions=("lumbar",))
    words = [verb, str(study), "--bundle", bundle, "--out", str(tmp_path / "out"), *options]
    assert cli.main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "lumbar.dcm" in said.err
    assert named in said.err
    assert not (tmp_path / "out").exists()


def test_what_the_header_states_may_be_stated_again(bundle, tmp_path, capsys):
    path = film(tmp_path, "dcm", BodyPartExamined="LSPINE", PatientOrientation=["P", "F"])
    status, report, _ = score(bundle, capsys, path, "--region", "lumbar", "--facing", "left")
    assert (status, report["regions"]["lumbar"]["total"]) == (0, REGION_TOTAL)
    assert not any("stated by the user" in warning for warning in report["warnings"])


def test_one_region_does_not_stand_for_two_radiographs(bundle, tmp_path, capsys):
    paths = [film(tmp_path, name=name) for name in ("first", "second")]
    status, report, said = score(bundle, capsys, *paths, "--region", "lumbar")
    assert (status, report) == (2, None)
    assert "first.png, second.png" in said
    status, report, said = score(bundle, capsys, str(write_study(tmp_path / "both")), "--region", "lumbar")
    assert (status, report) == (2, None)
    assert "cervical.dcm" in said


def test_the_study_of_several_is_named(bundle, tmp_path, capsys):
    film(tmp_path, "dcm", name="one", BodyPartExamined="LSPINE")
    film(tmp_path, "dcm", name="two", BodyPartExamined="CSPINE", StudyInstanceUID="1.2.3.5")
    status, _, said = score(bundle, capsys, str(tmp_path), "--region", "lumbar")
    assert status == 2
    assert "study 2: the header of two.dcm states the region cervical" in said


def test_a_radiograph_that_is_refused_anyway_states_nothing(bundle, tmp_path, capsys):
    film(tmp_path, "dcm", name="ap", ViewPosition="AP")
    film(tmp_path, "dcm", name="lateral", ViewPosition="LL")
    status, report, _ = score(bundle, capsys, str(tmp_path), "--region", "lumbar")
    assert (status, report["regions"]["lumbar"]["status"]) == (0, "scored")
    assert [reject["code"] for reject in report["rejects"]] == ["not-lateral"]
