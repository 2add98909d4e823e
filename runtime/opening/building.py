"""Engines for this machine's GPU, built in a process of their own while a scorer waits, or scores on what works.

A CPU's engines are checked in the same way (`checking`).

Nothing is built where an engine for this GPU was accepted already, where it was tried before without success (until
`spinescore engine build` succeeds), for a bundle without golden inputs, or without a GPU, a TensorRT that builds and
the extra `export`. What was built counts only once it passed the acceptance gate.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.util import find_spec
from typing import Any, Generic, Protocol, TypeVar, get_args

from spinescore.kernels.signing import key_fault
from spinescore.runtime.acceptance import find_records
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.caches import cache_values
from spinescore.runtime.devices import first_gpu
from spinescore.runtime.engines.choice import EngineChoice
from spinescore.runtime.engines.places import check_origin, engine_paths, failure, target_name
from spinescore.runtime.engines.sidecar import Sidecar
from spinescore.runtime.engines.tensorrt import import_flavour, installed_flavours, runtime_flavour
from spinescore.runtime.errors import DeviceError, EngineError, SpineScoreError
from spinescore.runtime.logs import OPENING
from spinescore.runtime.names import BuildMode
from spinescore.runtime.notices import notice
from spinescore.runtime.opening import Wanted
from spinescore.runtime.opening.buildworker import PRECISION, Plan, not_made
from spinescore.runtime.opening.checking import Check, find_check
from spinescore.runtime.processes import can_start, ending, worker_command
from spinescore.runtime.report import DeviceInfo

__all__ = ["BUILDS", "Build", "Plan", "Renewal", "find_plan", "open_and_build"]

BUILDS: tuple[BuildMode, ...] = get_args(BuildMode)

_END_S = 2.0  # that a process which was told to end may take
_LONGEST_REASON = 2000

Say = Callable[[str], None]


class Opened(Protocol):
    """What of a scorer is needed here."""

    choice: EngineChoice | None

    @property
    def info(self) -> DeviceInfo: ...
    def close(self) -> None: ...


S = TypeVar("S", bound=Opened)


def open_and_build(
    bundle: Bundle, wanted: Wanted, build: str, open_it: Callable[[Wanted], S], progress: Say | None
) -> tuple[S, Renewal[S]]:
    """What `open_it` makes of `wanted`, after or while an engine is built where that can be done.

    Raises what `open_it` raises, and `ValueError` for a `build` that is not known.
    """
    if build not in BUILDS:
        raise ValueError(f"there is no build {build!r}; choose one of {', '.join(BUILDS)}")
    found: S | None = None
    refused: SpineScoreError | None = None
    try:
        found = open_it(wanted)
    except (EngineError, DeviceError) as error:
        refused = error
    on_tensorrt = found is not None and found.choice is not None and found.choice.engine == "tensorrt"
    plan, warnings = (None, ()) if build == "no" or on_tensorrt else find_plan(bundle, wanted)
    if plan is not None and (build in ("auto", "now") or found is None):
        if found is not None:  # its memory is the builder's
            found.close()
        with Build(bundle, plan, progress) as running:
            failed = running.wait()
        warnings += () if running.judged else failed  # opening says what stands in a record
        try:
            return open_it(wanted), Renewal(warnings)
        except (EngineError, DeviceError) as error:
            refused, found = error, None
    if refused is not None:
        raise type(refused)(" ".join((str(refused), *warnings))) from refused
    assert found is not None
    if plan is None:
        return _and_check(bundle, wanted, build, found, warnings, open_it, progress)
    onto_gpu = replace(wanted, device="cuda", engine="tensorrt", precision=PRECISION)
    return found, Renewal(warnings, Build(bundle, plan, progress), lambda: open_it(onto_gpu))


def _and_check(
    bundle: Bundle,
    wanted: Wanted,
    build: str,
    found: S,
    warnings: tuple[str, ...],
    open_it: Callable[[Wanted], S],
    progress: Say | None,
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
        failed = running.wait()
    return open_it(wanted), Renewal((*warnings, *failed))


class Job(Protocol):
    """The work of a `Build`, a dataclass: `Plan` or `checking.Check`."""

    @property
    def sentence(self) -> str: ...
    def begin(self, bundle: Bundle) -> None: ...
    def failed(self, bundle: Bundle, reason: str) -> str: ...
    def not_taken(self, error: Exception) -> str: ...


class Renewal(Generic[S]):
    """What a scorer knows of engines that were, or are being, built for it. For one thread at a time."""

    def __init__(
        self, warnings: tuple[str, ...] = (), build: Build | None = None, reopen: Callable[[], S] | None = None
    ) -> None:
        self._warnings, self._build, self._reopen = warnings, build, reopen

    @property
    def warnings(self) -> tuple[str, ...]:
        """For every report."""
        return (*self._warnings, *([] if self._build is None else [self._build.sentence]))

    def taken(self) -> S | None:
        """The scorer on the engine that was accepted meanwhile; once."""
        if self._build is None or self._reopen is None or not self._build.finished:
            return None
        with self._build as build:
            self._build, self._warnings = None, build.wait()
        try:
            return None if self._warnings else self._reopen()
        except SpineScoreError as error:
            self._warnings = (build.job.not_taken(error),)
            return None

    @property
    def is_checking(self) -> bool:
        """Whether a CPU's engines are being checked, or were and are not taken yet."""
        return self._build is not None and isinstance(self._build.job, Check)

    def wait(self) -> tuple[str, ...]:
        """Wait for what is going on, and return the warnings that come of it; the next `taken` gives the engine."""
        return () if self._build is None else self._build.wait()

    def close(self) -> None:
        """End a build that is going on."""
        if self._build is not None:
            self._build.close()
            self._build = None


class Build:
    """One process that builds and accepts engines. Close it, or use it as a context manager."""

    def __init__(self, bundle: Bundle, job: Job, progress: Say | None = None, aside: bool | None = None) -> None:
        """`progress` gets lines of text, in another thread. `aside` is of a check: studies are scored meanwhile."""
        self.job, self._bundle, self._progress = job, bundle, progress
        self._answer: dict[str, Any] = {}
        self._process: subprocess.Popen[str] | None = None
        self._listener = threading.Thread(target=self._listen, daemon=True)
        wanted = {} if aside is None else {"aside": aside}
        request = json.dumps({"bundle": str(bundle.folder.absolute()), **wanted, **asdict(job)})  # type: ignore[call-overload]
        OPENING.debug("begun, in a process of its own: %s", job.sentence)
        try:
            job.begin(bundle)
            self._process = subprocess.Popen(
                _command(request),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            self._answer = {"accepted": False, "reason": f"No process can be started ({error.strerror})."}
        self._listener.start()

    @property
    def finished(self) -> bool:
        return not self._listener.is_alive()

    @property
    def judged(self) -> bool:
        """Whether it ended with acceptance records, of engines that were accepted or not."""
        return self._answer.get("judged") is True

    @property
    def sentence(self) -> str:
        """One sentence for the reports: which engines are being built or checked."""
        return self.job.sentence

    def wait(self) -> tuple[str, ...]:
        """Until it is over; returns no warning where engines were accepted, else one, which it also leaves on disk."""
        while self._listener.is_alive():
            self._listener.join(0.2)  # and not for good, which Ctrl-C would not end on Windows
        if self._answer.get("accepted") is True:
            OPENING.debug("an engine was accepted")
            return ()
        reason = str(self._answer.get("reason") or f"The builder ended with {self._ending()}.")[:_LONGEST_REASON]
        OPENING.debug("no engine was accepted: %s", reason)
        return (self.job.failed(self._bundle, reason),)

    def close(self) -> None:
        """End the process where it still runs. Twice is no error."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._listener.join()
        process.stdout.close()

    def __enter__(self) -> Build:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self) -> None:
        if self._process is None or self._process.stdout is None:
            return
        for line in self._process.stdout:
            with suppress(Exception):  # a line that is none, and what the caller's function raises
                message = json.loads(line)
                if "accepted" in message:
                    self._answer = dict(message)
                elif self._progress is not None:
                    self._progress(str(message["say"]))

    def _ending(self) -> str:
        return ending(self._process.wait() if self._process is not None else 0)


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


def _command(request: str) -> list[str]:
    return worker_command("spinescore.runtime.opening.buildworker", request)
