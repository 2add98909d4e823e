"""Which engine a bundle is opened with: the fastest that was accepted on this hardware, or the one that was asked for.

Nothing is timed here: acceptance records say how long an engine's networks take, in shares of the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from spinescore.runtime.acceptance import AcceptanceRecord, Records, find_records, verify_command
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices import DEVICES, first_gpu, gpu_is_there, hardware_of
from spinescore.runtime.engines.choice import (
    ENGINES,
    PRECISIONS,
    EngineChoice,
    cpu_choices,
    gpu_choices,
    installed_openvino,
)
from spinescore.runtime.engines.places import engine_paths
from spinescore.runtime.engines.sidecar import ENGINES as ENGINE_FOLDER
from spinescore.runtime.engines.sidecar import Sidecar
from spinescore.runtime.errors import BundleError, DeviceError, EngineError, SelfTestError
from spinescore.runtime.logs import OPENING, log_records
from spinescore.runtime.notices import notice
from spinescore.runtime.study import Finding

__all__ = ["Candidate", "Wanted", "finding_of", "open_first", "other_version"]

T = TypeVar("T")


@dataclass(frozen=True)
class Wanted:
    """What the caller asks for; None leaves it to the records. Raises `ValueError` for a name that is not known."""

    device: str
    engine: str | None = None
    precision: str | None = None
    require_acceptance: bool = True

    def __post_init__(self) -> None:
        for what, name, known in (
            ("device", self.device, DEVICES),
            ("engine", self.engine, (None, *ENGINES)),
            ("precision", self.precision, (None, *PRECISIONS)),
        ):
            if name not in known:
                raise ValueError(f"there is no {what} {name!r}; choose one of {', '.join(filter(None, known))}")

    @property
    def names_nothing(self) -> bool:
        return self.engine is None and self.precision is None

    def allows(self, choice: EngineChoice) -> bool:
        return self.engine in (None, choice.engine) and self.precision in (None, choice.precision)


@dataclass(frozen=True)
class Candidate:
    """A way to open the bundle. `choice` None is the device's own; `record` None where none is needed."""

    kind: str
    choice: EngineChoice | None
    record: AcceptanceRecord | None
    warnings: tuple[str, ...]  # for every report: what was passed over
    findings: tuple[Finding, ...] = ()  # the same: engines that failed their self-test


def open_first(bundle: Bundle, wanted: Wanted, attempt: Callable[[Candidate], T]) -> T:
    """What `attempt` makes of the first candidate that it can open and that passes its self-test.

    An engine that was asked for by name is not passed over if it fails its self-test: `SelfTestError`.
    Raises `EngineError` where nothing that is wanted was accepted, with the command that runs the gate; `DeviceError`
    and `BundleError` as `attempt` does. With device `auto` a GPU that cannot score is passed over for the CPU.
    """
    cpu_alone = wanted.device == "auto" and (wanted.engine == "openvino" or wanted.precision == "bf16")
    if wanted.device == "cpu" or cpu_alone:
        return _first(bundle, "cpu", wanted, [], [], attempt)
    failed: list[Finding] = []
    try:
        return _first(bundle, "cuda", wanted, [], failed, attempt)
    except (BundleError, EngineError, DeviceError) as error:
        if wanted.device == "cuda" or wanted.engine == "tensorrt":
            raise
        OPENING.debug("device auto takes the CPU. %s", error)
        passed_over: list[str] = []  # without a GPU there is nothing to warn of
        if gpu_is_there():
            passed_over.append(notice("scored-on-cpu", f"Scored on the CPU. {error}"))
        return _first(bundle, "cpu", wanted, passed_over, failed, attempt)


def finding_of(failed: SelfTestError) -> Finding:
    """The warning, for every report, on an engine that failed its self-test and was passed over."""
    return Finding(failed.code, "warning", f"An engine was passed over. {failed}")


def _first(
    bundle: Bundle,
    kind: str,
    wanted: Wanted,
    warnings: list[str],
    failed: list[Finding],
    attempt: Callable[[Candidate], T],
) -> T:
    """`warnings` and `failed` are those of what was tried before, and are added to."""
    hardware = hardware_of(kind)
    records = find_records(bundle, kind, hardware)
    log_records(bundle.manifest.name, kind, hardware, records)
    warnings = [*warnings, *records.altered, *records.passed_over, *_failed_before(bundle, wanted, kind, records)]
    error: EngineError | None = None
    for choice, record in _candidates(bundle, kind, wanted, records):
        if record is not None and (other := other_version(record)):
            if not _is_superseded(record, records):
                again = f"Accept it again: {verify_command(bundle, kind)}"
                text = f"Engine {choice} was accepted with {record.framework}, this is {other}. {again}"
                error = EngineError(text)
                warnings.append(_passed(choice, error))
            OPENING.debug("not taken: engine %s was accepted with %s, here is %s", choice, record.framework, other)
            continue
        passed_over = _passed_over(bundle, wanted, records, record) if kind == "cuda" and record else []
        try:
            return attempt(Candidate(kind, choice, record, (*warnings, *passed_over), tuple(failed)))
        except SelfTestError as wrong:
            if wanted.engine is not None:
                raise
            OPENING.debug("not taken: engine %s failed its self-test in this process", choice or "of the device")
            error = wrong
            failed.append(finding_of(wrong))
        except EngineError as refused:  # the next one may open
            OPENING.debug("not taken: engine %s. %s", choice or "of the device", refused)
            error = refused
            warnings.append(_passed(choice, refused))
    raise error or EngineError(_refusal(bundle, kind, wanted, records))


def _passed(choice: EngineChoice | None, error: EngineError) -> str:
    engine = None if choice is None else str(choice)
    return notice("engine-passed-over", f"An engine was passed over. {error}", engine=engine)


def other_version(record: AcceptanceRecord) -> str | None:
    """The OpenVINO that is installed if the record is of another version, told without loading it."""
    installed = installed_openvino() if record.engine == "openvino" else None
    return None if installed in (None, record.framework) else installed


def _is_superseded(record: AcceptanceRecord, records: Records) -> bool:
    """Whether the installed version was judged, too: the record of another version then says nothing."""
    known = (*records.accepted, *records.failed)
    return any(one.precision == record.precision and one.framework == other_version(record) for one in known)


def _failed_before(bundle: Bundle, wanted: Wanted, kind: str, records: Records) -> list[str]:
    """Sentences on the engines that failed their self-test in another process and are not used since then."""
    return [
        notice(
            "engine-refused",
            f"Engine {record.choice} is not used: it failed its self-test on {record.date[:10]}. To judge it again: "
            f"{verify_command(bundle, kind)}",
            engine=str(record.choice),
        )
        for record in records.failed
        if record.self_test is not None and wanted.allows(record.choice)
    ]


def _candidates(
    bundle: Bundle, kind: str, wanted: Wanted, records: Records
) -> Iterator[tuple[EngineChoice | None, AcceptanceRecord | None]]:
    """Accepted ones, the fastest first; then what needs no record, or what the caller takes without one."""
    reference = kind == "cpu" and wanted.allows(EngineChoice("onnxruntime", "fp32"))
    passes = bundle.manifest.localizer.passes
    for record in records.accepted:
        slower = reference and record.share_of_reference(passes) >= 1
        if wanted.allows(record.choice) and not slower:
            yield record.choice, record
    if reference or (kind == "cuda" and not wanted.require_acceptance and wanted.names_nothing):
        yield None, None
    elif not wanted.require_acceptance:
        yield from ((choice, None) for choice in _known(bundle, kind) if wanted.allows(choice))


def _known(bundle: Bundle, kind: str) -> list[EngineChoice]:
    networks = bundle.manifest.networks
    return cpu_choices(networks) if kind == "cpu" else gpu_choices(networks, bundle.folder)


def _passed_over(bundle: Bundle, wanted: Wanted, records: Records, taken: AcceptanceRecord) -> list[str]:
    """The TensorRT engines for this GPU that would have been taken, had they been accepted."""
    refused = [
        notice(
            "engine-refused",
            f"The engines in {ENGINE_FOLDER}/{record.choice.target} were not accepted, and were passed over: "
            f"{'; '.join(record.faults(bundle.manifest.bounds))}.",
            engine=str(record.choice),
        )
        for record in records.failed
        if record.choice.target and taken.engine != "tensorrt" and wanted.allows(record.choice)
    ]
    return refused + _built_but_not_accepted(bundle, records)


def _built_but_not_accepted(bundle: Bundle, records: Records) -> list[str]:
    """The bundle's TensorRT engines for this very GPU that have no record yet."""
    name, capability = first_gpu()
    tried = {record.choice.target for record in (*records.accepted, *records.failed)}
    found: dict[str, None] = {}
    for path in engine_paths(bundle.folder):
        try:
            sidecar = Sidecar.read(path)
            sidecar.check_machine(path, sidecar.flavour, sidecar.version, name, capability)
        except EngineError:  # of another machine
            continue
        found[path.parent.name] = None
    return [
        notice(
            "engine-passed-over",
            f"The engines in {ENGINE_FOLDER}/{target} have not been accepted, and were passed over: "
            f"{verify_command(bundle, 'cuda')}",
            engine=f"tensorrt ({target})",
        )
        for target in found
        if target not in tried
    ]


def _refusal(bundle: Bundle, kind: str, wanted: Wanted, records: Records) -> str:
    asked = " ".join(filter(None, (wanted.engine, wanted.precision))) or "engine"
    place = "this CPU" if kind == "cpu" else hardware_of(kind)
    failed = [record for record in records.failed if wanted.allows(record.choice)]
    if failed:
        faults = "; ".join(failed[0].faults(bundle.manifest.bounds))
        return (
            f"Engine {failed[0].choice} was not accepted for bundle {bundle.manifest.name} on {place}: {faults}. Use "
            "another engine or precision, or export the bundle again."
        )
    known = [choice for choice in _known(bundle, kind) if wanted.allows(choice)]
    if not known:
        there = ", ".join(map(str, _known(bundle, kind))) or "none"
        return (
            f"Bundle {bundle.manifest.name} cannot be run with {asked} on {place}: it has no such networks, or the "
            f'engine is not installed (pip install "spinescore[openvino]" brings OpenVINO). There is: {there}.'
        )
    first = "" if kind == "cpu" else f"build engines (spinescore engine build {bundle.folder}) or use onnxruntime-gpu, "
    return (
        f"No {asked} has been accepted for bundle {bundle.manifest.name} on {place}; {first}"
        f"run: {verify_command(bundle, kind)}"
    )
