"""Reads from a bundle's provenance how its networks were checked, and what their export took for granted.

The exporter writes it; older bundles lack it. The file may come from anywhere, so entries that do not have the expected
form count as missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spinescore.runtime.manifest import Manifest
from spinescore.runtime.notices import notice

__all__ = ["UNCHECKED_NOTE", "NetworkTrust", "trust_lines", "trust_of", "unchecked_note"]

UNCHECKED_NOTE = (
    "the bundle's networks were not checked against the framework that trained them; "
    "`spinescore bundle info` lists what their export took for granted"
)
_MOST = 20  # lines of one network's list
_LONGEST = 300  # characters of one text


@dataclass(frozen=True)
class NetworkTrust:
    """One network: its check against its framework ("" without one), and its export's assumptions."""

    name: str
    checked: str
    assumed: tuple[str, ...]

    @property
    def state(self) -> str:
        return self.checked or "not checked against the framework that trained it"

    @property
    def line(self) -> str:
        """The state and the assumptions in one line."""
        return self.state + (f"; taken for granted: {'; '.join(self.assumed)}" if self.assumed else "")


def trust_of(manifest: Manifest) -> tuple[NetworkTrust, ...]:
    """Return every network that the provenance describes, in the order of the bundle's files."""
    records = manifest.provenance.get("networks")
    records = records if isinstance(records, Mapping) else {}
    networks = []
    for name in dict.fromkeys(path.rsplit(".", 2)[0] for path in manifest.files if path.endswith(".onnx")):
        entry = records.get(name)
        if isinstance(entry, Mapping) and isinstance(entry.get("assumed"), list):
            assumed = tuple(_text(item) for item in entry["assumed"][:_MOST])
            networks.append(NetworkTrust(name, _checked(entry.get("checked")), assumed))
    return tuple(networks)


def unchecked_note(manifest: Manifest) -> tuple[str, ...]:
    """Return a report's note if a network that scores was not checked; empty if the provenance lacks it."""
    used = {path.rsplit(".", 2)[0] for files in manifest.networks for path in files.values()}
    unchecked = any(not network.checked for network in trust_of(manifest) if network.name in used)
    return (notice("networks-unchecked", UNCHECKED_NOTE),) if unchecked else ()


def trust_lines(manifest: Manifest) -> list[str]:
    """Return lines for people: one for each network, and below it each assumption."""
    lines = []
    for network in trust_of(manifest):
        lines.append(f"{network.name}: {network.state}" + ("; taken for granted:" if network.assumed else ""))
        lines += [f"  {item}" for item in network.assumed]
    return lines


def _checked(record: Any) -> str:
    try:
        stored = record.get("stored_difference_of_range")
        return _text(
            f"checked against {record['reference']} ({int(record['pictures'])} pictures, {record['kind']}, SHA-256 "
            f"{str(record['sha256'])[:16]}): within {float(record['difference_of_range']):.1e} of the outputs' range"
            + ("" if stored is None else f", {float(stored):.1e} with its weights stored in half")
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return ""


def _text(value: object) -> str:
    """Return the value as one printable line."""
    line = " ".join(str(value).split())[:_LONGEST]
    return "".join(character if character.isprintable() else "?" for character in line)
