"""The manifest's tolerances, and the figures that are compared with them."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from helpers import tiny
from spinescore.export.defaults import contract
from spinescore.runtime.acceptance.comparison import compare_grades, compare_points, difference_of_range
from spinescore.runtime.bundle import Bundle, manifest_sha256, shipped_bundles
from spinescore.runtime.errors import BundleError
from spinescore.runtime.manifest import Manifest
from spinescore.runtime.manifest.tolerances import Tolerances

DOCUMENT = tiny.listed(tiny.manifest())


def test_a_bundle_without_the_section_keeps_its_hash_and_is_held_to_the_usual_values():
    plain = Manifest.from_dict(DOCUMENT)
    assert "tolerances" not in plain.to_dict()
    assert (plain.tolerances, plain.bounds) == (None, Tolerances())
    stated = Manifest.from_dict({**DOCUMENT, "tolerances": asdict(Tolerances())})
    assert Manifest.from_dict(stated.to_dict()) == stated
    assert stated.bounds == plain.bounds
    assert manifest_sha256(stated) != manifest_sha256(plain)


def test_shipped_bundles_are_hashed_as_they_are_written():
    for name in shipped_bundles():
        bundle = Bundle.open(name)
        written = json.loads((bundle.folder / "bundle.json").read_text(encoding="utf-8"))
        assert bundle.manifest.to_dict() == written


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grade_flips": None}, "tolerances.grade_flips: expected a number"),
        ({"grade_flips": 1.5}, r"tolerances.grade_flips: expected a number in \[0, 1\]"),
        ({"p99_shift_px": -1.0}, "tolerances.p99_shift_px"),
        ({"more": 1.0}, "tolerances.more: no such field"),
    ],
)
def test_a_section_is_whole_and_in_range(changes, message):
    with pytest.raises(BundleError, match=message):
        Manifest.from_dict({**DOCUMENT, "tolerances": {**asdict(Tolerances()), **changes}})
    incomplete = asdict(Tolerances())
    del incomplete["median_shift_px"]
    with pytest.raises(BundleError, match=r"tolerances\.median_shift_px: this field is missing"):
        Manifest.from_dict({**DOCUMENT, "tolerances": incomplete})


def test_an_export_writes_them_out():
    class Network:
        channels, outputs, preprocessing, tensors = 1, 24, "imagenet", None

        class size:  # noqa: N801
            height_px = width_px = 64

    written = contract(
        {"cervical": Network, "lumbar": Network}, "corners4", Network, {"tolerances": {"grade_flips": 1}}
    )
    assert written["tolerances"] == {**asdict(Tolerances()), "grade_flips": 1}


def test_points_are_compared_in_their_own_region_and_by_the_discs_distance():
    localizer = Manifest.from_dict(DOCUMENT).localizer
    heatmaps = np.zeros((2, 24, 64, 48), np.float32)
    for channel in range(24):
        heatmaps[:, channel, 4 + 8 * (channel % 12 // 2), 10 + 20 * (channel % 2)] = 1
    moved = np.roll(heatmaps, 2, axis=3)
    moved[0, 12:] = 0  # of the other region
    moved[1, :12] = 0
    found = compare_points(heatmaps, moved, localizer, np.array([0, 1]))
    assert (found.points, found.heatmap_difference) == (24, 1)
    assert found.median_shift_px == found.p99_shift_px == found.max_shift_px == pytest.approx(2, abs=1e-6)
    assert found.median_shift_of_spacing == pytest.approx(2 / 8, abs=1e-6)
    assert not found.moves_little(Tolerances())
    assert [fault.split(",")[0] for fault in found.faults(Tolerances())] == [
        "heatmap difference 1",
        "median shift px 2",
        "p99 shift px 2",
    ]


def test_grades_and_totals_by_radiograph():
    grader = Manifest.from_dict(DOCUMENT).grader
    logits = np.full((12, 2, 4), -9.0, np.float32)
    logits[:, :, 1] = 9
    other = logits.copy()
    other[0, 0], other[7, 1] = (-9, -9, 9, -9), (9, -9, -9, -9)
    found = compare_grades({"corners": logits.reshape(12, 8)}, {"corners": other.reshape(12, 8)}, grader)
    assert (found.corners, found.flips, found.reference_total, found.total) == (24, 2, 24, 24)
    assert found.largest_total_change == 1
    assert found.flip_share == pytest.approx(1 / 12)
    assert not found.keeps_grades(Tolerances())
    assert [fault.split(",")[0] for fault in found.faults(Tolerances())] == [
        "logit difference 1",
        "grade flips 0.08333",
    ]
    assert difference_of_range(logits, np.full_like(logits, np.nan)) == float("inf")
