"""The real nvImageCodec takes the calls that `nvimagecodec` makes, and its decoders for the CPU decode through them.

Without a driver its decoders for the GPU cannot be opened, which is tried too. Each check runs in a process of its own.
Where it is not installed it is looked for in `.flavours/nvimgcodec-<version>/` (`pip install --no-deps --target`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dicom_files import compressed, picture, write
from pydicom import uid

from spinescore.runtime.reading import nvimagecodec

imagecodecs = pytest.importorskip("imagecodecs", reason="the codestreams of this module are written with imagecodecs")

ROOT = Path(__file__).resolve().parents[3]

DECODE = """
import sys
import numpy as np
from nvidia import nvimgcodec
from spinescore.runtime.reading import gpudecode, nvimagecodec
decoder = nvimagecodec.open_decoder(nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY, ("CPU_ONLY",))
exact = []
for family in gpudecode.FAMILIES:
    for declared, pixels, frame in gpudecode._samples(family):
        try:
            found = nvimagecodec.decode(frame, decoder)
        except ValueError as error:
            assert "does not decode" in str(error)
            continue
        assert found.dtype == pixels.dtype
        np.testing.assert_array_equal(found, pixels)
        exact.append((family, declared.bits_stored))
print(exact)
"""
REFUSE = """
import imagecodecs
import numpy as np
from nvidia import nvimgcodec
from spinescore.runtime.reading import nvimagecodec
decoder = nvimagecodec.open_decoder(nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY, ("CPU_ONLY",))
colours = imagecodecs.jpeg8_encode(np.zeros((8, 8, 3), "u1"))
grey = imagecodecs.jpeg8_encode(np.zeros((8, 8), "u2"), lossless=True, predictor=1, bitspersample=12)
for frame in (colours, grey, grey[:20], b""):
    try:
        nvimagecodec.decode(bytes(frame), decoder)
    except Exception as error:
        print(type(error).__name__, str(error).splitlines()[0])
if not nvimagecodec.driver_is_here():
    try:
        nvimagecodec.open_decoder()
    except RuntimeError:
        print("no driver")
"""
# The whole path, with the back ends for the CPU in the worker instead of those for the GPU.
WORKER = """
import sys
sys.path[:] = sys.argv[2:]
from nvidia import nvimgcodec
from spinescore.runtime.reading import nvimagecodec
nvimagecodec.open_decoder.__defaults__ = nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY, ("CPU_ONLY",)
from spinescore.runtime.reading.decodeworker import main
main(sys.argv[1])
"""
WHOLE = """
import itertools, sys, types
from spinescore.runtime.dicom import load_radiograph
from spinescore.runtime.reading import decodepool, decoders, gpudecode, nvimagecodec
assert nvimagecodec.is_installed()
nvimagecodec.driver_is_here = lambda: True
decodepool._START = sys.argv[2]
gpudecode._COMPARED_S = gpudecode._PATIENCE_S = 60.0
decoders.time = types.SimpleNamespace(perf_counter=itertools.count(step=100).__next__)
found = []
for _ in range(5):
    found.append(load_radiograph(sys.argv[1]))
    gpudecode.wait()
assert all((image.pixels == found[0].pixels).all() for image in found)
print([image.decoder for image in found])
"""


def folders() -> list[Path | None]:
    here: list[Path | None] = [None] if nvimagecodec.is_installed() else []
    return here + sorted((ROOT / ".flavours").glob("nvimgcodec-*"))


@pytest.fixture(params=folders() or [pytest.param(None, marks=pytest.mark.skip(
    reason='nvImageCodec is not installed: pip install "spinescore[gpu-decode]"'))])  # fmt: skip
def child(request):
    def run(code: str, *arguments: str) -> str:
        environment = {**os.environ, **({"PYTHONPATH": str(request.param)} if request.param else {})}
        command = [sys.executable, "-W", "error", "-c", code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_it_decodes(child) -> None:
    exact = child(DECODE)
    for bits in (8, 12, 16):
        assert f"('JPEG 2000 lossless', {bits})" in exact
    assert "('JPEG lossless', 8)" in exact


def test_it_refuses(child) -> None:
    said = child(REFUSE).splitlines()
    assert said[0] == "ValueError 3 samples per pixel"
    assert said[1] == "ValueError nvImageCodec does not decode this codestream on the GPU"
    assert len(said) == 4 + (not nvimagecodec.driver_is_here())


def test_it_reads_radiographs(child, tmp_path: Path) -> None:
    pixels = picture(12, rows=64, columns=80)
    frame = imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", reversible=True, bitspersample=12)
    path = write(compressed(pixels, 12, uid.JPEG2000Lossless, frame), tmp_path / "image")
    decoders = child(WHOLE, str(path), WORKER).splitlines()[-1]
    assert decoders == str(["imagecodecs.jpeg2k"] * 3 + ["nvimgcodec"] * 2)


def test_it_is_not_imported_before_it_is_needed() -> None:
    code = (
        "import sys; import spinescore.runtime.reading.decoders, spinescore.runtime.reading.gpudecode; "
        "print(sorted({'nvidia', 'nvidia.nvimgcodec', 'imagecodecs'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout.strip() == b"[]"
