"""The process whose start is timed: `python -m spinescore.benchmarks.bench.process JSON` (see `starts`).

It opens the bundle, scores the study once and writes a line of JSON; then it scores a few times more and writes its
memory in another line. With `networks` it opens and runs the networks alone, after the same imports. Nothing but the
standard library is imported before it first reads the clock.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

_MORE = 3  # studies, after which memory has settled


def main() -> None:
    began = time.perf_counter()
    request = json.loads(sys.argv[1])
    if request["networks"]:
        _networks(request)
    else:
        _study(request, began)


def _study(request: dict[str, Any], began: float) -> None:
    from spinescore.runtime import Scorer, load_study

    imported = time.perf_counter()
    with Scorer.open(request["bundle"], request["device"], build="no", **request["options"]) as scorer:
        opened = time.perf_counter()
        points = request["points"]
        report = scorer.score(load_study(*map(Path, request["files"])), keypoints=points)
        scored = time.perf_counter()
        steps = {"import": imported - began, "open": opened - imported, "first_study": scored - opened}
        _write({"steps_ms": {name: round(seconds * 1e3, 1) for name, seconds in steps.items()}})
        for _ in range(_MORE if request["memory"] else 0):
            scorer.score(load_study(*map(Path, request["files"])), keypoints=points)
        if request["memory"]:
            _write(_memory(report.device.kind))


def _networks(request: dict[str, Any]) -> None:
    """Run the networks alone, after the imports that a study needs."""
    import cv2  # noqa: F401
    import pydicom  # noqa: F401

    from spinescore.benchmarks.bench.alone import networks_alone
    from spinescore.runtime.bundle import Bundle
    from spinescore.runtime.engines.choice import EngineChoice

    choice = EngineChoice(**request["choice"]) if request["choice"] else None
    kind = request["device"]
    bundle = Bundle.open(request["bundle"]).with_localizer(request["localizer"])
    with networks_alone(bundle, kind, choice, request["options"].get("threads")) as run:
        for _ in range(1 + _MORE):
            run()
        _write(_memory(kind))


def _memory(kind: str) -> dict[str, Any]:
    from spinescore.benchmarks.gpu.machine import device_in_use_bytes
    from spinescore.benchmarks.harness.environment import memory_bytes

    return {"memory": {**memory_bytes(), "device_bytes": device_in_use_bytes() if kind == "cuda" else None}}


def _write(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
