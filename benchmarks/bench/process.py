"""The process whose start is timed: `python -m spinescore.benchmarks.bench.process JSON` (see `starts`).

It opens the bundle and scores the study once, and says so in a line of JSON; then a few times more for its memory, and
says that in another line. With `networks` it opens and runs the networks alone, after the same imports. Nothing but the
standard library is imported before the clock that it reads first.
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
    asked = json.loads(sys.argv[1])
    if asked["networks"]:
        _networks(asked)
    else:
        _study(asked, began)


def _study(asked: dict[str, Any], began: float) -> None:
    from spinescore.runtime import Scorer, load_study

    imported = time.perf_counter()
    with Scorer.open(asked["bundle"], asked["device"], build="no", **asked["options"]) as scorer:
        opened = time.perf_counter()
        points = asked["points"]
        report = scorer.score(load_study(*map(Path, asked["files"])), keypoints=points)
        scored = time.perf_counter()
        steps = {"import": imported - began, "open": opened - imported, "first_study": scored - opened}
        _say({"steps_ms": {name: round(seconds * 1e3, 1) for name, seconds in steps.items()}})
        for _ in range(_MORE if asked["memory"] else 0):
            scorer.score(load_study(*map(Path, asked["files"])), keypoints=points)
        if asked["memory"]:
            _say(_memory(report.device.kind))


def _networks(asked: dict[str, Any]) -> None:
    """The same libraries and engines, and no study."""
    import cv2  # noqa: F401
    import pydicom  # noqa: F401

    from spinescore.benchmarks.bench.alone import networks_alone
    from spinescore.runtime.bundle import Bundle
    from spinescore.runtime.engines.choice import EngineChoice

    choice = EngineChoice(**asked["choice"]) if asked["choice"] else None
    kind = asked["device"]
    bundle = Bundle.open(asked["bundle"]).with_localizer(asked["localizer"])
    with networks_alone(bundle, kind, choice, asked["options"].get("threads")) as run:
        for _ in range(1 + _MORE):
            run()
        _say(_memory(kind))


def _memory(kind: str) -> dict[str, Any]:
    from spinescore.benchmarks.bench.memory import device_in_use_bytes, memory_bytes

    return {"memory": {**memory_bytes(), "device_bytes": device_in_use_bytes() if kind == "cuda" else None}}


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
