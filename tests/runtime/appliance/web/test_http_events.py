"""The events of the HTTP service: each change of a study, told to those who listen."""

from __future__ import annotations

import asyncio
import json

import pytest

from helpers.http_calls import UNIX
from helpers.served import serve
from spinescore.runtime.appliance.store.studies import change_state
from spinescore.runtime.appliance.web import events, site

WAIT_S = 60.0


class Listener:
    """A client of events, which leaves when it was told to, or after some events."""

    def __init__(self, app, last=None) -> None:
        self.app, self.events, self.status, self._last, self._gone = app, [], None, last, asyncio.Event()
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        headers = [(b"last-event-id", str(self._last).encode())] if self._last is not None else []
        scope = {"type": "http", "method": "GET", "path": "/v1/events", "query_string": b"", "headers": headers,
                 "server": UNIX, "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
                 "scheme": "http", "root_path": ""}  # fmt: skip
        await self.app(scope, self._receive, self._send)

    async def _receive(self):
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message) -> None:
        self.status = message.get("status", self.status)
        for block in message.get("body", b"").decode().split("\n\n") if self.status == 200 else ():
            lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if "event" in lines:
                self.events.append((int(lines["id"]), json.loads(lines["data"])))

    async def until(self, count) -> None:
        while len(self.events) < count:
            await asyncio.sleep(0.005)

    async def leave(self) -> None:
        self._gone.set()
        await self.task


def go(work):
    """Run a coroutine, and every task that it leaves, to the end."""

    async def whole():
        await asyncio.wait_for(work, WAIT_S)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(whole())


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(events, "_POLL_S", 0.01)
    monkeypatch.setattr(site, "_FRESH_S", 0.01)
    monkeypatch.setattr(events, "_SIGN_S", 0.01)


def test_listeners_hear_of_each_change_once_also_after_a_restart(make, score, files, quick):
    served = serve(make(), score)

    async def listen():
        first = Listener(served.app)
        while first.status is None:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)  # signs of life are no events
        served.appliance.receive(*files)
        await first.until(1)
        await first.leave()
        assert first.events == [(1, {"study": 1, "state": "collecting", "revision": 1})]
        served.appliance.run(10)
        second = Listener(served.app, last=1)
        await second.until(4)
        await asyncio.to_thread(served.post, "/v1/studies/1/accept", {"revision": 1, "reader": "AB"})
        await second.until(5)
        await second.leave()
        assert [data["state"] for _, data in second.events] == [
            "due", "scoring", "delivering", "delivered", "delivered",
        ]  # fmt: skip
        assert [number for number, _ in second.events] == sorted({number for number, _ in second.events})

    go(listen())
    served.appliance.close()
    again = serve(make(), score)

    async def listen_again():
        listener = Listener(again.app, last=2)
        await listener.until(3)
        assert listener.events[0][0] == 3
        await listener.leave()

    go(listen_again())


def test_a_listener_that_comes_from_another_index_hears_of_what_is_new(served, files, quick):
    async def listen():
        listener = Listener(served.app, last=5000)
        while listener.status is None:
            await asyncio.sleep(0.005)
        served.appliance.receive(*files)
        await listener.until(1)
        await listener.leave()
        assert listener.events == [(1, {"study": 1, "state": "collecting", "revision": 1})]

    go(listen())


def test_of_a_hundred_listeners_some_are_served_and_the_index_is_asked_once_for_all(served, files, quick, monkeypatch):
    asked = []
    changes = events._changes
    monkeypatch.setattr(events, "_changes", lambda *given: asked.append(1) or changes(*given))

    async def listen():
        listeners = [Listener(served.app) for _ in range(100)]
        while any(one.status is None for one in listeners):
            await asyncio.sleep(0.005)
        served.appliance.receive(*files)
        let_in = [one for one in listeners if one.status == 200]
        assert len(let_in) == 16
        assert {one.status for one in listeners} == {200, 503}
        for one in let_in:
            await one.until(1)
        before = len(asked)
        await asyncio.sleep(0.05)
        assert len(asked) - before < 16  # one task asks
        for one in listeners:
            await one.leave()
        before = len(asked)
        await asyncio.sleep(0.05)
        assert len(asked) - before <= 1
        newcomer = Listener(served.app, last=0)
        await newcomer.until(1)
        await newcomer.leave()

    go(listen())


def test_a_listener_that_takes_nothing_gets_the_last_changes_later(served, files, quick, monkeypatch):
    monkeypatch.setattr(events, "_MOST_MISSED", 3)
    index, clock = served.appliance.index, served.appliance.clock
    served.appliance.receive(*files)

    async def listen():
        slow, stuck = Listener(served.app), asyncio.Event()
        send = slow._send

        async def hold(message):
            await send(message)
            if slow.events:
                await stuck.wait()

        slow._send = hold
        while slow.status is None:
            await asyncio.sleep(0.005)
        for number in range(12):
            with index.transaction():
                change_state(index, clock, 1, "due" if number % 2 else "collecting")
                change_state(index, clock, 1, "scoring")
            await asyncio.sleep(0.02)
        stuck.set()
        await slow.until(4)
        await slow.leave()
        assert [number for number, _ in slow.events[-3:]] == [22, 23, 24]

    go(listen())


def test_the_head_alone_of_the_events_is_no_listener(served):
    assert served.ask("HEAD", "/v1/events").status == 405


@pytest.mark.parametrize("last", ["x", "-1", "9" * 40, "1.5", ""])
def test_a_last_event_that_is_no_number_is_ignored(served, files, quick, last):
    async def listen():
        listener = Listener(served.app, last)
        while listener.status is None:
            await asyncio.sleep(0.005)
        served.appliance.receive(*files)
        await listener.until(1)
        await listener.leave()

    go(listen())
