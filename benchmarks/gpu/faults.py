"""Requests that a device must refuse, and after which it must go on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from spinescore.benchmarks.gpu.inputs import Study, score
from spinescore.benchmarks.gpu.record import Failed, Figures
from spinescore.benchmarks.gpu.rig import Rig, answers
from spinescore.kernels.warp import Source
from spinescore.runtime.errors import DeviceError

__all__ = ["refused_and_going_on", "two_threads"]


def two_threads(rig: Rig) -> Figures:
    """Check that two threads in the device at once are refused, and one after the other are not."""
    device = rig.device
    inside, go_on, problems = threading.Event(), threading.Event(), []

    def steps(views: slice) -> None:
        inside.set()
        go_on.wait(30)

    def work() -> None:
        try:
            device.capture(steps)
        except Exception as error:
            problems.append(str(error))

    other = threading.Thread(target=work)
    other.start()
    inside.wait(30)
    refused = ""
    try:
        device.synchronise()
    except DeviceError as error:
        refused = str(error)
    go_on.set()
    other.join()
    device.synchronise()
    if problems or "in use by another thread" not in refused:
        raise Failed(f"the second thread was answered {refused!r}; the first: {problems}")
    return {"refused": refused}


def refused_and_going_on(rig: Rig, study: Study) -> Figures:
    """Check that errors name too many tables and missing memory, and that the device goes on."""
    device = rig.device
    expected = answers(score(device, rig.pipeline, study, True))
    table = np.linspace(0, 1, 256, dtype=np.float32)
    image = Source(np.zeros((2, 2), np.uint8), (table, table, table))
    messages = {
        "too_many_tables": _refusal(lambda: device.upload(0, image), "takes 2 tables"),
        "out_of_memory": _refusal(lambda: device.allocate((1 << 44,), np.uint8), "out of memory"),
    }
    again = answers(score(device, rig.pipeline, study, True))
    if any(one.tobytes() != other.tobytes() for one, other in zip(again, expected, strict=True)):
        raise Failed("after the errors the answers differ", messages)
    return messages


def _refusal(call: Callable[[], Any], expected: str) -> str:
    try:
        call()
    except DeviceError as error:
        if expected in str(error):
            return str(error)
        raise Failed(f"the message does not contain {expected!r}: {error}") from error
    raise Failed(f"nothing was refused; {expected!r} was expected")
