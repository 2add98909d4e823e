"""Leaves in `appliance.txt` only the hashes of wheels for its platforms, which are a fifth of those that uv writes.

    python -m spinescore.requirements.trim requirements/appliance.txt

The files of each package are looked up at the index whose address is in PIP_INDEX_URL, or at PyPI (PEP 691).
"""

from __future__ import annotations

import json
import os
import re
import sys
import urllib.request
from functools import cache
from pathlib import Path

from packaging.utils import parse_wheel_filename

from spinescore.runtime.appliance.shipping.wheels import Target
from spinescore.runtime.files import write_atomic

_TARGETS = [Target(35, machine, (3, minor)) for machine in ("x86_64", "aarch64") for minor in (10, 11, 12, 13)]
_TAGS = frozenset().union(*(target.tags for target in _TARGETS))
_HASH = re.compile(r" \\\n +--hash=sha256:([0-9a-f]{64})")


@cache  # a package may be pinned more than once, for versions of Python
def wheels_of(name: str) -> set[str]:
    """Return the hashes of a package's wheels for the platforms. Raises OSError if the index does not answer."""
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    accept = {"Accept": "application/vnd.pypi.simple.v1+json"}
    with urllib.request.urlopen(urllib.request.Request(f"{index}/{name}/", headers=accept), timeout=60) as answer:
        files = json.load(answer)["files"]
    wheels = [file for file in files if file["filename"].endswith(".whl")]
    return {file["hashes"]["sha256"] for file in wheels if parse_wheel_filename(file["filename"])[3] & _TAGS}


def trimmed(text: str) -> str:
    """Return the pins of `text` without the hashes of other files."""

    def pin(match: re.Match[str]) -> str:
        kept = wheels_of(match[1])
        return _HASH.sub(lambda found: found[0] if found[1] in kept else "", match[0])

    return re.sub(rf"(?m)^([a-z0-9-]+)==.*(?:{_HASH.pattern})+", pin, text)


if __name__ == "__main__":
    path = Path(sys.argv[1])
    write_atomic(path, trimmed(path.read_text(encoding="utf-8")).encode())
