"""Engines for this machine's GPU, built in a process of their own while a scorer waits, or scores on what works.

A CPU's engines are checked in the same way (`checking`).

Nothing is built where an engine for this GPU was accepted already, where it was tried before without success (until
`spinescore engine build` succeeds), for a bundle without golden inputs, or without a GPU, a TensorRT that builds and
the extra `export`. What was built counts only once it passed the acceptance gate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.util import find_spec
from typing import Protocol, TypeVar, get_args

from spinescore.kernels.signing import key_fault
from spinescore.runtime.acceptance import find_records
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices import first_gpu
from spinescore.runtime.engines.choice import EngineChoice
from spinescore.runtime.engines.places import check_origin, engine_paths, failure, target_name
from spinescore.runtime.engines.sidecar import Sidecar
from spinescore.runtime.engines.tensorrt import import_flavour, installed_flavours, runtime_flavour
from spinescore.runtime.errors import DeviceError, EngineError, SpineScoreError
from spinescore.runtime.machine.caches import cache_values
from spinescore.runtime.machine.processes import can_start
from spinescore.runtime.names import BuildMode
from spinescore.runtime.notices import notice
from spinescore.runtime.opening import Wanted
from spinescore.runtime.opening.buildworker import PRECISION, Plan, not_made
from spinescore.runtime.opening.caller import Caller
from spinescore.runtime.opening.checking import find_check
from spinescore.runtime.opening.renewal import Build, Renewal
from spinescore.runtime.scoring.report import DeviceInfo

__all__ = ["BUILDS", "Plan", "find_plan", "open_and_build"]

BUILDS: tuple[BuildMode, ...] = get_args(BuildMode)


Say = Callable[[str], None]


class Opened(Protocol):
    """What of a scorer is needed here."""

    choice: EngineChoice | None

    @property
    def info(self) -> DeviceInfo: ...
    def close(self) -> None: ...


S = TypeVar("S", bound=Opened)


def open_and_build(
    bundle: Bundle,
    wanted: Wanted,
    build: str,
    open_it: Callable[[Wanted], S],
    progress: Say | None,
    caller: Caller,
) -> tuple[S, Renewal[S]]:
    """What `open_it` makes of `wanted`, after or while an engine is built where that can be done.

    The `caller` may give up while it waits; `progress` also gets what is done later. Raises what `open_it` raises,
    `Cancelled`, and `ValueError` for a `build` that is not known.
    """
    if build not in BUILDS:
        raise ValueError(f"there is no build {build!r}; choose one of {', '.join(BUILDS)}")
    found: S | None = None
    refused: SpineScoreError | None = None
    try:
        found = open_it(wanted)
    except (EngineError, DeviceError) as error:
        refused = error
    with _closed_if_that_fails(found):
        on_tensorrt = found is not None and found.choice is not None and found.choice.engine == "tensorrt"
        plan, warnings = (None, ()) if build == "no" or on_tensorrt else find_plan(bundle, wanted)
    if plan is not None and (build in ("auto", "now") or found is None):
        if found is not None:  # its memory is the builder's
            found.close()
        with Build(bundle, plan, progress) as running:
            failed = running.wait(caller)
        warnings += () if running.judged else failed  # opening says what stands in a record
        try:
            return open_it(wanted), Renewal(warnings)
        except (EngineError, DeviceError) as error:
            refused, found = error, None
    if refused is not None:
        raise type(refused)(" ".join((str(refused), *warnings))) from refused
    assert found is not None
    with _closed_if_that_fails(found):
        if plan is None:
            return _and_check(bundle, wanted, build, found, warnings, open_it, progress, caller)
        onto_gpu = replace(wanted, device="cuda", engine="tensorrt", precision=PRECISION)
        return found, Renewal(warnings, Build(bundle, plan, progress), lambda: open_it(onto_gpu))


@contextmanager
def _closed_if_that_fails(opened: Opened | None) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if opened is not None:
            opened.close()
        raise


def _and_check(
    bundle: Bundle,
    wanted: Wanted,
    build: str,
    found: S,
    warnings: tuple[str, ...],
    open_it: Callable[[Wanted], S],
    progress: Say | None,
    caller: Caller,
) -> tuple[S, Renewal[S]]:
    """The same for a scorer on a CPU, whose engines are checked if none of them was accepted yet."""
    check, notes = find_check(bundle, wanted, build != "no") if found.info.kind == "cpu" else (None, ())
    if check is None:
        return found, Renewal((*warnings, *notes))
    running = Build(bundle, check, progress, aside=build != "now")
    if build != "now":
        return found, Renewal(warnings, running, lambda: open_it(wanted))
    found.close()
    with running:
        failed = running.wait(caller)
    return open_it(wanted), Renewal((*warnings, *failed))


def find_plan(bundle: Bundle, wanted: Wanted) -> tuple[Plan | None, tuple[str, ...]]:
    """What there is to do for that bundle and this GPU, if anything; and a warning for what failed before."""
    asked = wanted.device != "cpu" and wanted.allows(EngineChoice("tensorrt", PRECISION)) and wanted.require_acceptance
    golden = {"localizer", "grader"} <= set(bundle.manifest.golden)
    if not (asked and golden and can_start()):
        return None, ()
    try:
        gpu, capability = first_gpu()
    except DeviceError:
        return None, ()
    if fault := key_fault():  # what is built would not count
        return None, (notice("cache-not-writable", f"No engine is built. {fault}", **cache_values()),)
    records = find_records(bundle, "cuda", gpu)
    known = (record for record in (*records.accepted, *records.failed) if record.precision == PRECISION)
    tried = {record.choice.target for record in known}
    here = _engines_here(bundle, gpu, capability) - tried
    flavour, target = _builder(capability)
    open_ones = here | ({target} - tried if flavour else set())
    failed = {name: reason for name in sorted(open_ones) if (reason := failure(bundle.folder, name))}
    warnings = tuple(dict.fromkeys(not_made(bundle, gpu, reason) for reason in failed.values()))
    left = open_ones - failed.keys()
    if not left:
        return None, warnings
    place = f"{capability[0]}.{capability[1]}"
    untried = tuple(sorted(left & here))
    return Plan(gpu, place, untried, flavour if target in left else "", target, bundle.localizer), warnings


def _engines_here(bundle: Bundle, gpu: str, capability: tuple[int, int]) -> set[str]:
    """Targets whose engines were built here, for this GPU and the TensorRT that is installed."""
    found = set()
    for path in engine_paths(bundle.folder):
        with suppress(EngineError):  # of another machine
            sidecar = Sidecar.read(path)
            check_origin(bundle.folder, path, sidecar)
            flavour = runtime_flavour(sidecar)
            sidecar.check_machine(path, flavour, import_flavour(flavour).__version__, gpu, capability)
            found |= {path.parent.name} if sidecar.precision == PRECISION else set()
    return found


def _builder(capability: tuple[int, int]) -> tuple[str, str]:
    """The flavour of TensorRT that builds here, and the target that it builds; empty where none does."""
    if find_spec("onnx") is None:  # of the extra `export`
        return "", ""
    major, minor = capability
    for flavour in (name for name in installed_flavours() if name != "tensorrt_lean"):
        with suppress(EngineError):
            trt = import_flavour(flavour)
            if hasattr(getattr(trt, "ComputeCapability", None), f"SM{major}{minor}") or flavour != "tensorrt_rtx":
                return flavour, target_name(flavour, trt.__version__, (f"{major}.{minor}",))
    return "", ""
