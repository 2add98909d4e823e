"""`spinescore crops --manifest`: training pictures from a manifest file and points alone."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers import tiny
from helpers.tiny_study import GRADES, write_study
from spinescore.runtime import cli
from spinescore.runtime.study import LEVELS, REGIONS, sites_of

FIELDS = """\
[localizer.input]
height = 256
width = 192
preprocessing = "none"
[grader.input]
height = 64
width = 64
preprocessing = "none"
[grader.crop]
extent = 1.2
"""


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def points(uid: str | None = None) -> dict:
    found = {
        region: {
            level: {"centre_px": pair[0].tolist(), "anterior_px": pair[1].tolist()}
            for level, pair in zip(LEVELS[region], tiny.draw(region, GRADES).points, strict=True)
        }
        for region in REGIONS
    }
    return {uid: found} if uid else found


def truth(uid: str) -> dict:
    """The points and grades in the form of a phantom's truth.json."""
    regions = {}
    for region, levels in points().items():
        discs = [
            {
                "level": level,
                **pair,
                "corners": [{"site": s, "grade": g} for s, g in zip(sites_of(level), grades, strict=True)],
            }
            for (level, pair), grades in zip(levels.items(), GRADES, strict=True)
        ]
        regions[region] = {"discs": discs}
    return {"schema": "spinescore.truth/1", "study": {"study_instance_uid": uid}, "regions": regions}


@pytest.fixture
def given(tmp_path) -> tuple[str, list[str]]:
    """A study of films, and the options that name a manifest file and the study's points."""
    manifest = written(tmp_path / "fields.toml", FIELDS)
    named = written(tmp_path / "points.json", json.dumps(points()))
    study = str(write_study(tmp_path / "study"))
    return study, ["--manifest", str(manifest), "--keypoints", str(named)]


def crops(out: Path, *words: str) -> int:
    return cli.main(["crops", *words, "--out", str(out)])


def index(out: Path) -> list[dict[str, str]]:
    with (out / "index.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["file"] for row in rows} == {path.name for path in out.glob("*.png")}
    return rows


def test_pictures_are_those_of_a_bundle_with_this_manifest(given, tmp_path, capsys):
    study, words = given
    assert crops(tmp_path / "out", study, *words) == 0
    bundle = tiny.write_bundle(tmp_path / "bundle")
    assert crops(tmp_path / "scored", study, "--bundle", str(bundle), "--keypoints", words[-1]) == 0
    found, expected = ({path.name: path for path in (tmp_path / name).glob("*.png")} for name in ("out", "scored"))
    assert len(found) == 12
    assert {name: path.read_bytes() for name, path in found.items()} == {
        name: path.read_bytes() for name, path in expected.items()
    }
    blank = ("predicted_grades",)
    for one, other in zip(index(tmp_path / "out"), index(tmp_path / "scored"), strict=True):
        assert {k: v for k, v in one.items() if k not in blank} == {k: v for k, v in other.items() if k not in blank}
        assert (one["predicted_grades"], one["true_grades"]) == ("", "")


def test_localizer_inputs_with_their_points(given, tmp_path, capsys):
    study, words = given
    assert crops(tmp_path / "out", study, *words, "--localizer-inputs") == 0
    rows = [row for row in index(tmp_path / "out") if row["network"] == "localizer"]
    assert [(row["region"], row["level"]) for row in rows] == [(r, level) for r in REGIONS for level in LEVELS[r]]
    assert "14 pictures" in capsys.readouterr().err
    for row in rows:
        picture = cv2.imread(str(tmp_path / "out" / row["file"]), cv2.IMREAD_UNCHANGED)
        assert (picture.shape, picture.dtype) == ((256, 192), np.uint16)
        for point in ("centre", "anterior"):
            x, y = (float(row[f"{point}_{axis}_input"]) for axis in "xy")
            x_source, y_source = (float(row[f"{point}_{axis}_px"]) for axis in "xy")
            grey = tiny.draw(row["region"], GRADES).radiograph.pixels[round(y_source), round(x_source)] / 255
            assert picture[round(y), round(x)] / 65535 == pytest.approx(grey, abs=0.01)
            assert float(row[f"{point}_x_heatmap"]) == pytest.approx(x / 4, abs=1e-3)


def test_a_phantoms_truth_has_points_and_grades(given, tmp_path, capsys):
    study, words = given
    written(Path(study) / "truth.json", json.dumps(truth("1.2.3.4")))
    assert crops(tmp_path / "out", study, *words[:2]) == 0
    assert [row["true_grades"] for row in index(tmp_path / "out")] == [f"{a}+{b}" for a, b in GRADES] * 2
    named = tmp_path / "named"
    assert crops(named, study, *words[:2], "--keypoints", str(Path(study) / "truth.json")) == 0
    assert (named / "index.csv").read_bytes() == (tmp_path / "out" / "index.csv").read_bytes()


def test_a_readers_grades(given, tmp_path, capsys):
    """True grades also stand beside a bundle's. A site that the reader left out stays empty."""
    study, words = given
    lines = ["study,site,grade", "1.2.3.4,C2-inferior,3", "1.2.3.4,L1-superior,1", "9.9,C3-superior,2"]
    named = written(tmp_path / "reader.csv", "\n".join(lines))
    bundle = tiny.write_bundle(tmp_path / "bundle")
    for out, how in (("out", words), ("scored", ["--bundle", str(bundle)])):
        assert crops(tmp_path / out, study, *how, "--truth", str(named)) == 0
        grades = {row["sites"]: row["true_grades"] for row in index(tmp_path / out)}
        assert grades.pop("C2-inferior+C3-superior") == "3+?"
        assert grades.pop("T12-inferior+L1-superior") == "?+1"
        assert set(grades.values()) == {""}
    assert "warning: " not in capsys.readouterr().err.replace("warning: Scored on the CPU", "")
    named = written(tmp_path / "others.csv", "study,site,grade\n9.9,C3-superior,2\n")
    assert crops(tmp_path / "others", study, *words, "--truth", str(named)) == 0
    assert "others.csv has no grades of 1 of 1 studies" in capsys.readouterr().err
    assert crops(tmp_path / "x", study, *words, "--truth", str(written(tmp_path / "bad.csv", "a,b\n"))) == 2
    assert "bad.csv, line 1: no columns study" in capsys.readouterr().err


def test_neither_networks_nor_their_libraries_are_needed(given, tmp_path):
    study, words = given
    program = "import sys\nfor name in ('onnx', 'onnxruntime', 'tqdm'): sys.modules[name] = None\n"
    program += "from spinescore.runtime import cli\nsys.exit(cli.main(sys.argv[1:]))"
    command = [
        sys.executable,
        "-c",
        program,
        "crops",
        study,
        *words,
        "--localizer-inputs",
        "--out",
        str(tmp_path / "o"),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    assert len(index(tmp_path / "o")) == 24


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--bundle", "b"], "leave out --bundle, or --manifest"),
        (["--device", "cpu"], "leave out --device"),
        (["--engine", "onnxruntime"], "leave out --engine"),
        (["--localizer", "w18"], "leave out --localizer"),
    ],
)
def test_options_of_networks_are_refused(given, tmp_path, capsys, words, named):
    study, usual = given
    assert crops(tmp_path / "out", study, *usual, *words) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_told(given, tmp_path, capsys):
    study, words = given
    assert crops(tmp_path / "out", study, *words[:2]) == 2
    assert "give them with --keypoints" in capsys.readouterr().err
    assert crops(tmp_path / "out", study, "--localizer-inputs") == 2
    assert "--manifest" in capsys.readouterr().err
    wrong = written(tmp_path / "wrong.toml", "[grader.crop]\nextend = 3\n")
    assert crops(tmp_path / "out", study, "--manifest", str(wrong), *words[2:]) == 4
    assert "did you mean grader.crop.extent?" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_calls_share_a_folder_and_overwrite_nothing_unasked(given, tmp_path, capsys):
    study, words = given
    out = tmp_path / "out"
    assert crops(out, study, *words) == 0
    assert crops(out, study, *words, "--localizer-inputs") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert crops(out, study, *words, "--localizer-inputs", "--overwrite") == 0
    assert len(index(out)) == 24
    other = write_study(tmp_path / "other", uid="1.2.3.5")
    assert crops(out, str(other), *words) == 0
    assert len(index(out)) == 36
