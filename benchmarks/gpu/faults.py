"""What a device must refuse, and go on after."""

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


def two_threads(found: Rig) -> Figures:
    """Two threads in the device at once are refused; one after the other they are not."""
    device = found.device
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


def refused_and_going_on(found: Rig, study: Study) -> Figures:
    """An image that is too large and memory that is not there are named, and the device goes on."""
    device = found.device
    wanted = answers(score(device, found.pipeline, study, True))
    table = np.linspace(0, 1, 256, dtype=np.float32)
    image = Source(np.zeros((2, found.largest_image_px // 2 + 1), np.uint8), (table, table))
    said = {
        "image_too_large": _refusal(lambda: device.upload(0, image), "largest_image_px="),
        "out_of_memory": _refusal(lambda: device.allocate((1 << 44,), np.uint8), "out of memory"),
    }
    again = answers(score(device, found.pipeline, study, True))
    if any(one.tobytes() != other.tobytes() for one, other in zip(again, wanted, strict=True)):
        raise Failed("after the errors the answers are others", said)
    return said


def _refusal(call: Callable[[], Any], expected: str) -> str:
    try:
        call()
    except DeviceError as error:
        if expected in str(error):
            return str(error)
        raise Failed(f"the message does not say {expected!r}: {error}") from error
    raise Failed(f"nothing was refused where {expected!r} was expected")
