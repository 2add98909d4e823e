"""Orthanc as a source: each radiograph comes in once, whatever its server does between two looks."""

from __future__ import annotations

import json
import socket
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

pytest.importorskip("dicomweb_client")

from pydicom import FileDataset, dcmread

from helpers import appliance
from helpers.appliance import FakeClock
from helpers.orthanc_double import OrthancDouble, reply
from spinescore.runtime.appliance.configuration.config import Source, SpoolPart
from spinescore.runtime.appliance.configuration.endpoints import Web
from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.receiving.orthancsource import Cursor, OrthancSource
from spinescore.runtime.appliance.receiving.sources import _Threaded
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.places import make_places
from spinescore.runtime.appliance.store.spool import Spool

CT, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.34"


@pytest.fixture
def orthanc():
    with OrthancDouble() as double:
        yield double


class Followed:
    """An appliance whose source is an Orthanc."""

    def __init__(self, make, orthanc: OrthancDouble, spool: SpoolPart | None = None, **settings) -> None:
        changes = {} if spool is None else {"spool": spool}
        self.one = make(source=(), **changes)
        self.orthanc, self.clock, self.index = orthanc, self.one.clock, self.one.index
        self.table = Source("pacs", "orthanc", web=Web(orthanc.url), **settings)
        self.start()

    def start(self) -> None:
        self.source = OrthancSource(self.table, self.one.spool, self.clock)
        self.one.sources = [self]

    def poll(self) -> None:
        self.source.look()

    def look(self, seconds: float = 1.0) -> list[str]:
        """Look until nothing waits; return the codes of the faults."""
        self.clock.pass_s(seconds)
        codes, waiting = [], 1
        while waiting:
            waiting, faults = self.source.look()
            codes += [fault.code for fault in faults]
            self.messages = [fault.message for fault in faults]
            if faults:
                break
        return codes

    def objects(self) -> int:
        return self.index.one("SELECT count(*) AS n FROM objects")["n"]

    def cursor(self) -> Cursor:
        return Cursor.from_json(self.index.fact("cursor of pacs"))

    def fetched(self) -> int:
        """The files that were asked for since the last call."""
        count = sum(path.endswith("/file") for path in self.orthanc.asked)
        self.orthanc.asked.clear()
        return count


@pytest.fixture
def followed(make, orthanc):
    return Followed(make, orthanc)


@cache
def drawn() -> list[FileDataset]:
    with TemporaryDirectory() as folder:
        return [dcmread(path) for path in appliance.tiny_files(Path(folder))]


def study(folder: Path, number: int) -> list[Path]:
    """Write the files of a study of its own."""
    paths = [folder / f"{number}-{place}.dcm" for place in (0, 1)]
    for place, (ds, path) in enumerate(zip(drawn(), paths, strict=True)):
        ds.StudyInstanceUID = f"1.2.3.{number}"
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}.{place}"
        ds.save_as(path)
    return paths


def test_a_study_comes_from_orthanc_and_is_delivered(followed, files):
    for path in files:
        followed.orthanc.store(path)
    followed.one.run()
    assert followed.one.states() == {"1.2.3.4": "delivered"}
    followed.orthanc.settle()
    followed.one.run()
    assert followed.one.study()["revision"] == 1
    assert followed.cursor().seq == followed.orthanc.last
    assert followed.fetched() == 2


def test_nothing_is_fetched_but_radiographs_of_the_classes(make, orthanc, files, tmp_path):
    followed = Followed(make, orthanc, classes=("DX",))
    for uid in (CT, SR, None):  # the files are CR
        orthanc.store(files[0], uid)
    orthanc.store(files[1], "1.2.840.10008.5.1.4.1.1.1.1")
    assert followed.look() == []
    assert followed.fetched() == 1
    assert followed.objects() == 1


def test_many_changes_are_read_in_pages(followed, tmp_path):
    for number in range(15):
        for path in study(tmp_path, number):
            followed.orthanc.store(path)
    assert followed.look() == []
    assert followed.objects() == 30
    assert followed.fetched() == 30
    assert len(followed.cursor().trail) == 64
    assert followed.look() == []
    assert followed.orthanc.asked == [f"/changes?since={30 * 4}&limit=50"]  # one small request if nothing is new


def test_without_history_only_later_objects_count(make, orthanc, tmp_path):
    for path in study(tmp_path, 1):
        orthanc.store(path)
    followed = Followed(make, orthanc, history=False)
    assert followed.look() == []
    assert followed.objects() == 0
    followed.start()
    for path in study(tmp_path, 2):
        orthanc.store(path)
    assert followed.look() == []
    assert followed.one.states() == {"1.2.3.2": "collecting"}
    orthanc.renew(day=2)
    for path in study(tmp_path, 3):
        orthanc.store(path)
    assert followed.look() == []
    assert followed.one.states().keys() == {"1.2.3.2", "1.2.3.3"}


def test_without_history_an_empty_orthanc_is_followed_from_its_first_object(make, orthanc, files):
    followed = Followed(make, orthanc, history=False)
    assert followed.look() == []
    orthanc.store(files[0])
    assert followed.look() == []
    assert followed.objects() == 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_new_database_is_read_from_its_beginning(followed, tmp_path, count):
    """It has fewer, as many, or more changes than the old one."""
    for number in (1, 2):
        followed.orthanc.store(study(tmp_path, number)[0])
    assert followed.look() == []
    followed.orthanc.renew(day=2)
    for number in range(2, 2 + count):  # study 2 is in both
        followed.orthanc.store(study(tmp_path, number)[0])
    if count == 2:
        assert followed.look() == []
        followed.orthanc.settle()  # a list of the same length is noticed with the next change
    assert followed.look() == []
    assert followed.one.states().keys() == {f"1.2.3.{number}" for number in range(1, 2 + count)}
    assert followed.objects() == 1 + count
    assert not list(followed.one.places.quarantine.iterdir())
    assert followed.cursor().seq == followed.orthanc.last


def test_an_older_copy_of_the_database_goes_on_where_both_agree(followed, tmp_path):
    orthanc = followed.orthanc
    for number in (1, 2, 3):
        orthanc.store(study(tmp_path, number)[0])
    assert followed.look() == []
    followed.fetched()
    orthanc.changes, orthanc.last, orthanc.day = orthanc.changes[:8], 8, 2  # study 3 is lost
    orthanc.store(study(tmp_path, 4)[0])
    orthanc.store(study(tmp_path, 5)[0])
    assert followed.look() == []
    assert followed.fetched() == 2
    assert followed.one.states().keys() == {f"1.2.3.{number}" for number in (1, 2, 3, 4, 5)}


def test_a_deletion_has_nothing_read_again(followed, tmp_path):
    orthanc = followed.orthanc
    names = [orthanc.store(study(tmp_path, number)[0]) for number in (1, 2, 3)]
    assert followed.look() == []
    followed.fetched()
    for name in names[:0:-1]:  # the last ones
        orthanc.delete(name)
    assert followed.look() == []
    orthanc.store(study(tmp_path, 4)[0])
    assert followed.look() == []
    assert followed.fetched() == 1
    orthanc.delete(names[0])
    for number in (5, 6):
        orthanc.store(study(tmp_path, number)[0])
    assert followed.look() == []
    assert followed.fetched() == 2


def test_what_was_deleted_meanwhile_is_passed_over(followed, files):
    first = followed.orthanc.store(files[0])
    followed.orthanc.store(files[1])
    followed.orthanc.acts[f"{first}/file"] = lambda handler: reply(handler, b"", 404)
    assert followed.look() == []
    assert followed.objects() == 1


def test_an_instance_without_a_noted_class_is_fetched(followed, files):
    followed.orthanc.store(files[0])
    followed.orthanc.acts["SopClassUid"] = lambda handler: reply(handler, b"", 404)
    assert followed.look() == []
    assert followed.objects() == 1


def test_an_object_that_is_known_or_in_quarantine_is_passed(followed, files, tmp_path):
    followed.one.receive(files[0])
    other = tmp_path / "other.dcm"
    ds = dcmread(files[0])
    ds.PatientName = "Other"
    ds.save_as(other)
    for path in (files[0], other, files[1]):
        followed.orthanc.store(path)
    assert followed.look() == []
    assert followed.objects() == 2
    assert len(list(followed.one.places.quarantine.iterdir())) == 1
    assert followed.cursor().seq == followed.orthanc.last


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
         b'{"Changes": [], "Last": "x", "Done": true}', b"<html>", b"[" * 100_000]  # fmt: skip


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
    source = _Threaded(lambda spool: Failing(), lambda: Spool(places, Index(places.index), FakeClock(), 1), 0.0)
    told = []
    with pytest.raises(RuntimeError, match="a fault of ours"):
        collect(source, told)
    assert told == ["look 1", "look 2"]
