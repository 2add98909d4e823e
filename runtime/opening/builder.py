"""The process that builds or checks engines for a scorer; `background` is the scorer's side.

It writes one JSON object a line: `say` is progress. The last one has `accepted`, the `reason` if nothing was accepted,
and `judged`: whether that stands in an acceptance record. The process ends as soon as its standard input does, so that
nothing is built for a parent that is gone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spinescore.runtime.machine.child import answering

__all__ = ["main"]

_NICE = 10

Say = Callable[[str], None]


def main(request: str) -> None:
    """Do the `job` that the parent sends, a `BuildJob` or a `Check`, for its `bundle`."""
    answer = answering()
    judged = False
    try:
        reason, judged = _do(json.loads(request), lambda line: answer(say=line))
    except Exception as error:
        from spinescore.runtime.errors import SpineScoreError

        reason = str(error) if isinstance(error, SpineScoreError) else f"{type(error).__name__}: {error}"
    answer(accepted=not reason, reason=reason, judged=judged)


def _do(request: dict[str, Any], say: Say) -> tuple[str, bool]:
    from spinescore.runtime.bundle import Bundle
    from spinescore.runtime.documents import read
    from spinescore.runtime.opening import building, checking

    bundle, job = Bundle.open(Path(request["bundle"])), request["job"]
    if "untried" in job:
        return building.run(bundle, read(building.BuildJob, job), say)
    if request["aside"] and hasattr(os, "nice"):
        os.nice(_NICE)  # the studies that are scored meanwhile come first
    return checking.run(bundle, read(checking.Check, job), say)
