"""Why a service is not ready: from the supervisor's sign of life, the index and the room on the disk."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spinescore.runtime.appliance.seen import ready as alive_file
from spinescore.runtime.appliance.seen.ready import Alive, read_alive, why_not_ready, write_alive

WORKER = {"state": "ready", "engine": "onnxruntime fp32 on cpu", "silent_s": 1.0, "limit_s": 10.0}
GOOD = Alive(1000.0, {"receive": 0.4, "send": 0.0, "web": 9.0}, WORKER, "0123456789ab", True)


def reasons(appliance) -> list[str]:
    return why_not_ready(appliance.places, appliance.index, appliance.clock)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, []),
        ({"listening": None}, []),
        ({"worker": {**WORKER, "state": "scoring", "silent_s": 30.0, "limit_s": 60.0}}, []),
        ({"listening": False}, ["DICOM node"]),
        ({"at_s": 980.0}, ["the supervisor is silent for 20 s"]),
        ({"silent_s": {"receive": None, "send": 0.1}}, ["process receive does not run"]),
        ({"silent_s": {"send": 12.0, "web": 11.0}}, ["process send is silent for 12 s", "process web is silent"]),
        ({"worker": {"state": "opening", "step": "loading"}}, ["the worker is opening: loading"]),
        ({"worker": {}}, ["the worker is starting"]),
        ({"worker": {"state": "refused", "message": "the bundle is altered"}}, ["the bundle is altered"]),
        ({"worker": {**WORKER, "silent_s": 10.5}}, ["the worker is silent for 10 s"]),
        ({"listening": False, "worker": {}}, ["the worker", "DICOM node"]),
    ],
)
def test_each_reason_is_a_sentence(make, change, words):
    appliance = make()
    write_alive(appliance.places, replace(GOOD, **change))
    assert [word in reason for word, reason in zip(words, reasons(appliance), strict=True)] == [True] * len(words)


def test_a_service_that_never_started_is_not_ready(make):
    assert "has not started" in reasons(make())[0]


def test_an_index_that_cannot_be_written_and_a_full_disk_are_reasons(make, monkeypatch):
    appliance = make()
    write_alive(appliance.places, GOOD)
    appliance.index.rows("PRAGMA query_only = ON")
    monkeypatch.setattr(type(appliance.places), "has_room", lambda *_: False)
    index_reason, room_reason = reasons(appliance)
    assert "the index cannot be written" in index_reason
    assert "reserve" in room_reason


def test_an_audit_log_that_cannot_be_written_is_a_reason(make, files):
    appliance = make()
    write_alive(appliance.places, GOOD)
    appliance.receive(*files)
    assert reasons(appliance) == []
    (log,) = (appliance.places.root / "audit").iterdir()
    before = log.read_bytes()
    assert before
    log.unlink()
    assert reasons(appliance) == []  # the service begins it again
    assert not log.exists()  # and its user must own it
    log.mkdir()
    (reason,) = reasons(appliance)
    assert "the audit log cannot be written" in reason


def test_an_index_that_another_process_holds_for_too_long_is_a_reason(make):
    appliance = make()
    write_alive(appliance.places, GOOD)
    appliance.index.rows("PRAGMA busy_timeout = 1")
    with make().index.transaction():
        (reason,) = reasons(appliance)
    assert "locked" in reason
    assert reasons(appliance) == []  # it was only looked at


def test_the_sign_of_life_is_replaced_as_a_whole(make, monkeypatch):
    places = make().places
    assert read_alive(places) is None
    for words in ("x" * 6000, "short"):
        one = replace(GOOD, worker={"message": words})
        write_alive(places, one)
        assert read_alive(places) == one
    path = places.root / "alive.json"
    assert path.stat().st_size % 4096 == 0
    path.write_bytes(path.read_bytes()[:20])  # it is being written
    monkeypatch.setattr(alive_file, "_PAUSE_S", 0.0)
    assert read_alive(places) is None
