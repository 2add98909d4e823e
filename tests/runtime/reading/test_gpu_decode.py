"""What nvImageCodec is given, on a double of it: from the file to the radiograph, and all that can go wrong."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from dicom_files import compressed, picture, radiograph_dataset, write
from nvimgcodec_here import DOUBLE, nvimgcodec_here
from pydicom import uid

from spinescore.runtime import doctor
from spinescore.runtime.dicom import load_radiograph
from spinescore.runtime.errors import InputRejected
from spinescore.runtime.reading import codestreams, decodepool, decoders, gpudecode, nvimagecodec
from spinescore.runtime.study import Radiograph

imagecodecs = pytest.importorskip("imagecodecs", reason="the codestreams of this module are written with imagecodecs")

PIXELS = picture(12, rows=64, columns=80)
CPU = {"jpeg2k": "imagecodecs.jpeg2k", "jpeg": "imagecodecs.jpeg8"}
SYNTAX = {"jpeg2k": uid.JPEG2000Lossless, "jpeg": uid.JPEGLosslessSV1}


def frame(family: str = "jpeg2k", pixels: np.ndarray = PIXELS, bits: int = 12, predictor: int = 1) -> bytes:
    if family == "jpeg":
        return imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=predictor, bitspersample=bits)
    return imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", reversible=True, bitspersample=bits)


@pytest.fixture
def wrong(monkeypatch, tmp_path: Path) -> Iterator[Path]:
    with nvimgcodec_here(monkeypatch, tmp_path) as file:
        yield file


@pytest.fixture
def read(tmp_path: Path):
    """Read one image, and wait for what is compared after it."""

    def load(family: str = "jpeg2k", pixels: np.ndarray = PIXELS, bits: int = 12, **options: int) -> Radiograph:
        coded = frame(family, pixels, bits, **options)
        found = load_radiograph(write(compressed(pixels, bits, SYNTAX[family], coded), tmp_path / "image"))
        np.testing.assert_array_equal(found.pixels, pixels)
        gpudecode.wait()
        return found

    return load


def said_by(*found: Radiograph) -> list[str]:
    return [line for image in found for line in image.warnings if "nvImageCodec" in line]


def gpu_workers() -> list[int]:
    return [worker._process.pid for worker in decodepool._Pool.of_this_process(nvimagecodec.NAME)._idle]


def use(read, family: str = "jpeg2k") -> None:
    """Read the like until it is decoded on the GPU."""
    assert [read(family).decoder for _ in range(4)] == [CPU[family]] * 3 + ["nvimgcodec"]


@pytest.mark.parametrize("family", list(SYNTAX))
def test_used_once_three_images_were_the_same(wrong, read, family: str) -> None:
    use(read, family)
    other = picture(12, rows=64, columns=80)[::-1].copy()
    found = read(family, other)
    assert found.decoder == "nvimgcodec"
    assert said_by(found) == []
    assert len(gpu_workers()) == 1


def test_another_coding_has_to_show_itself_too(wrong, read) -> None:
    use(read, "jpeg")
    assert read("jpeg", predictor=4).decoder == CPU["jpeg"]
    assert read("jpeg", picture(16, rows=64, columns=80), 16).decoder == CPU["jpeg"]
    assert read("jpeg").decoder == "nvimgcodec"


def test_some_are_compared_again(monkeypatch, wrong, read) -> None:
    monkeypatch.setattr(gpudecode, "_COMPARED_AGAIN", 3)
    use(read)
    assert [read().decoder for _ in range(4)] == ["nvimgcodec", CPU["jpeg2k"], "nvimgcodec", "nvimgcodec"]
    wrong.write_text("one any images", encoding="utf-8")
    assert read().decoder == CPU["jpeg2k"]  # and that is when it shows
    told = read()
    assert told.decoder == CPU["jpeg2k"]
    assert len(said_by(told)) == 1
    assert "it gave other pixels than the decoder for the CPU" in said_by(told)[0]
    assert said_by(read()) == []  # once is enough


@pytest.mark.parametrize("what", ["zeros", "one", "none", "raise", "shape", "dtype", "channels"])
@pytest.mark.parametrize("scope", ["", " any images"])
def test_what_it_does_wrong_is_never_used(wrong, read, what: str, scope: str) -> None:
    wrong.write_text(what + scope, encoding="utf-8")
    found = [read() for _ in range(5)]
    assert {image.decoder for image in found} == {CPU["jpeg2k"]}
    assert len(said_by(*found)) == (1 if scope and what in ("zeros", "one") else 0)
    assert gpu_workers() == []


def test_samples_that_are_wrong_end_it_for_their_family_alone(wrong, read) -> None:
    wrong.write_text("zeros jpeg", encoding="utf-8")
    assert {read("jpeg").decoder for _ in range(5)} == {CPU["jpeg"]}
    use(read, "jpeg2k")


def test_a_gpu_that_cannot_be_opened(wrong, read) -> None:
    wrong.write_text("no-gpu", encoding="utf-8")
    assert {read().decoder for _ in range(5)} == {CPU["jpeg2k"]}
    assert "CUDA Runtime failure" in gpudecode.unfit("JPEG 2000 lossless")


@pytest.mark.parametrize("what", ["abort", "hang"])
@pytest.mark.parametrize("scope", ["any", "any images"])
def test_a_crash_or_a_hang_ends_it_for_all(monkeypatch, wrong, read, what: str, scope: str) -> None:
    if what == "hang":
        monkeypatch.setattr(gpudecode, "_COMPARED_S", 0.5)
    wrong.write_text(f"{what} {scope}", encoding="utf-8")
    found = [read(), read(), read("jpeg")]
    assert [image.decoder for image in found] == [CPU["jpeg2k"]] * 2 + [CPU["jpeg"]]
    words = "crash" if what == "abort" else "not decoded within 0.5 s"
    (said,) = said_by(*found)
    assert "not used any more in this process" in said
    assert words in said
    assert gpu_workers() == []


@pytest.mark.parametrize("what", ["abort", "hang"])
def test_a_crash_while_it_is_used_costs_no_image(monkeypatch, wrong, read, what: str) -> None:
    use(read)
    if what == "hang":
        monkeypatch.setattr(gpudecode, "_PATIENCE_S", 0.5)
    wrong.write_text(what, encoding="utf-8")
    found = read()
    assert found.decoder == CPU["jpeg2k"]
    assert "not used any more in this process" in said_by(found)[0]
    assert ("crash" if what == "abort" else "within 0.5 s") in said_by(found)[0]
    wrong.write_text("", encoding="utf-8")
    assert {read().decoder for _ in range(4)} == {CPU["jpeg2k"]}


def test_an_image_that_it_does_not_decode_makes_its_like_show_themselves_again(wrong, read) -> None:
    use(read)
    wrong.write_text("none", encoding="utf-8")
    assert read().decoder == CPU["jpeg2k"]
    wrong.write_text("", encoding="utf-8")
    use(read)


def test_a_driver_may_map_more_memory_than_other_decoders(wrong, read) -> None:
    wrong.write_text("maps-much", encoding="utf-8")
    use(read)


def test_a_broken_image_makes_its_like_show_themselves_again(monkeypatch, wrong, read) -> None:
    """One that no decoder reads, so that nothing is compared."""
    use(read)
    wrong.write_text("raise", encoding="utf-8")
    with monkeypatch.context() as others:
        others.setattr(decoders, "installed", lambda syntax: ())
        with pytest.raises(InputRejected):
            read()
    wrong.write_text("", encoding="utf-8")
    use(read)


def test_what_is_slower_is_not_used(monkeypatch, wrong, read) -> None:
    monkeypatch.setattr(decoders, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    assert {read().decoder for _ in range(5)} == {CPU["jpeg2k"]}
    assert gpu_workers() == []  # nor is the GPU's memory kept
    (why,) = gpudecode.refusals()
    assert "ms, the decoder for the CPU 0" in why


def test_what_is_not_offered(monkeypatch, wrong) -> None:
    def offered(coded: bytes, syntax: str, pixels: np.ndarray = PIXELS, bits: int = 12) -> bool:
        signed = pixels.dtype.kind == "i"
        format_ = decoders.PixelFormat(*pixels.shape, 16, bits, bits - 1, signed, "MONOCHROME2")
        return gpudecode.offer(bytes(coded), format_, syntax) is not None

    assert offered(frame(), uid.JPEG2000Lossless)
    assert offered(frame(), uid.JPEG2000)
    assert offered(frame("jpeg"), uid.JPEGLossless)
    signed = picture(12, signed=True)
    assert not offered(frame(pixels=signed), uid.JPEG2000Lossless, signed)
    assert not offered(frame(pixels=signed), uid.JPEG2000Lossless)  # contrary to the header
    assert not offered(frame("jpeg", signed.view("u2") & 4095), uid.JPEGLosslessSV1, signed)
    assert not offered(imagecodecs.jpeg2k_encode(PIXELS, level=50, codecformat="j2k"), uid.JPEG2000)
    assert not offered(imagecodecs.jpeg2k_encode(PIXELS, level=0, codecformat="jp2", reversible=True), uid.JPEG2000)
    assert not offered(imagecodecs.jpeg8_encode(PIXELS, level=95, bitspersample=12), uid.JPEGExtended12Bit)
    assert not offered(imagecodecs.jpegls_encode(PIXELS), uid.JPEGLSLossless)
    if getattr(getattr(imagecodecs, "HTJ2K", None), "available", False):
        coded = imagecodecs.htj2k_encode(PIXELS, reversible=True)
        assert not offered(coded, uid.HTJ2KLossless)
        assert not offered(coded, uid.JPEG2000Lossless)  # of another syntax than it says
    monkeypatch.setattr(nvimagecodec, "driver_is_here", lambda: False)
    assert not offered(frame(), uid.JPEG2000Lossless)
    monkeypatch.setattr(nvimagecodec, "driver_is_here", lambda: True)
    monkeypatch.setenv(decodepool.IN_PROCESS_VARIABLE, "1")
    assert not offered(frame(), uid.JPEG2000Lossless)


def test_never_in_this_process(monkeypatch, wrong, read) -> None:
    monkeypatch.setenv(decodepool.IN_PROCESS_VARIABLE, "1")
    assert {read().decoder for _ in range(5)} == {CPU["jpeg2k"]}
    with pytest.raises(decodepool.DecoderLost, match="a process of their own"):
        decodepool.decode(nvimagecodec.NAME, frame(), uid.JPEG2000Lossless, decoders.PixelFormat(
            64, 80, 16, 12, 11, False, "MONOCHROME2"))  # fmt: skip


def test_a_worker_that_does_not_start(monkeypatch, wrong, read) -> None:
    """It is missed for nvImageCodec alone: the others go on in processes of their own."""
    real = decodepool._Pool._worker

    def worker(pool: decodepool._Pool) -> decodepool._Worker:
        if pool is decodepool._Pool.of_this_process(nvimagecodec.NAME):
            raise OSError("no memory")
        return real(pool)

    monkeypatch.setattr(decodepool._Pool, "_worker", worker)
    found = [read() for _ in range(4)]
    assert {image.decoder for image in found} == {CPU["jpeg2k"]}
    assert "which is not to be had" in " ".join(said_by(*found))
    assert not decodepool.in_process()


def test_without_the_package_nothing_is_looked_at(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nvimagecodec, "is_installed", lambda: False)
    monkeypatch.setattr(gpudecode, "lossless_coding", lambda *_: pytest.fail("a header was read"))
    ds = compressed(PIXELS, 12, uid.JPEG2000Lossless, frame())
    assert load_radiograph(write(ds, tmp_path / "image")).decoder == CPU["jpeg2k"]


def test_an_uncompressed_image_does_not_ask_for_it(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nvimagecodec, "is_installed", lambda: pytest.fail("it was asked for"))
    assert load_radiograph(write(radiograph_dataset(), tmp_path / "image")).decoder == "none"


@pytest.mark.parametrize("what", ["slow-start", "hang any images", ""])
def test_a_process_may_end_meanwhile(wrong, tmp_path: Path, what: str) -> None:
    wrong.write_text(what, encoding="utf-8")
    path = write(compressed(PIXELS, 12, uid.JPEG2000Lossless, frame()), tmp_path / "image")
    code = (
        f"import sys; sys.path.insert(0, {str(DOUBLE)!r})\n"
        "from spinescore.runtime.reading import nvimagecodec\n"
        "nvimagecodec.driver_is_here = lambda: True\n"
        "from spinescore.runtime.dicom import load_radiograph\n"
        f"print(load_radiograph({str(path)!r}).decoder)"
    )
    ended = subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", code], capture_output=True, timeout=60)
    assert (ended.returncode, ended.stdout.decode().strip(), ended.stderr) == (0, CPU["jpeg2k"], b"")


def test_codings() -> None:
    coding = codestreams.lossless_coding
    upside_down = PIXELS[::-1].copy()
    for family, syntax in SYNTAX.items():
        assert coding(frame(family), syntax) == coding(frame(family, upside_down), syntax) is not None
        assert coding(frame(family), syntax) != coding(frame(family, picture(16, rows=64, columns=80), 16), syntax)
        for cut in range(120):
            coding(frame(family)[:cut], syntax)  # raises nothing
    jpeg = frame("jpeg")
    assert coding(jpeg, SYNTAX["jpeg"]) != coding(frame("jpeg", predictor=5), SYNTAX["jpeg"])
    sof, dht = jpeg.index(b"\xff\xc3"), jpeg.index(b"\xff\xc4")
    assert sof < dht
    end = dht + 2 + int.from_bytes(jpeg[dht + 2 : dht + 4], "big")
    tables_first = jpeg[:sof] + jpeg[dht:end] + jpeg[sof:dht] + jpeg[end:]
    np.testing.assert_array_equal(imagecodecs.jpeg8_decode(tables_first), PIXELS)
    assert coding(tables_first, SYNTAX["jpeg"]) not in (None, coding(jpeg, SYNTAX["jpeg"]))
    comment = b"\xff\xfe\x00\x06kept"
    assert coding(jpeg[:2] + comment + jpeg[2:], SYNTAX["jpeg"]) == coding(jpeg, SYNTAX["jpeg"])


def finding() -> doctor.Finding:
    return next(found for found in doctor.examine() if found.name == "nvImageCodec")


def test_doctor(monkeypatch, wrong) -> None:
    assert finding().state == "ok"
    assert "decodes JPEG lossless, JPEG 2000 lossless" in finding().detail
    wrong.write_text("one jpeg", encoding="utf-8")
    assert "decodes JPEG 2000 lossless" in finding().detail
    assert "not JPEG lossless (8 bits: 1 of 61103 pixels of a sample are wrong)" in finding().detail
    wrong.write_text("abort", encoding="utf-8")
    found = finding()
    assert found.state == "absent"
    assert "made the decoder crash" in found.detail
    monkeypatch.setattr(nvimagecodec, "driver_is_here", lambda: False)
    assert (finding().state, finding().detail.split(", ")[1]) == ("absent", "not used: no NVIDIA driver")


def test_doctor_without_it(monkeypatch) -> None:
    monkeypatch.setattr(nvimagecodec, "is_installed", lambda: False)
    assert (finding().state, finding().detail, finding().fix) == ("absent", "not installed", "")


def test_one_at_a_time(wrong, read) -> None:
    """While one image is compared, others are read and not kept."""
    referee = gpudecode._Referee.of_this_process()
    with referee._turn:
        coded = frame()
        format_ = decoders.PixelFormat(64, 80, 16, 12, 11, False, "MONOCHROME2")
        for _ in range(3):
            offer = gpudecode.offer(coded, format_, uid.JPEG2000Lossless)
            assert offer is not None
            offer.compare(PIXELS, 1e9)
        assert referee.thread is not None
    gpudecode.wait()
    assert [standing.same for standing in referee.standings.values()] == [1]
