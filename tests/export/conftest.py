"""Phantoms that are drawn once for all exports, and a small HRNet with pictures for the tests of INT8."""

import functools

import numpy as np
import pytest

from helpers.golden_networks import golden_run, unpacked
from spinescore.export import read_checkpoint
from spinescore.export.hrnet import build_hrnet
from spinescore.runtime.phantom import study


@pytest.fixture(autouse=True, scope="package")
def _each_phantom_is_drawn_once():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(study, "draw_view", functools.cache(study.draw_view))
        yield


@pytest.fixture(scope="module")
def hrnet(tmp_path_factory):
    path = unpacked("hrnet-legacy.pth", tmp_path_factory.mktemp("int8"))
    return build_hrnet(read_checkpoint(path).tensors, 64, 64)


@pytest.fixture(scope="module")
def images(hrnet):
    image, _ = golden_run("hrnet-legacy.pth", 3)
    rng = np.random.default_rng(7)
    return np.concatenate([image, *(image * rng.uniform(0.5, 1.5) + rng.normal(0, 0.1, image.shape) for _ in range(8))]
                          ).astype(np.float32)  # fmt: skip
