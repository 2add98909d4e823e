"""Shared by all readers of weights: bytes from anywhere become float32 arrays, or an error that names the entry.

A reader checks a declared size against the bytes in the file before it takes memory. All readers work on the file's
bytes, which are read once and hashed, and never open the file again.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.errors import CheckpointError
from spinescore.runtime.files import read_bytes

__all__ = [
    "MAX_DIMENSIONS",
    "Zip",
    "array_from",
    "as_float32",
    "check_shape",
    "check_total",
    "is_kernel",
    "naming",
    "read_file",
    "read_npy",
]

MAX_DIMENSIONS = 8
MAX_INFLATION = 16  # weights hardly compress; an archive that inflates more than this as a whole is a bomb
INFLATION_FLOOR = 1 << 20
MAX_ENTRIES = 100_000  # a network has some thousand tensors
_ENTRY = b"PK\x01\x02"  # opens an entry of a zip archive's directory


def check_shape(entry: str, shape: Sequence[object], itemsize: int, available: int) -> tuple[int, ...]:
    """Return the shape as integers. Raises CheckpointError if it is impossible or needs more bytes than `available`."""
    dims = [dim for dim in shape if isinstance(dim, int) and not isinstance(dim, bool) and dim >= 0]
    if len(dims) != len(shape) or len(dims) > MAX_DIMENSIONS:
        raise CheckpointError(f"entry {entry!r} declares the shape {_short(shape)}, which no tensor can have")
    if prod(dims) * itemsize > available:
        raise CheckpointError(
            f"entry {entry!r} declares the shape {_short(shape)} ({itemsize} bytes an element), but only {available} "
            "bytes are there; the file is truncated or damaged, get it again"
        )
    return tuple(dims)


def check_total(sizes: dict[str, int], file_bytes: int) -> None:
    """Check that the entries together are no larger than the file, in which they lie side by side. Sizes in bytes."""
    if sum(sizes.values()) > file_bytes:
        largest = max(sizes, key=lambda entry: sizes[entry])
        raise CheckpointError(
            f"the entries declare {sum(sizes.values())} bytes together (the largest is {largest!r}), but the file has "
            f"{file_bytes}; entries overlap or the file is damaged"
        )


def array_from(raw: bytes | memoryview, dtype: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
    """Return an array over `raw` without a copy; bfloat16, which NumPy lacks, becomes a new float32 array."""
    if dtype in ("bfloat16", ">bfloat16"):
        bits = np.frombuffer(raw, "<u2" if dtype == "bfloat16" else ">u2", prod(shape)).astype(np.uint32)
        return (bits << 16).view(np.float32).reshape(shape)
    return np.frombuffer(raw, np.dtype(dtype), prod(shape)).reshape(shape)


def is_kernel(entry: str) -> bool:
    """Return whether an entry has the name of a layer's weights."""
    return re.search(r"(^|[./])(weight|kernel)$", entry) is not None


def as_float32(entry: str, array: NDArray[np.generic]) -> NDArray[np.float32] | None:
    """Return the array as float32 in C order; None for integers and booleans, which count steps and are no weights.

    Raises CheckpointError for kernels of integers, for other kinds of numbers, for values that are not finite and for
    float64 values that float32 cannot hold.
    """
    if array.dtype.kind in "iub":
        if array.ndim > 1 and is_kernel(entry):
            raise CheckpointError(
                f"entry {entry!r} holds whole numbers ({array.dtype}), as quantised weights do; give the weights from "
                "before the quantisation (the export quantises them with --int8)"
            )
        return None
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise CheckpointError(f"entry {entry!r} holds numbers of type {array.dtype}; save it as float32")
    if not np.isfinite(array).all():
        raise CheckpointError(
            f"entry {entry!r} holds values that are not finite; the training diverged or it is damaged"
        )
    with np.errstate(over="ignore", under="ignore"):
        result = np.array(array, np.float32, order="C")
    if not np.isfinite(result).all():
        raise CheckpointError(
            f"entry {entry!r} holds values that float32 cannot (beyond 3.4e38), so it is not exported"
        )
    return result


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Put `name` and a colon before the message of every CheckpointError that is raised inside."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}" if name else str(error)) from error.__cause__


def read_file(path: Path, most: int, remedy: str) -> bytes:
    """Return the bytes of a regular file of at most `most` bytes. Raises CheckpointError, which ends with `remedy`."""
    try:
        size, plain = path.stat().st_size, path.is_file()
        if plain and size <= most:
            return read_bytes(path, most)
        fault = f"has {size} bytes, more than {most >> 20} MiB" if plain else "is no file"
    except OSError as error:
        fault = f"cannot be read: {error.strerror or error}"
    raise CheckpointError(f"{path.name} {fault}; {remedy}")


def read_npy(entry: str, content: bytes, kinds: str, remedy: str) -> NDArray[Any]:
    """Return the array in an .npy file (numpy/lib/_format_impl.py).

    Raises CheckpointError, which ends with `remedy`, for a damaged header and for a type whose kind is none of `kinds`:
    arrays of objects are pickles.
    """
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except (ValueError, SyntaxError, RecursionError, MemoryError, OverflowError) as error:
        raise CheckpointError(f"entry {entry!r} has a damaged header ({str(error)[:100]}); {remedy}") from None
    if dtype.kind not in kinds or not dtype.itemsize:
        what = "is pickled, and would run code when loaded" if dtype.hasobject else f"holds {dtype}, which is not read"
        raise CheckpointError(f"entry {entry!r} {what}; {remedy}")
    raw = stream.getbuffer()[stream.tell() :]
    shape = check_shape(entry, shape, dtype.itemsize, len(raw))
    array = np.frombuffer(raw, dtype, prod(shape))
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


class Zip:
    """A zip archive in memory: no name twice, and no more inflated bytes than the file's size allows."""

    def __init__(self, data: bytes) -> None:
        if data.count(_ENTRY) > MAX_ENTRIES:
            raise CheckpointError(f"the zip archive has more than {MAX_ENTRIES} entries; save the weights alone")
        try:
            self._file = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise CheckpointError(f"the zip archive is truncated or damaged ({error}); get the file again") from None
        self.entries: dict[str, zipfile.ZipInfo] = {}
        for info in self._file.infolist():
            if info.filename in self.entries:
                raise CheckpointError(f"entry {info.filename!r} stands twice in the archive; it is damaged or forged")
            if info.flag_bits & 0x1:
                raise CheckpointError(f"entry {info.filename!r} is encrypted; save the file without a password")
            self.entries[info.filename] = info
        total = sum(info.file_size for info in self.entries.values())
        if total > MAX_INFLATION * len(data) + INFLATION_FLOOR:
            raise CheckpointError(
                f"the zip archive has {len(data)} bytes and says that it inflates to {total}; no set of weights "
                "compresses so well, it is refused as a zip bomb"
            )

    def read(self, name: str) -> bytes:
        """Return the entry's bytes, checked against its declared size and checksum."""
        info = self.entries[name]
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise CheckpointError(f"entry {name!r} is packed by method {info.compress_type}; save it unpacked")
        try:
            with self._file.open(info) as stream:
                content = stream.read(info.file_size) if info.file_size else b""  # a bound, unlike read()
        except Exception as error:  # zlib, struct and zipfile raise errors of their own, all for a damaged entry
            raise CheckpointError(f"entry {name!r} is truncated or damaged ({error}); get the file again") from None
        if len(content) != info.file_size:
            raise CheckpointError(f"entry {name!r} has {len(content)} of {info.file_size} bytes; get the file again")
        return content


def _short(shape: Sequence[object]) -> str:
    text = str(tuple(shape)[:MAX_DIMENSIONS])
    return text if len(text) < 100 else text[:100] + " .."
