"""A bounded share of the spoiled documents; the long run is by hand (`benchmarks.fuzz.documents`)."""

from __future__ import annotations

import pytest

from spinescore.benchmarks.fuzz import documents
from spinescore.runtime.bundle import Bundle

SHARE = 40


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return Bundle.open("phantom-reference")


@pytest.fixture(scope="module")
def good(shipped):
    return documents.parents(shipped)


@pytest.mark.parametrize("kind", documents.KINDS)
def test_spoiled_documents_are_read_or_refused(kind, good, shipped, tmp_path):
    for seed in range(SHARE):
        documents.outcome(kind, documents.mutant(kind, good[kind], 10_000 + seed), tmp_path, shipped)


def test_a_seed_gives_one_document_and_another_another(good):
    first, again, other = (documents.mutant("manifest", good["manifest"], seed) for seed in (1, 1, 2))
    assert first == again != other


def test_good_documents_are_read(good, shipped, tmp_path):
    import json

    for kind, document in good.items():
        if kind == "network":
            for network in document:
                assert documents.outcome(kind, network.SerializeToString(), tmp_path, shipped) == "read"
        elif kind not in ("plan", "record", "sidecar"):  # of another machine, or without a digest
            text = (document if isinstance(document, str) else json.dumps(document)).encode()
            assert documents.outcome(kind, text, tmp_path, shipped) == "read"


def test_what_should_not_be_raised_is_not_taken_for_a_refusal(good, shipped, tmp_path, monkeypatch):
    def fail(path, bundle):
        raise IndexError("out of range")

    name, _, refusals = documents.KINDS["manifest"]
    monkeypatch.setitem(documents.KINDS, "manifest", (name, fail, refusals))
    with pytest.raises(IndexError):
        documents.outcome("manifest", b"{}", tmp_path, shipped)
