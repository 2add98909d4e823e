"""The bundles' golden inputs: through the acceptance gate for every engine here, and through PyTorch if it stands in.

The gate's records are not kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.gpu.networks import Subject, subjects
from spinescore.benchmarks.gpu.record import Failed, Figures, Record, Skipped
from spinescore.benchmarks.gpu.reference import open_host
from spinescore.benchmarks.gpu.rig import open_rig
from spinescore.runtime.acceptance.comparison import compare_grades, compare_points
from spinescore.runtime.acceptance.gate import Outcome, verify_device
from spinescore.runtime.acceptance.golden import GoldenNetwork
from spinescore.runtime.acceptance.runs import golden_networks
from spinescore.runtime.errors import EngineError
from spinescore.runtime.scoring.pipeline import Pipeline

__all__ = ["run"]


def run(record: Record, options: Any) -> None:
    """Run the part `acceptance`."""
    for subject in subjects(options):
        if subject.open_engine is None:
            _gate(record, subject, options)
        elif not subject.is_still:
            record.check(f"{subject.name}: golden inputs on PyTorch", lambda s=subject: _golden(s))  # type: ignore[misc]


def _gate(record: Record, subject: Subject, options: Any) -> None:
    tried: list[Outcome] = []

    def all_engines() -> Figures:
        try:
            tried.extend(verify_device(subject.bundle, "cuda", folder=options.scratch / "acceptance"))
        except EngineError as error:
            raise Skipped(str(error)) from error
        return {"tried": [str(outcome.choice) for outcome in tried]}

    record.check(f"{subject.name}: acceptance gate", all_engines)
    for outcome in tried:

        def judged(outcome: Outcome = outcome) -> Figures:
            if outcome.record is None:
                raise Skipped(outcome.reason)
            figures = {**asdict(outcome.record.figures), "networks_ms": dict(outcome.record.networks_ms)}
            if not outcome.record.passed:
                raise Failed(outcome.reason, figures)
            return figures

        record.check(f"{subject.name}: acceptance of {outcome.choice}", judged)


def _golden(subject: Subject) -> Figures:
    """Compare the outputs with those of the CPU in FP32; the bundle's tolerances decide."""
    manifest, networks = subject.bundle.manifest, golden_networks(subject.bundle)
    with open_rig(subject, 2**16) as rig:
        outputs = _outputs(rig.pipeline, networks)
        engine = rig.pipeline.framework
    host = open_host()
    try:
        reference = _outputs(Pipeline(subject.bundle, host), networks)
    finally:
        host.close()
    figures: Figures = {"engine": engine}
    faults = []
    for network in networks:
        if network.kind == "localizer":
            both = reference[network.name], outputs[network.name]
            points = compare_points(*both, manifest.localizer, network.regions)
            figures[network.name] = asdict(points)
            faults += points.faults(manifest.bounds)
    by_role = [{n.role: run[n.name] for n in networks if n.kind == "grader"} for run in (reference, outputs)]
    grades = compare_grades(by_role[0], by_role[1], manifest.grader)
    figures["grader"] = asdict(grades)
    faults += grades.faults(manifest.bounds)
    if faults:
        raise Failed("; ".join(faults), figures)
    return figures


def _outputs(pipeline: Pipeline, networks: Sequence[GoldenNetwork]) -> dict[str, NDArray[np.float32]]:
    """Return the outputs (N, ..) of all golden inputs by network, run as in a study."""
    outputs = {network.name: np.zeros(network.expected.shape, np.float32) for network in networks}
    for number in range(max(math.ceil(len(network.pictures) / network.batch) for network in networks)):
        rows = {n.name: (number * n.batch + np.arange(n.batch)) % len(n.pictures) for n in networks}
        images = {name: image for n in networks for name, image in n.images(rows[n.name]).items()}
        for name, values in pipeline.run_networks(images)[0].items():
            outputs[name][rows[name]] = values
    return outputs
