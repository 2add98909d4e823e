"""Events of the DICOM node that go into the index: late ends of associations, and faults of this program."""

from __future__ import annotations

import errno
import os

import pytest

pytest.importorskip("pynetdicom")

from spinescore.runtime.appliance import service
from spinescore.runtime.appliance.configuration.config import Node, Peer
from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.receiving import node
from spinescore.runtime.appliance.receiving.node import DicomNode
from spinescore.runtime.appliance.store import index as index_module


def node_of(appliance) -> DicomNode:
    """A node that does not listen yet."""
    events = DicomNode(appliance.config, Node(), appliance.places, appliance.clock)
    events._next_s = float("inf")
    return events


def test_the_end_of_an_association_is_noted_when_there_is_room_again(make, files, monkeypatch):
    appliance = make()
    events = node_of(appliance)
    events.store(1, Peer("XRAY1", "127.0.0.1"), (files[0].read_bytes(),))

    def refuse(connection):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(index_module, "commit", refuse)
        events.released(1)
        events.step(appliance.spool)
    assert appliance.index.one("SELECT closed_s FROM associations")[0] is None
    events.step(appliance.spool)
    assert appliance.index.one("SELECT closed_s FROM associations")[0] == appliance.clock.now()


def test_a_fault_of_ours_is_told_apart_from_those_of_peers(make):
    appliance = make()
    events = node_of(appliance)
    events.refused("XRAY1 at 10.0.0.1", "storing failed (KeyError)", "fault")
    events.refused("10.0.0.2", "the address belongs to no peer", "address")
    faults, refusals = events.step(appliance.spool)
    assert [fault.code for fault in faults] == ["dicom-fault", "peer-refused"]
    assert refusals == {"fault": 1, "address": 1}
    assert events.step(appliance.spool) == ([], {})


def test_of_a_flood_that_nobody_takes_the_last_faults_and_all_numbers_are_kept(make, monkeypatch):
    monkeypatch.setattr(node, "_MOST_FAULTS", 3)
    appliance = make()
    events = node_of(appliance)
    for number in range(10):
        events.refused(f"10.0.0.{number}", "the address belongs to no peer", "address")
    faults, refusals = events.step(appliance.spool)
    assert [fault.message.split()[0] for fault in faults] == ["10.0.0.7", "10.0.0.8", "10.0.0.9"]
    assert refusals == {"address": 10}


def test_a_flood_of_different_refusals_is_not_noted_one_by_one(make):
    appliance, noted = make(), {}
    flood = [Fault("peer-refused", f"T{number} at 10.0.0.1 was refused") for number in range(1000)]
    service._note(appliance.index, appliance.clock, noted, [*flood, Fault("file-unreadable", "a file")])
    codes = [row["code"] for row in appliance.index.rows("SELECT code FROM faults")]
    assert codes == ["peer-refused"] * 101 + ["file-unreadable"]
    assert appliance.index.one("SELECT message FROM faults WHERE id = 101")["message"] == service._MORE
    appliance.clock.pass_s(600.0)
    service._note(appliance.index, appliance.clock, noted, flood[:1])
    assert len(noted) == 1
