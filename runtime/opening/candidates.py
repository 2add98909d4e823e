"""Open a bundle on the first engine that can be had: accepted on this hardware, or asked for by the user.

Nothing is timed here: acceptance records say how long an engine's networks take, in shares of the reference.
"""

from __future__ import annotations

from collections.abc import Iterator

from spinescore.runtime.acceptance import AcceptanceRecord, Records, find_records, verify_command
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices import first_gpu, gpu_is_there, hardware_of, open_device
from spinescore.runtime.engines import ENGINES, OPENVINO, TENSORRT
from spinescore.runtime.engines.choice import REFERENCE, EngineChoice, choices_on, extra_for, installed_openvino
from spinescore.runtime.engines.places import engine_paths
from spinescore.runtime.engines.sidecar import ENGINE_FOLDER, Sidecar
from spinescore.runtime.errors import BundleError, DeviceError, EngineError, SelfTestError, SpineScoreError
from spinescore.runtime.logs import OPENING, log_engine, log_records
from spinescore.runtime.notices import notice
from spinescore.runtime.opening.request import Request
from spinescore.runtime.scoring.studyscorer import StudyScorer
from spinescore.runtime.study import Finding

__all__ = ["finding_of", "open_first", "other_version"]


def open_first(bundle: Bundle, request: Request, *, test: bool) -> StudyScorer:
    """Open the bundle on the first engine that can be opened and, with `test`, passes its self-test.

    Devices are tried in order, and on each the fastest engine first. Raises `BundleError`, `EngineError` or
    `DeviceError` for the last one that could not be opened, maybe with the command that runs the gate, and `Cancelled`.
    """
    return _Attempts(bundle, request, test).first()


class _Attempts:
    """The engines that were tried, as the reports name them: those passed over, and those that failed their test."""

    def __init__(self, bundle: Bundle, request: Request, test: bool) -> None:
        self._bundle, self._request, self._test = bundle, request, test
        self._warnings: list[str] = []
        self._findings: list[Finding] = []

    def first(self) -> StudyScorer:
        error: SpineScoreError | None = None
        for kind in self._request.kinds:
            if error is not None:
                OPENING.debug("device auto takes the CPU. %s", error)
                # Without a GPU there is nothing to warn of.
                text = f"Scored on the CPU. {error}"
                self._warnings = [notice("scored-on-cpu", text)] if gpu_is_there() else []
            try:
                return self._on_device(kind)
            except (BundleError, EngineError, DeviceError) as refusal:
                error = refusal
        assert error is not None
        raise error

    def _on_device(self, kind: str) -> StudyScorer:
        bundle, request, hardware = self._bundle, self._request, hardware_of(kind)
        records = find_records(bundle, kind, hardware)
        log_records(bundle.manifest.name, kind, hardware, records)
        self._warnings += [*records.altered, *records.passed_over, *_failed_before(bundle, request, kind, records)]
        error: EngineError | None = None
        for choice, record in _choices(bundle, kind, request, records):
            if record is not None and (other := other_version(record)):
                error = self._other_version(record, other, records) or error
                continue
            unaccepted = _not_accepted(bundle, request, records, record) if kind == "cuda" and record else []
            try:
                return self._open(kind, choice, record, unaccepted)
            except EngineError as refusal:
                error = refusal
                self._pass_over(kind, choice, refusal, record is not None)
        raise error or EngineError(_refusal(bundle, kind, request, records))

    def _open(
        self, kind: str, choice: EngineChoice | None, record: AcceptanceRecord | None, unaccepted: list[str]
    ) -> StudyScorer:
        """Open the bundle on the engine of a record, or one that needs none; without a choice the device chooses it."""
        bundle, request = self._bundle, self._request
        request.caller.begin(f"bundle {bundle.manifest.name} on {kind}, {choice or 'its own engine'}")
        device = open_device(kind, request.threads, request.largest_image_px, choice)
        scorer = StudyScorer(
            bundle, device, request.max_imputed_per_region, choice=choice, record=record, effort=request.effort,
            warnings=(*request.warnings, *self._warnings, *unaccepted),
            findings=(*request.findings, *self._findings), caller=request.caller,
        )  # fmt: skip
        try:
            if record is not None:
                record.check_opened(scorer.views.pipeline.engines, bundle)
            if request.framework not in (None, scorer.info.engine):
                raise EngineError(f"The plan was made with {request.framework}, this is {scorer.info.engine}.")
            if self._test:
                scorer.test()
        except BaseException:
            scorer.close()
            raise
        log_engine(scorer.info, record, request.localizer, scorer.warnings)
        return scorer

    def _other_version(self, record: AcceptanceRecord, other: str, records: Records) -> EngineError | None:
        """Pass over a record of another version; if the installed one was judged, too, it says nothing."""
        OPENING.debug("not taken: engine %s was accepted with %s, here is %s", record.choice, record.framework, other)
        judged = (*records.accepted, *records.failed)
        if any((one.precision, one.framework) == (record.precision, other) for one in judged):
            return None
        again = f"Accept it again: {verify_command(self._bundle, record.device['kind'])}"
        error = EngineError(f"Engine {record.choice} was accepted with {record.framework}, this is {other}. {again}")
        self._warn(record.device["kind"], record.choice, error)
        return error

    def _pass_over(self, kind: str, choice: EngineChoice | None, error: EngineError, accepted: bool) -> None:
        """Note why an engine is not used. One that the user named is not passed over if it fails its self-test."""
        name = f"engine {choice or 'of the device'}"
        if not isinstance(error, SelfTestError):
            OPENING.debug("not taken: %s. %s", name, error)
            self._warn(kind, choice, error, accepted)
            return
        if self._request.engine is not None:
            raise error
        OPENING.debug("not taken: %s failed its self-test in this process", name)
        self._findings.append(finding_of(error))

    def _warn(self, kind: str, choice: EngineChoice | None, error: EngineError, accepted: bool = True) -> None:
        """Warn of an engine that is not used. All that are tried before the one that opens are faster."""
        first = "An engine cannot be used."
        if accepted:
            first = f"A faster engine was accepted for this {'CPU' if kind == 'cpu' else 'GPU'}, but cannot be used."
        engine = None if choice is None else str(choice)
        self._warnings.append(notice("engine-passed-over", f"{first} {error}", engine=engine))


def _choices(
    bundle: Bundle, kind: str, request: Request, records: Records
) -> Iterator[tuple[EngineChoice | None, AcceptanceRecord | None]]:
    """Yield accepted engines, the fastest first; then what needs no record, or what the user takes without one."""
    reference = kind == "cpu" and request.allows(REFERENCE)
    passes = bundle.manifest.localizer.passes
    for record in records.accepted:
        slower = reference and record.share_of_reference(passes) >= 1
        if request.allows(record.choice) and not slower:
            yield record.choice, record
    if reference or (kind == "cuda" and not request.require_acceptance and request.names_nothing):
        yield None, None
    elif not request.require_acceptance:
        yield from ((choice, None) for choice in _possible(bundle, kind) if request.allows(choice))


def _possible(bundle: Bundle, kind: str) -> list[EngineChoice]:
    return choices_on(kind, bundle.manifest.networks, bundle.folder)


def finding_of(failed: SelfTestError) -> Finding:
    """Return the warning, for every report, on an engine that failed its self-test and was passed over."""
    return Finding(failed.code, "warning", f"An engine was passed over. {failed}")


def other_version(record: AcceptanceRecord) -> str | None:
    """Return the installed OpenVINO if the record is of another version of it; nothing is loaded."""
    installed = installed_openvino() if record.engine == OPENVINO else None
    return None if installed in (None, record.framework) else installed


def _failed_before(bundle: Bundle, request: Request, kind: str, records: Records) -> list[str]:
    """Return a warning for each engine that failed its self-test in another process and is not used since then."""
    return [
        notice(
            "engine-refused",
            f"Engine {record.choice} is not used: it failed its self-test on {record.date[:10]}. To judge it again: "
            f"{verify_command(bundle, kind)}",
            engine=str(record.choice),
        )
        for record in records.failed
        if record.self_test is not None and request.allows(record.choice)
    ]


def _not_accepted(bundle: Bundle, request: Request, records: Records, taken: AcceptanceRecord) -> list[str]:
    """Return a warning for each prebuilt engine for this GPU that would be taken if it were accepted."""
    refused = [
        notice(
            "engine-refused",
            f"The engines in {ENGINE_FOLDER}/{record.choice.target} were not accepted, and were passed over: "
            f"{'; '.join(record.faults(bundle.manifest.bounds))}.",
            engine=str(record.choice),
        )
        for record in records.failed
        if record.choice.target and not ENGINES[taken.engine].prebuilt and request.allows(record.choice)
    ]
    return refused + _not_judged(bundle, records)


def _not_judged(bundle: Bundle, records: Records) -> list[str]:
    """Return a warning for each folder of TensorRT engines for this very GPU that has no record yet."""
    gpu = first_gpu()
    judged = {record.choice.target for record in (*records.accepted, *records.failed)}
    targets: dict[str, None] = {}
    for path in engine_paths(bundle.folder):
        try:
            sidecar = Sidecar.read(path)
            sidecar.check_machine(path, sidecar.flavour, sidecar.version, gpu)
        except EngineError:  # it is for another machine
            continue
        targets[path.parent.name] = None
    return [
        notice(
            "engine-passed-over",
            f"The engines in {ENGINE_FOLDER}/{target} have not been accepted, and were passed over: "
            f"{verify_command(bundle, 'cuda')}",
            engine=f"{TENSORRT} ({target})",
        )
        for target in targets
        if target not in judged
    ]


def _refusal(bundle: Bundle, kind: str, request: Request, records: Records) -> str:
    asked = " ".join(filter(None, (request.engine, request.precision))) or "engine"
    place = "this CPU" if kind == "cpu" else hardware_of(kind)
    failed = [record for record in records.failed if request.allows(record.choice)]
    if failed:
        faults = "; ".join(failed[0].faults(bundle.manifest.bounds))
        return (
            f"Engine {failed[0].choice} was not accepted for bundle {bundle.manifest.name} on {place}: {faults}. Use "
            "another engine or precision, or export the bundle again."
        )
    possible = _possible(bundle, kind)
    if not any(map(request.allows, possible)):
        return (
            f"Bundle {bundle.manifest.name} cannot be run with {asked} on {place}: it has no such networks, or the "
            f'engine is not installed (pip install "spinescore[{extra_for(kind)}]" brings one). There is: '
            f"{', '.join(map(str, possible)) or 'none'}."
        )
    first = "" if kind == "cpu" else f"build engines (spinescore engine build {bundle.folder}) or use onnxruntime-gpu, "
    return (
        f"No {asked} has been accepted for bundle {bundle.manifest.name} on {place}; {first}"
        f"run: {verify_command(bundle, kind)}"
    )
