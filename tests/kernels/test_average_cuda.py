"""average.cu, compiled for the host, against its float64 reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import host_run
from spinescore.benchmarks.gpu.averagecases import off, random_average
from spinescore.kernels.average import MOST_RUNS, AverageSpec, Run, mirror
from spinescore.kernels.launch import average_launch


@settings(max_examples=80)
@given(seed=st.integers(0, 2**32 - 1), half=st.booleans())
def test_random_runs(kernels, seed, half):
    """As `python -m spinescore.benchmarks.gpu` draws them for a GPU."""
    case = random_average(np.random.default_rng(seed), half)
    mean = host_run.average(kernels, case.heatmaps, case.spec, case.shape)
    assert off(case, mean, host_run.mirror(kernels, case.images))[1] == ""
    assert "differs by" in off(case, mean + mean.dtype.type(0.1), case.images)[1]
    assert "not the images reversed" in off(case, mean, case.images + 1)[1]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 1, 1, 1), (2, 1, 64, 48), (1, 3, 256, 192)])
def test_mirror_is_exact(kernels, dtype, shape):
    images = np.random.default_rng(3).normal(size=shape).astype(dtype)
    images.flat[0] = np.nan
    assert host_run.mirror(kernels, images).tobytes() == mirror(images).tobytes()


def test_one_plain_run_is_a_copy_and_launches_repeat(kernels):
    maps = np.random.default_rng(4).normal(size=(2, 4, 16, 12)).astype(np.float32)
    assert host_run.average(kernels, [maps], AverageSpec((Run(),), "stride", 4), (16, 12)).tobytes() == maps.tobytes()
    spec = AverageSpec((Run(), Run(flipped=True)), "stride", 4, True)
    first, second = (host_run.average(kernels, [maps, maps], spec, (16, 12)) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_what_the_kernel_cannot_do_is_refused():
    spec = AverageSpec((Run(),) * (MOST_RUNS + 1), "stride", 4)
    with pytest.raises(ValueError, match="averages 1 to 16"):
        average_launch([(0, (8, 8))] * len(spec.runs), 1, (8, 8), False, spec, 0)
    with pytest.raises(ValueError, match="2 heatmaps of 1 runs"):
        average_launch([(0, (8, 8))] * 2, 1, (8, 8), False, AverageSpec((Run(),), "stride", 4), 0)
    with pytest.raises(ValueError, match="the kernel takes 65535"):
        average_launch([(0, (8, 8))], 65536, (8, 8), False, AverageSpec((Run(),), "stride", 4), 0)
