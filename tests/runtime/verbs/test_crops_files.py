"""`spinescore crops`: studies and calls share a folder without loss, and the index describes each crop."""

from __future__ import annotations

import csv
import json

import cv2
import numpy as np
import pytest

from helpers import tiny
from helpers.tiny_study import GRADES, write_study
from spinescore.runtime import cli
from spinescore.runtime.outputs.crops import INDEX_COLUMNS, PictureFile, write_crops


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    return str(tiny.write_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> tuple[str, str]:
    """Two studies in folders, `1.2.3.1` with both regions and `1.2.3.2` with one."""
    folder = tmp_path_factory.mktemp("two")
    first = write_study(folder / "1", uid="1.2.3.1")
    return str(first), str(write_study(folder / "2", uid="1.2.3.2", regions=("lumbar",)))


def crops(bundle: str, out, *words: str) -> int:
    return cli.main(["crops", *words, "--bundle", bundle, "--out", str(out)])


def index(out) -> list[dict[str, str]]:
    """The index, after a check that it lists exactly the pictures in the folder."""
    with (out / "index.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["file"] for row in rows) == sorted(path.name for path in out.glob("*.png"))
    return rows


def contents(out) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_a_second_call_adds_to_the_first(bundle, two, tmp_path, capsys):
    assert crops(bundle, tmp_path, two[0]) == 0
    before = contents(tmp_path)
    assert crops(bundle, tmp_path, two[1]) == 0
    rows = index(tmp_path)
    assert [row["study_instance_uid"] for row in rows] == ["1.2.3.1"] * 12 + ["1.2.3.2"] * 6
    after = contents(tmp_path)
    assert {name: after[name] for name in before if name != "index.csv"} == {
        name: data for name, data in before.items() if name != "index.csv"
    }


def test_a_call_that_ends_meanwhile_keeps_its_lines(bundle, two, tmp_path):
    picture = PictureFile("corners_L1-L2_L1", np.zeros((4, 4), np.float32), ({"level": "L1/L2"},))

    def first():
        assert write_crops([("study-b", [picture])], tmp_path) == 1  # another call, from its beginning to its end
        yield "study-a", [picture]

    assert write_crops(first(), tmp_path) == 1
    assert sorted(row["study"] for row in index(tmp_path)) == ["study-a", "study-b"]


def test_one_call_with_two_studies_writes_the_same(bundle, two, tmp_path, capsys):
    assert crops(bundle, tmp_path / "one", *two) == 0
    assert crops(bundle, tmp_path / "apart", two[0]) == 0
    assert crops(bundle, tmp_path / "apart", two[1]) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "apart")


def test_nothing_is_overwritten_unasked(bundle, two, tmp_path, capsys):
    assert crops(bundle, tmp_path, *two) == 0
    before = contents(tmp_path)
    capsys.readouterr()
    assert crops(bundle, tmp_path, two[1]) == 2
    said = capsys.readouterr().err
    assert "study-" in said
    assert "--overwrite" in said
    assert contents(tmp_path) == before
    assert crops(bundle, tmp_path, two[1], "--overwrite") == 0
    assert contents(tmp_path) == before


def test_an_index_of_another_kind_is_not_touched(bundle, two, tmp_path, capsys):
    (tmp_path / "index.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    assert crops(bundle, tmp_path, two[1]) == 2
    assert "index.csv" in capsys.readouterr().err
    assert contents(tmp_path) == {"index.csv": b"a,b\n1,2\n"}


def test_the_index_says_where_a_crop_is_from(bundle, two, tmp_path, capsys):
    centre, anterior = (tiny.draw("lumbar", GRADES).points[1] + [[0.25, -0.5], [-0.5, 0.25]]).tolist()
    points = {"1.2.3.2": {"lumbar": {"L1/L2": {"centre_px": centre, "anterior_px": anterior}}}}
    (tmp_path / "points.json").write_text(json.dumps(points), encoding="utf-8")
    out = tmp_path / "out"
    assert crops(bundle, out, *two, "--keypoints", str(tmp_path / "points.json")) == 0
    rows = {(row["study_instance_uid"], row["level"]): row for row in index(out)}
    row = rows["1.2.3.2", "L1/L2"]
    assert tuple(row) == INDEX_COLUMNS
    stated = [float(row[name]) for name in ("centre_x_px", "centre_y_px", "anterior_x_px", "anterior_y_px")]
    assert stated == pytest.approx([*centre, *anterior], abs=0.01)
    assert (row["points"], row["facing"], row["source"]) == ("given", "left", "lumbar.dcm")
    down, front = anterior[1] - centre[1], centre[0] - anterior[0]
    assert float(row["rotation_deg"]) == pytest.approx(np.degrees(np.arctan2(down, front)), abs=0.05)
    assert rows["1.2.3.1", "L1/L2"]["points"] == "found"


def test_anonymous_crops_name_no_study(bundle, two, tmp_path, capsys):
    """A study is not even named by a hash of its UID. Both studies have a lumbar radiograph, and do not collide."""
    named, hidden = tmp_path / "named", tmp_path / "hidden"
    assert crops(bundle, named, *two) == 0
    assert crops(bundle, hidden, two[0], "--anonymous") == 0
    assert crops(bundle, hidden, two[1], "--anonymous") == 0
    rows = index(hidden)
    assert len(rows) == 18
    assert {row["study_instance_uid"] + row["sop_instance_uid"] for row in rows} == {""}
    written = (hidden / "index.csv").read_text(encoding="utf-8")
    assert "1.2.3" not in written
    assert ".dcm" not in written
    assert not {row["study"] for row in rows} & {row["study"] for row in index(named)}


def test_the_same_pictures_in_two_anonymous_studies(bundle, tmp_path, capsys):
    folders = [str(write_study(tmp_path / name, uid=f"1.2.{name}", regions=("lumbar",))) for name in "34"]
    out = tmp_path / "out"
    assert crops(bundle, out, *folders, "--anonymous") == 0
    assert len({row["study"] for row in index(out)}) == 2
    assert cv2.imread(str(out / index(out)[0]["file"]), cv2.IMREAD_UNCHANGED).dtype == np.uint16
