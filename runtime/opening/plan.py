"""Latency plans (`spinescore.plan/1`): how a bundle is best run on one machine within a budget.

`spinescore plan` measures the ways to run a bundle (`spinescore.runtime.opening.plansearch`), and writes the most
accurate one that keeps the budget. It holds for this bundle, this machine (hardware, processor, cores, platform) and
this version of the engine; anything else is refused. Its fields:

    schema, bundle{name, sha256}, machine{kind, hardware, processor, cores, platform}, budget_ms, percentile, studies,
    candidates[{engine, precision, threads|null, localizer, passes, antialias, apart, test_time, framework, corners,
    grade_flips, median_shift_px, runs, p50_ms, tail_ms|null}], choice (the number of the candidate), date,
    sha256 (of all the rest)

`localizer` names an alternative of the bundle, and is left out for its own. `test_time` is true where heatmaps are
averaged over the bundle's scales and flips, and is left out elsewhere.
`tail_ms` is the percentile, from files to report; null where a candidate was given up before it was known. `corners`,
`grade_flips` and `median_shift_px` are those of its acceptance record, none for the reference.

A plan lies beside the acceptance records, one for each machine, and is no part of the bundle's hash. As they do, it
counts only if this machine made it, unless the operator names its file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from spinescore.kernels.signing import sign
from spinescore.runtime.acceptance import find_records
from spinescore.runtime.acceptance.keeping import age, counts, keep, kept, read_kept
from spinescore.runtime.bundle import Bundle, command_name
from spinescore.runtime.devices import hardware_of
from spinescore.runtime.documents import document_of, document_sha256
from spinescore.runtime.engines.choice import ENGINES, PRECISIONS
from spinescore.runtime.engines.sidecar import this_platform
from spinescore.runtime.errors import BundleError, DeviceError, EngineError, SelfTestError
from spinescore.runtime.fields import INLINE, OPTIONAL, Keys, OneOf, Within, check_choice, dotted
from spinescore.runtime.logs import OPENING
from spinescore.runtime.machine.processor import core_count, processor_name
from spinescore.runtime.notices import notice
from spinescore.runtime.opening import Wanted, finding_of, other_version
from spinescore.runtime.scoring.budget import Effort
from spinescore.runtime.study import Finding

__all__ = ["SCHEMA", "Candidate", "LatencyPlan", "Setting", "Way", "device_kind", "open_by_plan", "this_machine"]

SCHEMA = "spinescore.plan/1"

_MACHINE = ("kind", "hardware", "processor", "cores", "platform")
_MOST_MS = 1e7  # about three hours
_MOST_COUNT = 10**7
_MOST_THREADS = 4096  # and never more than this machine has cores

_Count = Annotated[int, Within(0, _MOST_COUNT)]
_Ms = Annotated[float, Within(0.0, _MOST_MS)]

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """One way to run a bundle's networks; `threads` None leaves their number to the engine, `localizer` is its own."""

    engine: Annotated[str, OneOf(*ENGINES)]
    precision: Annotated[str, OneOf(*PRECISIONS)]
    threads: Annotated[int, Within(1, _MOST_THREADS)] | None
    effort: Annotated[Effort, INLINE]
    localizer: Annotated[str | None, OPTIONAL] = None

    def __str__(self) -> str:
        parts = [
            f"{self.engine} {self.precision}",
            f"localizer {self.localizer}" if self.localizer else "",
            f"{self.threads} thread{'s' if self.threads > 1 else ''}" if self.threads else "",
            f"{self.effort.passes} passes" if self.effort.passes > 1 else "1 pass",
            "averaged" if self.effort.test_time else "",
            "" if self.effort.antialias else "no antialias",
            "views apart" if self.effort.apart else "",
        ]
        return ", ".join(part for part in parts if part)


@dataclass(frozen=True)
class Candidate:
    """A setting, what it costs in accuracy by its acceptance record, and what was measured of it."""

    setting: Annotated[Setting, INLINE]
    framework: str
    corners: _Count
    grade_flips: _Count
    median_shift_px: _Ms
    runs: Annotated[int, Within(1, _MOST_COUNT)]
    p50_ms: _Ms
    tail_ms: _Ms | None


@dataclass(frozen=True)
class LatencyPlan:
    """One plan; see the module for its fields."""

    bundle: Annotated[Mapping[str, str], Keys("name", "sha256")]
    machine: Annotated[Mapping[str, str], Keys(*_MACHINE)]
    budget_ms: Annotated[float, Within(1e-3, _MOST_MS)]
    percentile: Annotated[float, Within(1.0, 100.0)]
    studies: str
    candidates: tuple[Candidate, ...]
    choice: Annotated[int, Within(0)]
    date: str  # ISO 8601, UTC
    sha256: str = ""
    schema: Annotated[str, OneOf(SCHEMA)] = SCHEMA

    def _check_fields(self, path: str) -> None:
        check_choice(self.machine["kind"], ("cpu", "cuda"), dotted(path, "machine.kind"))
        if self.choice >= len(self.candidates):
            raise ValueError(f"{dotted(path, 'choice')}: there are {len(self.candidates)} candidates, numbered from 0")

    @classmethod
    def read(cls, path: Path) -> LatencyPlan:
        """Raises `EngineError` where the file is no plan, or was altered since it was written."""
        plan = read_kept(path, "plan", cls)
        if plan.sha256 != plan.digest():
            raise EngineError(f"The plan {path} was altered.")
        return plan

    @property
    def signed_as(self) -> str:
        return f"plan {self.digest()}"

    @property
    def chosen(self) -> Candidate:
        return self.candidates[self.choice]

    def digest(self) -> str:
        return document_sha256({name: value for name, value in document_of(self).items() if name != "sha256"})

    def to_json(self) -> str:
        return json.dumps(document_of(replace(self, sha256=self.digest())), indent=2, allow_nan=False) + "\n"

    def fault(self, bundle: Bundle) -> str | None:
        """Why it does not hold here, in words, or None where it does."""
        if self.bundle["sha256"] != bundle.sha256:
            other = f"{self.bundle['name']} {self.bundle['sha256'][:12]}"
            return f"is of another bundle ({other}, not {bundle.manifest.name} {bundle.sha256[:12]})"
        try:
            here = this_machine(self.machine["kind"])
        except DeviceError as error:
            return f"is of another machine ({str(error).rstrip('.')})"
        differing = [name for name in _MACHINE if self.machine[name] != here[name]]
        if differing:
            text = "; ".join(f"{name} {self.machine[name]}, not {here[name]}" for name in differing)
            return f"is of another machine ({text})"
        threads, cores = self.chosen.setting.threads or 1, core_count()
        return f"asks for {threads} threads of {cores} cores" if threads > cores else None

    def write(self, bundle: Bundle, path: Path | None = None) -> Path:
        """Write it to `path`, else where plans lie. Raises `OSError` where that fails."""
        digest = document_sha256(self.machine)[:8]
        name = path.name if path else f"plan-{self.machine['kind']}-{digest}.json"
        sign(self.signed_as, self.digest())
        return keep(bundle, name, self.to_json(), path.parent if path else None, None, LatencyPlan.read)


@dataclass(frozen=True)
class Way:
    """How a bundle is to be opened: what is wanted of the engine, and what a plan adds to that."""

    wanted: Wanted
    threads: int | None
    localizer: str | None = None
    effort: Effort | None = None
    framework: str | None = None  # that the plan was made with
    warnings: tuple[str, ...] = ()  # for every report
    findings: tuple[Finding, ...] = ()  # the same: engines that failed their self-test

    def check(self, framework: str) -> None:
        """Refuse another version of the engine than the plan's. Raises `EngineError`."""
        if self.framework not in (None, framework):
            raise EngineError(f"The plan was made with {self.framework}, this is {framework}.")


def open_by_plan(bundle: Bundle, way: Way, plan: str | Path | None, open_it: Callable[[Way], T]) -> T:
    """What `open_it` makes of the plan: that of the path `plan`, the one that lies with the bundle (`auto`), or none.

    `auto` looks for one only where the caller chose neither engine, precision, threads nor localizer; a plan that does
    not hold is passed over with a warning. Raises `EngineError` where a plan that was named does not hold, `ValueError`
    where the caller chose as well, and what `open_it` raises.
    """
    free = way.wanted.names_nothing and way.wanted.require_acceptance and (way.threads, way.localizer) == (None, None)
    if plan is None or (plan == "auto" and not free):
        return open_it(way)
    if not free:
        raise ValueError("a plan chooses engine, precision, threads and localizer: name them, or a plan, not both")
    path, found, notes = _found(bundle, way.wanted.device) if plan == "auto" else _named(bundle, Path(plan), way)
    if found is None:
        OPENING.debug("no plan holds here (%d that do not)", len(notes))
        return open_it(replace(way, warnings=(*way.warnings, *notes)))
    setting = found.chosen.setting
    OPENING.debug("plan %s: %s, made for %g ms", path, setting, found.budget_ms)
    warnings = (*way.warnings, *_older(bundle, path, found))
    wanted = Wanted(found.machine["kind"], setting.engine, setting.precision)
    try:
        return open_it(replace(way, wanted=wanted, threads=setting.threads, localizer=setting.localizer,
                               effort=setting.effort, framework=found.chosen.framework, warnings=warnings))  # fmt: skip
    except (BundleError, EngineError, DeviceError) as error:
        refusal = f"The plan {path} cannot be used. {error} Make it again: {_again(found, bundle)}"
        if plan != "auto":
            raise EngineError(refusal) from error
        OPENING.debug("opened without the plan. %s", refusal)
        if isinstance(error, SelfTestError):
            return open_it(replace(way, findings=(*way.findings, replace(finding_of(error), message=refusal))))
        return open_it(replace(way, warnings=(*way.warnings, notice("plan-not-used", refusal))))


def _older(bundle: Bundle, path: Path, plan: LatencyPlan) -> tuple[str, ...]:
    """A warning of engines that were accepted on this machine after the plan was made, and that it did not measure."""
    measured = {(one.framework, one.setting.precision, one.setting.localizer) for one in plan.candidates}
    kind, missing = plan.machine["kind"], dict[str, None]()
    for name in bundle.manifest.localizer.names:
        for record in find_records(bundle.with_localizer(name), kind, plan.machine["hardware"]).accepted:
            known = (record.framework, record.precision, name) in measured or other_version(record)
            if not known and age(record.date) > age(plan.date):
                missing[f"{record.framework} {record.precision}{f' (localizer {name})' if name else ''}"] = None
    if not missing:
        return ()
    text = f"The plan {path} is older than what is accepted now, and did not measure {', '.join(missing)}."
    return (notice("plan-outdated", f"{text} Renew it: {_again(plan, bundle)}"),)


def this_machine(kind: str) -> dict[str, str]:
    """What a plan's times depend on. Raises `DeviceError` where there is no such device."""
    hardware = hardware_of(kind)
    return dict(zip(_MACHINE, (kind, hardware, processor_name(), str(core_count()), this_platform()), strict=True))


def _again(plan: LatencyPlan, bundle: Bundle) -> str:
    return (
        f"spinescore plan --budget-ms {plan.budget_ms:g} --percentile {plan.percentile:g} --bundle "
        f"{command_name(bundle.folder)} --device {plan.machine['kind']}"
    )


def _named(bundle: Bundle, path: Path, way: Way) -> tuple[Path, LatencyPlan, list[str]]:
    plan = LatencyPlan.read(path)
    fault = plan.fault(bundle)
    if fault is None and way.wanted.device not in ("auto", plan.machine["kind"]):
        fault = f"is for device {plan.machine['kind']}, not {way.wanted.device}"
    if fault is not None:
        raise EngineError(f"The plan {path} {fault}. Make it again: {_again(plan, bundle)}")
    return path, plan, []


def _found(bundle: Bundle, device: str) -> tuple[Path, LatencyPlan | None, list[str]]:
    """The latest plan that holds here, else sentences on why those that there are do not."""
    notes: list[str] = []
    holding = []
    kind = device_kind(device)
    for path in kept(bundle, f"plan-{kind}-*.json"):
        try:
            plan = LatencyPlan.read(path)
        except EngineError as error:
            notes.append(notice("plan-not-used", f"{error} Make it again with spinescore plan, or remove it."))
            continue
        fault = plan.fault(bundle)
        if fault is None and counts(bundle, path, plan):
            holding.append((age(plan.date), path, plan))
        elif fault is None:
            text = (
                f"The plan {path} was not made on this machine, and is not used. Make one: {_again(plan, bundle)} (or, "
                f"if you trust whoever made it: spinescore bundle trust {command_name(bundle.folder)})"
            )
            notes.append(notice("plan-not-used", text))
        else:
            text = f"The plan {path} {fault}, and is not used. Make it again: {_again(plan, bundle)}"
            notes.append(notice("plan-not-used", text))
    if not holding:
        return Path(), None, notes
    _, path, plan = max(holding, key=lambda one: one[0])
    return path, plan, []


def device_kind(device: str) -> Literal["cpu", "cuda"]:
    """`auto` is the GPU where there is one."""
    if device == "cpu":
        return "cpu"
    try:
        hardware_of("cuda")
    except DeviceError:
        return "cuda" if device == "cuda" else "cpu"
    return "cuda"
