"""Every stored document is read and written without a change, and refused with the field's name after one mutation.

The mutations come from the annotations of the dataclasses: an unknown field, a missing field, a value of the wrong
type, and one out of bounds, at every place of a document.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from helpers.made_reports import NORMAL, made_report
from spinescore.benchmarks.fuzz import documents as examples
from spinescore.runtime.acceptance import AcceptanceRecord
from spinescore.runtime.documents import document_of, document_sha256, read
from spinescore.runtime.engines.sidecar import Sidecar
from spinescore.runtime.fields import CHECKED, INLINE, OPTIONAL, Keys, Length, OneOf, Within, Without, dotted
from spinescore.runtime.manifest import Manifest
from spinescore.runtime.opening.plan import LatencyPlan
from spinescore.runtime.scoring.report import StudyReport

ROOT = Path(__file__).parents[2]
KINDS: dict[str, type[Any]] = {
    "spinescore.bundle/1": Manifest,
    "spinescore.acceptance/1": AcceptanceRecord,
    "spinescore.plan/1": LatencyPlan,
    "spinescore.engine/1": Sidecar,
    "spinescore.report/1": StudyReport,
}
REMOVED: Any = object()
RULES = (Within, Length, OneOf, Keys)


def _stored() -> Iterator[tuple[str, dict[str, Any]]]:
    for folder in ("runtime", "benchmarks", "tests", "examples", "docs"):
        for path in sorted((ROOT / folder).rglob("*.json")):
            document = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(document, dict) and document.get("schema") in KINDS:
                yield path.relative_to(ROOT).as_posix(), document
    yield "a plan", {**examples._PLAN, "sha256": "0" * 64}
    yield "a sidecar", examples._SIDECAR
    bridges = [3, 3, None, *NORMAL[3:]]
    report = made_report({"cervical": bridges, "lumbar": None}, "1", "20240111")
    yield "a report", json.loads(report.to_json())


DOCUMENTS = dict(_stored())


def kind_of(name: str) -> type[Any]:
    return KINDS[DOCUMENTS[name]["schema"]]


def is_later(name: str) -> bool:
    return kind_of(name) is StudyReport


def written_of(value: Any) -> dict[str, Any]:
    return value.to_dict() if isinstance(value, Manifest) else document_of(value)


@dataclass(frozen=True)
class Mutation:
    """One change of the object or array at `place`: `key` gets `value`, or is removed."""

    fault: Literal["unknown", "missing", "type", "bounds"]
    path: str
    place: tuple[str | int, ...]
    value: Any = REMOVED

    def applied(self, document: dict[str, Any]) -> dict[str, Any]:
        changed = deepcopy(document)
        parent: Any = changed
        for key in self.place[:-1]:
            parent = parent[key]
        if self.value is REMOVED:
            del parent[self.place[-1]]
        else:
            parent[self.place[-1]] = self.value
        return changed


Place = tuple[str | int, ...]


def mutations(hint: Any, value: Any, path: str, place: Place, later: bool, rules: tuple[Any, ...] = ()):
    """Yield the mutations of a value with that annotation."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        yield from mutations(inner[0], value, path, place, later, (*rules, *hint.__metadata__))
    elif origin in (Union, types.UnionType):
        (some,) = (one for one in inner if one is not types.NoneType)
        yield from mutations(some, value, path, place, later, rules) if value is not None else ()
    elif is_dataclass(hint):
        fixed = next((set(rule.values) for rule in rules if isinstance(rule, Without)), set())
        if place:
            yield Mutation("type", path, place, 3)
        if not later:
            yield Mutation("unknown", dotted(path, "zz_other"), (*place, "zz_other"), 1)
        yield from _of_fields(hint, value, path, place, later, fixed)
    elif origin is Mapping:
        yield from _of_mapping(inner, value, path, place, later, rules)
    elif origin is tuple and (not later or rules or any(map(_is_checked, inner))):
        yield Mutation("type", path, place, 3)
        hints = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        for number, (one, item) in enumerate(zip(hints, value, strict=True)):
            yield from mutations(one, item, f"{path}[{number}]", (*place, number), later)
        if inner[-1] is not Ellipsis:
            yield Mutation("bounds", path, place, [*value, *value])
    elif hint is not Any and (rules or not later):
        yield from _of_scalar(hint, path, place, rules)


def _is_checked(hint: Any) -> bool:
    marks = getattr(hint, "__metadata__", ())
    return is_dataclass(hint) or CHECKED in marks or any(isinstance(mark, RULES) for mark in marks)


def _of_fields(hint: Any, value: Any, path: str, place: Place, later: bool, fixed: set[str]):
    hints = get_type_hints(hint, include_extras=True)
    for one in fields(hint):
        marks = getattr(hints[one.name], "__metadata__", ())
        if INLINE in marks:
            yield from _of_fields(get_args(hints[one.name])[0], value, path, place, later, set())
            continue
        if one.name in fixed or one.name not in value:
            continue
        own = dotted(path, one.name), (*place, one.name)
        has_default = one.default is not MISSING or one.default_factory is not MISSING
        if not (has_default if later else OPTIONAL in marks):
            yield Mutation("missing", *own)
        yield from mutations(hints[one.name], value[one.name], *own, later)


def _of_mapping(inner: Any, value: Any, path: str, place: Place, later: bool, rules: tuple[Any, ...]):
    item_hint, keys = inner[1], next((rule for rule in rules if isinstance(rule, Keys)), None)
    if get_origin(inner[0]) is Literal:
        keys = Keys(*get_args(inner[0]))
    yield Mutation("type", path, place, 3)
    if keys is not None:
        yield Mutation("unknown", dotted(path, "zz_other"), (*place, "zz_other"), 1)
        if keys.least == len(keys.names):
            for name in value:
                yield Mutation("missing", dotted(path, name), (*place, name))
    for name, item in value.items():
        yield from mutations(item_hint, item, dotted(path, name), (*place, name), later)


def _of_scalar(hint: Any, path: str, place: Place, rules: tuple[Any, ...]):
    yield Mutation("type", path, place, {"no": "scalar"})
    if any(isinstance(rule, OneOf) for rule in rules) or get_origin(hint) is Literal:
        yield Mutation("bounds", path, place, "no such choice")
    elif hint is str:
        length = next((rule for rule in rules if isinstance(rule, Length)), Length())
        if length.least:
            yield Mutation("bounds", path, place, "")
        if math.isfinite(length.most):
            yield Mutation("bounds", path, place, "x" * (int(length.most) + 1))
    elif hint in (int, float):
        bounds = next((rule for rule in rules if isinstance(rule, Within)), Within())
        for end, step in ((bounds.low, -1), (bounds.high, 1)):
            if math.isfinite(end):
                yield Mutation("bounds", path, place, hint(end + step * max(1, abs(end) / 2)))


ALL = {name: tuple(mutations(kind_of(name), document, "", (), is_later(name))) for name, document in DOCUMENTS.items()}


def test_there_are_documents_of_every_kind() -> None:
    assert {kind_of(name) for name in DOCUMENTS} == set(KINDS.values())
    for name, found in ALL.items():
        faults = {one.fault for one in found}
        assert faults >= {"missing", "type", "bounds"}, name
        assert is_later(name) or "unknown" in faults, name


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_is_read_and_written_without_a_change(name) -> None:
    kind, document = kind_of(name), DOCUMENTS[name]
    value = read(kind, document, later_versions=is_later(name))
    written = json.loads(json.dumps(written_of(value)))
    again = read(kind, written, later_versions=is_later(name))
    assert again == value
    assert document_sha256(written_of(again)) == document_sha256(written) == document_sha256(document)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_with_any_one_fault_is_refused_by_the_name_of_the_field(name) -> None:
    for mutation in ALL[name]:
        with pytest.raises(ValueError, match=r".") as refused:
            read(kind_of(name), mutation.applied(DOCUMENTS[name]), later_versions=is_later(name))
        assert str(refused.value).startswith(f"{mutation.path}: "), mutation
