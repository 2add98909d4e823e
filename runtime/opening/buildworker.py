"""The process that builds a GPU's engines and runs the acceptance gate for a scorer; `renewal` is the parent's side.

It writes one JSON object a line: `say` is progress, the last one has `accepted`, the `reason` why not and `judged`:
whether that stands in an acceptance record. It ends as soon as its standard input does, so that nothing is built for a
parent that is gone.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinescore.runtime.machine.processes import end_with_parent
from spinescore.runtime.notices import notice

if TYPE_CHECKING:
    from spinescore.runtime.acceptance import AcceptanceRecord
    from spinescore.runtime.bundle import Bundle

__all__ = ["PRECISION", "Plan", "main", "make", "not_made"]

_NICE = 10

PRECISION = "fp16"  # of what is built unasked; INT8 is somebody's decision

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What there is to do for a bundle on this machine's GPU.

    `untried` are targets in `engines/` that are for this GPU and have no acceptance record. `flavour` is what builds
    `target`; where it is empty nothing can be built, and the gate is all that is left. No other localizer is built.
    """

    gpu: str
    capability: str  # as 8.6
    untried: tuple[str, ...]
    flavour: str
    target: str
    localizer: str | None = None  # an alternative of the bundle, in place of its own

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.untried, *([self.target] if self.flavour else []))))

    @property
    def sentence(self) -> str:
        """One sentence for the reports: which engines are being built or checked."""
        targets = ", ".join(self.targets)
        what = f"are being built ({targets})" if self.flavour else f"are being checked ({targets})"
        text = f"Engines for {self.gpu} {what}; this was scored without them."
        return notice("engine-checking", text, engine="tensorrt")

    def begin(self, bundle: Bundle) -> None:
        """Nothing is noted of a build that begins."""

    def failed(self, bundle: Bundle, reason: str) -> str:
        """Keep why no engine was made; returns the warning."""
        from spinescore.runtime.engines.places import note_failure

        for target in self.targets:
            with suppress(OSError):
                note_failure(bundle.folder, target, reason)
        return not_made(bundle, self.gpu, reason)

    def not_taken(self, error: Exception) -> str:
        """The warning if an engine was accepted, and could not be opened then."""
        return notice("engine-not-taken", f"The engine that was built for {self.gpu} was not taken. {error}")


def not_made(bundle: Bundle, gpu: str, reason: str) -> str:
    """The warning that no engine could be made for a GPU."""
    from spinescore.runtime.bundle import command_name

    again = f"spinescore engine build {command_name(bundle.folder)}"
    text = f"No engine could be made for {gpu}. {reason} To try again: {again}"
    return notice("engine-refused", text, engine="tensorrt")


def main(request: str) -> None:
    """Do what the parent asks for, a JSON object with `bundle` and the fields of a `Plan` or a `checking.Check`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints does not disturb the answers
    end_with_parent()

    def answer(**message: Any) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    judged = False
    try:
        reason, judged = _do(json.loads(request), lambda line: answer(say=line))
    except Exception as error:
        from spinescore.runtime.errors import SpineScoreError

        reason = str(error) if isinstance(error, SpineScoreError) else f"{type(error).__name__}: {error}"
    answer(accepted=not reason, reason=reason, judged=judged)


def _do(wanted: dict[str, Any], say: Say) -> tuple[str, bool]:
    folder = Path(wanted.pop("bundle"))
    if "untried" in wanted:
        return make(folder, Plan(**{**wanted, "untried": tuple(wanted["untried"])}), say)
    from spinescore.runtime.bundle import Bundle
    from spinescore.runtime.opening import checking

    if wanted.pop("aside") and hasattr(os, "nice"):
        os.nice(_NICE)  # the studies that are scored meanwhile come first
    check = checking.Check(**{**wanted, "precisions": tuple(wanted["precisions"])})
    return checking.run(Bundle.open(folder).with_localizer(check.localizer), check, say)


def make(folder: Path, plan: Plan, say: Say) -> tuple[str, bool]:
    """Accept what is there, else build and accept that; returns why not, empty where an engine was accepted.

    The second is whether all of that stands in records. One process at a time for each bundle: who waited takes what
    the other one made. Raises `BundleError`, `EngineError` and `DeviceError`, and `OSError` where no folder can be
    written.
    """
    from spinescore.runtime.bundle import Bundle
    from spinescore.runtime.engines.places import engine_home, locked

    bundle = Bundle.open(folder).with_localizer(plan.localizer)
    with locked(engine_home(folder) / ".building"):
        reasons: dict[str, str] = {}
        for target in plan.untried:
            reasons[target] = _outcome(bundle, plan, target, say)
            if not reasons[target]:
                return "", True
        if plan.flavour:
            if _record(bundle, plan, plan.target) is None:
                _build(bundle, plan, say)
            reasons[plan.target] = _outcome(bundle, plan, plan.target, say)
        judged = all(_record(bundle, plan, target) is not None for target in reasons)
        return " ".join(filter(None, reasons.values())), judged


def _build(bundle: Bundle, plan: Plan, say: Say) -> None:
    from spinescore.export.engine import BuildOptions, build_engines

    targets = (plan.capability,) if plan.flavour == "tensorrt_rtx" else ()  # the others build for the GPU they run on
    build_engines(bundle, BuildOptions(plan.flavour, targets, precision=PRECISION), say)


def _outcome(bundle: Bundle, plan: Plan, target: str, say: Say) -> str:
    """Of the gate, which is run unless it was; empty where the target's engines are accepted."""
    from spinescore.runtime.acceptance.gate import verify_device

    if (record := _record(bundle, plan, target)) is None:
        found = verify_device(bundle, "cuda", "tensorrt", PRECISION, say=say, target=target)
        refused = " ".join(outcome.reason for outcome in found if outcome.record is None)
        if refused or not found:
            return refused or f"There are no engines in {target}."
        record = found[0].record
    assert record is not None
    faults = "; ".join(record.faults(bundle.manifest.bounds))
    return f"The engines in {target} were not accepted: {faults}." if faults else ""


def _record(bundle: Bundle, plan: Plan, target: str) -> AcceptanceRecord | None:
    from spinescore.runtime.acceptance import find_records

    records = find_records(bundle, "cuda", plan.gpu)
    known = (record for record in (*records.accepted, *records.failed) if record.precision == PRECISION)
    return next((record for record in known if record.choice.target == target), None)
