"""Indices that another version of the program made: which are opened, and which are refused with a message."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from spinescore.runtime.appliance.configuration.config import SpoolPart
from spinescore.runtime.appliance.recovery import clean
from spinescore.runtime.appliance.seen.status import dismiss
from spinescore.runtime.appliance.store import index as index_module
from spinescore.runtime.appliance.store.index import Index, damage
from spinescore.runtime.appliance.store.reviews import take_correction
from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.scoring.correction import Correction

WHEN = "2026-01-05T10:00:00+00:00"


@pytest.fixture
def version_before(monkeypatch):
    """A function that opens an index as the version before does."""

    def open_it(path) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(index_module, "_VERSION", index_module._VERSION - 1)
            Index(path).close()

    return open_it


@pytest.fixture
def corrected(make, files):
    """An appliance with a correction that is not scored yet."""
    appliance = make()
    appliance.receive(*files)
    appliance.run(10)
    correction = Correction("Dr A. Berg", WHEN, unreadable=("cervical",))
    take_correction(appliance.index, appliance.clock, 1, 1, correction)
    return appliance


def tidy(appliance) -> None:
    clean(appliance.places, appliance.index, appliance.clock, SpoolPart(str(appliance.places.root)))


def test_the_version_before_opens_the_index(make, version_before):
    version_before(make().places.index)


def test_a_format_that_this_version_does_not_know_is_refused(make):
    appliance = make()
    appliance.index._connection.execute("PRAGMA user_version = 203")
    with pytest.raises(SpineScoreError, match=r"made by a later version of spinescore \(format 203\); start that"):
        Index(appliance.places.index)


def test_an_index_that_cannot_be_read_now_is_not_called_damaged():
    locked = damage(Path("index.sqlite"), sqlite3.OperationalError("database is locked"))
    assert locked.startswith("the index index.sqlite cannot be read (database is locked); look at its disk")
    assert "move the index away" in damage(Path("index.sqlite"), sqlite3.DatabaseError("file is not a database"))


def test_an_index_that_cannot_be_opened_is_said(tmp_path):
    with pytest.raises(SpineScoreError, match=r"cannot be read .*; look at its disk and its permissions"):
        Index(tmp_path, make=False)


def test_while_a_correction_is_due_the_version_before_is_refused(corrected, version_before, make):
    tidy(corrected)
    with pytest.raises(SpineScoreError, match="corrections of readers that this version would lose; start"):
        version_before(corrected.places.index)
    corrected.close()
    again = make(corrected.clock)
    again.run(5)
    assert (again.study()["state"], again.study()["revision"]) == ("delivered", 2)
    tidy(again)
    version_before(again.places.index)


def test_a_correction_that_was_given_up_keeps_no_version_from_the_index(corrected, version_before):
    with corrected.index.transaction():
        corrected.index.change("UPDATE studies SET state = 'parked', code = 'object-missing'")
    tidy(corrected)
    with pytest.raises(SpineScoreError, match="none is parked"):
        version_before(corrected.places.index)
    dismiss(corrected.index, corrected.clock, 1)
    tidy(corrected)
    version_before(corrected.places.index)
