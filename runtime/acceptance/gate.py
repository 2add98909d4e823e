"""The acceptance gate: a bundle's golden inputs run on an engine, and the outputs are compared with the reference.

The reference is ONNX Runtime on the CPU, with every network in the highest precision that the bundle has. The engine
runs as in a study (see `runs`), in several new processes, and the worst process counts: an engine that computes wrongly
in every second process could otherwise be accepted by luck.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    utc_now,
    write_record,
)
from spinescore.runtime.acceptance.comparison import compare_grades, compare_points, difference_of_range
from spinescore.runtime.acceptance.golden import GoldenNetwork
from spinescore.runtime.acceptance.runs import Runs, golden_networks, run_here, run_in_new_process
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices import Device, hardware_of, open_device
from spinescore.runtime.engines.choice import REFERENCE, EngineChoice, choices_on, extra_for
from spinescore.runtime.engines.sidecar import this_platform
from spinescore.runtime.errors import BundleError, EngineError, SelfTestError
from spinescore.runtime.machine.processes import can_start

__all__ = ["LEAST_PROCESSES", "Outcome", "verify_device"]

LEAST_PROCESSES = 3
_WORST = ("heatmap_difference", "median_shift_px", "p99_shift_px", "median_shift_of_spacing", "p99_shift_of_spacing")

Trial = Callable[[Device[Any]], StudyFigures]  # scores whole studies on a device, and closes it


@dataclass(frozen=True)
class Outcome:
    """The result for one engine: its record and the record's file, or the reason why there is none."""

    choice: EngineChoice
    record: AcceptanceRecord | None
    path: Path | None
    reason: str
    localizer: str | None = None  # an alternative's name; None for the bundle's own

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
    """Run the gate for every engine and precision of the device, or for the named ones, and write their records.

    It judges one localizer: the bundle's own, or the one of `Bundle.with_localizer`. Each localizer in FP32 is its own
    reference.

    `device` is `cpu` or `cuda`. `folder` takes the records instead of their usual place. `target` limits the gate to
    one folder of prebuilt engines.

    `studies` are folders or files of whole studies (or folders of such folders) that are scored as well: the golden
    inputs are too few to show a share of grades as small as the tolerances allow. Without `studies`, the study figures
    of the latest record still count if the same files run on the same version of the engine.

    Each engine runs in `processes` new processes, at least 3; if none can be started here, it runs once in this one.

    An engine that cannot be opened or fails gets a reason and no new record, and its earlier record is marked as
    failed. Raises `BundleError` for a bundle that has no golden inputs or grades none of the studies, `DeviceError` if
    the device is missing, `EngineError` if there is no such engine to try, `ValueError` for too few processes.
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
    before = find_records(bundle, device, hardware)
    outcomes = []
    for choice in choices:
        say(f"{choice} on {hardware}{_of(bundle)}")
        try:
            runs = _runs(bundle, device, choice, networks, processes)
            record = _record(bundle, {"kind": device, "hardware": hardware}, choice, networks, reference, runs)
            record = _with_studies(record, before) if trial is None else _on_studies(record, trial, device)
        except (BundleError, EngineError) as error:
            for earlier in before.accepted:
                if earlier.choice == choice:  # it no longer holds
                    mark_failed(earlier, bundle, str(error))
            outcomes.append(Outcome(choice, None, None, str(error), bundle.localizer))
            continue
        faults = record.faults(bundle.manifest.bounds)
        record = replace(record, passed=not faults)
        outcomes.append(Outcome(choice, record, _written(record, bundle, folder), "; ".join(faults), bundle.localizer))
    return outcomes


def _on_studies(record: AcceptanceRecord, trial: Trial, device: str) -> AcceptanceRecord:
    """Add the figures of whole studies to the record, or the self-test that failed while they were scored."""
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
    possible = choices_on(device, files, bundle.folder)
    choices = [
        choice for choice in possible if engine in (None, choice.engine) and precision in (None, choice.precision)
    ]
    if not choices:
        asked = " ".join(part for part in (engine, precision) if part) or "an engine beside the reference"
        raise EngineError(
            f"There is nothing to accept: bundle {bundle.manifest.name} or this machine has not {asked} for device "
            f"{device}. What there is: {', '.join(map(str, possible)) or 'nothing'}. Install more (pip install "
            f'"spinescore[{extra_for(device)}]"), or export with that precision.'
        )
    return choices


def _runs(
    bundle: Bundle, device: str, choice: EngineChoice, networks: Sequence[GoldenNetwork], processes: int
) -> list[Runs]:
    """Run the golden inputs in new processes; once in this one if none can be started, as in a frozen application."""
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
    """Return the record of the runs, which is not judged yet."""
    bounds = bundle.manifest.bounds
    figures = [_figures(bundle, networks, reference.outputs, one.outputs) for one in runs]
    first = runs[0]
    times_ms = {stage: float(np.median([one.times_ms[stage] for one in runs])) for stage in first.times_ms}
    return AcceptanceRecord(
        bundle={"name": bundle.manifest.name, "sha256": bundle.sha256},
        device={**place, "platform": this_platform()},
        engine=choice.engine,
        framework=first.framework,
        precision=choice.precision,
        networks=first.files,
        figures=_worst(figures),
        tolerances=bounds,
        passed=False,
        networks_ms={stage: round(ms, 4) for stage, ms in times_ms.items()},
        reference_ms={stage: round(ms, 4) for stage, ms in reference.times_ms.items()},
        date=utc_now(),
        processes=Processes(len(runs), sum(bool(one.faults(bounds)) for one in figures)),
    )


def _studies(bundle: Bundle, paths: Sequence[Path], say: Callable[[str], None]) -> Trial:
    """Return a function that compares a device with the reference on whole studies. Raises `BundleError`."""
    # This imports all that scores a study, which golden inputs alone do not need.
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


def _worst(figures: Sequence[Figures]) -> Figures:
    """Return the largest of each figure; the total is from the process in which most grades flip."""
    largest = {name: max(getattr(one, name) for one in figures) for name in Figures.__dataclass_fields__}
    return Figures(**{**largest, "total": max(figures, key=lambda one: one.grade_flips).total})


def _with_studies(record: AcceptanceRecord, before: Records) -> AcceptanceRecord:
    """Add the study figures of an earlier record, if the same files ran on the same version of the engine."""
    for earlier in (*before.accepted, *before.failed):
        same = (earlier.choice, earlier.framework, earlier.networks)
        if same == (record.choice, record.framework, record.networks):
            return replace(record, studies=earlier.studies)
    return record


def _figures(
    bundle: Bundle,
    networks: Sequence[GoldenNetwork],
    reference: Mapping[str, NDArray[np.float32]],
    outputs: Mapping[str, NDArray[np.float32]],
) -> Figures:
    """Return the worst figures of all localizers, and those of the grader's networks together."""
    manifest = bundle.manifest
    moved = [
        compare_points(reference[network.name], outputs[network.name], manifest.localizer, network.regions)
        for network in networks
        if network.kind == "localizer"
    ]
    by_role = [{n.role: run[n.name] for n in networks if n.kind == "grader"} for run in (reference, outputs)]
    grades = compare_grades(by_role[0], by_role[1], manifest.grader)
    worst = {name: finite(max(getattr(one, name) for one in moved)) for name in _WORST}
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
