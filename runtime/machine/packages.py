"""The packages that this one uses: the extra that installs each, and the newest tested version."""

from __future__ import annotations

import re
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from typing import NamedTuple

__all__ = [
    "CUDA_BUILD",
    "PACKAGES",
    "Package",
    "installed",
    "is_importable",
    "is_newer",
    "software_version",
    "version_of",
]


# The command that replaces onnxruntime by its build for CUDA; pip would install the two into one folder.
CUDA_BUILD = "pip uninstall -y onnxruntime && pip install --force-reinstall --no-deps onnxruntime-gpu"


class Package(NamedTuple):
    """A package. `extra` installs it, None if spinescore itself does. `same` are other builds with other names."""

    tested: str
    extra: str | None = None
    same: tuple[str, ...] = ()


# By the name that pip knows. `tested` is the version in `requirements/appliance.txt`, on which the tests run.
PACKAGES: dict[str, Package] = {
    "numpy": Package("2.4.6"),
    "onnxruntime": Package("1.32.0", same=("onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")),
    "opencv-python-headless": Package(
        "5.0.0.93", same=("opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python")
    ),
    "pydicom": Package("3.0.2"),
    "imagecodecs": Package("2026.3.6", "dicom"),
    "highdicom": Package("0.28.2", "results"),
    "onnx": Package("1.23.2", "export"),
    "tqdm": Package("4.70.1", "export"),
    "openvino": Package("2026.4.1", "openvino"),
    "httptools": Package("0.9.0", "appliance"),
    "packaging": Package("26.4", "appliance"),
    "prometheus-client": Package("0.26.0", "appliance"),
    "pynacl": Package("1.6.2", "appliance"),
    "pynetdicom": Package("3.0.4", "appliance"),
    "python-multipart": Package("0.0.34", "appliance"),
    "starlette": Package("1.10.0", "appliance"),
    "uvicorn": Package("0.54.0", "appliance"),
}


@cache
def software_version() -> str:
    """Return the installed version of spinescore; `unknown` if its metadata is missing."""
    return installed("spinescore") or "unknown"


def version_of(name: str) -> str | None:
    """Return the installed version of a package; that of another build with its name; else None."""
    if version := installed(name):
        return version
    others = ((other, installed(other)) for other in PACKAGES[name].same)
    return next((f"{version} ({other})" for other, version in others if version), None)


def installed(name: str) -> str | None:
    """Return the version that pip installed under this name, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def is_importable(module: str) -> bool:
    """Return whether a package is there to import; it is not imported. A folder without code is no package."""
    spec = find_spec(module)
    return spec is not None and spec.origin is not None


def is_newer(version: str, tested: str) -> bool:
    """Whether a version is a later release than the tested one (PEP 440); marks such as rc1 or +cu13 are ignored."""
    return _release(version) > _release(tested)


def _release(version: str) -> tuple[int, ...]:
    numbers = re.match(r"v?(?:\d+!)?(\d+(?:\.\d+)*)", version)
    parts = [int(number) for number in numbers[1].split(".")] if numbers else []
    while parts and parts[-1] == 0:  # 2.4 and 2.4.0 are the same release
        parts.pop()
    return tuple(parts)
