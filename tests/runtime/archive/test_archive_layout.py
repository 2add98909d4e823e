"""The documents of an archive's folder: the first writer's stays, on any file system and beside any other machine."""

import errno
import os
from dataclasses import replace

import pytest

from spinescore.runtime.archive import layout
from spinescore.runtime.archive.layout import Catalogue, read_document, write_document

FIRST = Catalogue("folder", "/archive", 128)
SECOND = replace(FIRST, shard_studies=64)


def no_link(*_):
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("links", [True, False])
def test_the_document_that_was_written_first_stays(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(layout.os, "link", no_link)
    path = tmp_path / "work" / "scan-0000.json"
    write_document(path, FIRST)
    write_document(path, SECOND)
    assert read_document(path, Catalogue) == FIRST
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_machine_that_writes_at_the_same_moment_under_the_same_process_number_does_no_harm(tmp_path, monkeypatch):
    path, link = tmp_path / "archive.json", os.link

    def link_after_another(source, target):
        monkeypatch.setattr(layout.os, "link", link)
        write_document(path, FIRST)
        link(source, target)

    monkeypatch.setattr(layout.os, "link", link_after_another)
    write_document(path, SECOND)
    assert read_document(path, Catalogue) == FIRST
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
