"""The acceptance gate: a bundle's golden inputs through an engine of a device, against the reference.

The reference is ONNX Runtime on the CPU, every network in the highest precision that the bundle has. The engine is
opened and run as the pipeline does it: through the device, with the pipeline's batches, in the device's own buffers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels.decode import DISCS
from spinescore.runtime.acceptance import (
    AcceptanceRecord,
    Figures,
    Records,
    StudyFigures,
    find_records,
    finite,
    write_record,
)
from spinescore.runtime.acceptance.comparison import compare_grades, compare_points, difference_of_range
from spinescore.runtime.acceptance.golden import GoldenNetwork, golden_grader, golden_localizers
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices import Device, hardware_of, open_device
from spinescore.runtime.engines.choice import EngineChoice, cpu_choices, gpu_choices
from spinescore.runtime.engines.places import engine_name
from spinescore.runtime.engines.sidecar import file_sha256, this_platform
from spinescore.runtime.errors import BundleError, EngineError
from spinescore.runtime.manifest import HEAD_OUTPUTS
from spinescore.runtime.pipeline import FLIPS, VIEWS

__all__ = ["Outcome", "verify_device"]

_LEAST_TIMED = 9  # batches, so that a median is one


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


@dataclass(frozen=True, eq=False)
class _Runs:
    """By network: its outputs for the golden inputs, the median time of a batch, and what ran."""

    outputs: dict[str, NDArray[np.float32]]
    times_ms: dict[str, float]
    files: dict[str, str]
    frameworks: list[str]

    @property
    def framework(self) -> str:
        return " + ".join(dict.fromkeys(self.frameworks))


def verify_device(
    bundle: Bundle,
    device: str,
    engine: str | None = None,
    precision: str | None = None,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    target: str | None = None,
    studies: Sequence[Path] = (),
) -> list[Outcome]:
    """Run the gate for every engine and precision of the device, or for those named, and write their records.

    It is of one localizer, the bundle's own or that of `Bundle.with_localizer`; its reference is itself in FP32.

    `device` is `cpu` or `cuda`, `folder` is where records go instead of their usual place, `target` is a folder of
    engines. `studies` are folders or files of whole studies (or folders of such folders), which are scored besides: the
    golden inputs are too few to see a share of grades as small as the tolerances allow. Without them what the
    latest record knows of studies still counts, where the same files run on the same version of the engine.

    An engine that cannot be opened or fails has no record, but a reason. Raises `BundleError` for a bundle without
    golden inputs or one that grades none of the studies, `DeviceError` for a device that is not there, `EngineError`
    where there is no such engine to try.
    """
    hardware = hardware_of(device)
    networks = [*golden_localizers(bundle), *golden_grader(bundle)]
    choices = _choices(bundle, device, networks, engine, precision)
    choices = [choice for choice in choices if target in (None, choice.target)]
    say(f"the reference: onnxruntime fp32 on the CPU{_of(bundle)}")
    reference = _run(bundle, "cpu", None, networks)
    trial = _studies(bundle, studies, say) if studies else None
    known = find_records(bundle, device, hardware)
    outcomes = []
    for choice in choices:
        say(f"{choice} on {hardware}{_of(bundle)}")
        try:
            runs = _run(bundle, device, choice, networks)
            whole = trial(open_device(device, choice=choice)) if trial else _seen_before(known, choice, runs)
        except (BundleError, EngineError) as error:
            outcomes.append(Outcome(choice, None, None, str(error), bundle.localizer))
            continue
        record = _record(bundle, {"kind": device, "hardware": hardware}, choice, networks, reference, runs, whole)
        try:
            path = write_record(record, bundle, folder)
        except OSError as error:
            raise BundleError(
                f"The acceptance record of {choice} cannot be written ({error}); set SPINESCORE_CACHE to a folder that "
                "can be written."
            ) from error
        faults = record.faults(bundle.manifest.bounds)
        outcomes.append(Outcome(choice, record, path, "; ".join(faults), bundle.localizer))
    return outcomes


def _of(bundle: Bundle) -> str:
    return f", localizer {bundle.localizer}" if bundle.localizer else ""


def _choices(
    bundle: Bundle, device: str, networks: Sequence[GoldenNetwork], engine: str | None, precision: str | None
) -> list[EngineChoice]:
    files = [network.files for network in networks]
    known = cpu_choices(files) if device == "cpu" else gpu_choices(files, bundle.folder)
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


def _run(bundle: Bundle, kind: str, choice: EngineChoice | None, networks: Sequence[GoldenNetwork]) -> _Runs:
    runs = _Runs({}, {}, {}, [])
    device = open_device(kind, largest_image_px=1, choice=choice)
    try:
        for network in networks:
            path, precision = bundle.network(network.files, device.precisions)
            (engine,) = device.engines([(path, precision)])
            runs.outputs[network.name], runs.times_ms[network.name] = _infer(device, engine, network, bundle)
            name = engine_name(bundle.folder, engine.file)
            entry = bundle.manifest.files.get(name)
            runs.files[name] = entry.sha256 if entry else file_sha256(engine.file)
            runs.frameworks.append(engine.framework)
    finally:
        device.close()
    return runs


def _infer(
    device: Device[Any], engine: Any, network: GoldenNetwork, bundle: Bundle
) -> tuple[NDArray[np.float32], float]:
    """Outputs of all golden inputs, and the median time of a batch in milliseconds; the first batch is warm-up."""
    if engine.output_shape != network.expected.shape[1:] or engine.input_shape != network.images(slice(1)).shape[1:]:
        raise BundleError(
            f"Network {engine.name} takes {engine.input_shape} and gives {engine.output_shape}, the golden inputs are "
            f"of another; export the bundle {bundle.manifest.name} again."
        )
    batch, count = _batch(network, bundle), len(network.pictures)
    inputs, outputs = (
        device.allocate((batch, *shape), engine.dtype) for shape in (engine.input_shape, engine.output_shape)
    )
    found = np.zeros((count, *engine.output_shape), np.float32)
    starts = list(range(0, count, batch))
    times_ms = []
    for number in range(1 + max(len(starts), _LEAST_TIMED)):
        start = starts[number % len(starts)]
        images = network.images(slice(start, start + batch))
        padded = np.concatenate([images, np.repeat(images[-1:], batch - len(images), axis=0)])
        with np.errstate(over="ignore"):
            device.write(inputs, padded.astype(engine.dtype))
        device.synchronise()
        began = time.perf_counter()
        device.run(engine, inputs, outputs)
        device.synchronise()
        times_ms.append((time.perf_counter() - began) * 1e3)
        found[start : start + batch] = device.read(outputs)[: len(images)]
    return found, float(np.median(times_ms[1:]))


def _batch(network: GoldenNetwork, bundle: Bundle) -> int:
    """What the pipeline gives the network at once."""
    manifest = bundle.manifest
    if network.kind == "localizer":
        return VIEWS if manifest.localizer.shared else 1
    return VIEWS * DISCS * len(FLIPS[f"{network.role}{HEAD_OUTPUTS[manifest.grader.head][network.role]}"])


def _record(
    bundle: Bundle,
    place: dict[str, str],
    choice: EngineChoice,
    networks: Sequence[GoldenNetwork],
    reference: _Runs,
    runs: _Runs,
    studies: StudyFigures | None,
) -> AcceptanceRecord:
    figures = _figures(bundle, networks, reference.outputs, runs.outputs)
    bounds = bundle.manifest.bounds
    record = AcceptanceRecord(
        bundle={"name": bundle.manifest.name, "sha256": bundle.sha256},
        device={**place, "platform": this_platform()},
        engine=choice.engine,
        framework=runs.framework,
        precision=choice.precision,
        networks=runs.files,
        figures=figures,
        tolerances=bounds,
        passed=False,
        networks_ms={name: round(ms, 4) for name, ms in runs.times_ms.items()},
        reference_ms={name: round(ms, 4) for name, ms in reference.times_ms.items()},
        date=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        studies=studies,
    )
    return replace(record, passed=not record.faults(bounds))


def _studies(
    bundle: Bundle, paths: Sequence[Path], say: Callable[[str], None]
) -> Callable[[Device[Any]], StudyFigures]:
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


def _seen_before(known: Records, choice: EngineChoice, runs: _Runs) -> StudyFigures | None:
    """What the latest record knows of whole studies, where the same files ran on the same version of the engine."""
    for record in (*known.accepted, *known.failed):
        if (record.choice, record.framework, record.networks) == (choice, runs.framework, runs.files):
            return record.studies
    return None


def _figures(
    bundle: Bundle,
    networks: Sequence[GoldenNetwork],
    reference: dict[str, NDArray[np.float32]],
    found: dict[str, NDArray[np.float32]],
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
