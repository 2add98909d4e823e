"""A double of nvImageCodec: what spinescore uses of it, decoded by imagecodecs.

The file that NVIMGCODEC_DOUBLE names holds what is wrong, a line each: `WHAT` or `WHAT FAMILY` or `WHAT FAMILY images`
(samples are then decoded as they should be), where FAMILY is `jpeg`, `jpeg2k` or `any`.
"""

from __future__ import annotations

import enum
import os
import time
from pathlib import Path

import imagecodecs
import numpy as np

SAMPLE = (203, 301)


class BackendKind(enum.Enum):
    CPU_ONLY = 1
    GPU_ONLY = 2
    HYBRID_CPU_GPU = 3


class ColorSpec(enum.Enum):
    UNCHANGED = 0


class Backend:
    def __init__(self, backend_kind: BackendKind) -> None:
        self.backend_kind = backend_kind


class DecodeParams:
    def __init__(self, *, apply_exif_orientation: bool, color_spec: ColorSpec, allow_any_depth: bool) -> None:
        assert allow_any_depth
        assert not apply_exif_orientation
        assert color_spec is ColorSpec.UNCHANGED


class CodeStream:
    def __init__(self, frame: bytes) -> None:
        self.codec_name = "jpeg2k" if frame[:2] == b"\xff\x4f" else "jpeg"
        decode = imagecodecs.jpeg2k_decode if self.codec_name == "jpeg2k" else imagecodecs.jpeg8_decode
        self.pixels = decode(frame)
        self.height, self.width = self.pixels.shape
        self.num_channels, self.dtype = 1, self.pixels.dtype
        if is_wrong("channels", self):
            self.num_channels = 3
        if is_wrong("shape", self):
            self.height += 1
        if is_wrong("dtype", self):
            self.dtype = np.dtype("u4")


class Image:
    def __init__(self, array: np.ndarray) -> None:
        assert array.ndim == 3
        self.array = array


def as_image(source: np.ndarray) -> Image:
    return Image(source)


class Decoder:
    def __init__(self, *, device_id: int, max_num_cpu_threads: int, backends: list[Backend]) -> None:
        assert device_id == 0
        assert BackendKind.CPU_ONLY not in [backend.backend_kind for backend in backends]
        if is_wrong("no-gpu"):
            raise RuntimeError("CUDA Runtime failure: '#35'")
        if is_wrong("slow-start"):
            time.sleep(600)

    def decode(self, src: CodeStream, *, image: Image, params: DecodeParams) -> Image | None:
        kept = np.empty(1 << 30, "u1") if is_wrong("maps-much") else None
        if is_wrong("abort", src):
            os.abort()
        if is_wrong("hang", src):
            time.sleep(600)
        if is_wrong("raise", src):
            raise RuntimeError("internal error #8")
        if is_wrong("none", src):
            return None
        image.array[: src.pixels.shape[0], :, 0] = 0 if is_wrong("zeros", src) else src.pixels
        if is_wrong("one", src):
            image.array[-1, -1, 0] ^= 1
        del kept
        return image


def is_wrong(what: str, stream: CodeStream | None = None) -> bool:
    for line in Path(os.environ["NVIMGCODEC_DOUBLE"]).read_text(encoding="utf-8").splitlines():
        word, family, scope, *_ = [*line.split(), *("", "any", "all")[len(line.split()) :]]
        here = stream is None or family in ("any", stream.codec_name)
        if word == what and here and (scope == "all" or stream is None or stream.pixels.shape != SAMPLE):
            return True
    return False
