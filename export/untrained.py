"""The manifest of networks that are still to be trained, from the manifest file alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from spinescore.export.defaults import InputSize, contract, input_size, named_in_faults, read_overrides
from spinescore.runtime.errors import BundleError
from spinescore.runtime.manifest import CLASSES, HEAD_OUTPUTS, SCHEMA, Manifest
from spinescore.runtime.study import REGIONS

if TYPE_CHECKING:
    from spinescore.export.sources import Network

__all__ = ["untrained_manifest"]

Document = dict[str, Any]

_JOINTS = 12
_NO_FILE = "untrained.fp32.onnx"


def _untrained(size: InputSize, outputs: int) -> Network:
    """Return the attributes of a network that decide its input."""
    channels, preprocessing = size.channels or 3, size.preprocessing or "imagenet"
    facts = SimpleNamespace(size=size, outputs=outputs, channels=channels, preprocessing=preprocessing, tensors={})
    return cast("Network", facts)


def untrained_manifest(path: Path) -> Manifest:
    """Return the manifest that an export with this file would write, as far as the networks' inputs go.

    Fields that the TOML or JSON file leaves out have the exporter's defaults. The files of the networks do not exist.
    Raises `BundleError` for a field that is not known or not valid.
    """
    overrides = read_overrides(path)
    with named_in_faults(path):
        head = _head(overrides)
        localizer = _untrained(input_size(overrides, "localizer"), _JOINTS)
        grader = _untrained(input_size(overrides, "grader"), next(iter(HEAD_OUTPUTS[head].values())))
        document = contract(dict.fromkeys(REGIONS, localizer), head, grader, overrides)
        document["grader"].pop("classes", None)  # the order of outputs changes no input
        return Manifest.from_dict(_with_files(document, head))


def _head(overrides: Document) -> str:
    """Return the head that the file states, or that its `grader.classes` implies; else the usual one."""
    grader = overrides.get("grader", {})
    head = grader.get("head")
    if head is not None:
        if not isinstance(head, str) or head not in HEAD_OUTPUTS:
            raise BundleError(f"grader.head is {head!r}; known are {', '.join(HEAD_OUTPUTS)}")
        return head
    classes = grader.get("classes", {})
    if isinstance(classes, dict) and {"bridge", "grades"} & set(classes):
        return "bridge+grades"
    one_corner = isinstance(classes, dict) and len(classes.get("corners", ())) == len(CLASSES[4])
    return "corner4" if one_corner else "corners4"


def _with_files(document: Document, head: str) -> Document:
    """Return the document with a file for every network, so that it reads as a bundle's manifest."""
    files = {"fp32": _NO_FILE}
    return {
        **document,
        "schema": SCHEMA,
        "name": document.get("name", "untrained"),
        "localizer": {**document["localizer"], "files": dict.fromkeys(REGIONS, files)},
        "grader": {**document["grader"], "files": dict.fromkeys(HEAD_OUTPUTS[head], files)},
        "golden": {},
        "files": {_NO_FILE: {"sha256": "0" * 64, "bytes": 0, "precision": "fp32"}},
    }
