"""The acceptance gate on this CPU, run once and unasked if OpenVINO is installed and none of its engines was accepted.

A new installation would else score in FP32, though the same networks take half the time in INT8 or BF16. The gate runs
in a process of its own (`building.Build`), on the engine that is likely the fastest, then on the next until one is
accepted. Its records are kept, so that it is not run again: neither if an engine was accepted nor if all were refused,
until another version of OpenVINO is installed. It is not run where nothing can be kept, and not a fourth time after it
was ended three times. SPINESCORE_CHECK=0 leaves it out.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from spinescore.kernels.build import user_cache
from spinescore.kernels.signing import key_fault
from spinescore.runtime.acceptance import find_records, verify_command
from spinescore.runtime.acceptance.golden import has_golden
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.engines.choice import cpu_choices, installed_openvino
from spinescore.runtime.engines.places import locked
from spinescore.runtime.opening import Wanted
from spinescore.runtime.output import write_atomic
from spinescore.runtime.processes import can_start
from spinescore.runtime.processor import instruction_sets, processor_kind

__all__ = ["Check", "find_check", "run"]

VARIABLE = "SPINESCORE_CHECK"

Say = Callable[[str], None]

_FAST = {
    "int8": (),
    "bf16": ("avx512-bf16", "amx-bf16", "bf16"),
}  # precision -> instruction sets, one of which it needs
_MOST_TRIES = 3
_LONGEST = 2000


@dataclass(frozen=True)
class Check:
    """The precisions of this OpenVINO to check on this CPU, in the order in which they are tried."""

    framework: str
    precisions: tuple[str, ...]
    localizer: str | None = None

    @property
    def sentence(self) -> str:
        """One sentence for the reports: which engines are being checked."""
        what = " or ".join(self.precisions)
        return f"{self.framework} ({what}) is being checked on this CPU, once; until then a slower engine scores."

    def begin(self, bundle: Bundle) -> None:
        """Count a try, until it ends. Raises `OSError`."""
        write_atomic(_note(bundle, self), f"{_tries(bundle, self)[0] + 1}\n")

    def failed(self, bundle: Bundle, reason: str) -> str:
        """Keep why nothing was accepted; returns the warning."""
        with suppress(OSError, RuntimeError):
            write_atomic(_note(bundle, self), f"{_MOST_TRIES}\n{reason[:_LONGEST]}")
        return _refused(bundle, self, reason)

    def not_taken(self, error: Exception) -> str:
        """The warning if the engine was accepted, and could not be opened then."""
        return f"The engine that was accepted on this CPU was not taken. {error}"


def find_check(bundle: Bundle, wanted: Wanted) -> tuple[Check | None, tuple[str, ...]]:
    """Return the check that this bundle needs, or None, and a warning if an earlier one failed."""
    framework = installed_openvino()
    asked = wanted.names_nothing and wanted.require_acceptance and os.environ.get(VARIABLE, "1") != "0"
    if not (asked and framework and has_golden(bundle) and can_start()):
        return None, ()
    accepted, left = _judged(bundle, framework)
    if accepted or not left:
        return None, ()
    check = Check(framework, left, bundle.localizer)
    if fault := key_fault():  # what is found could not be kept, and would be found again at every start
        return None, (f"{framework} was not checked on this CPU, and a slower engine scores. {fault}",)
    tries, reason = _tries(bundle, check)
    if tries >= _MOST_TRIES:
        return None, (_refused(bundle, check, reason or f"The check was ended {tries} times before it was done."),)
    return check, ()


def run(bundle: Bundle, check: Check, say: Say) -> tuple[str, bool]:
    """Run the gate; returns why nothing was accepted (else empty), and whether all of that stands in records.

    One process at a time for each bundle. Raises as `verify_device` does, and `OSError`.
    """
    from spinescore.runtime.acceptance.gate import verify_device

    with locked(_note(bundle, check).with_suffix(".lock")):
        accepted, left = _judged(bundle, check.framework)
        if accepted:  # another process has done it meanwhile
            return "", True
        reasons, judged = [], True
        for precision in left:
            (outcome,) = verify_device(bundle, "cpu", "openvino", precision, say=say)
            if outcome.record is not None and outcome.record.passed:
                return "", True
            judged &= outcome.record is not None
            reasons.append(f"{outcome.name}: {outcome.reason}.")
    return " ".join(reasons) or "Another process has just found that.", judged


def _judged(bundle: Bundle, framework: str) -> tuple[bool, tuple[str, ...]]:
    """Whether an engine of this OpenVINO is accepted, and the precisions that have no record yet."""
    records = find_records(bundle, "cpu", processor_kind())
    tried = {record.precision for record in records.failed if record.framework == framework}
    known = {choice.precision for choice in cpu_choices(bundle.manifest.networks) if choice.engine == "openvino"}
    here = set(instruction_sets())
    left = (name for name, sets in _FAST.items() if name in known - tried and (not sets or here & set(sets)))
    return any(record.framework == framework for record in records.accepted), tuple(left)


def _refused(bundle: Bundle, check: Check, reason: str) -> str:
    return (
        f"{check.framework} was not accepted on this CPU, and a slower engine scores. {reason} To try again: "
        f"{verify_command(bundle, 'cpu')}"
    )


def _tries(bundle: Bundle, check: Check) -> tuple[int, str]:
    """How often the check was begun, and why it failed if it did."""
    try:
        with _note(bundle, check).open(encoding="utf-8", errors="replace") as file:
            first, _, reason = file.read(_LONGEST).partition("\n")
        return (int(first) if first.isdecimal() and len(first) < 3 else _MOST_TRIES), reason
    except (OSError, RuntimeError):
        return 0, ""


def _note(bundle: Bundle, check: Check) -> Path:
    key = hashlib.sha256(f"{check.framework} {processor_kind()} {check.localizer or ''}".encode()).hexdigest()[:16]
    return user_cache() / "acceptance" / bundle.sha256[:16] / f"check-{key}.txt"
