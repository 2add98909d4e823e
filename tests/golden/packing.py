"""The archives of this folder: files that frameworks wrote, in one tar file for each script, compressed by xz.

The files of one script share names and values, so that together they take half the bytes.
"""

from __future__ import annotations

import io
import lzma
import tarfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FOLDER = Path(__file__).parent


@cache
def contents(archive: str) -> Mapping[str, bytes]:
    """Return the files of an archive by name."""
    packed = lzma.decompress((FOLDER / f"{archive}.tar.xz").read_bytes())
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def pack(archive: str, folder: Path) -> None:
    """Write the archive of all files in `folder`, those with the same ending beside each other."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(folder.iterdir(), key=lambda path: (path.suffix, path.name)):
            member = tarfile.TarInfo(path.name)  # without time and owner
            member.size = path.stat().st_size
            tar.addfile(member, io.BytesIO(path.read_bytes()))
    data = lzma.compress(packed.getvalue(), preset=9 | lzma.PRESET_EXTREME)
    (FOLDER / f"{archive}.tar.xz").write_bytes(data)
    print(f"{archive}.tar.xz: {len(data)} bytes")


def in_steps(outputs: NDArray[np.float32], step_of_range: float = 2e-5) -> NDArray[np.float32]:
    """Return outputs in steps of at most that part of their range, which compress; tests allow 1e-4."""
    step = 2.0 ** np.floor(np.log2(step_of_range * np.ptp(outputs)))
    return (np.rint(outputs / step) * step).astype(np.float32)
