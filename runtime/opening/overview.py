"""The engines that score a bundle on this machine, in a line for `spinescore doctor`."""

from __future__ import annotations

from spinescore.runtime.acceptance import Records, find_records, verify_command
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices import hardware_of
from spinescore.runtime.engines.choice import REFERENCE
from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.opening.building import find_build
from spinescore.runtime.opening.checking import find_check
from spinescore.runtime.opening.request import Request

__all__ = ["engines_here"]


def engines_here(name: str, kind: str) -> str:
    """Return which engines were accepted for the bundle on this device, the fastest first, and which were not.

    The line also says what opening a scorer would build or check. `kind` is `cpu` or `cuda`.
    """
    try:
        bundle = Bundle.open(name)
        records = find_records(bundle, kind, hardware_of(kind))
        return _on_cpu(bundle, records) if kind == "cpu" else _on_gpu(bundle, records)
    except SpineScoreError as error:
        return str(error)


def _on_cpu(bundle: Bundle, records: Records) -> str:
    passes = bundle.manifest.localizer.passes
    parts = [
        f"{record.framework} {record.precision} accepted ({share:.0%} of the reference's time)"
        for record, share in ((one, one.share_of_reference(passes)) for one in records.accepted)
    ]
    parts += [*_refused(records), f"{REFERENCE} is the reference and needs no record"]
    check, warnings = find_check(bundle, Request("cpu"))
    if check is not None:
        parts.append(f"{check.framework} ({' or '.join(check.precisions)}) is checked when a scorer is opened")
    again = "" if records.accepted else f"; to accept more: {verify_command(bundle, 'cpu')}"
    return ". ".join((", ".join(parts) + again, *records.passed_over, *warnings))


def _on_gpu(bundle: Bundle, records: Records) -> str:
    parts = [f"{record.framework} {record.precision} accepted" for record in records.accepted]
    parts += _refused(records)
    job, warnings = find_build(bundle, Request("cuda"))
    if job is not None:
        parts += [f"engines in {target} are to be checked" for target in job.untried]
        parts += [f"{job.flavour} builds {job.target} when a scorer is opened"] if job.flavour else []
    return ", ".join((*parts, *warnings)) or f"none; to accept what is installed: {verify_command(bundle, 'cuda')}"


def _refused(records: Records) -> list[str]:
    return [f"{record.framework} {record.precision} {record.refusal}" for record in records.failed]
