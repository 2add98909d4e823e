"""A study's networks without the study: the same engines on the same shapes, as often as a study runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from spinescore.runtime.study import REGIONS

if TYPE_CHECKING:
    from spinescore.runtime.bundle import Bundle
    from spinescore.runtime.devices import Device
    from spinescore.runtime.engines.choice import EngineChoice
    from spinescore.runtime.manifest import NetworkInput

__all__ = ["engine_calls", "networks_alone"]


@contextmanager
def networks_alone(
    bundle: Bundle, kind: str, choice: EngineChoice | None, threads: int | None
) -> Iterator[Callable[[], None]]:
    """Yield a function that runs a study's networks once: whole batches, all of the threads."""
    from spinescore.runtime.devices import open_device

    opened = open_device(kind, threads, choice=choice)
    try:
        plan = engine_calls(bundle)
        once: dict[tuple[object, ...], Callable[[], None]] = {}
        for files, batch, size in plan:
            key = (*files.values(), batch, size)
            once[key] = once.get(key) or _call(opened, bundle, files, batch, size)
        calls = [once[(*files.values(), batch, size)] for files, batch, size in plan]

        def run_all() -> None:
            for call in calls:
                call()
            opened.synchronise()

        run_all()
        yield run_all
    finally:
        opened.close()


def engine_calls(bundle: Bundle) -> list[tuple[Mapping[str, str], int, NetworkInput]]:
    """Return the network runs of one study in order: the network's files by precision, the batch, and the input."""
    from spinescore.runtime.manifest import HEAD_OUTPUTS
    from spinescore.runtime.scoring.networks import FLIPS

    localizer, grader = bundle.manifest.localizer, bundle.manifest.grader
    regions, each = (REGIONS[:1], 2) if localizer.shared else (REGIONS, 1)
    one_pass = [(localizer.files[region], each, size) for size in localizer.run_inputs for region in regions]
    plan = one_pass * localizer.passes
    sites = [(role, len(FLIPS[outputs])) for role, outputs in HEAD_OUTPUTS[grader.head].items()]
    return plan + [(grader.files[role], 12 * flips, grader.input) for role, flips in sites]


def _call(
    device: Device[Any], bundle: Bundle, files: Mapping[str, str], batch: int, size: NetworkInput
) -> Callable[[], None]:
    from spinescore.runtime.scoring.networks import heatmap_size

    rows = 1 if size == bundle.manifest.localizer.input else batch // 2
    (engine,) = device.engines([bundle.network(files, device.precisions)], rows=[rows])
    inputs = device.allocate((batch, size.channels, size.height, size.width), engine.dtype)
    ends = (*engine.output_shape[:1], *(heatmap_size(size) if engine.output_shape[1:] else ()))
    outputs = device.allocate((batch, *ends), engine.dtype)
    values = np.random.default_rng(0).standard_normal(inputs.shape, dtype=np.float32)
    device.write(inputs, values.astype(engine.dtype, copy=False))
    return lambda: device.run(engine, inputs, outputs)
