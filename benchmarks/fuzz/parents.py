"""Good files to start from: a drawn spine in every transfer syntax, pictures, pydicom's test files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.fuzz.tree import Parent, parent

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["all_parents"]

Pixels = NDArray[np.unsignedinteger]

_MAX_BYTES = 2 << 20
_MAX_PYDICOM_BYTES = 64 << 10
_SCALE = 0.08  # of a phantom: some 150 rows, so that the header is a good part of the file


def all_parents(files: Iterable[Path] = ()) -> list[Parent]:
    """Return all of them in a fixed order, without large files; without imagecodecs some transfer syntaxes lack."""
    named = [(path.name, path.read_bytes()) for path in files if path.stat().st_size <= _MAX_BYTES]
    return [parent(name, data) for name, data in (*_phantoms(), *_pictures(), *_of_pydicom(), *named)]


def _of_pydicom() -> Iterator[tuple[str, bytes]]:
    import pydicom.data

    folder = Path(pydicom.data.__file__).parent
    for pattern in ("test_files/*.dcm", "test_files/dicomdirtests/DICOMDIR", "test_files/dicomdirtests/*/CR*/*",
                    "charset_files/*.dcm"):  # fmt: skip
        for path in sorted(folder.glob(pattern)):
            if path.stat().st_size <= _MAX_PYDICOM_BYTES:
                yield path.name, path.read_bytes()


def _phantoms() -> Iterator[tuple[str, bytes]]:
    from pydicom import uid
    from pydicom.encaps import encapsulate

    from spinescore.runtime.phantom import draw_view

    image = draw_view(7, "cervical", _SCALE).image
    pixels = image.pixels.astype(np.uint16)
    for syntax in (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian,
                   uid.DeflatedExplicitVRLittleEndian):  # fmt: skip
        data = pixels.astype(">u2" if syntax == uid.ExplicitVRBigEndian else "<u2").tobytes()
        yield f"phantom {syntax.name}", _written(_dataset(pixels, image.bits, syntax), data, "OW")
    rle = _dataset(pixels, image.bits, uid.ExplicitVRLittleEndian)
    rle.PixelData = pixels.astype("<u2").tobytes()
    rle.compress(uid.RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    yield "phantom RLE", _written(rle, rle.PixelData, "OB")
    few = (pixels >> max(0, image.bits - 8)).astype(np.uint8)
    for name, encode in _encoders().items():
        for shown, bits in ((few, 8), (pixels, image.bits)):
            syntax = uid.UID(f"1.2.840.10008.1.2.4.{name}")
            if (frame := encode(shown, bits)) is not None:
                yield f"phantom {syntax.name}", _written(_dataset(shown, bits, syntax), encapsulate([frame]), "OB")


def _pictures() -> Iterator[tuple[str, bytes]]:
    from cv2 import imencode

    rng = np.random.default_rng(7)
    grey = (np.linspace(0, 200, 120 * 90).reshape(120, 90) + rng.integers(0, 50, (120, 90))).astype(np.uint8)
    for name, pixels in ((".png", grey), (".png", grey.astype(np.uint16) << 8), (".png", np.dstack([grey] * 3)),
                         (".jpg", grey)):  # fmt: skip
        yield f"picture {name}", imencode(name, pixels)[1].tobytes()


def _encoders() -> dict[int, Callable[[Pixels, int], bytes | None]]:
    """Return encoders by the last number of the transfer syntax."""
    try:
        import imagecodecs as codecs
    except ImportError:
        return {}

    def lossless(x: Pixels, bits: int) -> Any:
        return codecs.jpeg8_encode(x, lossless=True, predictor=1, bitspersample=bits)

    def jpeg_2000(x: Pixels, bits: int) -> Any:
        return codecs.jpeg2k_encode(x, level=0, codecformat="j2k", reversible=True, bitspersample=bits)

    encoders: dict[int, Callable[[Pixels, int], Any]] = {
        50: lambda x, bits: codecs.jpeg8_encode(x, level=90) if bits == 8 else None,
        51: lambda x, bits: codecs.jpeg8_encode(x, level=90, bitspersample=12) if 8 < bits <= 12 else None,
        57: lossless,
        70: lossless,
        80: lambda x, bits: codecs.jpegls_encode(x),
        81: lambda x, bits: codecs.jpegls_encode(x, level=2),
        90: jpeg_2000,
        91: jpeg_2000,
    }
    if getattr(getattr(codecs, "HTJ2K", None), "available", False):
        encoders |= {201: lambda x, bits: codecs.htj2k_encode(x), 203: lambda x, bits: codecs.htj2k_encode(x)}
    return encoders


def _dataset(pixels: Pixels, bits: int, syntax: str) -> Dataset:
    """Return a lateral radiograph with all tags that the reader uses, tables included."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3.4.5.6"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.StudyDate = "1.2.3.4", "1.2.3.4.5", "20260101"
    ds.Modality, ds.PatientID, ds.PatientName, ds.IssuerOfPatientID = "DX", "P-1", "Phantom^One", "here"
    ds.BodyPartExamined, ds.ViewPosition, ds.PatientOrientation = "CSPINE", "LL", ["P", "F"]
    ds.SeriesDescription, ds.ProtocolName = "C-SPINE LATERAL", "HWS seitlich"
    ds.PixelSpacing, ds.ImagerPixelSpacing = [0.15, 0.15], [0.16, 0.16]
    ds.AnatomicRegionSequence = [_item(CodeValue="122494005", CodeMeaning="Cervical spine")]
    ds.ViewCodeSequence = [_item(CodeValue="399067008", CodeMeaning="lateral")]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME1", 0
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = pixels.dtype.itemsize * 8, bits, bits - 1
    ds.PixelPaddingValue, ds.RescaleSlope, ds.RescaleIntercept = 0, "1", "0"
    ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction = [1 << bits >> 1, 9], [1 << bits, 9], "LINEAR"
    ds.WindowCenterWidthExplanation, ds.PresentationLUTShape = ["NORMAL", "HARD"], "INVERSE"
    big = syntax == "1.2.840.10008.1.2.2"
    table = np.arange(256, dtype=">u2" if big else "<u2").tobytes()
    ds.VOILUTSequence = [_item(LUTDescriptor=[256, 0, 8], LUTData=table, LUTExplanation="NORMAL")]
    return ds


def _item(**tags: object) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    for keyword, value in tags.items():
        setattr(item, keyword, value)
    if "LUTDescriptor" in item:
        item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "OW"
    return item


def _written(ds: Dataset, data: bytes, vr: str) -> bytes:
    ds.PixelData = data
    ds["PixelData"].VR = vr
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue()
