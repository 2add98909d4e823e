"""The bill of materials of a release: CycloneDX 1.6 as JSON, https://cyclonedx.org/docs/1.6/json/."""

from __future__ import annotations

import hashlib
import re
import uuid
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

from spinescore.runtime.appliance.shipping.wheels import Target, Wheel, needs_of
from spinescore.runtime.machine.licences import NOT_STATED, stated_licence

__all__ = ["bill_of_materials"]

_NETWORK = re.compile(r"spinescore/runtime/bundles/(.+\.onnx)")


def bill_of_materials(
    own: Wheel, others: Sequence[Wheel], installer: Wheel, target: Target, date: str
) -> dict[str, Any]:
    """Return the document: our wheel with its networks, the other wheels, and pip, which only installs.

    `date` is in ISO 8601. Raises SpineScoreError if a requirement is not among the wheels.
    """
    ordered = sorted(others, key=lambda wheel: wheel.name)
    references = {wheel.name: _purl(wheel) for wheel in (own, *ordered)}
    needs = needs_of((own, *ordered), own.name, target)
    networks = list(_networks(own))
    hashes = "".join(wheel.sha256 for wheel in (own, *ordered, installer))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, f"spinescore {target.platform} {hashes}").urn,
        "version": 1,
        "metadata": {
            "timestamp": date,
            "lifecycles": [{"phase": "build"}],
            "component": {**_component(own), "type": "application"},
            "properties": [
                {"name": "spinescore:platform", "value": target.platform},
                {"name": "spinescore:python", "value": target.python_text},
            ],
        },
        "components": [*map(_component, ordered), {**_component(installer), "scope": "excluded"}, *networks],
        "dependencies": [
            {"ref": reference, "dependsOn": sorted(references[need] for need in needs.get(name, ()))}
            for name, reference in references.items()
        ],
    }


def _purl(wheel: Wheel) -> str:
    return f"pkg:pypi/{wheel.name}@{wheel.version}"


def _component(wheel: Wheel) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": _purl(wheel),
        "name": wheel.name,
        "version": wheel.version,
        "purl": _purl(wheel),
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
    }
    if (licence := stated_licence(wheel.metadata)) != NOT_STATED:
        is_expression = wheel.metadata["License-Expression"] is not None
        component["licenses"] = [{"expression": licence} if is_expression else {"license": {"name": licence}}]
    return component


def _networks(own: Wheel) -> Iterator[dict[str, Any]]:
    with zipfile.ZipFile(own.path) as archive:
        for member in sorted(archive.namelist()):
            if match := _NETWORK.fullmatch(member):
                yield {
                    "type": "machine-learning-model",
                    "bom-ref": f"{_purl(own)}#{member}",
                    "name": match[1],
                    "version": own.version,
                    "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(archive.read(member)).hexdigest()}],
                }
