"""Small pictures of every kind that dcmtk renders too, as functions that make a dataset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from helpers.dicom_files import compressed, picture, radiograph_dataset

PLAIN = {"WindowCenter": "1800", "WindowWidth": "1500"}
CR, DX, DX_FOR_PROCESSING, SC = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("1", "1.1", "1.1.1", "7"))
XA, RF, XA_BIPLANE = (f"1.2.840.10008.5.1.4.1.1.12.{end}" for end in (1, 2, 3))
CLASSES = {"CR": CR, "DX": DX, "DX for processing": DX_FOR_PROCESSING, "SC": SC, "XA": XA, "RF": RF, "XAB": XA_BIPLANE}


def plain(bits: int = 12, signed: bool = False, **tags: Any) -> Callable[[], Dataset]:
    return lambda: radiograph_dataset(picture(bits, signed), bits, **tags)


def of_class(name: str, **tags: Any) -> Callable[[], Dataset]:
    def made() -> Dataset:
        ds = radiograph_dataset(SOPClassUID=CLASSES[name], **tags)
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        return ds

    return made


def curve(count: int, top: int, power: float = 0.6) -> np.ndarray:
    """A curve that bends, so that a shifted, swapped or cut one shows."""
    return np.round(top * np.linspace(0, 1, count) ** power).astype(np.uint16)


def lut(count: int, first: int, bits: int, entries: np.ndarray | None = None, vr: str = "OW", descriptor: str = "US"):
    item = Dataset()
    entries = curve(count, (1 << bits) - 1) if entries is None else entries
    item.add_new("LUTDescriptor", descriptor, [count % 65536, first, bits])
    words = entries.astype("<i2" if vr == "SS" else "<u2", casting="unsafe")
    item.add_new("LUTData", vr, words.tolist() if vr in ("US", "SS") else entries.tobytes())
    return item


def with_lut(make: Callable[[], Dataset], *given: Any, sequence: str = "VOILUTSequence", **more: Any):
    def made() -> Dataset:
        ds, item = make(), lut(*given, **more)
        if sequence == "ModalityLUTSequence":
            item.ModalityLUTType = "US"
        setattr(ds, sequence, [item])
        return ds

    return made


def modality(make: Callable[[], Dataset], *given: Any, **more: Any) -> Callable[[], Dataset]:
    return with_lut(make, *given, sequence="ModalityLUTSequence", **more)


def written_as(syntax: uid.UID, make: Callable[[], Dataset]) -> Callable[[], Dataset]:
    def made() -> Dataset:
        ds = make()
        ds.file_meta.TransferSyntaxUID = syntax
        if syntax == uid.ExplicitVRBigEndian:
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
            for item in ds.get("VOILUTSequence", ()):
                item.LUTData = np.frombuffer(item.LUTData, "<u2").astype(">u2").tobytes()
        return ds

    return made


def rle(make: Callable[[], Dataset]) -> Callable[[], Dataset]:
    def made() -> Dataset:
        ds = make()
        ds.compress(uid.RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
        return ds

    return made


def coded(syntax: uid.UID, bits: int, encode: Callable[[Any, np.ndarray], bytes], words: bool = False, **tags: Any):
    """A compressed picture; with `words` all 16 bits of its words are coded, an overlay in the topmost."""

    def made() -> Dataset:
        imagecodecs = pytest.importorskip("imagecodecs", reason="these files are written with imagecodecs")
        pixels = picture(bits)
        if words:
            pixels = pixels | overlay_bit(pixels)
        return compressed(pixels, bits, syntax, encode(imagecodecs, pixels), **tags)

    return made


def overlay_bit(pixels: np.ndarray) -> np.ndarray:
    rows, columns = np.indices(pixels.shape)
    return (((rows // 4 + columns // 4) % 2) << 15).astype(np.uint16)


def with_overlay(make: Callable[[], Dataset]) -> Callable[[], Dataset]:
    def made() -> Dataset:
        ds = make()
        pixels = ds.pixel_array.copy()
        ds.PixelData = (pixels | overlay_bit(pixels)).astype("<u2").tobytes()
        return ds

    return made


def at_high_bit(high_bit: int, rubbish: bool, signed: bool = False) -> Callable[[], Dataset]:
    """12 bits anywhere in the word."""

    def made() -> Dataset:
        shift, around = high_bit - 11, np.random.default_rng(1).integers(0, 1 << 16, picture().shape).astype(np.uint16)
        kept = np.uint16(0xFFF << shift)
        words = (picture(12, signed).view(np.uint16) << shift) & kept | (around & ~kept if rubbish else 0)
        tags = {"WindowCenter": "-100", "WindowWidth": "1500"} if signed else PLAIN
        ds = radiograph_dataset(picture(12, signed), 12, HighBit=high_bit, **tags)
        ds.PixelData = words.astype("<u2").tobytes()
        return ds

    return made
