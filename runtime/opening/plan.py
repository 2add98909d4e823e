"""Latency plans (`spinescore.plan/1`): how a bundle is best run on one machine within a budget.

`spinescore plan` measures the ways to run a bundle (`spinescore.runtime.opening.plansearch`), and writes the most
accurate one that keeps the budget. A plan holds for this bundle, this machine (hardware, processor, cores, platform)
and this version of the engine; on any other it is refused.

A plan lies beside the acceptance records, one for each machine, and is not part of the bundle's hash. Like them, it
counts only if this machine made it, unless the operator names its file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from spinescore.runtime.acceptance.keeping import SignedDocument, keep
from spinescore.runtime.bundle import Bundle, command_name
from spinescore.runtime.devices import KINDS, hardware_of
from spinescore.runtime.documents import document_sha256
from spinescore.runtime.engines import ENGINES, PRECISIONS
from spinescore.runtime.engines.sidecar import this_platform
from spinescore.runtime.errors import DeviceError
from spinescore.runtime.fields import INLINE, OPTIONAL, Keys, OneOf, Within, check_choice, dotted
from spinescore.runtime.machine.processor import core_count, processor_name
from spinescore.runtime.scoring.budget import Effort

__all__ = ["SCHEMA", "Candidate", "LatencyPlan", "Setting", "plan_command", "this_machine"]

SCHEMA = "spinescore.plan/1"

_MACHINE = ("kind", "hardware", "processor", "cores", "platform")
_MOST_MS = 1e7  # about three hours
_MOST_COUNT = 10**7
_MOST_THREADS = 4096  # and never more than this machine has cores

_Count = Annotated[int, Within(0, _MOST_COUNT)]
_Ms = Annotated[float, Within(0.0, _MOST_MS)]


@dataclass(frozen=True)
class Setting:
    """One way to run a bundle's networks; None leaves `threads` to the engine, and `localizer` to the bundle.

    `effort.test_time` is true if heatmaps are averaged over the bundle's scales and flips.
    """

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
    """A measured setting: its cost in accuracy by its acceptance record (0 for the reference), and its times.

    `tail_ms` is the plan's percentile, from files to report; None if the setting was given up before it was known.
    """

    setting: Annotated[Setting, INLINE]
    framework: str
    corners: _Count
    grade_flips: _Count
    median_shift_px: _Ms
    runs: Annotated[int, Within(1, _MOST_COUNT)]
    p50_ms: _Ms
    tail_ms: _Ms | None


@dataclass(frozen=True)
class LatencyPlan(SignedDocument):
    """One plan; `choice` is the number of the candidate to take, and `sha256` of all other fields."""

    _WHAT = "plan"

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
        check_choice(self.machine["kind"], tuple(sorted(KINDS)), dotted(path, "machine.kind"))
        if self.choice >= len(self.candidates):
            raise ValueError(f"{dotted(path, 'choice')}: there are {len(self.candidates)} candidates, numbered from 0")

    @property
    def chosen(self) -> Candidate:
        return self.candidates[self.choice]

    def fault(self, bundle: Bundle) -> str | None:
        """Return why the plan does not hold here, in words, or None if it does."""
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
        """Write it to `path`, else where plans lie. Raises `OSError`."""
        digest = document_sha256(self.machine)[:8]
        name = path.name if path else f"plan-{self.machine['kind']}-{digest}.json"
        return keep(bundle, name, self, path.parent if path else None)


def this_machine(kind: str) -> dict[str, str]:
    """Return what a plan's times depend on. Raises `DeviceError` if there is no such device."""
    hardware = hardware_of(kind)
    return dict(zip(_MACHINE, (kind, hardware, processor_name(), str(core_count()), this_platform()), strict=True))


def plan_command(plan: LatencyPlan, bundle: Bundle) -> str:
    return (
        f"spinescore plan --budget-ms {plan.budget_ms:g} --percentile {plan.percentile:g} --bundle "
        f"{command_name(bundle.folder)} --device {plan.machine['kind']}"
    )
