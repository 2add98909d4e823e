"""The manifest of a bundle: the contract between training and runtime, as frozen dataclasses.

`Manifest.from_dict` takes a parsed JSON document. It refuses every field that is missing, unknown, of the wrong type or
out of range, and names it: nothing is guessed. Only fields that are declared `OPTIONAL` may be left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from spinescore.runtime.documents import document_of, read
from spinescore.runtime.errors import BundleError
from spinescore.runtime.fields import OPTIONAL, Keys, Within
from spinescore.runtime.manifest.files import PRECISIONS, FileEntry, Files
from spinescore.runtime.manifest.grader import CLASSES, HEAD_OUTPUTS, Crop, Grader
from spinescore.runtime.manifest.inputs import Contrast, NetworkInput
from spinescore.runtime.manifest.localizer import Alternative, Keypoint, Localizer
from spinescore.runtime.manifest.testtime import Averaging
from spinescore.runtime.manifest.tolerances import Tolerances

__all__ = [
    "CLASSES",
    "HEAD_OUTPUTS",
    "PRECISIONS",
    "SCHEMA",
    "Alternative",
    "Averaging",
    "Contrast",
    "Crop",
    "FileEntry",
    "Files",
    "Grader",
    "Keypoint",
    "Localizer",
    "Manifest",
    "NetworkInput",
    "Tolerances",
]

SCHEMA = "spinescore.bundle/1"


@dataclass(frozen=True)
class Manifest:
    """A bundle's manifest. A None in the optional fields means that the manifest does not state them."""

    name: str
    version: str
    intended_use: str
    localizer: Localizer
    grader: Grader
    golden: Annotated[Mapping[str, str], Keys("localizer", "grader", least=0)]
    files: Mapping[str, FileEntry]
    provenance: Mapping[str, Any]
    tolerances: Annotated[Tolerances | None, OPTIONAL] = None
    budget_ms: Annotated[float | None, Within(1e-3, 1e9), OPTIONAL] = None  # of a study, if the caller sets none
    smallest_detectable_change: Annotated[float | None, Within(0.0, 72.0), OPTIONAL] = None  # of the total, in units
    schema: str = SCHEMA

    @classmethod
    def from_dict(cls, document: object) -> Manifest:
        """Return the manifest of a parsed JSON document. Raises `BundleError` that names the field."""
        try:
            if isinstance(document, dict) and isinstance(schema := document.get("schema"), str) and schema != SCHEMA:
                raise ValueError(
                    f"schema: this version reads {SCHEMA}, found {schema!r}; use a newer spinescore or export again"
                )
            return read(cls, document)
        except ValueError as error:
            raise BundleError(f"The bundle's manifest is not valid: {error}.") from error

    @property
    def networks(self) -> tuple[Files, ...]:
        """The files of every network that is opened for a study, without alternative localizers."""
        return (*self.localizer.files.values(), *self.grader.files.values())

    @property
    def bounds(self) -> Tolerances:
        """The tolerances that apply: those of the manifest, or the default ones."""
        return self.tolerances or Tolerances()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document: `Manifest.from_dict(manifest.to_dict()) == manifest`."""
        document: dict[str, Any] = document_of(self)
        del document["grader"]["input"]["fit"]
        return document

    def _check_fields(self, path: str) -> None:
        """Check that `files` lists every path of a network or golden set, with the network's precision."""
        for place, files in self._network_files():
            for precision, name in files.items():
                if name not in self.files:
                    raise ValueError(f"{place}.{precision}: {name!r} is not listed in files")
                if self.files[name].precision != precision:
                    raise ValueError(f"files.{name}.precision: expected {precision}, as {place} has it")
        for role, name in self.golden.items():
            if name not in self.files:
                raise ValueError(f"golden.{role}: {name!r} is not listed in files")

    def _network_files(self) -> Iterator[tuple[str, Files]]:
        for region, files in self.localizer.files.items():
            yield f"localizer.files.{region}", files
        for number, alternative in enumerate(self.localizer.alternatives):
            for region, files in alternative.files.items():
                yield f"localizer.alternatives[{number}].files.{region}", files
        for network, files in self.grader.files.items():
            yield f"grader.files.{network}", files
