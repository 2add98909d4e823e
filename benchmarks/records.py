"""Records of measurements as JSON: printed, and kept in a file if one is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spinescore.runtime.files import write_atomic

__all__ = ["publish"]


def publish(record: Mapping[str, Any], out: Path | None) -> None:
    """Print the record, and write it to `out` first if that is given. Raises `OSError` if it cannot be written."""
    text = json.dumps(record, indent=1) + "\n"
    if out:
        write_atomic(out, text)
    print(text, end="")
