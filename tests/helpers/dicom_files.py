"""DICOM files for tests, written by pydicom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from spinescore.runtime.errors import InputRejected
from spinescore.runtime.reading.studies import load_radiograph
from spinescore.runtime.study import Radiograph

ROWS, COLUMNS = 37, 51  # odd in both directions, so that padding bytes and transposed axes show


def picture(bits_stored: int = 12, signed: bool = False, rows: int = ROWS, columns: int = COLUMNS) -> np.ndarray:
    """Stored values that reach both ends of their range."""
    rng = np.random.default_rng(bits_stored + 100 * signed)
    low = -(1 << (bits_stored - 1)) if signed else 0
    ramp = np.linspace(0, (1 << bits_stored) - 1, rows * columns).reshape(rows, columns)
    noisy = np.clip(np.round(ramp + rng.normal(0, 2, ramp.shape)), 0, (1 << bits_stored) - 1)
    noisy[0, 0], noisy[-1, -1] = 0, (1 << bits_stored) - 1
    return (noisy + low).astype(f"{'i' if signed else 'u'}{1 if bits_stored <= 8 else 2}")


def radiograph_dataset(pixels: np.ndarray | None = None, bits_stored: int = 12, **tags: Any) -> Dataset:
    """A lateral cervical CR image with the given stored values; `tags` add elements, None removes one."""
    stored = picture(bits_stored) if pixels is None else pixels
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = ComputedRadiographyImageStorage
    ds.SOPInstanceUID = generate_uid(entropy_srcs=[str(sorted(tags.items(), key=str)), stored.tobytes().hex()[:4096]])
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3.4", "1.2.3.4.5"
    ds.Modality, ds.PatientID, ds.PatientName, ds.StudyDate = "CR", "P-1", "Test^Case", "20260105"
    ds.BodyPartExamined, ds.ViewPosition, ds.PixelSpacing = "CSPINE", "LL", [0.15, 0.2]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = stored.shape
    ds.BitsAllocated = stored.dtype.itemsize * 8
    ds.BitsStored, ds.HighBit = bits_stored, bits_stored - 1
    ds.PixelRepresentation = int(stored.dtype.kind == "i")
    data = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = "OW"
    for keyword, found in tags.items():
        if found is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, found)
    return ds


def write(ds: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def rejected(path: Path, **options: int) -> InputRejected:
    with pytest.raises(InputRejected) as caught:
        load_radiograph(path, **options)
    assert path.name in str(caught.value)
    assert str(path.parent) not in str(caught.value)
    return caught.value


def assert_stored(found: Radiograph, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(found.pixels, expected)
    assert found.pixels.dtype == expected.dtype.newbyteorder("=")
    assert found.pixels.flags.c_contiguous
    seen = found.table[found.pixels.astype(np.int64) - found.stored_min]
    assert seen.shape == expected.shape
    assert 0 <= seen.min() <= seen.max() <= 1


def compressed(pixels: np.ndarray, bits: int, syntax: str, frame: bytes, **tags: object) -> Dataset:
    ds = radiograph_dataset(pixels, bits, **tags)
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR = "OB"
    return ds
