"""Peers, opened and held against this package's own grades before anything is timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.peers.means import (
    Networks,
    onnxruntime_plain,
    openvino_plain,
    torch_compiled,
    torch_eager,
)
from spinescore.benchmarks.peers.plain import GivenPoints, PlainPipeline, Unsuited
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.grading import grade_discs
from spinescore.runtime.report import StudyReport
from spinescore.runtime.study import REGIONS

__all__ = ["PEERS", "Agreement", "Peer", "agreement", "open_peers"]

Means = Callable[[Bundle, "int | None"], Networks]

# Name -> what it is, what runs its networks, and whether they see one image at a time. What compiles comes last.
PEERS: Mapping[str, tuple[str, Means, bool]] = {
    "torch-eager-single": ("PyTorch eager, one image at a time", torch_eager, True),
    "torch-eager": ("PyTorch eager, batches", torch_eager, False),
    "onnxruntime-single": ("ONNX Runtime, one image at a time", onnxruntime_plain, True),
    "onnxruntime": ("ONNX Runtime, batches", onnxruntime_plain, False),
    "openvino": ("OpenVINO, batches, its own precision", openvino_plain(None), False),
    "openvino-fp32": ("OpenVINO, batches, FP32", openvino_plain("f32"), False),
    "torch-compile": ("PyTorch compiled, batches", torch_compiled, False),
}
_NOISE = {"fp32": 1e-3, "bf16": 0.1, "fp16": 0.1}  # of a probability: other orders of additions, other rounding


@dataclass(frozen=True)
class Agreement:
    """Against the report in FP32: corners with another grade, and the largest difference of a probability."""

    corners: int
    other_grades: int
    max_probability_difference: float


@dataclass(frozen=True)
class Peer:
    """`reason` is None where the answers are the same; `score` runs the whole study once."""

    name: str
    title: str
    framework: str | None
    agreement: Agreement | None
    reason: str | None
    first_runs_s: float | None  # opening, compiling and the first study
    score: Callable[[], Any]

    @property
    def same_answers(self) -> bool:
        return self.reason is None

    def facts(self) -> dict[str, Any]:
        """For the record."""
        found = None if self.agreement is None else vars(self.agreement)
        known = {"name": self.name, "title": self.title, "framework": self.framework, "agreement": found}
        return {**known, "reason": self.reason, "first_runs_s": self.first_runs_s}


def open_peers(
    names: Sequence[str],
    bundle: Bundle,
    files: Sequence[Path],
    given: GivenPoints | None,
    threads: int | None,
    say: Callable[[str], None],
) -> list[Peer]:
    """The peers of these names, each tried on the study. One that cannot be tried, or answers otherwise, says why."""
    from spinescore.runtime import Scorer, load_study

    options: dict[str, Any] = {"engine": "onnxruntime", "precision": "fp32"}
    with Scorer.open(str(bundle.folder), "cpu", threads=threads, **options) as scorer:
        report = scorer.score(load_study(*files), keypoints=given)  # type: ignore[arg-type]
    found = []
    for name in names:
        say(f"peer {PEERS[name][0]}")
        peer = _opened(name, bundle, report, files, given, threads)
        if peer.reason is not None:
            say(f"peer {PEERS[name][0]} is not timed: {peer.reason}")
        found.append(peer)
    return found


def _opened(
    name: str,
    bundle: Bundle,
    report: StudyReport,
    files: Sequence[Path],
    given: GivenPoints | None,
    threads: int | None,
) -> Peer:
    title, means, single = PEERS[name]
    started = time.perf_counter()
    try:
        localize, grade, framework = means(bundle, threads)
        pipeline = PlainPipeline(bundle, localize, grade, single)
        answer = pipeline.score(files, given)
    except ImportError as error:
        reason = f'{error.name or error} is not installed: pip install "spinescore[peers]"'
        return Peer(name, title, None, None, reason, None, lambda: None)
    except Unsuited as error:
        return Peer(name, title, None, None, str(error), None, lambda: None)
    except Exception as error:  # of a framework: its classes share no base
        said = (str(error).strip().splitlines() or [""])[0]
        return Peer(name, title, None, None, f"it failed: {type(error).__name__} {said}"[:300], None, lambda: None)
    first_s = round(time.perf_counter() - started, 2)
    same, reason = agreement(report, answer, bundle, framework.split()[-1])
    return Peer(name, title, framework, same, reason, first_s, lambda: pipeline.score(files, given))


def agreement(
    report: StudyReport, answer: NDArray[np.float64], bundle: Bundle, precision: str
) -> tuple[Agreement, str | None]:
    """How far a peer's probabilities (12, 2, 4) are from the report's, and why they are not the same answers."""
    grades = grade_discs(answer, np.ones(len(answer), bool), bundle.manifest.grader)
    discs = [disc for region in REGIONS for disc in report.regions[region].discs]
    if len(discs) != len(answer):
        return Agreement(0, 0, 1.0), "this package did not score both regions, so there is nothing to compare with"
    other, corners, furthest = 0, 0, 0.0
    for disc, mine, p in zip(discs, grades, answer, strict=True):
        for corner, found, values in zip(disc.corners, mine, p, strict=True):
            corners += 1
            other += corner.grade != found.grade
            wanted = (np.nan,) * 4 if corner.probabilities is None else corner.probabilities
            furthest = max(furthest, float(np.nan_to_num(np.abs(values - wanted), nan=1.0).max()))
    found_ = Agreement(corners, other, round(furthest, 6))
    most = _NOISE.get(precision, _NOISE["fp32"])
    if other or furthest > most:
        return (
            found_,
            f"{other} of {corners} grades are others, a probability differs by {furthest:.3g} (at most {most:g})",
        )
    return found_, None
