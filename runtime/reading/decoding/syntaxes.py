"""The transfer syntaxes that can be read (PS3.5, annex A): one table for reading, `doctor` and messages.

A new transfer syntax needs a row here. Its codecs are named as in reports: `imagecodecs.jpeg8` is a codec of
imagecodecs, `pylibjpeg` a plugin of pydicom. A codec of another library needs a module like `withpydicom`. For a new
family of codestreams, `codestreams` also has to read the size.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = [
    "DEFLATED",
    "EXPLICIT_BIG_ENDIAN",
    "EXPLICIT_LITTLE_ENDIAN",
    "HTJ2K",
    "IMPLICIT_LITTLE_ENDIAN",
    "JPEG",
    "JPEG_2000",
    "JPEG_LS",
    "RLE",
    "SYNTAXES",
    "UNCOMPRESSED",
    "Syntax",
    "codecs_of",
    "family_of",
]

Family = Literal["RLE", "JPEG", "JPEG-LS", "JPEG 2000", "HTJ2K"]


class Syntax(NamedTuple):
    """One compressed transfer syntax. The codecs of a family read the codestreams of all its syntaxes."""

    name: str
    family: Family
    codecs: tuple[str, ...]  # the preferred one first


IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
EXPLICIT_BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
UNCOMPRESSED = (IMPLICIT_LITTLE_ENDIAN, EXPLICIT_LITTLE_ENDIAN, EXPLICIT_BIG_ENDIAN, None)  # None: the file names none

# The fastest codec comes first (benchmarks/results/decode-epyc-*.json). A corrupt codestream must not end the process,
# so these are left out: gdcm (python-gdcm 3.2.6, every syntax; its binding lets C++ exceptions through), and dicomrle,
# ljpeg and jpegsof3 of imagecodecs 2026.3.6. jpeg8 is libjpeg-turbo, htj2k is OpenJPH.
_RLE = ("pylibjpeg", "pydicom")
_JPEG = ("imagecodecs.jpeg8",)  # 8 and 12 bits, and lossless with all predictors
_JPEG_LS = ("imagecodecs.jpegls", "pyjpegls")
_JPEG_2000 = ("imagecodecs.jpeg2k", "pylibjpeg")
_HTJ2K = ("imagecodecs.htj2k", "imagecodecs.jpeg2k", "pylibjpeg")

SYNTAXES: dict[str, Syntax] = {
    "1.2.840.10008.1.2.5": Syntax("RLE", "RLE", _RLE),
    "1.2.840.10008.1.2.4.50": Syntax("JPEG baseline", "JPEG", _JPEG),
    "1.2.840.10008.1.2.4.51": Syntax("JPEG extended", "JPEG", _JPEG),
    "1.2.840.10008.1.2.4.57": Syntax("JPEG lossless", "JPEG", _JPEG),
    "1.2.840.10008.1.2.4.70": Syntax("JPEG lossless, first-order", "JPEG", _JPEG),
    "1.2.840.10008.1.2.4.80": Syntax("JPEG-LS lossless", "JPEG-LS", _JPEG_LS),
    "1.2.840.10008.1.2.4.81": Syntax("JPEG-LS near-lossless", "JPEG-LS", _JPEG_LS),
    "1.2.840.10008.1.2.4.90": Syntax("JPEG 2000 lossless", "JPEG 2000", _JPEG_2000),
    "1.2.840.10008.1.2.4.91": Syntax("JPEG 2000", "JPEG 2000", _JPEG_2000),
    "1.2.840.10008.1.2.4.201": Syntax("HTJ2K lossless", "HTJ2K", _HTJ2K),
    "1.2.840.10008.1.2.4.202": Syntax("HTJ2K lossless, RPCL", "HTJ2K", _HTJ2K),
    "1.2.840.10008.1.2.4.203": Syntax("HTJ2K", "HTJ2K", _HTJ2K),
}


def codecs_of(uid: str) -> tuple[str, ...]:
    """Return the names of the codecs for a compressed transfer syntax, installed or not, the preferred one first."""
    return SYNTAXES[uid].codecs


def family_of(uid: str) -> tuple[str, ...]:
    """Return all transfer syntaxes of the family of `uid`; empty if the table does not have it."""
    return _members(SYNTAXES[uid].family) if uid in SYNTAXES else ()


def _members(family: Family) -> tuple[str, ...]:
    return tuple(uid for uid, syntax in SYNTAXES.items() if syntax.family == family)


(RLE,) = _members("RLE")
JPEG = _members("JPEG")
JPEG_LS = _members("JPEG-LS")
JPEG_2000 = _members("JPEG 2000")
HTJ2K = _members("HTJ2K")
