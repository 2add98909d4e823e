"""The audit log: what is in it, and that nothing is acknowledged without it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
from contextlib import nullcontext
from datetime import datetime, timezone

import pytest

from helpers.appliance import FakeClock
from spinescore.runtime.appliance.fault import Refused
from spinescore.runtime.appliance.recovery import recover
from spinescore.runtime.appliance.seen import audit
from spinescore.runtime.appliance.seen.status import deliver_again, retry
from spinescore.runtime.appliance.store.index import Index, IndexFull
from spinescore.runtime.errors import SpineScoreError

BUNDLE = {"name": "b", "version": "1", "sha256": "ab" * 32}


def records(appliance) -> list[dict]:
    files = audit.files_of(appliance.places.root / "audit")
    return [json.loads(line) for path in files for line in path.read_text("utf-8").splitlines()]


def events(appliance) -> list[str]:
    return [record["event"] for record in records(appliance)]


def test_the_life_of_a_study_is_in_the_log_without_its_uids(make, files):
    appliance = make()
    appliance.receive(*files)
    appliance.run(5)
    assert events(appliance) == ["received", "received", "scored", "delivered", "delivered", "delivered"]
    received, _, scored, delivered, *_ = records(appliance)
    assert received["source"] == "test"
    assert received["study_instance_uid_sha256"] == hashlib.sha256(b"1.2.3.4").hexdigest()
    assert "1.2.3.4" not in json.dumps(records(appliance))
    folder = appliance.root / "out/1.2.3.4/revision-1"
    assert scored["report_sha256"] == hashlib.sha256((folder / "report.json").read_bytes()).hexdigest()
    assert (scored["input_key"], scored["engine"][:11]) == (appliance.study()["input_key"], "onnxruntime")
    assert hashlib.sha256((folder / delivered["file"]).read_bytes()).hexdigest() == delivered["sha256"]
    assert [record["n"] for record in records(appliance)] == [1, 2, 3, 4, 5, 6]


def test_uids_are_in_the_log_if_the_settings_say_so(make, files):
    appliance = make()
    audit.start(appliance.index, appliance.clock, audit.Audit(patient_ids=True), {}, BUNDLE)
    appliance.receive(files[0])
    assert records(appliance)[1]["study_instance_uid"] == "1.2.3.4"


def test_starts_name_what_changed(make):
    appliance = make()
    for config, sha256 in (({"a": 1}, "ab"), ({"a": 1}, "ab"), ({"a": 2}, "cd")):
        bundle = {**BUNDLE, "sha256": sha256 * 32}
        audit.start(appliance.index, appliance.clock, audit.Audit(), config, bundle)
        audit.stop(appliance.index, appliance.clock)
    both = ["service-started", "service-stopped"]
    assert events(appliance) == [*both, *both, both[0], "configuration-changed", "bundle-changed", both[1]]
    changed = records(appliance)[6]
    assert (changed["before_sha256"], changed["sha256"]) == ("ab" * 32, "cd" * 32)


def test_commands_by_hand_name_the_user(make, files, monkeypatch):
    appliance = make()
    monkeypatch.setenv("SUDO_USER", "ada")
    appliance.worker.act = lambda job: [
        {"failed": job.input_key, "code": "worker-crashed", "message": "x", "again": False}
    ]
    appliance.receive(*files)
    appliance.run(5)
    del appliance.worker.act
    retry(appliance.index, appliance.clock, 1)
    appliance.run(5)
    deliver_again(appliance.index, appliance.clock, 1, user="grace (console)")
    by_hand = {record["event"]: record.get("user") for record in records(appliance)}
    assert by_hand["retried"] == audit.operator()
    assert by_hand["delivered-again"] == "grace (console)"
    assert "ada" in audit.operator() or os.getuid()
    assert "parked" in by_hand


def test_quarantine_and_recovery_are_in_the_log(make, files, tmp_path):
    appliance = make()
    appliance.receive(files[0])
    other = tmp_path / "other.dcm"
    other.write_bytes(files[0].read_bytes()[:-2] + b"\1\1")
    appliance.receive(other)
    with appliance.index.transaction():
        for table in ("objects", "studies"):
            appliance.index.change(f"DELETE FROM {table}")
    recover(appliance.places, appliance.index, appliance.clock)
    assert events(appliance) == ["received", "quarantined", "recovered"]


@pytest.mark.parametrize(("number", "code"), [(errno.EROFS, "audit-not-written"), (errno.ENOSPC, "no-space")])
def test_without_the_log_nothing_is_acknowledged(make, files, monkeypatch, number, code):
    appliance = make()
    appliance.receive(files[0])
    appliance.places.reserve.write_bytes(b"x")

    def refuse(path, data):
        raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(audit, "_append", refuse)
        with pytest.raises(Refused, match=code):
            appliance.receive(files[1])
    assert appliance.index.one("SELECT count(*) FROM objects")[0] == 1
    assert len(list(appliance.places.objects.glob("*/*"))) == 1
    assert appliance.places.reserve.exists() == (number == errno.EROFS)  # a full disk gets the room of the reserve
    assert appliance.receive(files[1])[0].status == "stored"


def test_the_node_tells_a_peer_to_send_again(make, files, monkeypatch):
    pytest.importorskip("pynetdicom")
    from spinescore.runtime.appliance.configuration.config import Node, Peer
    from spinescore.runtime.appliance.receiving.node import DicomNode

    appliance = make()
    events = DicomNode(appliance.config, Node(), appliance.places, appliance.clock)
    events._next_s = float("inf")
    arrival = (1, Peer("XRAY1", "127.0.0.1"), (files[0].read_bytes(),))

    def refuse(path, data):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(audit, "_append", refuse)
        with pytest.raises(Refused, match="make it writable"):
            events.store(*arrival)
    faults, _ = events.step(appliance.spool)
    assert [fault.code for fault in faults] == ["audit-not-written"]
    events.store(*arrival)
    (received,) = records(appliance)
    assert (received["event"], received["peer"], received["source"]) == ("received", "XRAY1", "dicom node")


def test_a_result_waits_for_the_log(make, files, monkeypatch):
    appliance = make()
    appliance.receive(*files)

    def refuse(path, data):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(audit, "_append", refuse)
        for _ in range(5):
            waits = pytest.raises(IndexFull, match="make it writable")
            with waits if appliance.dispatcher.is_busy else nullcontext():
                appliance.dispatcher.step()
            appliance.clock.pass_s(1.0)
        assert appliance.study()["state"] == "scoring"
        with pytest.raises(SpineScoreError, match="cannot start"):
            audit.start(appliance.index, appliance.clock, audit.Audit(), {}, BUNDLE)
    appliance.run(5)
    assert appliance.study()["state"] == "delivered"
    assert len(appliance.worker.jobs) == 1


class Calendar(FakeClock):
    """A clock whose date tests set."""

    day = datetime(2026, 10, 31, tzinfo=timezone.utc)

    def date(self):
        return self.day


def test_each_month_has_a_file_and_an_earlier_date_opens_none(tmp_path):
    index, clock = Index(tmp_path / "index.sqlite"), Calendar()
    for day in ((2026, 10, 31), (2026, 11, 1), (2026, 9, 30), (2026, 12, 1)):
        clock.day = datetime(*day, tzinfo=timezone.utc)
        with index.transaction():
            audit.note(index, clock, "x")
    index.close()
    first, second, third = audit.files_of(tmp_path / "audit")
    assert [path.name for path in (first, second, third)] == ["2026-10.jsonl", "2026-11.jsonl", "2026-12.jsonl"]
    lines = second.read_bytes().splitlines()
    assert [json.loads(line)["at"][:10] for line in lines] == ["2026-11-01", "2026-09-30"]
    assert json.loads(lines[0])["previous"] == hashlib.sha256(first.read_bytes().rstrip(b"\n")).hexdigest()
    assert json.loads(third.read_bytes())["previous"] == hashlib.sha256(lines[-1]).hexdigest()


def test_the_system_log_gets_a_copy_and_holds_up_nothing(make, files, tmp_path, monkeypatch):
    appliance = make()
    audit.start(appliance.index, appliance.clock, audit.Audit(syslog=True), {}, BUNDLE)  # nobody listens
    address = str(tmp_path / "log")
    monkeypatch.setattr(audit, "_SYSLOG", address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        appliance.receive(files[0])
        copy = listener.recv(65536).decode()
        for _ in range(300):  # more than the socket holds
            with appliance.index.transaction():
                audit.note(appliance.index, appliance.clock, "x")
    line = audit.files_of(appliance.places.root / "audit")[0].read_text().splitlines()[1]
    assert copy == f"<86>spinescore-audit: {line}"
