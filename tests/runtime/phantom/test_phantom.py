"""Phantom studies: deterministic, within their declared limits, with a truth that fits the picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from spinescore.runtime import load_study
from spinescore.runtime.phantom import draw_view, write_study
from spinescore.runtime.phantom.bones import draw_spine
from spinescore.runtime.phantom.corners import Corner, sample_discs
from spinescore.runtime.phantom.shape import sample_frame, sample_spine
from spinescore.runtime.study import LEVELS, REGIONS, Region, sites_of


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(1_500_001, tmp_path_factory.mktemp("phantom"))


def test_the_same_seed_gives_the_same_bytes(study: Path, tmp_path: Path) -> None:
    again = write_study(1_500_001, tmp_path)
    names = sorted(path.name for path in again.iterdir())
    assert names == ["cervical.dcm", "lumbar.dcm", "truth.json"]
    assert all((study / name).read_bytes() == (again / name).read_bytes() for name in names)


def test_another_seed_gives_another_study() -> None:
    first, second = draw_view(1, "cervical", 0.25), draw_view(2, "cervical", 0.25)
    assert first.image.pixels.shape != second.image.pixels.shape or (first.image.pixels != second.image.pixels).any()


def test_a_later_visit_is_the_same_patient_with_progression(study: Path, tmp_path: Path) -> None:
    later = write_study(1_500_001, tmp_path, visit=2)
    first, second = load_study(study), load_study(later)
    assert first.patient_key == second.patient_key
    assert first.study_instance_uid != second.study_instance_uid
    assert (first.study_date, second.study_date) == ("20260101", "20300101")
    before, after = (json.loads((folder / "truth.json").read_text("utf-8")) for folder in (study, later))
    changes = []
    for region in REGIONS:
        for old, new in zip(before["regions"][region]["discs"], after["regions"][region]["discs"], strict=True):
            grades = [[corner["grade"] for corner in disc["corners"]] for disc in (old, new)]
            changes += [b - a for a, b in zip(*grades, strict=True)]
            assert (3 in grades[1]) == (grades[1] == [3, 3])
    assert min(changes) == 0
    assert sum(changes) == after["total"]["value"] - before["total"]["value"] > 0


def test_truth_has_the_reports_shape(study: Path) -> None:
    truth = json.loads((study / "truth.json").read_text("utf-8"))
    for region in REGIONS:
        discs = truth["regions"][region]["discs"]
        assert [disc["level"] for disc in discs] == list(LEVELS[region])
        assert [tuple(c["site"] for c in disc["corners"]) for disc in discs] == [sites_of(x) for x in LEVELS[region]]
        assert truth["regions"][region]["total"] == sum(c["grade"] for disc in discs for c in disc["corners"])
    assert truth["total"]["value"] == sum(truth["regions"][region]["total"] for region in REGIONS)


def test_radiographs_read_as_a_modality_would_send_them(study: Path) -> None:
    truth = json.loads((study / "truth.json").read_text("utf-8"))
    loaded = load_study(study)
    assert len(loaded.radiographs) == 2
    assert not loaded.rejects
    for radiograph, region in zip(loaded.radiographs, REGIONS, strict=True):
        said = truth["regions"][region]["radiograph"]
        assert (radiograph.rows, radiograph.columns) == (said["rows"], said["columns"])
        assert radiograph.region in (region, None)
        assert radiograph.facing in (said["facing"], None)
        assert 1500 <= radiograph.rows <= 3500
        assert radiograph.spacing_mm is not None
        assert 0.1 <= radiograph.spacing_mm[0] <= 0.2


def test_no_file_tells_the_truth(study: Path) -> None:
    for path in study.glob("*.dcm"):
        assert b"syndesmophyte" not in path.read_bytes()
        assert b"grade" not in path.read_bytes()


@pytest.mark.parametrize("region", REGIONS)
def test_discs_lie_inside_the_picture_in_order(region: Region) -> None:
    for seed in range(200):
        rng = np.random.default_rng(seed)
        spine = sample_spine(rng, region)
        try:
            frame = sample_frame(rng, spine)
        except ValueError:
            continue
        centres = np.array([spine.disc_centre(i) for i in range(6)])
        anteriors = np.array([spine.disc_anterior(i) for i in range(6)])
        assert (np.diff(centres[:, 1]) > 0).all()
        assert (anteriors[:, 0] < centres[:, 0]).all()  # facing left
        y = frame.centre_y + centres[:, 1] * frame.spacing_over_height
        assert 0 < y.min() < y.max() < 1


def test_points_mark_the_disc_in_the_pixels() -> None:
    """Bone is brighter than the disc in between, at the true points of many discs."""
    brighter = []
    for seed in range(6):
        view = draw_view(seed, "cervical")
        grey = view.image.pixels.astype(np.float64) * (-1 if view.image.inverted else 1)
        along = np.gradient(view.centres_px, axis=0)
        for centre, step in zip(view.centres_px, along, strict=True):
            disc, above, below = (_mean(grey, centre + k * step) for k in (0.0, -0.4, 0.4))
            brighter.append((above + below) / 2 > disc)
    assert np.mean(brighter) > 0.9


def _mean(grey: np.ndarray, at: np.ndarray) -> float:
    x, y = np.rint(at).astype(int)
    return float(grey[y - 4 : y + 5, x - 4 : x + 5].mean())


def test_every_grade_occurs_and_bridges_are_shared() -> None:
    discs = [disc for seed in range(1000) for disc in sample_discs(np.random.default_rng(seed))]
    grades = np.array([[corner.grade for corner in disc] for disc in discs])
    assert (np.bincount(grades.ravel(), minlength=4) / grades.size > 0.1).all()
    assert ((grades[:, 0] == 3) == (grades[:, 1] == 3)).all()


def test_each_sign_changes_the_picture() -> None:
    """A study with another grade at one corner differs there, and the distant bodies stay the same."""

    def bone(corner: Corner) -> np.ndarray:
        rng = np.random.default_rng(5)
        spine = sample_spine(np.random.default_rng(3), "lumbar").transformed(90.0, np.array([300.0, 330.0]))
        discs = [(Corner(0), Corner(0))] * 6
        discs[2] = (corner, corner if corner.grade == 3 else Corner(0))
        out = np.zeros((660, 560), np.float32)
        draw_spine(rng, out, spine, tuple(discs), 2.4)
        return out

    normal = bone(Corner(0))
    signs = ((1, "squaring"), (1, "erosion"), (1, "sclerosis"), (2, "syndesmophyte"), (3, "bridge"))
    for grade, sign in signs:
        assert np.abs(bone(Corner(grade, sign, 0.5)) - normal).max() > 0.05, sign  # type: ignore[arg-type]
