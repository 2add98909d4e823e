"""Networks with random weights: their shapes, and outputs that are fit for measurements."""

from __future__ import annotations

import numpy as np
import pytest

from spinescore.export.hrnet import build_hrnet
from spinescore.export.resnet152 import build_resnet
from spinescore.export.rounding import largest_activations, open_rounded
from spinescore.export.sessions import open_session, run_model, run_session
from spinescore.export.sources import parameters_of
from spinescore.export.synthetic import Synthetic, fit_grader, fit_localizer, parse_synthetic, random_tensors
from spinescore.kernels.decode import peaks
from spinescore.runtime.engines.half import HALF_MAX, to_half
from spinescore.runtime.errors import CheckpointError

RNG = np.random.default_rng(8)
BLOBS = np.kron(RNG.normal(size=(40, 1, 8, 8)), np.ones((8, 8))).repeat(3, 1).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("synthetic:hrnet-w32", Synthetic("hrnet", 32)),
        ("synthetic:resnet152", Synthetic("resnet152", 64)),
        ("synthetic:resnet50-w16", Synthetic("resnet50", 16)),
    ],
)
def test_names(name, expected):
    assert parse_synthetic(name) == expected


@pytest.mark.parametrize(
    "name", ["synthetic:", "synthetic:hrnet", "synthetic:hrnet-w0", "synthetic:resnet18", "hrnet-w32"]
)
def test_unknown_names_are_refused(name):
    with pytest.raises(CheckpointError, match=r"give synthetic:hrnet-w18"):
        parse_synthetic(name)


def test_published_sizes():
    """HRNet-W32 has 28.5 M parameters, ResNet152 with 8 outputs 58.2 M, with batch normalisation folded."""
    hrnet = build_hrnet(random_tensors(Synthetic("hrnet", 32), 17, 3))
    resnet = build_resnet(random_tensors(Synthetic("resnet152", 64), 1000, 3))
    assert parameters_of(hrnet) == pytest.approx(28.5e6, rel=0.005)
    assert parameters_of(resnet) == pytest.approx(60.2e6, rel=0.005)


def test_same_seed_same_weights():
    one, two, other = (random_tensors(Synthetic("resnet50", 4), 8, 1, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not np.array_equal(one["conv1.weight"], other["conv1.weight"])


@pytest.mark.parametrize("outputs", [8, 4, 3, 2])
def test_every_grade_occurs_also_in_half(outputs):
    model = build_resnet(fit_grader(random_tensors(Synthetic("resnet152", 8), outputs, 3), BLOBS), 64, 64)
    classes = 4 if outputs == 8 else outputs
    exact, rounded = (
        run_session(session, BLOBS).reshape(len(BLOBS), -1, classes).argmax(2)
        for session in (open_session(model), open_rounded(model))
    )
    for corner in exact.T:
        assert np.bincount(corner, minlength=classes).min() >= len(BLOBS) / classes / 3
    assert (exact != rounded).mean() <= 0.05


def test_points_spread_from_above_to_below():
    model = build_hrnet(fit_localizer(random_tensors(Synthetic("hrnet", 16), 12, 3), BLOBS[:12]), 64, 64)
    xy, confidence = peaks(run_model(model, BLOBS[:12]), "argmax")
    rows = xy[..., 1].mean(0)
    assert np.mean(rows[:4]) + 3 < np.mean(rows[-4:])
    assert xy.std((0, 1)).min() > 1
    assert confidence.mean() == pytest.approx(1, abs=0.3)


def test_activations_are_far_from_the_end_of_half():
    for model in (
        build_hrnet(random_tensors(Synthetic("hrnet", 8), 12, 3), 64, 64),
        build_resnet(random_tensors(Synthetic("resnet152", 8), 8, 3), 64, 64),
    ):
        values = [layer.value for layer in largest_activations(model, BLOBS[:4])]
        assert min(values) > 1e-2
        assert max(values) < HALF_MAX / 50
        assert to_half(model)[1].overflowed == ()


def test_too_few_crops_are_refused():
    with pytest.raises(CheckpointError, match="at least 8 different crops"):
        fit_grader(random_tensors(Synthetic("resnet50", 4), 8, 3), BLOBS[:2])
