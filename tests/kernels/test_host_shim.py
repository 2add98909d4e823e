"""The shim that stands for CUDA on the host: argument blocks, half precision, and what a launch refuses."""

import numpy as np
import pytest

from helpers import host_run
from spinescore.kernels.decode import VIEW, DecodeSpec
from spinescore.kernels.launch import KERNELS, Launch, decode_launch
from spinescore.kernels.warp import ROI, Source, WarpSpec


@pytest.mark.parametrize("kernel", KERNELS)
def test_argument_blocks_have_the_size_that_the_kernels_expect(kernels, kernel):
    assert kernels.args_bytes(kernel) == KERNELS[kernel][1].itemsize


def test_halves_are_read_as_they_are(kernels):
    """Positive halves of every size, as the peak of a heatmap, come back as its confidence."""
    bits = {edge + step for edge in range(0, 0x7C00, 0x400) for step in (0, 1, 2, 0x155, 0x200, 0x3FF)} - {0}
    halves = np.array(sorted(bits), np.uint16).view(np.float16)
    count = -(-len(halves) // 12)
    maps = np.zeros((count, 12), np.float16)
    maps.reshape(-1)[: len(halves)] = halves
    views, rois = np.zeros(count, VIEW), np.zeros(count, ROI)
    channels = tuple(tuple((2 * disc, 2 * disc + 1) for disc in range(6)) for _ in range(2))
    spec = DecodeSpec("argmax", "stride", 4, channels)
    points = host_run.decode(kernels, maps.reshape(count, 12, 1, 1), rois, views, spec)
    assert np.array_equal(points["confidence"].reshape(-1)[: len(halves)], halves.astype(np.float32))


@pytest.mark.parametrize("mean", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("std", [2.0**-17, 2.0**-12, 0.3, 1.0, 2.0**15, 2.0**24])
def test_halves_are_written_to_nearest_even(kernels, mean, std):
    """A half that the kernel writes is its float rounded as NumPy rounds, down to zero and up to infinity."""
    table = np.linspace(0, 1, 65536, dtype=np.float32)
    source = Source(np.arange(65536, dtype=np.uint16).reshape(256, 256), (table,))
    roi = np.zeros(1, ROI)
    roi["matrix"][0] = [[1, 0, 0], [0, 1, 0]]
    spec = WarpSpec(256, 256, 1, (mean,), (std,))
    single = host_run.warp(kernels, [source], roi, spec)
    with np.errstate(over="ignore"):
        assert np.array_equal(host_run.warp(kernels, [source], roi, spec, half=True), single.astype(np.float16))


def test_a_launch_that_a_gpu_refuses_is_refused(kernels):
    channels = tuple(tuple((2 * disc, 2 * disc + 1) for disc in range(6)) for _ in range(2))
    good = decode_launch(0, (12, 8, 8), True, 0, 0, 1, DecodeSpec("dark", "stride", 4, channels), 0)
    for kernel, grid, block in (
        ("decode_f64", good.grid, good.block),
        (good.kernel, (12, 0, 1), good.block),
        (good.kernel, (12, 1, 65536), good.block),
        (good.kernel, good.grid, (129, 1, 1)),
        (good.kernel, good.grid, (0, 1, 1)),
    ):
        with pytest.raises(RuntimeError, match="status"):
            kernels.run(Launch("decode", kernel, grid, block, good.args))
