"""The files of a bundle as its manifest lists them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from spinescore.runtime.fields import Keys, OneOf, Within, dotted

__all__ = ["PRECISIONS", "FileEntry", "Files", "Precision"]

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

Files = Annotated[Mapping[str, str], Keys(*PRECISIONS, least=1)]  # precision -> path, of one network


@dataclass(frozen=True)
class FileEntry:
    """One file: its SHA-256, its size, and for a network its precision."""

    sha256: str
    bytes: Annotated[int, Within(0, 2**40)]
    precision: Annotated[Precision | None, OneOf(None, *PRECISIONS)]

    def _check_fields(self, path: str) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"{dotted(path, 'sha256')}: expected 64 hexadecimal digits in lower case")
