"""Peers, opened and compared with this package's own grades before anything is timed."""

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

# Name -> title, framework of the networks, whether these see one image at a time. A peer that compiles comes last.
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
    """Against the report in FP32: corners, those with another grade, and the largest difference of a probability."""

    corners: int
    other_grades: int
    max_probability_difference: float


@dataclass(frozen=True)
class Peer:
    """A peer; `reason` is None if its answers are the same; `score` runs the whole study once."""

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
        """Return the facts for a record."""
        same = None if self.agreement is None else vars(self.agreement)
        facts = {"name": self.name, "title": self.title, "framework": self.framework, "agreement": same}
        return {**facts, "reason": self.reason, "first_runs_s": self.first_runs_s}


def reference_report(
    bundle: Bundle, files: Sequence[Path], given: GivenPoints | None, threads: int | None
) -> StudyReport:
    """Score the study with the reference for all peers: this package on ONNX Runtime in FP32."""
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
    """Open the peers and try each on the study; a peer that fails or gives other answers has a reason.

    `kind` is the kind of the device beside which they are timed.
    """
    peers = []
    for name in names:
        title = PEERS[name][0]
        say(f"peer {title}")
        if kind == "cpu":
            peer = _opened(name, bundle, reference, files, given, threads)
        else:
            reason = "it runs on a CPU; python -m spinescore.benchmarks.gpu times peers on a GPU"
            peer = Peer(name, title, None, None, reason, None, lambda: None)
        if peer.reason is not None:
            say(f"peer {title} is not timed: {peer.reason}")
        peers.append(peer)
    return peers


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
        line = (str(error).strip().splitlines() or [""])[0]
        return Peer(name, title, None, None, f"it failed: {type(error).__name__} {line}"[:300], None, lambda: None)
    first_s = round(time.perf_counter() - started, 2)
    same, reason = agreement(report, answer, bundle, framework.split()[-1])
    return Peer(name, title, framework, same, reason, first_s, lambda: pipeline.score(files, given))


def agreement(
    reference: StudyReport, answer: NDArray[np.float64], bundle: Bundle, precision: str
) -> tuple[Agreement, str | None]:
    """Return the agreement of a peer's probabilities (12, 2, 4) with the reference, and a reason if they differ."""
    graded = grade_discs(answer, np.ones(len(answer), bool), bundle.manifest.grader)
    grades = [corner.grade for disc in graded for corner in disc]
    expected = _answers(reference)
    if len(grades) != len(expected[0]):
        return Agreement(0, 0, 1.0), "this package did not score both regions, so there is nothing to compare with"
    same = _agreement((grades, answer.reshape(-1, 4)), expected)
    most = _NOISE.get(precision, _NOISE["fp32"])
    if not same.other_grades and same.max_probability_difference <= most:
        return same, None
    return same, (
        f"{same.other_grades} of {same.corners} grades differ, a probability differs by "
        f"{same.max_probability_difference:.3g} (at most {most:g})"
    )


def own_agreement(report: StudyReport, reference: StudyReport) -> Agreement | None:
    """Return the agreement of the timed engine and precision with the reference; None if their regions differ."""
    answers, expected = _answers(report), _answers(reference)
    return _agreement(answers, expected) if len(answers[0]) == len(expected[0]) else None


Answers = tuple[list["int | None"], NDArray[np.float64]]  # grades, and p0 .. p3 (corners, 4)


def _answers(report: StudyReport) -> Answers:
    corners = [corner for region in REGIONS for disc in report.regions[region].discs for corner in disc.corners]
    p = [(np.nan,) * 4 if corner.probabilities is None else corner.probabilities for corner in corners]
    return [corner.grade for corner in corners], np.array(p, np.float64).reshape(-1, 4)


def _agreement(answers: Answers, expected: Answers) -> Agreement:
    other = sum(mine != theirs for mine, theirs in zip(answers[0], expected[0], strict=True))
    furthest = np.nan_to_num(np.abs(answers[1] - expected[1]), nan=1.0).max(initial=0.0)
    return Agreement(len(answers[0]), other, round(float(furthest), 6))
