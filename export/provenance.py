"""The records of networks in a bundle's provenance: sources, checks, and agreement in other precisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from spinescore.export.assumptions import assumed_of
from spinescore.export.sources import Network
from spinescore.export.trial import Trial
from spinescore.runtime.acceptance.comparison import PointAgreement
from spinescore.runtime.engines.half import HalfReport

__all__ = ["network_records"]

Document = dict[str, Any]


def network_records(
    trials: Sequence[Trial], beside: Mapping[str, PointAgreement], document: Document, overrides: Document
) -> Document:
    """Return a record of each network; `beside` compares alternatives with the bundle's own localizer.

    `document` is the manifest as it will be written, `overrides` are the fields that the owner's manifest file sets.
    """
    records = {}
    for trial in trials:
        network = trial.network
        entry = {**network.provenance, "changes": [*network.notes, *network.warnings]}
        if trial.half is not None:
            entry["half_precision"] = {"fault": trial.half.fault}
            if trial.half.weights is not None and trial.half.largest_activation is not None:
                entry["half_precision"] |= _counts(trial.half.weights)
                entry["half_precision"]["largest_activation"] = asdict(trial.half.largest_activation)
        if trial.int8 is not None:
            entry["int8"] = {"fault": trial.int8.fault, "steps": [asdict(step) for step in trial.int8.steps]}
        if network.stem in beside:
            entry["beside_localizer"] = asdict(beside[network.stem])
        records[network.stem] = entry | _trust(network, document, overrides)
    return records


def _trust(network: Network, document: Document, overrides: Document) -> Document:
    """Return the network's check and the export's assumptions; nothing for random weights."""
    if network.tensors:
        return {}
    checked = {} if network.checked is None else {"checked": network.checked}
    return {**checked, "assumed": assumed_of(network, document, overrides)}


def _counts(report: HalfReport) -> Document:
    lost = {"overflowed": report.overflowed, "flushed": report.flushed, "subnormal": report.subnormal}
    counts = {name: sum(layer.count for layer in layers) for name, layers in lost.items()}
    return {"largest_weight": asdict(report.largest_weight), **counts}
