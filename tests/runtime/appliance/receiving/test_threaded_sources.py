"""Sources in their threads: one that hangs is told of, and the process of the node goes on."""

from __future__ import annotations

import os
import shutil
import threading
import time

import pytest

from spinescore.runtime.appliance.configuration.config import Source
from spinescore.runtime.appliance.receiving import sources
from spinescore.runtime.appliance.receiving.sources import open_source
from spinescore.runtime.appliance.receiving.watchedfolder import FolderSource

WAIT_S = 60.0


def until(is_so, what: str) -> None:
    end = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < end, what
        time.sleep(0.01)


@pytest.fixture
def inbox(make, tmp_path, monkeypatch):
    """A function that opens the folder `inbox` as a source; its thread ends with the test."""
    appliance, ended = make(), threading.Event()
    look = FolderSource.look

    def look_until_the_end(self):
        if ended.is_set():
            raise SystemExit
        return look(self)

    monkeypatch.setattr(FolderSource, "look", look_until_the_end)
    table = Source("inbox", "folder", str(tmp_path / "inbox"), settle_s=0.0, poll_s=0.05, remove=True)
    before = set(threading.enumerate())
    yield appliance, lambda: open_source(table, appliance.config, appliance.places, appliance.clock)
    ended.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(WAIT_S)


def test_a_folder_is_taken_in_by_its_thread(inbox, files, tmp_path):
    appliance, opened = inbox
    for path in files:
        shutil.copyfile(path, tmp_path / "inbox" / path.name)
    source = opened()
    until(lambda: appliance.index.one("SELECT count(*) AS n FROM objects")["n"] == 2, "both files")
    until(lambda: source.look() == (0, []), "the end of the look")


def test_a_folder_that_is_missing_is_told_and_taken_in_when_it_is_there(inbox, files, tmp_path):
    appliance, opened = inbox
    (tmp_path / "inbox").rmdir()
    source, told = opened(), []
    until(lambda: told.extend(source.look()[1]) or told, "a fault")
    assert {fault.code for fault in told} == {"source-unreachable"}
    (tmp_path / "inbox").mkdir()
    shutil.copyfile(files[0], tmp_path / "inbox" / "a.dcm")
    until(lambda: appliance.index.one("SELECT 1 FROM objects") is not None, "the file")


def test_a_folder_that_hangs_holds_up_nothing_and_is_told(inbox, tmp_path, monkeypatch):
    _, opened = inbox
    asked, answered, scan = threading.Event(), threading.Event(), os.scandir

    def hang(path):
        if path == tmp_path / "inbox":
            asked.set()
            answered.wait(WAIT_S)
        return scan(path)

    monkeypatch.setattr(os, "scandir", hang)
    source = opened()
    assert asked.wait(WAIT_S)
    assert source.look() == (1, [])
    monkeypatch.setattr(sources, "_HUNG_S", 0.0)
    waiting, (fault,) = source.look()
    assert (waiting, fault.code) == (1, "source-unreachable")
    assert fault.message.startswith("the source inbox has hung for ")
    answered.set()
