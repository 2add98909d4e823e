"""Dataclasses from documents and back: each rule accepts and refuses what it says, and names the field."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spinescore.runtime.acceptance import AcceptanceRecord
from spinescore.runtime.bundle import Bundle, shipped_bundles
from spinescore.runtime.documents import document_of, document_sha256, read
from spinescore.runtime.fields import INLINE, OPTIONAL, Keys, Length, OneOf, Within, Without

SCHEMA = "test/1"


@dataclass(frozen=True)
class Inner:
    low: Annotated[float, Within(0.0, 1.0, lambda value: "; a share")]
    high: float | None

    def _check_fields(self, path: str) -> None:
        if self.high is not None and self.high < self.low:
            raise ValueError(f"{path}.high: below low")


@dataclass(frozen=True)
class Beside:
    depth: Annotated[int, Within(1)]
    wide: Annotated[bool, OneOf(True), OPTIONAL] = False


@dataclass(frozen=True)
class Whole:
    name: str
    inner: Annotated[Inner, Without(high=None)]
    beside: Annotated[Beside, INLINE]
    sides: Mapping[Literal["left", "right"], Inner]
    files: Annotated[Mapping[str, str], Keys("a", "b", least=1)]
    pairs: Annotated[tuple[tuple[int, int], ...], Length(1, 3)]
    word: Annotated[str, Length(0, 3)]
    free: Any
    mode: Annotated[Literal["on", "off"], OPTIONAL] = "on"
    limit: Annotated[float | None, Within(0.0, 9.0), OPTIONAL] = None
    schema: Annotated[str, OneOf(SCHEMA)] = SCHEMA


GOOD: dict[str, Any] = {
    "schema": SCHEMA,
    "name": "n",
    "inner": {"low": 0},
    "depth": 2,
    "sides": {"right": {"low": 0.5, "high": 1}, "left": {"low": 0.5, "high": None}},
    "files": {"b": "x"},
    "pairs": [[1, 2]],
    "word": "",
    "free": [1, {"any": None}],
}


def test_a_document_becomes_a_dataclass_and_a_document_again():
    whole = read(Whole, GOOD)
    assert whole.inner == Inner(0.0, None)
    assert whole.beside == Beside(2)
    assert list(whole.sides) == ["left", "right"]
    assert whole.pairs == ((1, 2),)
    written = document_of(whole)
    assert next(iter(written)) == "schema"
    assert {"mode", "limit", "wide"}.isdisjoint(written)
    del written["inner"]["high"]
    assert written == GOOD
    stated = read(Whole, {**GOOD, "mode": "off", "limit": 3, "wide": True})
    assert (stated.mode, stated.limit, stated.beside.wide) == ("off", 3.0, True)
    assert document_of(stated)["wide"] is True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "test/2", "name": 3}, "schema: expected one of test/1, found 'test/2'"),
        ({"name": ""}, "name: expected text that is not empty, found ''"),
        ({"name": "x" * 5000}, "name: expected at most 4096 characters, found 5000"),
        ({"word": "long"}, "word: expected at most 3 characters, found 4"),
        ({"inner": {"low": 2}}, "inner.low: expected a number in [0, 1], found 2; a share"),
        ({"inner": {"low": True}}, "inner.low: expected a number in [0, 1], found True"),
        ({"inner": {"low": float("nan")}}, "inner.low: expected a number in [0, 1], found nan"),
        ({"inner": {"low": 0, "high": 1}}, "inner.high: no such field is known; remove it or correct it"),
        ({"depth": 0}, "depth: expected a whole number of at least 1, found 0"),
        ({"depth": 1.0}, "depth: expected a whole number of at least 1, found 1.0"),
        ({"sides": {"left": {"low": 0, "high": 1}}}, "sides.right: this field is missing"),
        ({"sides": {"left": {"low": 0.5, "high": 0.1}, "right": {}}}, "sides.left.high: below low"),
        ({"files": {}}, "files: expected at least one of a, b"),
        ({"files": {"a": "x", "c": "y"}}, "files.c: no such field is known"),
        ({"files": []}, "files: expected an object, found []"),
        ({"pairs": 1}, "pairs: expected an array, found 1"),
        ({"pairs": [[1, 2], [3]]}, "pairs[1]: expected 2 entries, found 1"),
        ({"pairs": []}, "pairs: expected at least 1 entry, found 0"),
        ({"pairs": [[1, 2]] * 4}, "pairs: expected at most 3 entries, found 4"),
        ({"pairs": [[1, "2"]]}, "pairs[0][1]: expected a whole number"),
        ({"mode": "of"}, "mode: expected one of on, off, found 'of'; did you mean off?"),
        ({"mode": None}, "mode: expected one of on, off, found None"),
        ({"limit": None}, "limit: expected a number in [0, 9], found None"),
        ({"wide": False}, "wide: expected one of True, found False"),
        ({"limt": 1}, "limt: no such field is known; did you mean limit?"),
        ({"dept": 1}, "dept: no such field is known; did you mean depth?"),
    ],
)
def test_every_fault_names_its_field(change, message):
    with pytest.raises(ValueError, match=r".") as refused:
        read(Whole, {**GOOD, **change})
    assert str(refused.value).startswith(message)


def test_a_missing_field_is_told_with_the_one_that_is_meant():
    document = {**GOOD, "nam": "n"}
    del document["name"]
    with pytest.raises(ValueError, match=r"^part\.name: this field is missing; is part\.nam meant to be it\?$"):
        read(Whole, document, "part")
    with pytest.raises(ValueError, match="document: expected an object, found 3"):
        read(Whole, 3)


def test_documents_of_later_versions_may_have_more_fields_and_any_text():
    document = {**GOOD, "later": 1, "name": "", "limit": None}
    del document["schema"]
    whole = read(Whole, document, later_versions=True)
    assert (whole.name, whole.mode, whole.schema, whole.inner.low) == ("", "on", SCHEMA, 0)
    for name, value, kind in (("depth", "x", "a whole number"), ("name", 5, "text"), ("pairs", "odd", "an array")):
        with pytest.raises(ValueError, match=f"{name}: expected {kind}"):
            read(Whole, {**document, name: value}, later_versions=True)


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans(), max_size=6))
def test_the_digest_does_not_depend_on_the_order_of_fields(document):
    assert document_sha256(document) == document_sha256(dict(reversed(document.items())))


@pytest.mark.parametrize("name", shipped_bundles())
def test_shipped_documents_are_read_and_written_without_a_change(name):
    bundle = Bundle.open(name, any_network=True)
    assert bundle.manifest.to_dict() == json.loads((bundle.folder / "bundle.json").read_text(encoding="utf-8"))
    for path in bundle.folder.glob("acceptance/*.json"):
        text = path.read_text(encoding="utf-8")
        assert json.loads(AcceptanceRecord.read(path).to_json()) == json.loads(text)
