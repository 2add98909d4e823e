"""Check this CPU's engines: run the acceptance gate once, unasked, if OpenVINO is installed but not accepted yet.

Without that a new installation would score in FP32, though the same networks take half the time in INT8 or BF16. The
gate runs in a process of its own (`background.Build`), first on the engine that is probably the fastest, then on the
next one until an engine is accepted.

Its records are kept. The gate is not run again until another version of OpenVINO is installed, whether an engine was
accepted or all were refused. It is not run if nothing can be kept, and not a fourth time after it was ended three
times. If it may not or cannot run, reports warn that a slower engine scores. SPINESCORE_CHECK=0 turns off both the
check and the warning.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from spinescore.kernels.cache import CACHE_VARIABLE, user_cache
from spinescore.kernels.signing import key_fault
from spinescore.runtime.acceptance import find_records, verify_command
from spinescore.runtime.acceptance.golden import has_golden
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.engines import OPENVINO
from spinescore.runtime.engines.choice import choices_on, installed_openvino
from spinescore.runtime.engines.places import locked
from spinescore.runtime.files import write_atomic
from spinescore.runtime.logs import OPENING
from spinescore.runtime.machine.caches import cache_place, cache_values
from spinescore.runtime.machine.processes import can_start
from spinescore.runtime.machine.processor import instruction_sets, processor_kind
from spinescore.runtime.notices import notice
from spinescore.runtime.opening.request import Request

__all__ = ["Check", "find_check", "run"]

VARIABLE = "SPINESCORE_CHECK"

Say = Callable[[str], None]

_FAST = {  # precision: the CPU needs one of these instruction sets
    "int8": (),
    "bf16": ("avx512-bf16", "amx-bf16", "bf16"),
}
_MOST_TRIES = 3
_LONGEST = 2000


@dataclass(frozen=True)
class Check:
    """The precisions of the installed OpenVINO to check on this CPU, in the order in which they are tried."""

    framework: str
    precisions: tuple[str, ...]
    localizer: str | None = None

    @property
    def sentence(self) -> str:
        """One sentence for the reports: which engines are being checked."""
        precisions = " or ".join(self.precisions)
        text = f"{self.framework} ({precisions}) is being checked on this CPU, once; until then a slower engine scores."
        return notice("engine-checking", text, engine=self.framework)

    def begin(self, bundle: Bundle) -> None:
        """Count this try, which may be ended before it is done. Raises `OSError`."""
        write_atomic(_note(bundle, self), f"{_tries(bundle, self)[0] + 1}\n")

    def failed(self, bundle: Bundle, reason: str) -> str:
        """Keep why nothing was accepted; return the warning."""
        with suppress(OSError, RuntimeError):
            write_atomic(_note(bundle, self), f"{_MOST_TRIES}\n{reason[:_LONGEST]}")
        return _refused(bundle, self, reason)

    def not_taken(self, error: Exception) -> str:
        """Return the warning if the engine was accepted but could not be opened then."""
        return notice("engine-not-taken", f"The engine that was accepted on this CPU was not taken. {error}")

    def then(self, request: Request) -> Request:
        """Return how to open the engine that was accepted."""
        return request


def find_check(bundle: Bundle, request: Request, allowed: bool = True) -> tuple[Check | None, tuple[str, ...]]:
    """Return the check that this bundle needs, or None, and a warning if an earlier one failed or none can be run.

    `allowed` is false if the caller wants no check; the warning then says that a slower engine scores.
    """
    framework = installed_openvino()
    if not (request.names_nothing and request.require_acceptance and framework and has_golden(bundle)):
        return None, ()
    accepted, left = _judged(bundle, framework)
    if accepted or not left:
        OPENING.debug("%s needs no check here: %s", framework, "accepted" if accepted else "judged before, or too slow")
        return None, ()
    check = Check(framework, left, bundle.localizer)
    if os.environ.get(VARIABLE, "1") == "0":
        OPENING.debug("%s (%s) is not accepted and not checked: %s is 0", framework, " or ".join(left), VARIABLE)
        return None, ()
    why = "" if can_start() else "this application has no Python that could run it"
    if why := why if allowed else "the scorer was opened with build no":
        records = find_records(bundle, "cpu", processor_kind())
        # Opening the bundle already warns of records of another version or another machine.
        warned = records.accepted or records.passed_over
        return None, () if warned else (_unchecked(bundle, check, why),)
    if fault := key_fault():  # the result could not be kept, and the check would run again at every start
        text = f"{framework} was not checked on this CPU, and a slower engine scores. {fault}"
        return None, (notice("cache-not-writable", text, **cache_values()),)
    tries, reason = _tries(bundle, check)
    if tries >= _MOST_TRIES:
        return None, (_refused(bundle, check, reason or f"The check was ended {tries} times before it was done."),)
    return check, ()


def _unchecked(bundle: Bundle, check: Check, why: str) -> str:
    """Return the warning for a user, as the account of a service, for whom no faster engine was ever accepted."""
    place, again = cache_place(), verify_command(bundle, "cpu")
    kept = place or "no folder: set that variable"
    text = (
        f"{check.framework} ({' or '.join(check.precisions)}) was not accepted for this user on this CPU, and a slower "
        f"engine scores; it is not checked, because {why}. Run {again} as the user that scores, with the home "
        f"folder and {CACHE_VARIABLE} that it has then; its signatures lie in {kept}."
    )
    engine, precisions = check.framework, list(check.precisions)
    return notice("engine-unchecked", text, engine=engine, precisions=precisions, why=why, folder=place)


def run(whole: Bundle, check: Check, say: Say) -> tuple[str, bool]:
    """Run the gate; return why nothing was accepted, else an empty text, and whether all of that stands in records.

    One process works on a bundle at a time. Raises what `verify_device` raises, and `OSError`.
    """
    from spinescore.runtime.acceptance.gate import verify_device

    bundle = whole.with_localizer(check.localizer)
    with locked(_note(bundle, check).with_suffix(".lock")):
        accepted, left = _judged(bundle, check.framework)
        if accepted:  # another process did it meanwhile
            return "", True
        reasons, judged = [], True
        for precision in left:
            (outcome,) = verify_device(bundle, "cpu", OPENVINO, precision, say=say)
            if outcome.record is not None and outcome.record.passed:
                return "", True
            judged &= outcome.record is not None
            reasons.append(f"{outcome.name}: {outcome.reason}.")
    return " ".join(reasons) or "Another process has just found that.", judged


def _judged(bundle: Bundle, framework: str) -> tuple[bool, tuple[str, ...]]:
    """Return whether an engine of this OpenVINO is accepted, and the precisions that have no record yet."""
    records = find_records(bundle, "cpu", processor_kind())
    tried = {record.precision for record in records.failed if record.framework == framework}
    choices = choices_on("cpu", bundle.manifest.networks, bundle.folder)
    possible = {choice.precision for choice in choices if choice.engine == OPENVINO}
    here = set(instruction_sets())
    left = (name for name, sets in _FAST.items() if name in possible - tried and (not sets or here & set(sets)))
    return any(record.framework == framework for record in records.accepted), tuple(left)


def _refused(bundle: Bundle, check: Check, reason: str) -> str:
    text = (
        f"{check.framework} was not accepted on this CPU, and a slower engine scores. {reason} To try again: "
        f"{verify_command(bundle, 'cpu')}"
    )
    return notice("engine-refused", text, engine=check.framework)


def _tries(bundle: Bundle, check: Check) -> tuple[int, str]:
    """Return how often the check was begun, and why it failed if it did."""
    try:
        with _note(bundle, check).open(encoding="utf-8", errors="replace") as file:
            first, _, reason = file.read(_LONGEST).partition("\n")
        return (int(first) if first.isdecimal() and len(first) < 3 else _MOST_TRIES), reason
    except (OSError, RuntimeError):
        return 0, ""


def _note(bundle: Bundle, check: Check) -> Path:
    key = hashlib.sha256(f"{check.framework} {processor_kind()} {check.localizer or ''}".encode()).hexdigest()[:16]
    return user_cache() / "acceptance" / bundle.sha256[:16] / f"check-{key}.txt"
