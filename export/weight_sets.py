"""Chooses the tensors of a file that are the network, by the names of HRNet and torchvision's ResNet.

A training leaves more in a file than the network: averaged weights beside the last ones, an optimizer, and a wrapper's
prefix before each name (`module.`, `model.`, `_orig_mod.`). A set of weights is all tensors under one such prefix. If
exactly one set has an architecture's names, it is the network. If several have them, the user names one by
`FILE:key`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.errors import CheckpointError

__all__ = ["Architecture", "Chosen", "Entry", "Loader", "Tensors", "choose_weights", "of_training"]

Architecture = Literal["hrnet", "resnet"]
Tensors = dict[str, NDArray[np.float32]]

_ANCHOR = "layer1.0.conv1.weight"  # every HRNet and ResNet has it once
_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_CONV_NORM = rf"(0\.weight|1\.{_NORM})"
_BLOCK = rf"(conv[123]\.weight|bn[123]\.{_NORM}|downsample\.{_CONV_NORM})"
_NAMES: dict[Architecture, re.Pattern[str]] = {
    "hrnet": re.compile(
        rf"conv[12]\.weight|bn[12]\.{_NORM}|layer1\.\d+\.{_BLOCK}|stage\d\.\d+\.branches\.\d\.\d+\.{_BLOCK}"
        rf"|(transition\d\.\d|stage\d\.\d+\.fuse_layers\.\d\.\d)\.(\d\.)?{_CONV_NORM}|final_layer\.(weight|bias)"
    ),
    "resnet": re.compile(rf"conv1\.weight|bn1\.{_NORM}|layer\d\.\d+\.{_BLOCK}|fc\.(\d+\.)?(weight|bias)"),
}
_NEEDED: dict[Architecture, tuple[str, ...]] = {
    "hrnet": (r"conv1\.weight", r"conv2\.weight", r"stage2\.0\.branches\.0\.0\.conv1\.weight", r"final_layer\.weight"),
    "resnet": (r"conv1\.weight", r"bn1\.running_var", r"layer2\.0\.conv1\.weight", r"fc\.(\d+\.)?weight"),
}
# OpenMMLab's names for the same tensors, after a common prefix: mmpose 1.x, mmpose 0.x, mmpretrain.
_OPENMMLAB = (
    ("backbone.", ""),
    ("head.final_layer.", "final_layer."),
    ("keypoint_head.final_layer.", "final_layer."),
    ("head.fc.", "fc."),
)
# Containers that hold no network.
_TRAINING = re.compile(r"optim|sched|scaler|callbacks|loops|message_hub|rng", re.IGNORECASE)
_PACKED = "_packed_params"  # a quantised layer's tensors, one level deeper
_TOP = "."
_MOST_SETS = 32
_SHOWN = 5


@dataclass(frozen=True)
class Entry:
    """One tensor of a file before its values are read. `value` belongs to the reader of the file.

    `container` are the keys of the dictionaries around it, joined by dots; `shape` is None if it is no plain tensor.
    """

    container: str
    name: str
    shape: tuple[int, ...] | None
    floats: bool
    value: object

    @property
    def full(self) -> str:
        return f"{self.container}.{self.name}" if self.container else self.name


Loader = Callable[[dict[str, Entry]], Tensors]


@dataclass(frozen=True)
class Chosen:
    """The network's tensors by the architecture's names, their key in the file, and notes for the user."""

    tensors: Tensors
    key: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Set:
    """One set of weights: entries by the architecture's names; `beside` are other entries of the same dictionary."""

    key: str
    container: str
    entries: dict[str, Entry]
    beside: tuple[str, ...] = ()
    openmmlab: bool = False

    def fits(self, architecture: Architecture) -> bool:
        names = [name for name, entry in self.entries.items() if entry.floats]
        pattern = _NAMES[architecture]
        return all(pattern.fullmatch(name) for name in names) and all(
            any(re.fullmatch(needed, name) for name in names) for needed in _NEEDED[architecture]
        )

    def same_as(self, other: _Set, load: Loader) -> bool:
        """Return whether both hold the same values, as `state_dict` and `best_state_dict` of the official HRNet."""
        values, others_values = ({n: e.value for n, e in one.entries.items()} for one in (self, other))
        if values == others_values:
            return True
        shapes, others = ({n: e.shape for n, e in one.entries.items() if e.floats} for one in (self, other))
        if shapes != others:
            return False
        ours, theirs = load(self.entries), load(other.entries)
        return all(np.array_equal(ours[name], theirs[name]) for name in ours)


def choose_weights(
    entries: Sequence[Entry], load: Loader, key: str = "", architecture: Architecture | None = None
) -> Chosen:
    """Return the network among `entries`: the set under `key` ("." is the top), of `architecture` (None: either).

    Raises CheckpointError, which names every set of weights, if more than one is possible.
    """
    if key == _TOP:
        inside, key = [entry for entry in entries if not entry.container], ""
    else:
        inside = [entry for entry in entries if not key or f"{entry.full}.".startswith(f"{key}.")]
    if not inside:
        raise CheckpointError(f"no tensor stands under {key!r}; tensors stand under {_listed(_containers(entries))}")
    sets = _anchored(inside, key)
    fitting = [one for one in sets if any(one.fits(which) for which in ((architecture,) if architecture else _NAMES))]
    pool = fitting or sets or _by_container(inside, key)
    chosen = pool[0]
    different = [one for one in pool[1:] if not one.same_as(chosen, load)]
    if different:
        keys = [one.key or _TOP for one in (chosen, *different)]
        fault = "fit the architecture and differ" if fitting else "do not fit the architecture"
        name = f"Name the one to read after the file, as FILE:{keys[-1]}"
        raise CheckpointError(f"{len(keys)} sets of weights {fault}: {_listed(keys)}. {name}")
    beside = [name for name in chosen.beside if not any(_within(name, one.key) for one in pool)]
    if beside:
        raise CheckpointError(
            f"beside the weights under {chosen.key!r} stand {_listed(beside)}, which have no place in the "
            f"network. If it does not use them, name its weights: FILE:{chosen.key}. If it does (a second head, a "
            "layer in front or behind), export it to ONNX and give that file"
        )
    if not key and (unnamed := _copy_without_names(chosen, entries)):
        raise CheckpointError(
            f"beside the weights under {chosen.key or _TOP!r} stands a list of the same shapes without names, "
            f"{unnamed!r}; probably their average (EMA). If the average was evaluated, copy it into the model and save "
            f"model.state_dict(); else name the weights: FILE:{chosen.key or _TOP}"
        )
    return Chosen(load(chosen.entries), chosen.key, tuple(_notes(chosen, pool, entries)))


def _copy_without_names(chosen: _Set, entries: Iterable[Entry]) -> str:
    """Return the list, if there is one, with a tensor for each tensor of the network, or for each that is trained."""
    lists: dict[str, list[tuple[int, ...] | None]] = {}
    for entry in (entry for entry in entries if entry.name.isdecimal()):
        lists.setdefault(entry.container, []).append(entry.shape)
    floats = {name: entry.shape for name, entry in chosen.entries.items() if entry.floats}
    sets = [list(floats.values()), [shape for name, shape in floats.items() if "running_" not in name]]
    return next((container for container, shapes in lists.items() if shapes in sets), "")


def _anchored(entries: Sequence[Entry], key: str) -> list[_Set]:
    """Return the sets around every tensor with the name that each HRNet and ResNet has once."""
    anchors = [entry for entry in entries if f".{entry.full}".endswith(f".{_ANCHOR}")]
    keys = [anchor.full.removesuffix(_ANCHOR).rstrip(".") for anchor in anchors]
    if len(anchors) > _MOST_SETS:
        raise CheckpointError(
            f"the file holds {len(anchors)} sets of weights, the first under {keys[0]!r}; name one, as FILE:{keys[0]}"
        )
    return [_set_at(at, anchor.container, entries, key) for at, anchor in zip(keys, anchors, strict=True)]


def _set_at(at: str, container: str, entries: Sequence[Entry], key: str) -> _Set:
    """Return the set under the key `at`, whose anchor is in the dictionary `container`."""
    near = [entry for entry in entries if entry.container == container or _PACKED in entry.full]
    openmmlab = False
    if f".{at}".endswith(".backbone"):
        outer = at[: -len("backbone")].rstrip(".")
        around = near if _within(at, container) else [e for e in entries if not of_training(e.container)]
        renamed = {_official(name) for name in _under(outer, around)}
        openmmlab = any(name.startswith(("final_layer.", "fc.")) for name in renamed)
        at, near = (outer, around) if openmmlab else (at, near)
    inside = _under(at, near)
    named_deeper = len(key) > len(container) and _within(key, container)
    same = [] if named_deeper else [entry for entry in entries if entry.container == container and entry.floats]
    beside = tuple(entry.full for entry in same if not _within(entry.full, at))
    names = {_official(name): entry for name, entry in inside.items()} if openmmlab else inside
    return _Set(at, container, names if len(names) == len(inside) else inside, beside, openmmlab)


def _under(key: str, entries: Sequence[Entry]) -> dict[str, Entry]:
    start = len(key) + 1 if key else 0
    return {entry.full[start:]: entry for entry in entries if _within(entry.full, key)}


def _within(name: str, key: str) -> bool:
    return not key or name.startswith(f"{key}.")


def _official(name: str) -> str:
    """Return the official name of an OpenMMLab tensor."""
    for theirs, official in _OPENMMLAB:
        if name.startswith(theirs):
            return official + name.removeprefix(theirs)
    return name


def _by_container(entries: Sequence[Entry], key: str) -> list[_Set]:
    """Return a set for each dictionary with tensors, for files without known names. A training's own are left out."""
    if key:
        return [_Set(key, key, _without_module({name: e for name, e in _under(key, entries).items() if name}))]
    groups: dict[str, dict[str, Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.container, {})[entry.name] = entry
    kept = {name: group for name, group in groups.items() if not of_training(name)} or groups
    weights = {name: group for name, group in kept.items() if any(map(_is_kernel, group.values()))}
    floats = {name: group for name, group in kept.items() if any(entry.floats for entry in group.values())}
    return [_Set(name, name, _without_module(group)) for name, group in (weights or floats or kept).items()]


def _is_kernel(entry: Entry) -> bool:
    return entry.floats and entry.shape is not None and len(entry.shape) > 1


def of_training(container: str) -> bool:
    """Return whether a container belongs to the training alone, as an optimizer's state."""
    return _TRAINING.search(container.split(".")[0]) is not None


def _without_module(group: dict[str, Entry]) -> dict[str, Entry]:
    """Return the names without the `module.` that torch.nn.DataParallel puts before all of them."""
    while group and all(name.startswith("module.") for name in group):
        group = {name.removeprefix("module."): entry for name, entry in group.items()}
    return group


def _notes(chosen: _Set, pool: Sequence[_Set], entries: Sequence[Entry]) -> Iterable[str]:
    prefix = chosen.key.removeprefix(chosen.container).lstrip(".")
    if prefix:
        yield f"the beginning {prefix + '.'!r} was taken off the names of its {len(chosen.entries)} tensors"
    if chosen.openmmlab:
        yield "its names (backbone.*, head.*) are OpenMMLab's and were brought to the official ones"
    same = [one.key for one in pool[1:]]
    if same:
        yield f"the weights under {_listed(same)} are the same as those under {chosen.key!r}, which were taken"
    taken = {chosen.key, *(one.container for one in pool)}
    others = [name for name in _containers(filter(_is_kernel, entries)) if name not in taken]
    others = [name for name in others if not _within(f"{name}.", chosen.key) and not of_training(name)]
    if others:
        yield f"the weights under {chosen.key!r} were taken; other tensors stand under {_listed(others)}"


def _containers(entries: Iterable[Entry]) -> list[str]:
    """Return the dictionaries that hold floating-point tensors."""
    return list(dict.fromkeys(entry.container for entry in entries if entry.floats))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:100]) if name else "the top of the file" for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
