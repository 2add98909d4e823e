"""The acceptance gate for every engine here, on the bundles' golden inputs; the records are not kept."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from spinescore.benchmarks.gpu.networks import Subject, subjects
from spinescore.benchmarks.gpu.record import Failed, Figures, Record, Skipped
from spinescore.runtime.acceptance.gate import Outcome, verify_device
from spinescore.runtime.errors import EngineError

__all__ = ["run"]


def run(record: Record, options: Any) -> None:
    """Run the part `acceptance`."""
    for subject in subjects(options):
        if subject.open_engine is None:
            _gate(record, subject, options)


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
