"""The acceptance gate: a bundle's golden inputs through an engine of a device, against the reference.

The reference is ONNX Runtime on the CPU, every network in the highest precision that the bundle has. The engine runs as
in a study (see `runs`), and in several new processes: one that computes wrongly in every second process would else be
accepted by luck. The worst process counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.acceptance import (
    AcceptanceRecord,
    Figures,
    Processes,
    Records,
    StudyFigures,
    find_records,
    finite,
    mark_failed,
    write_record,
)
from spinescore.runtime.acceptance.comparison import compare_grades, compare_points, difference_of_range
from spinescore.runtime.acceptance.golden import GoldenNetwork
from spinescore.runtime.acceptance.runs import Runs, golden_networks, run_here, run_in_new_process
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices import Device, hardware_of, open_device
from spinescore.runtime.engines.choice import REFERENCE, EngineChoice, choices_on
from spinescore.runtime.engines.sidecar import this_platform
from spinescore.runtime.errors import BundleError, EngineError, SelfTestError
from spinescore.runtime.machine.processes import can_start

__all__ = ["LEAST_PROCESSES", "Outcome", "verify_device"]

LEAST_PROCESSES = 3

Trial = Callable[[Device[Any]], StudyFigures]  # scores whole studies on a device, which it closes


@dataclass(frozen=True)
class Outcome:
    """What came of one engine: its record and where that was written, or why there is none."""

    choice: EngineChoice
    record: AcceptanceRecord | None
    path: Path | None
    reason: str
    localizer: str | None = None  # an alternative's name

    @property
    def name(self) -> str:
        return f"{self.choice}, localizer {self.localizer}" if self.localizer else str(self.choice)


def verify_device(
    bundle: Bundle,
    device: str,
    engine: str | None = None,
    precision: str | None = None,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    target: str | None = None,
    studies: Sequence[Path] = (),
    processes: int = LEAST_PROCESSES,
) -> list[Outcome]:
    """Run the gate for every engine and precision of the device, or for those named, and write their records.

    It is of one localizer, the bundle's own or that of `Bundle.with_localizer`; its reference is itself in FP32.

    `device` is `cpu` or `cuda`, `folder` is where records go instead of their usual place, `target` is a folder of
    engines. `studies` are folders or files of whole studies (or folders of such folders), which are scored besides: the
    golden inputs are too few to see a share of grades as small as the tolerances allow. Without them what the
    latest record knows of studies still counts, where the same files run on the same version of the engine.

    Each engine runs in so many new `processes`, at least 3, and once in this one if none can be started here.

    An engine that cannot be opened or fails has no new record, but a reason, and an earlier record of it is marked as
    failed. Raises `BundleError` for a bundle without
    golden inputs or one that grades none of the studies, `DeviceError` for a device that is not there, `EngineError`
    where there is no such engine to try, `ValueError` for fewer processes.
    """
    if processes < LEAST_PROCESSES:
        raise ValueError(f"processes must be at least {LEAST_PROCESSES}, got {processes}")
    hardware = hardware_of(device)
    networks = golden_networks(bundle)
    choices = _choices(bundle, device, networks, engine, precision)
    choices = [choice for choice in choices if target in (None, choice.target)]
    say(f"the reference: {REFERENCE} on the CPU{_of(bundle)}")
    reference = run_here(bundle, "cpu", None, networks)
    trial = _studies(bundle, studies, say) if studies else None
    known = find_records(bundle, device, hardware)
    outcomes = []
    for choice in choices:
        say(f"{choice} on {hardware}{_of(bundle)}")
        try:
            runs = _runs(bundle, device, choice, networks, processes)
            record = _record(bundle, {"kind": device, "hardware": hardware}, choice, networks, reference, runs)
            record = _with_studies(record, known) if trial is None else _on_studies(record, trial, device)
        except (BundleError, EngineError) as error:
            for earlier in known.accepted:
                if earlier.choice == choice:  # what was accepted before does not outlive this
                    mark_failed(earlier, bundle, str(error))
            outcomes.append(Outcome(choice, None, None, str(error), bundle.localizer))
            continue
        faults = record.faults(bundle.manifest.bounds)
        record = replace(record, passed=not faults)
        outcomes.append(Outcome(choice, record, _written(record, bundle, folder), "; ".join(faults), bundle.localizer))
    return outcomes


def _on_studies(record: AcceptanceRecord, trial: Trial, device: str) -> AcceptanceRecord:
    """The record with what whole studies show, or with the self-test that failed in the process that scores them."""
    try:
        return replace(record, studies=trial(open_device(device, choice=record.choice)))
    except SelfTestError as failed:
        return replace(record, self_test=str(failed))


def _written(record: AcceptanceRecord, bundle: Bundle, folder: Path | None) -> Path:
    try:
        return write_record(record, bundle, folder)
    except OSError as error:
        raise BundleError(
            f"The acceptance record of {record.choice} cannot be written ({error}); set SPINESCORE_CACHE to a folder "
            "that can be written."
        ) from error


def _of(bundle: Bundle) -> str:
    return f", localizer {bundle.localizer}" if bundle.localizer else ""


def _choices(
    bundle: Bundle, device: str, networks: Sequence[GoldenNetwork], engine: str | None, precision: str | None
) -> list[EngineChoice]:
    files = [network.files for network in networks]
    known = choices_on(device, files, bundle.folder)
    found = [choice for choice in known if engine in (None, choice.engine) and precision in (None, choice.precision)]
    if not found:
        wanted = " ".join(part for part in (engine, precision) if part) or "an engine beside the reference"
        extra = 'spinescore[openvino]"' if device == "cpu" else 'spinescore[tensorrt-rtx]"'
        raise EngineError(
            f"There is nothing to accept: bundle {bundle.manifest.name} or this machine has not {wanted} for device "
            f'{device}. What there is: {", ".join(map(str, known)) or "nothing"}. Install more (pip install "{extra}), '
            "or export with that precision."
        )
    return found


def _runs(
    bundle: Bundle, device: str, choice: EngineChoice, networks: Sequence[GoldenNetwork], processes: int
) -> list[Runs]:
    """In so many new processes; once in this one if none can be started, as in a frozen application."""
    if not can_start():
        return [run_here(bundle, device, choice, networks)]
    return [run_in_new_process(bundle, device, choice) for _ in range(processes)]


def _record(
    bundle: Bundle,
    place: dict[str, str],
    choice: EngineChoice,
    networks: Sequence[GoldenNetwork],
    reference: Runs,
    runs: Sequence[Runs],
) -> AcceptanceRecord:
    """The record of what ran, not judged yet."""
    bounds = bundle.manifest.bounds
    found = [_figures(bundle, networks, reference.outputs, one.outputs) for one in runs]
    first = runs[0]
    times_ms = {stage: float(np.median([one.times_ms[stage] for one in runs])) for stage in first.times_ms}
    return AcceptanceRecord(
        bundle={"name": bundle.manifest.name, "sha256": bundle.sha256},
        device={**place, "platform": this_platform()},
        engine=choice.engine,
        framework=first.framework,
        precision=choice.precision,
        networks=first.files,
        figures=_worst(found),
        tolerances=bounds,
        passed=False,
        networks_ms={stage: round(ms, 4) for stage, ms in times_ms.items()},
        reference_ms={stage: round(ms, 4) for stage, ms in reference.times_ms.items()},
        date=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        processes=Processes(len(runs), sum(bool(one.faults(bounds)) for one in found)),
    )


def _studies(bundle: Bundle, paths: Sequence[Path], say: Callable[[str], None]) -> Trial:
    """What compares a device with the reference on whole studies; it closes the device. Raises `BundleError`."""
    # With the scorer and all that it needs, which the golden inputs alone do without.
    from spinescore.runtime.acceptance.studies import compare_studies, grades_of, places_of

    places = places_of(paths)
    say(f"the reference on the studies of {len(places)} folders or files")
    reference = grades_of(bundle, open_device("cpu"), places)
    if not any(grade is not None for grades in reference for grade in grades.values()):
        raise BundleError(
            f"Bundle {bundle.manifest.name} grades no corner of the {len(reference)} studies; give studies whose "
            "radiographs `spinescore score` scores."
        )
    return lambda device: compare_studies(reference, grades_of(bundle, device, places))


def _worst(found: Sequence[Figures]) -> Figures:
    """The largest of each figure; the total is that of the process in which most grades flip."""
    largest = {name: max(getattr(one, name) for one in found) for name in Figures.__dataclass_fields__}
    return Figures(**{**largest, "total": max(found, key=lambda one: one.grade_flips).total})


def _with_studies(record: AcceptanceRecord, known: Records) -> AcceptanceRecord:
    """With what the latest record knows of whole studies, if the same files ran on the same version of the engine."""
    for earlier in (*known.accepted, *known.failed):
        same = (earlier.choice, earlier.framework, earlier.networks)
        if same == (record.choice, record.framework, record.networks):
            return replace(record, studies=earlier.studies)
    return record


def _figures(
    bundle: Bundle,
    networks: Sequence[GoldenNetwork],
    reference: Mapping[str, NDArray[np.float32]],
    found: Mapping[str, NDArray[np.float32]],
) -> Figures:
    """The worst of all localizers, and the grader's networks together."""
    manifest = bundle.manifest
    moved = [
        compare_points(reference[network.name], found[network.name], manifest.localizer, network.regions)
        for network in networks
        if network.kind == "localizer"
    ]
    by_role = [{n.role: outputs[n.name] for n in networks if n.kind == "grader"} for outputs in (reference, found)]
    grades = compare_grades(by_role[0], by_role[1], manifest.grader)
    worst = {
        name: finite(max(asdict(one)[name] for one in moved))
        for name in (
            "heatmap_difference",
            "median_shift_px",
            "p99_shift_px",
            "median_shift_of_spacing",
            "p99_shift_of_spacing",
        )
    }
    return Figures(
        reference_difference=finite(max(difference_of_range(n.expected, reference[n.name]) for n in networks)),
        points=sum(one.points for one in moved),
        corners=grades.corners,
        logit_difference=finite(grades.logit_difference),
        grade_flips=grades.flips,
        reference_total=grades.reference_total,
        total=grades.total,
        radiograph_total=grades.largest_total_change,
        **worst,
    )
