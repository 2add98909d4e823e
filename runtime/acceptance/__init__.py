"""Acceptance records (`spinescore.acceptance/1`): which engine may run a bundle's networks on which hardware, and why.

`spinescore bundle verify BUNDLE --device D` makes a record (`spinescore.runtime.acceptance.gate`). It states the files
that ran and the hardware, how far the outputs were from the reference (ONNX Runtime on the CPU, FP32), and the times.
It holds for this bundle, these files (each localizer of a bundle has its own records), this kind of CPU or this GPU,
and this version of the engine, while the figures are within the bundle's tolerances.

A TensorRT engine's record lies beside the engine, any other in `acceptance/` of the bundle. If the bundle ships with
the package or cannot be written, it lies in the user's cache folder. Records are not part of the bundle's hash: a
record counts only if this machine signed it (`spinescore.kernels.signing`) or it ships inside the installed package.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

from spinescore.runtime.acceptance.figures import MOST, Figure, Figures, Processes, StudyFigures, flips_at_most
from spinescore.runtime.acceptance.keeping import SignedDocument, age, counts, keep, kept
from spinescore.runtime.bundle import Bundle, command_name
from spinescore.runtime.documents import document_sha256
from spinescore.runtime.engines import ENGINES, PRECISIONS, Engine
from spinescore.runtime.engines.choice import EngineChoice
from spinescore.runtime.engines.places import engine_file, engine_name, engine_paths, target_folder
from spinescore.runtime.engines.sidecar import ENGINE_FOLDER, Sidecar, this_platform
from spinescore.runtime.errors import BundleError, EngineError
from spinescore.runtime.fields import OPTIONAL, Keys, OneOf
from spinescore.runtime.manifest.tolerances import Tolerances
from spinescore.runtime.notices import notice

__all__ = [
    "SCHEMA",
    "AcceptanceRecord",
    "Figures",
    "Processes",
    "Records",
    "StudyFigures",
    "find_records",
    "flips_at_most",
    "mark_failed",
    "records_of",
    "utc_now",
    "verify_command",
    "write_record",
]

SCHEMA = "spinescore.acceptance/1"


@dataclass(frozen=True)
class AcceptanceRecord(SignedDocument):
    """One record. `hardware` is a GPU's name or a CPU's kind, `precision` the choice's (files may be higher).

    `sha256` is of all other fields. The figures are the worst of all processes; older records lack `processes`.
    """

    _WHAT = "acceptance record"

    bundle: Annotated[Mapping[str, str], Keys("name", "sha256")]
    device: Annotated[Mapping[str, str], Keys("kind", "hardware", "platform")]
    engine: Annotated[str, OneOf(*ENGINES)]
    framework: str
    precision: Annotated[str, OneOf(*PRECISIONS)]
    networks: Mapping[str, str]  # SHA-256 by file in the bundle
    figures: Figures
    tolerances: Tolerances
    passed: bool
    networks_ms: Mapping[str, Figure]  # medians
    reference_ms: Mapping[str, Figure]
    date: str  # ISO 8601, UTC
    sha256: str = ""
    schema: Annotated[str, OneOf(SCHEMA)] = SCHEMA
    studies: Annotated[StudyFigures | None, OPTIONAL] = None
    processes: Annotated[Processes | None, OPTIONAL] = None
    self_test: Annotated[str | None, OPTIONAL] = None  # how the engine failed it on this machine later, in words

    def _is_sound(self) -> bool:
        return self.passed == (not self.faults(self.tolerances))

    @property
    def choice(self) -> EngineChoice:
        folders = {Path(name).parent.name for name in self.networks if name.startswith(f"{ENGINE_FOLDER}/")}
        return EngineChoice(self.engine, self.precision, min(folders, default=None))

    @property
    def refusal(self) -> str:
        """How a failed record failed, in a few words."""
        return f"failed its self-test on {self.date[:10]}" if self.self_test else "NOT accepted"

    def faults(self, bounds: Tolerances) -> list[str]:
        """Return why the engine is not accepted: what is beyond the tolerances, or a self-test that failed later."""
        faults = self.figures.faults(bounds)
        if faults and self.processes:
            faults[-1] += f" (in {self.processes.beyond} of {self.processes.run} processes)"
        faults += self.studies.faults(bounds) if self.studies else []
        return faults + ([self.self_test] if self.self_test else [])

    def share_of_reference(self, passes: int) -> float:
        """Return the time of a study's networks as a share of the reference's time in the same run."""
        own_ms, reference_ms = (
            sum(ms * (passes if name.startswith("localizer") else 1) for name, ms in times_ms.items())
            for times_ms in (self.networks_ms, self.reference_ms)
        )
        return own_ms / max(reference_ms, 1e-9)

    def check_opened(self, engines: Sequence[Engine[Any]], bundle: Bundle) -> None:
        """Refuse engines of another version or from other files than the accepted ones. Raises `EngineError`."""
        again = f"Accept it again: {verify_command(bundle, self.device['kind'])}"
        opened = {engine_name(bundle.folder, engine.file) for engine in engines}
        if opened != set(self.networks):
            raise EngineError(f"Engine {self.choice} was accepted with other files than {', '.join(opened)}. {again}")
        for engine in engines:
            if engine.framework not in self.framework.split(" + "):
                raise EngineError(
                    f"Engine {self.choice} was accepted with {self.framework}, this is {engine.framework}. {again}"
                )


@dataclass(frozen=True)
class Records:
    """The records of one bundle on one hardware: those that hold, those that failed, and warnings on all others."""

    accepted: tuple[AcceptanceRecord, ...]  # the fastest first
    failed: tuple[AcceptanceRecord, ...]
    altered: tuple[str, ...]
    passed_over: tuple[str, ...] = ()  # one warning, if no record holds but another machine's would


def find_records(bundle: Bundle, kind: str, hardware: str) -> Records:
    """Return the latest record of each engine and precision for this bundle and this hardware."""
    latest: dict[tuple[str, str, str | None], AcceptanceRecord] = {}
    foreign: dict[tuple[str, str, str | None], AcceptanceRecord] = {}
    altered = []
    place = {"kind": kind, "hardware": hardware, "platform": this_platform()}
    for path in records_of(bundle):
        try:
            record = AcceptanceRecord.read(path)
        except EngineError as error:
            altered.append(notice("record-altered", f"{error} Make it again: {verify_command(bundle, kind)}"))
            continue
        key = (record.framework, record.precision, record.choice.target)
        if record.bundle["sha256"] != bundle.sha256 or record.device != place or not _same_files(record, bundle):
            continue
        own = counts(bundle, path, record)
        if own or record.passed:
            of_its_kind = latest if own else foreign
            of_its_kind[key] = max(
                of_its_kind.get(key, record), record, key=lambda one: (age(one.date), not one.passed)
            )
    passes = bundle.manifest.localizer.passes
    records = sorted(latest.values(), key=lambda record: record.share_of_reference(passes))
    bounds = bundle.manifest.bounds
    good = [record for record in records if not record.faults(bounds)]
    missed = [record for key, record in foreign.items() if key not in latest]
    failed = tuple(record for record in records if record not in good)
    return Records(tuple(good), failed, tuple(altered), () if good else _passed_over(bundle, kind, missed))


def records_of(bundle: Bundle) -> Iterator[Path]:
    """Yield the files of all acceptance records of the bundle."""
    yield from kept(bundle, "acceptance-*.json")
    for folder in dict.fromkeys(path.parent for path in engine_paths(bundle.folder)):
        yield from sorted(folder.glob("acceptance-*.json"))


def _passed_over(bundle: Bundle, kind: str, missed: Sequence[AcceptanceRecord]) -> tuple[str, ...]:
    if not missed:
        return ()
    name = command_name(bundle.folder)
    engines = ", ".join(sorted({f"{one.engine} {one.precision}" for one in missed}))
    text = (
        f"Bundle {name} brings acceptance records of {engines} that this machine did not make, and they do not count. "
        f"This settles it in some seconds: {verify_command(bundle, kind)} (or, if you trust whoever made them: "
        f"spinescore bundle trust {name})"
    )
    return (notice("record-foreign", text),)


def write_record(record: AcceptanceRecord, bundle: Bundle, folder: Path | None = None) -> Path:
    """Write the record into `folder`, else where such records lie. Raises `OSError`."""
    hardware = document_sha256(record.device)[:8]
    parts = (record.device["kind"], record.framework, record.precision, hardware, bundle.localizer or "")
    name = f"acceptance-{re.sub(r'[^a-z0-9.]+', '-', ' '.join(parts).lower().strip())}.json"
    target = record.choice.target
    return keep(bundle, name, record, folder, target_folder(bundle.folder, target) if target else None)


def mark_failed(record: AcceptanceRecord, bundle: Bundle, reason: str) -> None:
    """Write the record again as failed, so that no other process takes the engine until the gate is run again.

    If nothing can be written, every process finds the fault by its own self-test.
    """
    with suppress(OSError, RuntimeError):
        write_record(replace(record, passed=False, self_test=reason, date=utc_now()), bundle)


def utc_now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def verify_command(bundle: Bundle, kind: str) -> str:
    """Return the command that runs the acceptance gate."""
    return f"spinescore bundle verify {command_name(bundle.folder)} --device {kind}"


def finite(value: float) -> float:
    return float(value) if math.isfinite(value) else MOST


def _same_files(record: AcceptanceRecord, bundle: Bundle) -> bool:
    """Whether the record's files are those of this bundle with this localizer, and unchanged.

    Opening the bundle has already checked its networks; loading an engine checks it against its sidecar.
    """
    own = {path: bundle.manifest.files[path].sha256 for files in bundle.manifest.networks for path in files.values()}
    for name, sha256 in record.networks.items():
        present = own.get(name)
        try:
            if present is None and (engine := engine_file(bundle.folder, name)):
                sidecar = Sidecar.read(engine)
                present = sidecar.engine_sha256 if sidecar.onnx in own else None
        except (EngineError, BundleError):  # no such engine, or a path that leaves the bundle
            return False
        if present != sha256:
            return False
    return bool(record.networks)
