"""An Orthanc that answers wrongly, or has files that cannot be read: nothing is lost, and nothing held up for long."""

from __future__ import annotations

import json
import socket

import pytest

from helpers.appliance import FakeClock
from helpers.orthanc_double import OrthancDouble, reply
from helpers.orthanc_followed import Followed, study
from spinescore.runtime.appliance.configuration.config import Source, SpoolPart
from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.receiving import orthancsource
from spinescore.runtime.appliance.receiving.orthancsource import Cursor
from spinescore.runtime.appliance.receiving.sources import ThreadedSource
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.places import make_places
from spinescore.runtime.appliance.store.spool import Spool


def test_an_orthanc_that_cannot_be_reached_is_asked_less_and_less_often(make, files):
    with OrthancDouble() as orthanc:
        followed = Followed(make, orthanc)
        orthanc.store(files[0])
        orthanc.acts["/changes"] = lambda handler: reply(handler, b"", 503)
        codes = [code for _ in range(300) for code in followed.look()]
        assert codes == ["source-unreachable"] * 10  # after 1, 2, 4 .. 60 s
        assert followed.messages == []
        orthanc.acts.clear()
        codes = [code for _ in range(61) for code in followed.look()]
        assert codes == []
        assert followed.objects() == 1
    assert followed.look() == ["source-unreachable"]
    assert followed.messages == [f"the source pacs: {orthanc.url[7:]} cannot be reached"]


def test_a_wrong_password_is_a_fault_of_its_own(followed):
    followed.orthanc.acts["/changes"] = lambda handler: reply(handler, b"", 401)
    assert followed.look() == ["credential-refused"]


LISTS = [b"", b"[]", b"{}", b"null", b'{"Changes": 3}', b'{"Changes": [3], "Last": 1, "Done": true}',
         b'{"Changes": [{"Seq": "1", "ChangeType": "", "ID": "", "Date": ""}], "Last": 1, "Done": true}',
         b'{"Changes": [], "Last": "x", "Done": true}',
         b'{"Changes": [], "Last": 1e999, "Done": true}', b"<html>", b"[" * 100_000]  # fmt: skip


@pytest.mark.parametrize("content", LISTS, ids=range(len(LISTS)))
def test_an_answer_that_is_no_list_of_changes_moves_nothing(followed, files, content):
    followed.orthanc.store(files[0])
    followed.orthanc.acts["/changes"] = lambda handler: reply(handler, content)
    assert followed.look() == ["source-unreachable"]
    assert followed.cursor() == Cursor()
    followed.orthanc.acts.clear()
    assert followed.look() == []
    assert followed.objects() == 1


def test_changes_that_are_not_in_order_or_name_other_paths_are_not_followed(followed, files):
    for numbers in ((2, 1), (1, 1)):
        changes = [{"Seq": seq, "ChangeType": "NewInstance", "ID": "x", "Date": ""} for seq in numbers]
        document = json.dumps({"Changes": changes, "Last": 2, "Done": True}).encode()
        followed.orthanc.acts["/changes"] = lambda handler, document=document: reply(handler, document)
        assert followed.look(60.0) == ["source-unreachable"]
    change = {"Seq": 1, "ChangeType": "NewInstance", "ID": "../tools/shutdown", "Date": ""}
    document = json.dumps({"Changes": [change], "Last": 1, "Done": True}).encode()
    followed.orthanc.acts["/changes"] = lambda handler: reply(handler, document)
    followed.orthanc.asked.clear()
    assert followed.look(60.0) == []
    assert all(path.startswith("/changes") for path in followed.orthanc.asked)
    assert followed.cursor().seq == 1


def broken(handler) -> None:
    """Half a file."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    handler.wfile.write(b"\0" * 1000)
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


def endless(handler) -> None:
    """A file that does not tell where it ends."""
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b"\0" * 128 + b"DICM")


@pytest.mark.parametrize("act", [broken, endless, lambda handler: reply(handler, b"", 500)])
def test_an_instance_that_cannot_be_read_holds_the_others_up_only_for_a_while(followed, files, tmp_path, act):
    name = followed.orthanc.store(files[0])
    followed.orthanc.store(study(tmp_path, 2)[0])
    followed.orthanc.acts[f"{name}/file"] = act
    codes = [code for _ in range(20) for code in followed.look()]
    assert codes == ["source-unreachable"] * 3 + ["file-unreadable"]
    assert followed.one.states() == {"1.2.3.2": "collecting"}
    assert followed.cursor().aside == (name,)
    assert not list(followed.one.places.incoming.iterdir())
    followed.start()  # it is remembered by the next process
    assert followed.look() == ["file-unreadable"]
    followed.orthanc.acts.clear()
    assert followed.look(60.0) == []
    assert followed.cursor().aside == (name,)
    assert followed.look(900.0) == []
    assert followed.cursor().aside == ()
    assert followed.one.states().keys() == {"1.2.3.2", "1.2.3.4"}


def test_when_too_many_are_set_aside_the_source_waits_and_loses_none(followed, files, tmp_path, monkeypatch):
    monkeypatch.setattr(orthancsource, "_MOST_ASIDE", 1)
    names = [followed.orthanc.store(path) for path in (files[0], study(tmp_path, 2)[0], study(tmp_path, 3)[0])]
    for name in names[:2]:
        followed.orthanc.acts[f"{name}/file"] = broken
    for _ in range(40):
        followed.look()
    assert followed.cursor().aside == (names[0],)
    assert followed.one.states() == {}
    followed.orthanc.acts.clear()
    for _ in range(10):
        followed.look(900.0)
    assert followed.cursor().aside == ()
    assert followed.one.states().keys() == {"1.2.3.2", "1.2.3.3", "1.2.3.4"}


def test_an_instance_that_may_not_be_read_holds_no_others_up(followed, files, tmp_path):
    name = followed.orthanc.store(files[0])
    followed.orthanc.store(study(tmp_path, 2)[0])
    followed.orthanc.acts[f"{name}/metadata/SopClassUid"] = lambda handler: reply(handler, b"", 403)
    codes = [code for _ in range(20) for code in followed.look()]
    assert codes == ["credential-refused"] * 3 + ["file-unreadable"]
    assert followed.one.states() == {"1.2.3.2": "collecting"}


def test_what_was_set_aside_is_not_asked_for_while_the_server_is_away(followed, files):
    name = followed.orthanc.store(files[0])
    followed.orthanc.acts[f"{name}/file"] = broken
    for _ in range(20):
        followed.look()
    followed.orthanc.acts["/changes"] = lambda handler: reply(handler, b"", 502)
    assert followed.look(900.0) == ["source-unreachable"]
    assert followed.cursor().aside == (name,)


def test_an_instance_that_was_set_aside_may_be_deleted(followed, files):
    name = followed.orthanc.store(files[0])
    followed.orthanc.acts[f"{name}/file"] = broken
    for _ in range(20):
        followed.look()
    followed.orthanc.delete(name)
    followed.orthanc.acts.clear()
    assert followed.look(900.0) == []
    assert followed.cursor().aside == ()


def test_what_the_spool_refuses_is_told_and_passed_over(make, orthanc, files, tmp_path):
    followed = Followed(make, orthanc, spool=SpoolPart(str(tmp_path / "spool"), reserve_gb=0.001, max_object_mb=1))
    garbage, large = tmp_path / "garbage", tmp_path / "large"
    garbage.write_bytes(b"garbage")
    large.write_bytes(files[0].read_bytes() + bytes(1 << 20))
    for path in (garbage, large):
        orthanc.store(path, "1.2.840.10008.5.1.4.1.1.1")
    orthanc.store(files[1])
    assert followed.look() == ["not-dicom", "too-large"]
    assert followed.objects() == 1
    assert followed.look() == []


def test_without_room_nothing_is_passed_over(followed, files, monkeypatch):
    followed.orthanc.store(files[0])
    monkeypatch.setattr(followed.one.places, "has_room", lambda byte_count=0: False)
    waiting, faults = followed.source.look()
    assert (waiting, [fault.code for fault in faults]) == (1, ["no-space"])
    assert followed.source.look() == (1, [])  # it is left alone for a while, and still waits
    assert followed.cursor() == Cursor()
    monkeypatch.undo()
    assert followed.look(60.0) == []
    assert followed.objects() == 1


def collect(source, told: list[str]) -> None:
    """Look until the source raises."""
    while True:
        told += [fault.message for fault in source.look()[1]]


def test_the_thread_of_a_source_tells_what_it_sees_and_how_it_ended(tmp_path):
    class Failing:
        looks = 0

        def look(self):
            self.looks += 1
            if self.looks > 2:
                raise RuntimeError("a fault of ours")
            return 0, [Fault("no-space", f"look {self.looks}")]

    places = make_places(tmp_path / "spool", 0)
    table = Source("inbox", "folder", "x", poll_s=0.0)
    source = ThreadedSource(table, lambda *_: Failing(), lambda: Spool(places, Index(places.index), FakeClock(), 1))
    told = []
    with pytest.raises(RuntimeError, match="a fault of ours"):
        collect(source, told)
    assert told == ["look 1", "look 2"]
