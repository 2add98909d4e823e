"""Deliveries to archives over HTTP: what a study becomes when the outcome is unclear, denied or refused."""

from __future__ import annotations

import pytest

from helpers.hostile_http import Server, answer, die, half
from helpers.web_archives import KINDS, found, opened, stored
from spinescore.runtime.appliance.configuration.config import Destination
from spinescore.runtime.appliance.configuration.endpoints import Web
from spinescore.runtime.appliance.sending.delivery import Deliverer, Parcel


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


class Delivered:
    """A scored study whose report goes to an archive over HTTP."""

    def __init__(self, make, files, kind: str, server: Server, **more) -> None:
        self.one = make(destination=(Destination("vna", kind, web=Web(server.url, **more)),))
        self.archive = opened(kind, server, **more)
        self.deliverer = Deliverer(self.one.index, self.one.clock, self.one.places, self.archive)
        self.one.receive(*files)
        self.one.run()
        row = self.row()
        path = self.one.places.results / row["input_key"] / row["file"]
        self.parcel = Parcel(path, "sr", "", row["sop_instance_uid"], self.one.study()["uid"], 1)

    def row(self):
        (row,) = self.one.index.rows("SELECT * FROM deliveries")
        return row

    def faults(self) -> list[str]:
        return [row["code"] for row in self.one.index.rows("SELECT code FROM faults")]


@pytest.mark.parametrize("first", [answer(503), die, half], ids=["503", "dies", "half"])
@pytest.mark.parametrize("is_there", [False, True])
def test_after_an_unclear_outcome_the_archive_is_asked_first(make, files, kind, first, is_there):
    with Server(first) as server:
        study = Delivered(make, files, kind, server)
        study.deliverer.step()
        assert study.row()["state"] == "waiting"
        assert not study.deliverer.step()  # it is left alone for a while
        server.plan = [found(kind, study.parcel) if is_there else answer(200, []), stored(kind, study.parcel)]
        study.one.clock.pass_s(60.0)
        study.deliverer.step()
    assert study.row()["state"] == "sent"
    assert study.one.study()["state"] == "delivered"
    assert [one.body == b"" or kind == "orthanc" for one in server.requests] == [kind == "orthanc", True] + [
        kind == "orthanc"
    ] * (not is_there)
    assert len(server.requests) == (2 if is_there else 3)


def test_a_wrong_credential_parks_nothing(make, files, kind, tmp_path):
    (tmp_path / "token").write_text("wrong")
    with Server(answer(401)) as server:
        study = Delivered(make, files, kind, server, token_file=str(tmp_path / "token"))
        for _ in range(4):
            study.deliverer.step()
            study.one.clock.pass_s(600.0)
        assert study.row()["state"] == "waiting"
        assert "does not accept the token" in study.row()["message"]
        assert study.faults() == ["credential-refused"]  # not at each attempt
        server.plan = [stored(kind, study.parcel)]
        study.one.clock.pass_s(900.0)
        study.deliverer.step()
    assert study.one.study()["state"] == "delivered"


def test_a_refused_file_is_parked(make, files, kind):
    with Server(answer(415)) as server:
        study = Delivered(make, files, kind, server)
        study.deliverer.step()
    assert study.row()["code"] == "delivery-refused"
    assert study.one.study()["state"] == "parked"
