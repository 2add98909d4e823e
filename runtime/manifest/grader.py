"""The grader of a bundle as the manifest describes it: its networks, their input and outputs, and its thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from spinescore.runtime.fields import OPTIONAL, Keys, OneOf, Within, Without, check_keys, dotted
from spinescore.runtime.manifest.files import Files
from spinescore.runtime.manifest.inputs import Contrast, NetworkInput, Share

__all__ = ["CLASSES", "HEAD_OUTPUTS", "Crop", "Grader"]

# The networks of each grader head, and each network's number of logits.
HEAD_OUTPUTS: dict[str, dict[str, int]] = {
    "corners4": {"corners": 8},
    "corner4": {"corners": 4},
    "bridge+grades": {"bridge": 2, "grades": 3},
}

# The meaning of a network's outputs, in order, by their number. An export brings any other order to this one.
CLASSES: dict[int, tuple[str, ...]] = {
    8: tuple(f"{corner}-{grade}" for corner in ("upper", "lower") for grade in range(4)),
    4: ("0", "1", "2", "3"),
    3: ("0", "1", "2"),
    2: ("no-bridge", "bridge"),
}

_ByNetwork = Keys("corners", "bridge", "grades", least=0)  # the head decides which of them are required


@dataclass(frozen=True)
class Crop:
    """A square crop: its side is `extent` times the unit; the disc's anterior end is on the side `anterior`."""

    unit: Literal["anterior-distance", "disc-spacing"]
    extent: Annotated[float, Within(0.1, 100.0)]
    anterior: Literal["left", "right"]


@dataclass(frozen=True)
class Grader:
    """The grader. `files` and `classes` are by network: `corners`, or `bridge` and `grades`.

    `classes` is None in older bundles, which lack the field; their outputs are in the order of `CLASSES`.
    """

    files: Annotated[Mapping[str, Files], _ByNetwork]
    input: Annotated[NetworkInput, Without(fit=None)]
    contrast: Contrast
    crop: Crop
    head: Annotated[Literal["corners4", "corner4", "bridge+grades"], OneOf(*HEAD_OUTPUTS)]
    bridge_threshold: Share
    abstain_below: Share
    classes: Annotated[Mapping[str, tuple[str, ...]] | None, _ByNetwork, OPTIONAL] = None

    def _check_fields(self, path: str) -> None:
        outputs = HEAD_OUTPUTS[self.head]
        check_keys(self.files, outputs, dotted(path, "files"))
        if self.classes is not None:
            check_keys(self.classes, outputs, dotted(path, "classes"))
            for network, count in outputs.items():
                if self.classes[network] != CLASSES[count]:
                    raise ValueError(
                        f"{dotted(path, 'classes')}.{network}: a bundle's outputs are in the order "
                        f"{', '.join(CLASSES[count])}; export the network again with its own order, which is brought "
                        "to this one"
                    )
        if self.bridge_threshold == 0:
            raise ValueError(
                f"{dotted(path, 'bridge_threshold')}: with 0 every disc is a bridge, whatever it shows; give the mean "
                "probability from which a disc is one, 0.5 for example"
            )
        if self.input.height != self.input.width:
            raise ValueError(f"{dotted(path, 'input')}: crops are square, so height and width must be equal")
