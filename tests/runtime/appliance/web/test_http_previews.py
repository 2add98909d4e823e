"""Previews of corrections over HTTP: reports that nobody keeps."""

from __future__ import annotations

import asyncio
import json

from helpers.http_calls import acall
from helpers.served import corner, moved

GRADES = {"C3-superior": 2, "L1-inferior": None}

POINTS = {"cervical": {"C2/C3": [[30.0, 40.0], [50.0, 41.0]]}}


def test_a_preview_of_grades_is_computed_without_the_worker_and_keeps_nothing(delivered):
    answer = delivered.post("/v1/studies/1/preview", {"revision": 1, "grades": GRADES})
    assert (answer.status, corner(answer.json()["report"], "C3-superior")["grade"]) == (200, 2)
    assert delivered.supervisor.jobs() == []
    assert delivered.post("/v1/studies/1/preview", {"revision": 1}).json()["report"] == delivered.report()
    assert (delivered.get("/v1/studies/1")["revision"], delivered.get("/v1/studies/1")["reviewed"]) == (1, None)


def test_a_preview_of_points_is_what_the_correction_gives(delivered):
    points = moved(delivered.report(), 2.0)
    call = {"revision": 1, "reader": "AB", "points": points, "grades": GRADES}
    preview = delivered.post("/v1/studies/1/preview", call).json()["report"]
    assert delivered.supervisor.jobs() == ["review"]
    delivered.post("/v1/studies/1/points", call)
    delivered.appliance.run(10)
    report = delivered.report()
    assert (preview["regions"], preview["total"], preview["corrections"]) == (
        report["regions"], report["total"], report["corrections"],
    )  # fmt: skip
    delivered.supervisor.fault = ("worker-timeout", "the worker was silent")
    late = delivered.post("/v1/studies/1/preview", {"revision": 2, "points": points})
    assert (late.status, late.code) == (504, "worker-timeout")


def test_a_preview_is_cancelled_when_its_caller_leaves(delivered):
    delivered.supervisor.holds = True
    body = json.dumps({"revision": 1, "points": POINTS}).encode()

    async def leave():
        gone = asyncio.Event()
        calling = asyncio.ensure_future(
            acall(delivered.app, "POST", "/v1/studies/1/preview", body, "application/json", gone=gone)
        )
        while delivered.supervisor.jobs() == []:
            await asyncio.sleep(0.01)
        gone.set()
        await calling
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

    asyncio.run(leave())
    assert "cancel" in delivered.supervisor.said[-1]
    assert not list(delivered.appliance.places.incoming.iterdir())
