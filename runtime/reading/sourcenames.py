"""Names of radiographs: a radiograph under another name, and radiographs that share a name made distinct."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from spinescore.runtime.notices import as_notice
from spinescore.runtime.study import Radiograph

__all__ = ["renamed", "told_apart"]


def renamed(radiograph: Radiograph, name: str) -> Radiograph:
    """Return the radiograph under another name, also in its warnings and findings."""
    old = radiograph.source

    def rename(text: str) -> str:
        return text.replace(old, name, 1) if old else text

    warnings = tuple(as_notice(warning).renamed(rename, name) for warning in radiograph.warnings)
    findings = tuple(replace(finding, source=name, message=rename(finding.message)) for finding in radiograph.findings)
    return replace(radiograph, source=name, warnings=warnings, findings=findings)


def told_apart(radiographs: Sequence[Radiograph]) -> tuple[Radiograph, ...]:
    """Return the radiographs with distinct names: two of one name become `name 1 of 2` and `name 2 of 2`."""
    names = [radiograph.source for radiograph in radiographs]
    shared = {name for name in names if names.count(name) > 1}
    if not shared:
        return tuple(radiographs)
    count = dict.fromkeys(shared, 0)
    distinct = []
    for radiograph in radiographs:
        name = radiograph.source
        if name in shared:
            count[name] += 1
            radiograph = renamed(radiograph, f"{name or 'radiograph'} {count[name]} of {names.count(name)}")
        distinct.append(radiograph)
    return tuple(distinct)
