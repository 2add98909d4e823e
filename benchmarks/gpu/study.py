"""Times of whole studies, from pixels in the host's memory to probabilities, by the clock and by CUDA events."""

from __future__ import annotations

import itertools
import time
from typing import Any

from spinescore.benchmarks.gpu.inputs import BOTH, Study, timed_study
from spinescore.benchmarks.gpu.networks import Subject, still, subjects
from spinescore.benchmarks.gpu.record import Figures, Record, percentiles
from spinescore.benchmarks.gpu.rig import Rig, open_rig
from spinescore.runtime.scoring.grading import probabilities

__all__ = ["run"]

_WARM_UP = 2  # rounds
_ROUNDS, _OWN_ROUNDS = 300, 30


def run(record: Record, options: Any) -> None:
    """Run the part `study`."""
    for subject in subjects(options):
        until = record.within(0.5 * record.left_s)
        record.check(f"{subject.name}: whole study", lambda s=subject, u=until: _whole(s, options, u))  # type: ignore[misc]


def _whole(subject: Subject, options: Any, until: float) -> Figures:
    """Time the study, and also without the networks' work (`own_kernels_ms`)."""
    study = timed_study(options.quick, subject.bundle.manifest.localizer.input)
    with open_rig(subject, study.sources[0].pixels.size) as rig:
        figures = _study(rig, study, 1 if options.quick else _ROUNDS, until)
    if not subject.is_still:
        alone = Subject("", subject.bundle, still(subject.bundle), is_still=True)
        with open_rig(alone, study.sources[0].pixels.size) as rig:
            own = _study(rig, study, 1 if options.quick else _OWN_ROUNDS, until + 5)
        figures["own_kernels_ms"] = own["replay_gpu"]["p50_ms"]
    return figures


def _study(rig: Rig, study: Study, rounds: int, until: float) -> Figures:
    """Time a study; graph and launches take turns. `resident`: pixels are on the GPU; `gpu`: by CUDA events."""
    head = rig.subject.bundle.manifest.grader.head
    times: dict[str, list[float]] = {name: [] for name in ("graph", "launches", "graph_resident", "replay_gpu")}
    stages: dict[str, list[float]] = {}
    for number in range(rounds + _WARM_UP):
        for name, replaying, uploaded in (
            ("graph", True, True),
            ("launches", False, True),
            ("graph_resident", True, False),
        ):
            rig.device.replaying = replaying
            started = time.perf_counter()
            if uploaded:
                for slot, source in enumerate(study.sources):
                    rig.device.upload(slot, source)
            results = rig.pipeline.score(BOTH, study.whole, study.views)
            probabilities(results.logits, head)
            elapsed = (time.perf_counter() - started) * 1e3
            if number >= _WARM_UP:
                times[name].append(elapsed)
        if number >= _WARM_UP:
            marks = list(results.stages_ms.items())
            times["replay_gpu"].append(marks[-1][1] - marks[0][1])
            for (_, before), (stage, at) in itertools.pairwise(marks):
                stages.setdefault(stage, []).append(at - before)
        if time.monotonic() > until and number > _WARM_UP:
            break
    figures: Figures = {name: percentiles(values) for name, values in times.items()}
    figures["stages_gpu"] = {stage: percentiles(values) for stage, values in stages.items()}
    p50, p99 = figures["graph"]["p50_ms"], figures["graph"]["p99_ms"]
    figures |= {"engine": rig.pipeline.framework, "precision": rig.pipeline.precision, "study": study.name}
    return {**figures, "graph_p50_ms": p50, "graph_p99_over_p50": round(p99 / max(p50, 1e-9), 3)}
