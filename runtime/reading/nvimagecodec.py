"""nvImageCodec (`nvidia-nvimgcodec-cu13`, 0.9): codestreams decoded in a GPU's memory. The only module that imports it.

It runs in a worker process alone (`decodepool`); `gpudecode` decides what is given to it. Its back ends for the CPU are
left out: where it cannot decode on the GPU the next decoder here does, not one of its own.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NAME", "PACKAGES", "decode", "driver_is_here", "is_installed", "open_decoder", "prepare"]

NAME = "nvimgcodec"
PACKAGES = ("nvidia-nvimgcodec-cu13", "nvidia-nvimgcodec-cu12")  # what pip calls it

_MODULE = "nvidia.nvimgcodec"
_GPU = 0  # the one that device cuda opens
_BACKENDS = ("GPU_ONLY", "HYBRID_CPU_GPU")  # nvJPEG2000; nvJPEG's lossless decoder


@functools.cache
def is_installed() -> bool:
    """Whether the package is there; it is not imported."""
    try:
        return find_spec(_MODULE) is not None
    except (ModuleNotFoundError, ValueError):  # nothing of NVIDIA's; a package of that name that is none
        return False


@functools.cache
def driver_is_here() -> bool:
    """Whether the NVIDIA driver's library can be loaded."""
    from spinescore.runtime.devices.cudadriver import DRIVER_LIBRARY

    try:
        ctypes.CDLL(DRIVER_LIBRARY)
    except OSError:
        return False
    return True


def open_decoder(device: int = _GPU, backends: Sequence[str] = _BACKENDS) -> Any:
    """A decoder on one GPU. Raises whatever nvImageCodec does where there is none."""
    from nvidia import nvimgcodec

    kinds = [nvimgcodec.Backend(getattr(nvimgcodec.BackendKind, name)) for name in backends]
    return nvimgcodec.Decoder(device_id=device, max_num_cpu_threads=1, backends=kinds)


@functools.cache
def prepare() -> Any:
    """This process's decoder: the first call makes the GPU's context, which takes long."""
    return open_decoder()


def decode(frame: bytes, decoder: Any) -> NDArray[np.integer]:
    """The pixels (rows x columns) that the codestream holds, in its own bits, copied from the GPU's memory.

    Raises ValueError for a codestream of several samples per pixel, and where the decoder does not decode it.
    """
    from nvidia import nvimgcodec

    stream = nvimgcodec.CodeStream(frame)
    if stream.num_channels != 1:
        raise ValueError(f"{stream.num_channels} samples per pixel")
    pixels: NDArray[np.integer] = np.zeros((stream.height, stream.width, 1), stream.dtype)
    params = nvimgcodec.DecodeParams(
        apply_exif_orientation=False,
        color_spec=nvimgcodec.ColorSpec.UNCHANGED,
        allow_any_depth=True,  # else it scales to 8 bits
    )
    if decoder.decode(stream, image=nvimgcodec.as_image(pixels), params=params) is None:
        raise ValueError("nvImageCodec does not decode this codestream on the GPU")
    return pixels[:, :, 0]
