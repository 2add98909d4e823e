"""Reports and manifests with anything in any place: read, or refused by the error that their docstrings name."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.made_reports import REPORT
from helpers.tiny import listed, manifest
from spinescore.runtime.errors import BundleError
from spinescore.runtime.manifest import Manifest
from spinescore.runtime.scoring.report import StudyReport

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
DEEP = "[" * 100_000 + "]" * 100_000


def places(document: Any) -> list[tuple[Any, Any]]:
    """Every field and every entry, as its container and its key."""
    entries = list(document.items() if isinstance(document, dict) else enumerate(document))
    inner = (value for _, value in entries if isinstance(value, (dict, list)))
    return [(document, key) for key, _ in entries] + [place for value in inner for place in places(value)]


def changed(document: dict[str, Any], data: st.DataObject) -> Any:
    found = copy.deepcopy(document)
    for _ in range(data.draw(st.integers(1, 3))):
        within, key = data.draw(st.sampled_from(places(found) or [(found, "schema")]))
        if isinstance(within, dict) and data.draw(st.booleans()):
            within.pop(key, None)
        else:
            within[key] = data.draw(ANYTHING)
    return found


@settings(max_examples=100)
@given(data=st.data())
def test_reports(data: st.DataObject) -> None:
    document = changed(json.loads(REPORT.to_json()), data)
    try:
        found = StudyReport.from_json(json.dumps(document))
    except ValueError:
        return
    assert isinstance(found, StudyReport)


@settings(max_examples=100)
@given(data=st.data(), head=st.sampled_from(["corners4", "corner4", "bridge+grades"]))
def test_manifests(data: st.DataObject, head: str) -> None:
    document = changed(listed(manifest(24, head)), data)
    try:
        found = Manifest.from_dict(document)
    except BundleError:
        return
    assert Manifest.from_dict(found.to_dict()) == found


@settings(max_examples=50)
@given(ANYTHING)
def test_anything_else(document: Any) -> None:
    with pytest.raises(ValueError, match="schema"):
        StudyReport.from_json(json.dumps(document))
    with pytest.raises(BundleError):
        Manifest.from_dict(document)


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 100_000, "1" * 5000, "", "\0", b"\xff\xfe", "nan", "{"])
def test_text_that_is_no_report(text: str | bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # json's own, or the reader's
        StudyReport.from_json(text)
