"""Opens the networks of an export, and checks that they fit together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from spinescore.export.defaults import input_size
from spinescore.export.resnet152 import Head, head_of
from spinescore.export.sources import InputSize, Kind, Network, open_network, split_sources
from spinescore.runtime.errors import CheckpointError
from spinescore.runtime.manifest.localizer import NAME_RULE, is_alternative_name

__all__ = ["open_alternatives", "open_graders", "open_localizers"]

Document = dict[str, Any]


def open_localizers(text: str, overrides: Document) -> list[Network]:
    """Open one localizer for both regions, or one for each.

    Raises `CheckpointError`, and `BundleError` for the input in `overrides`.
    """
    size = input_size(overrides, "localizer")
    networks = _open(split_sources(text, ("cervical", "lumbar")), "localizer", size)
    if len({_kind(network) for network in networks}) > 1:
        raise CheckpointError(
            f"the localizers of {text} differ in channels, heatmaps or preprocessing; both regions share one input"
        )
    return networks


def open_alternatives(texts: Sequence[str], localizers: Sequence[Network], overrides: Document) -> list[Network]:
    """Open the networks of every `NAME=F`, with `F` as for the localizer. Raises `CheckpointError`.

    They must have the same regions, input, heatmaps and preprocessing as `localizers`.
    """
    alternatives: dict[str, list[Network]] = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if not (equals and source):
            raise CheckpointError(f"the alternative {text!r} is not NAME=FILE, as w18=narrow.pth")
        if not is_alternative_name(name):
            raise CheckpointError(f"the alternative {text!r}: {NAME_RULE}")
        if name in alternatives:
            raise CheckpointError(f"two alternatives are called {name!r}; give each a name of its own")
        alternatives[name] = [replace(network, alternative=name) for network in open_localizers(source, overrides)]
        if [network.role for network in alternatives[name]] != [network.role for network in localizers]:
            raise CheckpointError(
                f"the alternative {name} must be given as the localizer is: one file, or cervical=FILE,lumbar=FILE"
            )
        if _kind(alternatives[name][0]) != _kind(localizers[0]):
            theirs, ours = (
                f"{network.channels} channels, {network.outputs} heatmaps and {network.preprocessing} preprocessing"
                for network in (alternatives[name][0], localizers[0])
            )
            raise CheckpointError(f"the alternative {name} has {theirs}, the localizer {ours}; they must answer alike")
    return [network for networks in alternatives.values() for network in networks]


def open_graders(text: str, overrides: Document) -> tuple[str, list[Network]]:
    """Return the head's name, and its networks. Raises the same errors as `open_localizers`."""
    size = input_size(overrides, "grader")
    networks = _open(split_sources(text, ("bridge", "grades")), "grader", size)
    heads = [_head(network) for network in networks]
    for network, head in zip(networks, heads, strict=True):
        fits = head in ("corners4", "corner4") if network.role == "corners" else head == network.role
        if not fits:
            role = "" if network.role == "corners" else f"{network.role}: "
            raise CheckpointError(
                f"{role}{network.provenance['source']}: has {network.outputs} outputs ({head}); a grader alone has 8 "
                "or 4, a pair bridge=FILE,grades=FILE has 2 and 3"
            )
    if len({(network.channels, network.preprocessing) for network in networks}) > 1:
        raise CheckpointError(f"the graders of {text} differ in channels or preprocessing; both see the same crops")
    return heads[0] if len(networks) == 1 else "bridge+grades", networks


def _open(sources: Mapping[str, str], kind: Kind, size: InputSize) -> list[Network]:
    return [_open_one(source, kind, role, size) for role, source in sources.items()]


def _open_one(source: str, kind: Kind, role: str, size: InputSize) -> Network:
    """Open the network of one source. An error names its role: two files may have the same name."""
    try:
        return open_network(source, kind, role or ("corners" if kind == "grader" else ""), size)
    except CheckpointError as error:
        raise CheckpointError(f"{role}: {error}" if role else str(error)) from None


def _head(network: Network) -> Head:
    try:
        return head_of(network.outputs)
    except CheckpointError as error:
        raise CheckpointError(f"{network.provenance['source']}: {error}") from None


def _kind(network: Network) -> tuple[int, int, str]:
    return network.channels, network.outputs, network.preprocessing
