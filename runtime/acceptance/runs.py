"""Run all golden inputs of a bundle on an engine, in this process or in a new one.

The networks run as in a study: in the pipeline, on its buffers, with its batches, both views at once.
"""

from __future__ import annotations

import io
import json
import math
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.acceptance.golden import GoldenNetwork, golden_grader, golden_localizers
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices import open_device
from spinescore.runtime.engines.choice import EngineChoice
from spinescore.runtime.engines.places import engine_name
from spinescore.runtime.errors import BundleError, DeviceError, EngineError, SpineScoreError
from spinescore.runtime.files import file_sha256
from spinescore.runtime.machine.child import Child, answering
from spinescore.runtime.scoring.pipeline import Pipeline

__all__ = ["Runs", "golden_networks", "run_here", "run_in_new_process"]

_LOOK_S = 0.5  # between two looks at a process that is waited for
_LEAST_TIMED = 9  # runs, so that their median says something
_ERRORS: dict[str, type[SpineScoreError]] = {kind.__name__: kind for kind in (BundleError, DeviceError, EngineError)}


@dataclass(frozen=True, eq=False)
class Runs:
    """Outputs (N, ..) by network, median milliseconds of localizer and grader, and the files that ran.

    `files` has the SHA-256 of each network or engine by its name in the bundle.
    """

    outputs: Mapping[str, NDArray[np.float32]]
    times_ms: Mapping[str, float]
    files: Mapping[str, str]
    framework: str  # one, or several joined by " + "


def golden_networks(bundle: Bundle) -> list[GoldenNetwork]:
    """Return all networks with their golden inputs. Raises `BundleError` for a bundle that has none."""
    return [*golden_localizers(bundle), *golden_grader(bundle)]


def run_here(bundle: Bundle, kind: str, choice: EngineChoice | None, networks: Sequence[GoldenNetwork]) -> Runs:
    """Run all golden inputs in this process. Raises `BundleError`, `DeviceError` and `EngineError`."""
    device = open_device(kind, largest_image_px=1, choice=choice)
    try:
        pipeline = Pipeline(bundle, device)
        outputs: dict[str, NDArray[np.float32]] = {}
        times_ms: list[dict[str, float]] = []
        rounds = max(math.ceil(len(network.pictures) / network.batch) for network in networks)
        for number in range(max(rounds, 1 + _LEAST_TIMED)):
            rows = {n.name: (number * n.batch + np.arange(n.batch)) % len(n.pictures) for n in networks}
            images = {name: image for n in networks for name, image in n.images(rows[n.name]).items()}
            results, took_ms = pipeline.run_networks(images)
            times_ms.append(took_ms)
            if number < rounds:
                _keep(outputs, results, rows, networks)
        files = {}
        for engine in pipeline.engines:
            name = engine_name(bundle.folder, engine.file)
            entry = bundle.manifest.files.get(name)
            files[name] = entry.sha256 if entry else file_sha256(engine.file)
        framework = " + ".join(dict.fromkeys(engine.framework for engine in pipeline.engines))
    finally:
        device.close()
    medians = {stage: float(np.median([one[stage] for one in times_ms[1:]])) for stage in times_ms[0]}
    return Runs(outputs, medians, files, framework)


def run_in_new_process(bundle: Bundle, kind: str, choice: EngineChoice) -> Runs:
    """Run all golden inputs in a process of their own. Raises as `run_here`, `EngineError` also if it crashes."""
    request = {"bundle": str(bundle.folder.absolute()), "localizer": bundle.localizer, "kind": kind}
    worker = Child("spinescore.runtime.acceptance.runs", is_quiet=True)
    try:
        worker.start({**request, "choice": asdict(choice)})
        while (end := worker.ended(_LOOK_S)) is None:  # Ctrl-C would not interrupt a wait without end on Windows
            pass
        answer = next(iter(worker.messages()), {})
    except OSError as error:
        raise EngineError(f"No process can be started for engine {choice} ({error.strerror or error}).") from error
    finally:
        worker.kill()
    if "error" in answer:
        raise _ERRORS.get(answer["error"], EngineError)(answer["message"])
    try:
        with np.load(io.BytesIO(b64decode(answer.pop("outputs"))), allow_pickle=False) as archive:
            return Runs({name: archive[name] for name in archive.files}, **answer)
    except (KeyError, ValueError, EOFError, BadZipFile):
        raise EngineError(
            f"Engine {choice} ended its process with {end} while it ran golden inputs; use another engine, or another "
            "version of it."
        ) from None


def main(request: str) -> None:
    """Run what `run_in_new_process` asks for, and say the result."""
    say = answering()
    task = json.loads(request)
    try:
        bundle = Bundle.open(task["bundle"]).with_localizer(task["localizer"])
        runs = run_here(bundle, task["kind"], EngineChoice(**task["choice"]), golden_networks(bundle))
    except Exception as error:
        name = next((name for name, kind in _ERRORS.items() if isinstance(error, kind)), "")
        say(error=name, message=str(error) if name else f"{type(error).__name__}: {error}")
        return
    outputs = io.BytesIO()
    np.savez(outputs, **runs.outputs)  # type: ignore[arg-type]
    packed = b64encode(outputs.getvalue()).decode()
    say(times_ms=runs.times_ms, files=runs.files, framework=runs.framework, outputs=packed)


def _keep(
    outputs: dict[str, NDArray[np.float32]],
    results: Mapping[str, NDArray[np.float32]],
    rows: Mapping[str, NDArray[np.intp]],
    networks: Sequence[GoldenNetwork],
) -> None:
    for network in networks:
        output = network.checked(results)
        outputs.setdefault(network.name, np.zeros(network.expected.shape, np.float32))[rows[network.name]] = output
