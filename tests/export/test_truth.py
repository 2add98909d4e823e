"""Point errors on golden phantoms, whose points are known, and the exchanges that they reveal."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from helpers import tiny
from spinescore.export import truth
from spinescore.export.golden import draw_phantoms, phantom_views
from spinescore.export.sessions import workers
from spinescore.export.truth import likely_exchange, point_errors
from spinescore.runtime.manifest import Manifest
from spinescore.runtime.reading.studies import load_radiograph
from spinescore.runtime.scoring.geometry import whole_image
from spinescore.runtime.study import REGIONS

HEIGHT, WIDTH = tiny.HEIGHT // 4, tiny.WIDTH // 4


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    with workers(1) as pool:
        return phantom_views(draw_phantoms(pool, tmp_path_factory.mktemp("phantoms"), 1), 1)


def described(heads):
    return Manifest.from_dict(tiny.listed(tiny.manifest(heads))).localizer


def heatmaps_of(view, localizer):
    """Return a Gaussian for each true point of the view in its channel; the other region's channels are empty."""
    radiograph = load_radiograph(view.path)
    facing = "right" if view.faces_right else "left"
    roi = whole_image(0, radiograph.rows, radiograph.columns, (tiny.HEIGHT, tiny.WIDTH), "stretch", facing)
    matrix = roi["matrix"].astype(float)
    inside = (view.points_px - matrix[:, 2] - roi["origin"]) @ np.linalg.inv(matrix[:, :2]).T / 4
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    channels = localizer.channels()[REGIONS.index(view.region)]
    found = np.zeros(
        (1 + max(max(pair) for region in localizer.channels() for pair in region), HEIGHT, WIDTH), np.float32
    )
    for disc, pair in enumerate(channels):
        for point, channel in enumerate(pair):
            column, row = inside[disc, point]
            found[channel] = np.exp(-((x - column) ** 2 + (y - row) ** 2) / 8)
    return found


def trial(expected, regions, role="", stem="localizer", tensors=None):
    served = REGIONS if not role else (role,)
    network = SimpleNamespace(
        role=role,
        regions=served,
        stem=stem,
        alternative="",
        tensors=tensors or {},
        provenance={"source": f"{role}.pth"},
    )
    numbers = np.array([REGIONS.index(region) for region in regions], np.uint8)
    return SimpleNamespace(
        network=network, expected=expected, regions=numbers, model=role, images=np.zeros((1, 3, 8, 8))
    )


def shared(views, order=None):
    localizer = described(24)
    expected = np.stack([heatmaps_of(view, localizer) for view in views])
    return localizer, trial(expected if order is None else expected[:, order], [view.region for view in views])


def test_points_in_their_places_have_a_small_error(views):
    localizer, one = shared(views)
    errors = point_errors([one], views, localizer)
    assert set(errors["localizer"]) == set(REGIONS)
    assert all(error.median_of_spacing < 0.02 and error.within_quarter == 1 for error in errors["localizer"].values())
    assert likely_exchange([one], views, localizer, errors) == []


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ([*range(12, 24), *range(12)], "heatmaps of the two regions, those of the cervical spine are likely exchanged"),
        ([c ^ 1 for c in range(24)], "centre and anterior points of the lumbar spine are likely exchanged"),
        ([2 * (5 - c // 2 % 6) + c % 2 + 12 * (c // 12) for c in range(24)], "discs from above and from below"),
    ],
)
def test_exchanged_heatmaps_are_named(views, order, words):
    localizer, one = shared(views, order)
    found = likely_exchange([one], views, localizer, point_errors([one], views, localizer))
    assert len(found) == 2
    assert any(words in sentence for sentence in found)
    assert all("localizer.keypoints" in sentence for sentence in found)


def test_exchanged_files_are_named(views, monkeypatch):
    localizer = described("separate")
    by_region = {view.region: heatmaps_of(view, localizer)[None] for view in views}
    flat = {region: heatmaps[:, :, ::-1].copy() for region, heatmaps in by_region.items()}  # points somewhere else
    trials = [trial(flat[region], [region], region, f"localizer-{region}") for region in REGIONS]
    other = {"cervical": "lumbar", "lumbar": "cervical"}  # what the cervical file gives for lumbar radiographs
    monkeypatch.setattr(truth, "run_model", lambda model, images: by_region[other[model]])
    errors = point_errors(trials, views, localizer)
    (sentence,) = likely_exchange(trials, views, localizer, errors)
    assert "the cervical and the lumbar file are likely exchanged" in sentence
    assert "--localizer cervical=lumbar.pth,lumbar=cervical.pth" in sentence


def test_an_untrained_network_is_not_said_to_be_exchanged(views):
    localizer = described(24)
    noise = np.random.default_rng(1).random((len(views), 24, HEIGHT, WIDTH), np.float32)
    one = trial(noise, [view.region for view in views])
    errors = point_errors([one], views, localizer)
    assert errors["localizer"]["lumbar"].median_of_spacing > 0.25
    assert likely_exchange([one], views, localizer, errors) == []


def test_nothing_is_said_without_true_points_or_weights(views):
    localizer, one = shared(views)
    assert point_errors([one], [replace(view, points_px=None) for view in views], localizer) == {}
    one.network.tensors = {"conv1.weight": 0}
    assert point_errors([one], views, localizer) == {}
