"""Engines for this machine's GPU, built in a process of their own while a scorer waits, or scores on what works.

A CPU's engines are checked in the same way (`checking`).

Nothing is built if an engine for this GPU was accepted already, if it was tried before without success (until
`spinescore engine build` succeeds), for a bundle without golden inputs, or without a GPU, a TensorRT that builds and
the extra `export`. An engine that was built counts only after it passed the acceptance gate.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec

from spinescore.kernels.signing import key_fault
from spinescore.runtime.acceptance import AcceptanceRecord, find_records
from spinescore.runtime.acceptance.golden import has_golden
from spinescore.runtime.bundle import Bundle, command_name
from spinescore.runtime.devices import first_gpu
from spinescore.runtime.engines import TENSORRT, Gpu
from spinescore.runtime.engines.choice import EngineChoice
from spinescore.runtime.engines.flavours import builds_for, import_flavour, installed_flavours, runtime_flavour
from spinescore.runtime.engines.places import (
    check_origin,
    engine_home,
    engine_paths,
    failure,
    locked,
    note_failure,
    target_name,
)
from spinescore.runtime.engines.sidecar import Sidecar
from spinescore.runtime.errors import DeviceError, EngineError
from spinescore.runtime.machine.caches import cache_values
from spinescore.runtime.machine.processes import can_start
from spinescore.runtime.notices import notice
from spinescore.runtime.opening.request import Request

__all__ = ["BuildJob", "find_build", "run"]

PRECISION = "fp16"  # INT8 is not built unless a user asks for it

Say = Callable[[str], None]


@dataclass(frozen=True)
class BuildJob:
    """The engines to build and accept for a bundle on this machine's GPU.

    `untried` are targets in `engines/` that are for this GPU and have no acceptance record. `flavour` builds `target`;
    if it is empty nothing can be built, and only the gate is run. No engine of another localizer is built.
    """

    gpu: str  # the hardware's name in records
    capability: str  # as 8.6
    untried: tuple[str, ...]
    flavour: str
    target: str
    localizer: str | None = None  # an alternative's name; None for the bundle's own

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.untried, *([self.target] if self.flavour else []))))

    @property
    def sentence(self) -> str:
        """One sentence for the reports: which engines are being built or checked."""
        targets = ", ".join(self.targets)
        what = f"are being built ({targets})" if self.flavour else f"are being checked ({targets})"
        text = f"Engines for {self.gpu} {what}; this was scored without them."
        return notice("engine-checking", text, engine=TENSORRT)

    def begin(self, bundle: Bundle) -> None:
        """Note nothing: a build that is ended is tried again."""

    def failed(self, bundle: Bundle, reason: str) -> str:
        """Keep why no engine was made; return the warning."""
        for target in self.targets:
            with suppress(OSError):
                note_failure(bundle.folder, target, reason)
        return _not_made(bundle, self.gpu, reason)

    def not_taken(self, error: Exception) -> str:
        """Return the warning if an engine was accepted but could not be opened then."""
        return notice("engine-not-taken", f"The engine that was built for {self.gpu} was not taken. {error}")

    def then(self, request: Request) -> Request:
        """Return how to open the engine that was accepted."""
        return replace(request, device="cuda", engine=TENSORRT, precision=PRECISION)


def _not_made(bundle: Bundle, gpu: str, reason: str) -> str:
    again = f"spinescore engine build {command_name(bundle.folder)}"
    text = f"No engine could be made for {gpu}. {reason} To try again: {again}"
    return notice("engine-refused", text, engine=TENSORRT)


def find_build(bundle: Bundle, request: Request) -> tuple[BuildJob | None, tuple[str, ...]]:
    """Return what is to be built for this bundle and GPU, if anything, and warnings on what failed before."""
    asked = request.device != "cpu" and request.allows(EngineChoice(TENSORRT, PRECISION)) and request.require_acceptance
    if not (asked and has_golden(bundle) and can_start()):
        return None, ()
    try:
        gpu = first_gpu()
    except DeviceError:
        return None, ()
    if fault := key_fault():  # an engine that is built would not count
        return None, (notice("cache-not-writable", f"No engine is built. {fault}", **cache_values()),)
    hardware = str(gpu)
    records = find_records(bundle, "cuda", hardware)
    tried = {record.choice.target for record in (*records.accepted, *records.failed) if record.precision == PRECISION}
    here = _engines_here(bundle, gpu) - tried
    flavour, target = _builder(gpu.compute_capability)
    possible = here | ({target} - tried if flavour else set())
    failed = {name: reason for name in sorted(possible) if (reason := failure(bundle.folder, name))}
    warnings = tuple(dict.fromkeys(_not_made(bundle, hardware, reason) for reason in failed.values()))
    left = possible - failed.keys()
    if not left:
        return None, warnings
    place = "{}.{}".format(*gpu.compute_capability)
    untried = tuple(sorted(left & here))
    return BuildJob(hardware, place, untried, flavour if target in left else "", target, bundle.localizer), warnings


def _engines_here(bundle: Bundle, gpu: Gpu) -> set[str]:
    """Return targets whose engines were built here, for this GPU and the TensorRT that is installed."""
    targets = set()
    for path in engine_paths(bundle.folder):
        with suppress(EngineError):  # it is for another machine
            sidecar = Sidecar.read(path)
            check_origin(bundle.folder, path, sidecar)
            flavour = runtime_flavour(sidecar)
            sidecar.check_machine(path, flavour, import_flavour(flavour).__version__, gpu)
            targets |= {path.parent.name} if sidecar.precision == PRECISION else set()
    return targets


def _builder(capability: tuple[int, int]) -> tuple[str, str]:
    """Return the flavour of TensorRT that builds here and the target that it builds; empty if none can build."""
    if find_spec("onnx") is None:  # the extra `export` brings it
        return "", ""
    target = "{}.{}".format(*capability)
    for flavour in installed_flavours():
        with suppress(EngineError):
            trt = import_flavour(flavour)
            if builds_for(trt, capability):
                return flavour, target_name(flavour, trt.__version__, (target,))
    return "", ""


def run(whole: Bundle, job: BuildJob, say: Say) -> tuple[str, bool]:
    """Accept the engines that are there, else build and accept others; return why that failed, else an empty text.

    Also return whether all of that stands in records. One process works on a bundle at a time; a process that waited
    takes what the other one made. Raises `BundleError`, `EngineError` and `DeviceError`, and `OSError` if no folder can
    be written.
    """
    bundle = whole.with_localizer(job.localizer)
    with locked(engine_home(bundle.folder) / ".building"):
        reasons: dict[str, str] = {}
        for target in job.untried:
            reasons[target] = _outcome(bundle, job, target, say)
            if not reasons[target]:
                return "", True
        if job.flavour:
            if _record(bundle, job, job.target) is None:
                _build(bundle, job, say)
            reasons[job.target] = _outcome(bundle, job, job.target, say)
        judged = all(_record(bundle, job, target) is not None for target in reasons)
        return " ".join(filter(None, reasons.values())), judged


def _build(bundle: Bundle, job: BuildJob, say: Say) -> None:
    from spinescore.export.engine import BuildOptions, build_engines

    targets = (job.capability,) if job.flavour == "tensorrt_rtx" else ()  # the others build for the GPU they run on
    build_engines(bundle, BuildOptions(job.flavour, targets, precision=PRECISION), say)


def _outcome(bundle: Bundle, job: BuildJob, target: str, say: Say) -> str:
    """Run the gate unless it was run; return why the target's engines are not accepted, else an empty text."""
    from spinescore.runtime.acceptance.gate import verify_device

    if (record := _record(bundle, job, target)) is None:
        outcomes = verify_device(bundle, "cuda", TENSORRT, PRECISION, say=say, target=target)
        refused = " ".join(outcome.reason for outcome in outcomes if outcome.record is None)
        if refused or not outcomes:
            return refused or f"There are no engines in {target}."
        record = outcomes[0].record
    assert record is not None
    faults = "; ".join(record.faults(bundle.manifest.bounds))
    return f"The engines in {target} were not accepted: {faults}." if faults else ""


def _record(bundle: Bundle, job: BuildJob, target: str) -> AcceptanceRecord | None:
    records = find_records(bundle, "cuda", job.gpu)
    judged = (*records.accepted, *records.failed)
    return next((one for one in judged if (one.precision, one.choice.target) == (PRECISION, target)), None)
