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
from spinescore.runtime.scoring.grading import grade_discs
from spinescore.runtime.scoring.report import StudyReport
from spinescore.runtime.study import REGIONS

__all__ = ["PEERS", "Agreement", "Peer", "agreement", "open_peers", "own_agreement", "reference_report"]

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


def reference_report(
    bundle: Bundle, files: Sequence[Path], given: GivenPoints | None, threads: int | None
) -> StudyReport:
    """What all are held against: this package on ONNX Runtime in FP32."""
    from spinescore.runtime import Scorer, load_study

    options: dict[str, Any] = {"engine": "onnxruntime", "precision": "fp32", "threads": threads}
    options["localizer"] = bundle.localizer
    with Scorer.open(str(bundle.folder), "cpu", **options) as scorer:
        return scorer.score(load_study(*files), keypoints=given)


def open_peers(
    names: Sequence[str],
    kind: str,
    bundle: Bundle,
    reference: StudyReport,
    files: Sequence[Path],
    given: GivenPoints | None,
    threads: int | None,
    say: Callable[[str], None],
) -> list[Peer]:
    """The peers of these names, each tried on the study. One that cannot be tried, or answers otherwise, says why.

    `kind` is that of the device beside which they are to be timed.
    """
    found = []
    for name in names:
        title = PEERS[name][0]
        say(f"peer {title}")
        if kind == "cpu":
            peer = _opened(name, bundle, reference, files, given, threads)
        else:
            elsewhere = "it runs on a CPU; python -m spinescore.benchmarks.gpu times peers on a GPU"
            peer = Peer(name, title, None, None, elsewhere, None, lambda: None)
        if peer.reason is not None:
            say(f"peer {title} is not timed: {peer.reason}")
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
        missing = f'{error.name or error} is not installed: pip install "spinescore[peers]"'
        return Peer(name, title, None, None, missing, None, lambda: None)
    except Unsuited as error:
        return Peer(name, title, None, None, str(error), None, lambda: None)
    except Exception as error:  # of a framework: its classes share no base
        said = (str(error).strip().splitlines() or [""])[0]
        return Peer(name, title, None, None, f"it failed: {type(error).__name__} {said}"[:300], None, lambda: None)
    first_s = round(time.perf_counter() - started, 2)
    same, reason = agreement(report, answer, bundle, framework.split()[-1])
    return Peer(name, title, framework, same, reason, first_s, lambda: pipeline.score(files, given))


def agreement(
    reference: StudyReport, answer: NDArray[np.float64], bundle: Bundle, precision: str
) -> tuple[Agreement, str | None]:
    """How far a peer's probabilities (12, 2, 4) are from the reference's, and why they are not the same answers."""
    graded = grade_discs(answer, np.ones(len(answer), bool), bundle.manifest.grader)
    grades = [corner.grade for disc in graded for corner in disc]
    wanted = _answers(reference)
    if len(grades) != len(wanted[0]):
        return Agreement(0, 0, 1.0), "this package did not score both regions, so there is nothing to compare with"
    found = _agreement((grades, answer.reshape(-1, 4)), wanted)
    most = _NOISE.get(precision, _NOISE["fp32"])
    if not found.other_grades and found.max_probability_difference <= most:
        return found, None
    return found, (
        f"{found.other_grades} of {found.corners} grades are others, a probability differs by "
        f"{found.max_probability_difference:.3g} (at most {most:g})"
    )


def own_agreement(report: StudyReport, reference: StudyReport) -> Agreement | None:
    """How far this package is from its reference in the engine and precision that are timed; None where regions are."""
    found, wanted = _answers(report), _answers(reference)
    return _agreement(found, wanted) if len(found[0]) == len(wanted[0]) else None


Answers = tuple[list["int | None"], NDArray[np.float64]]  # grades, and p0 .. p3 (corners, 4)


def _answers(report: StudyReport) -> Answers:
    corners = [corner for region in REGIONS for disc in report.regions[region].discs for corner in disc.corners]
    p = [(np.nan,) * 4 if corner.probabilities is None else corner.probabilities for corner in corners]
    return [corner.grade for corner in corners], np.array(p, np.float64).reshape(-1, 4)


def _agreement(found: Answers, wanted: Answers) -> Agreement:
    other = sum(mine != theirs for mine, theirs in zip(found[0], wanted[0], strict=True))
    furthest = np.nan_to_num(np.abs(found[1] - wanted[1]), nan=1.0).max(initial=0.0)
    return Agreement(len(found[0]), other, round(float(furthest), 6))
