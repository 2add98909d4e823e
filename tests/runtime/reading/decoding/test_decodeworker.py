"""Decoding in worker processes gives the same pixels, and survives decoders that crash, hang or lie."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pydicom import uid
from pydicom.encaps import encapsulate

from helpers.decoding_worker import (  # noqa: F401  # its fixture is for every test
    DECLARED,
    FRAME,
    NAME,
    decoded,
    fresh_pool,
    imagecodecs,
    running,
)
from helpers.dicom_files import COLUMNS, ROWS, picture, radiograph_dataset, write
from helpers.tiny import write_bundle
from spinescore.runtime import Scorer
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.errors import InputRejected
from spinescore.runtime.machine import processes
from spinescore.runtime.reading.decoding import codecs, decode, pool
from spinescore.runtime.reading.decoding.codecs import DecoderFailed
from spinescore.runtime.reading.decoding.pool import DecoderLost
from spinescore.runtime.reading.pixelformat import PixelFormat
from spinescore.runtime.reading.studies import load_radiograph, load_study

# A worker's program with a decoder for one test: `f` is the codestream, `{}` the body of the function.
REPLACED = """
import os, sys, time
sys.path[:] = sys.argv[2:]
import numpy as np
from spinescore.runtime.reading.decoding import codecs, withimagecodecs
from spinescore.runtime.reading.decoding.worker import main
def decoder(name, f, syntax, declared):
    {}
withimagecodecs.decode = decoder
main(sys.argv[1])
"""


@pytest.fixture
def replace_decoder(monkeypatch):
    def replace(body: str) -> None:
        pool.stop()
        monkeypatch.setattr(pool, "_command", running(REPLACED.format(body)))

    return replace


def idle() -> list[int]:
    return [worker._process.pid for worker in pool.Pool.of_this_process()._idle]


def file_of(frame: bytes, path: Path) -> Path:
    ds = radiograph_dataset(picture(16), 16)
    ds.file_meta.TransferSyntaxUID = uid.JPEGLSLossless
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR = "OB"
    return write(ds, path)


def test_same_pixels_from_one_warm_worker() -> None:
    found = decoded()
    first = idle()
    np.testing.assert_array_equal(found, picture(16))
    np.testing.assert_array_equal(found, codecs.run_codec(NAME, FRAME, uid.JPEGLSLossless, DECLARED))
    assert found.flags.owndata or found.base.flags.owndata
    found[:] = 0
    np.testing.assert_array_equal(decoded(), picture(16))
    assert idle() == first
    assert len(first) == 1


def test_the_last_scorer_that_closes_ends_the_workers(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers are started again if a file is read without a scorer."""
    monkeypatch.setattr(processes, "_users", 0)  # other tests may have scorers open
    bundle = Bundle.open(write_bundle(tmp_path / "b"))
    first, second = Scorer(bundle, HostDevice(1)), Scorer(bundle, HostDevice(1))
    decoded()
    (worker,) = pool.Pool.of_this_process()._idle
    first.close()
    assert worker.is_alive()
    second.close()
    assert not worker.is_alive()
    assert not idle()
    np.testing.assert_array_equal(decoded(), picture(16))
    assert len(idle()) == 1


def test_larger_and_smaller_images_in_turn(monkeypatch) -> None:
    monkeypatch.setattr(pool, "_KEPT_BYTES", 100_000)
    for rows in (16, 400, 20, 300):
        pixels = picture(8, rows=rows, columns=333)
        declared = PixelFormat(rows, 333, 8, 8, 7, False, "MONOCHROME2")
        found = decode.run_apart(NAME, imagecodecs.jpegls_encode(pixels), uid.JPEGLSLossless, declared)
        np.testing.assert_array_equal(found, pixels)
    assert len(idle()) == 1


def test_what_a_decoder_reports_costs_no_worker() -> None:
    decoded()
    first = idle()
    with pytest.raises(DecoderFailed, match=r"JpeglsError|Error"):
        decoded(b"\0" * 64)
    with pytest.raises(DecoderFailed, match="pixels instead of"):
        decoded(imagecodecs.jpegls_encode(picture(16, rows=ROWS + 1)))
    assert idle() == first


@pytest.mark.parametrize(("body", "what"), [
    ("os.abort()", "SIGABRT" if os.name == "posix" else "exit status"),
    ("os._exit(7)", "exit status 7"),
])  # fmt: skip
def test_crash(replace_decoder, monkeypatch, tmp_path: Path, body: str, what: str) -> None:
    command = pool._command
    replace_decoder(body)
    with pytest.raises(InputRejected, match=what) as caught:
        load_radiograph(file_of(FRAME, tmp_path / "image"))
    assert caught.value.code == "corrupt-pixels"
    assert "made the decoder crash" in str(caught.value)
    assert idle() == []
    monkeypatch.setattr(pool, "_command", command)
    np.testing.assert_array_equal(decoded(), picture(16))


@pytest.mark.parametrize(
    ("status", "words"),
    [(7, "exit status 7"), (-2, "SIGINT"), (-200, "signal 200"), (0xC0000005, "exit status 0xC0000005")],
)
def test_endings_in_words(status: int, words: str) -> None:
    """The last status is the one with which Windows ends a process after a bad address."""
    assert processes.ending(status) == words


def test_hang(replace_decoder, monkeypatch, tmp_path: Path) -> None:
    replace_decoder("time.sleep(300)")
    monkeypatch.setenv(decode.TIMEOUT_VARIABLE, "0.05")
    with pytest.raises(InputRejected, match=r"not decoded within 0\.05 s") as caught:
        load_radiograph(file_of(FRAME, tmp_path / "image"))
    assert caught.value.code == "corrupt-pixels"
    assert idle() == []


def test_one_image_crashes_the_other_is_read(replace_decoder, tmp_path: Path) -> None:
    replace_decoder("import imagecodecs; return imagecodecs.jpegls_decode(f) if len(f) > 500 else os.abort()")
    file_of(FRAME, tmp_path / "study" / "good")
    ds = radiograph_dataset(picture(8, rows=8, columns=8), 8, SOPInstanceUID="1.2.3")
    ds.file_meta.TransferSyntaxUID = uid.JPEGLSLossless
    ds.PixelData = encapsulate([imagecodecs.jpegls_encode(np.zeros((8, 8), "u1"))])
    ds["PixelData"].VR = "OB"
    write(ds, tmp_path / "study" / "bad")
    study = load_study(tmp_path / "study")
    assert [image.source for image in study.radiographs] == ["good"]
    assert [(reject.code, reject.source) for reject in study.rejects] == [("corrupt-pixels", "bad")]


def test_two_images_at_once_have_a_worker_each(replace_decoder, tmp_path: Path) -> None:
    """Each decoder waits until the other one runs."""
    folder = str(tmp_path)
    replace_decoder(
        f"open(os.path.join({folder!r}, str(os.getpid())), 'w').close()\n"
        f"    while len(os.listdir({folder!r})) < 2: time.sleep(0.01)\n"
        f"    return np.full(({ROWS}, {COLUMNS}), os.getpid() % 65521, 'u2')"
    )
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda _: decoded(timeout_s=60.0), range(2)))
    assert {int(pixels[0, 0]) for pixels in found} == {pid % 65521 for pid in idle()}
    assert len(idle()) == 2


def test_a_decoder_that_prints(replace_decoder) -> None:
    replace_decoder(f"os.write(1, b'x' * 99); print('y'); return np.ones(({ROWS}, {COLUMNS}), 'u2')")
    assert decoded().sum() == ROWS * COLUMNS


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit the memory of a process")
def test_memory_of_a_decoder_is_limited(replace_decoder) -> None:
    replace_decoder("return np.empty(4 << 30, 'u1')")
    with pytest.raises(DecoderFailed, match="Unable to allocate"):
        decoded()


def test_loading_a_decoder_does_not_count(monkeypatch) -> None:
    slow = REPLACED.replace("def decoder(name, f, syntax, declared)", "def decoder(name, syntax)")
    slow = slow.replace("withimagecodecs.decode = decoder", "withimagecodecs.is_available = decoder")
    monkeypatch.setattr(pool, "_command", running(slow.format("time.sleep(0.6)")))
    np.testing.assert_array_equal(decoded(timeout_s=0.5), picture(16))


@pytest.mark.parametrize("answer", ["b'\\xff' * 8", "b'\\2\\0\\0\\0[]'", "b'\\4\\0\\0\\0nono'", "b'\\2\\0\\0\\0{}'"])
def test_an_answer_that_is_none(monkeypatch, answer: str) -> None:
    """Too long, no object, no JSON, no pixels."""
    hello = "import os, sys; os.write(1, b'\\2\\0\\0\\0{}' * 2); sys.stdin.buffer.read(4); "
    monkeypatch.setattr(pool, "_command", running(f"{hello}os.write(1, {answer}); sys.stdin.read()"))
    with pytest.raises(DecoderLost):
        decoded()
    assert idle() == []
