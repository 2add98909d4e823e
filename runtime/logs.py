"""The log of this package: under `spinescore`, at level DEBUG only, without a handler of its own.

    spinescore.opening   the chosen engine and the reason, records, plan, checks, engines that were passed over
    spinescore.reading   the decoder of each image, decoders that failed, worker processes
    spinescore.scoring   each study: regions, times in ms, skipped steps, codes of warnings
    spinescore.cache     folders in which files are kept, and the files that were used

Nothing about a patient is logged: no header value, UID, date or file name, and no warning's message, which may name a
file. Nothing is logged at WARNING or above: the report has all that the user should know.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spinescore.runtime.acceptance import AcceptanceRecord, Records
    from spinescore.runtime.scoring.report import RegionReport, StudyReport

__all__ = ["CACHE", "OPENING", "READING", "SCORING", "log_engine", "log_once", "log_records", "log_study"]

OPENING = logging.getLogger("spinescore.opening")
READING = logging.getLogger("spinescore.reading")
SCORING = logging.getLogger("spinescore.scoring")
CACHE = logging.getLogger("spinescore.cache")

_logged: set[str] = set()  # what `log_once` has logged in this process


def log_once(logger: logging.Logger, text: str) -> None:
    """Log a line that is true for the whole process, only once."""
    if logger.isEnabledFor(logging.DEBUG) and text not in _logged:
        _logged.add(text)
        logger.debug("%s", text)


def log_records(bundle: str, kind: str, hardware: str, records: Records) -> None:
    """Log the acceptance records of a bundle that hold on this hardware, the fastest first, and those that do not."""
    if not OPENING.isEnabledFor(logging.DEBUG):
        return
    accepted = "; ".join(map(_record, records.accepted)) or "none"
    failed = "; ".join(f"{_record(record)} {record.refusal}" for record in records.failed) or "none"
    OPENING.debug("records of bundle %s on %s (%s): accepted %s; refused %s", bundle, kind, hardware, accepted, failed)
    if records.altered or records.passed_over:
        OPENING.debug("records that do not count: %d altered, of another machine: %s", len(records.altered),
                      "yes" if records.passed_over else "no")  # fmt: skip


def log_engine(info: Any, record: AcceptanceRecord | None, localizer: str | None, warnings: tuple[str, ...]) -> None:
    """Log the engine that a bundle was opened on (`info` is a `DeviceInfo`), and why it may run."""
    if not OPENING.isEnabledFor(logging.DEBUG):
        return
    reason = "it needs no record" if record is None else f"accepted on {record.date[:10]} with {record.framework}"
    OPENING.debug("opened on %s (%s): %s %s, localizer %s; %s", info.kind, info.name, info.engine, info.precision,
                  localizer or "the bundle's own", reason)  # fmt: skip
    for warning in warnings:  # they are on engines and folders, and name no file of a study
        OPENING.debug("warning %s: %s", getattr(warning, "code", "other"), warning)


def log_study(report: StudyReport) -> None:
    """Log the result of one study, and how long each stage took."""
    if not SCORING.isEnabledFor(logging.DEBUG):
        return
    regions = "; ".join(f"{name} {_region(region)}" for name, region in report.regions.items())
    times = ", ".join(
        f"{stage} {getattr(report.timings_ms, stage):.1f}"
        for stage in ("read", "localize", "crop", "grade", "total")
        if getattr(report.timings_ms, stage) is not None
    )
    warnings, rejects = (_counted(one.code for one in notes) for notes in (report.notices, report.rejects))
    SCORING.debug("study: %s; total %s; ms: %s; budget %s; skipped: %s; warnings: %s; rejects: %s", regions,
                  report.total.status, times, report.budget_ms, ", ".join(report.skipped) or "nothing", warnings,
                  rejects)  # fmt: skip


def _record(record: AcceptanceRecord) -> str:
    return f"{record.framework} {record.precision} of {record.date[:10]}"


def _region(region: RegionReport) -> str:
    state = region.status if region.reject is None else f"{region.status} ({region.reject.code})"
    return state if region.radiograph is None else f"{state}, decoder {region.radiograph.decoder}"


def _counted(codes: Any) -> str:
    return ", ".join(f"{code} {count}" if count > 1 else code for code, count in Counter(codes).items()) or "none"
