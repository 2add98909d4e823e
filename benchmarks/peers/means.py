"""Frameworks that run the plain pipeline's networks. Each function returns localizer, grader, and a description."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.benchmarks.peers.plain import Network
from spinescore.runtime.bundle import Bundle

__all__ = ["Networks", "onnxruntime_plain", "openvino_plain", "torch_compiled", "torch_eager"]

Networks = tuple[Network, Network, str]  # the description: framework, version, precision


def torch_eager(bundle: Bundle, threads: int | None) -> Networks:
    return _torch(bundle, threads, lambda model: model, "eager")


def torch_compiled(bundle: Bundle, threads: int | None) -> Networks:
    import torch

    return _torch(bundle, threads, torch.compile, "compiled")


def onnxruntime_plain(bundle: Bundle, threads: int | None) -> Networks:
    import onnxruntime

    def opened(path: str) -> Network:
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda images: _array(session.run(None, {name: images})[0])

    localizer, grader = map(opened, _files(bundle))
    return localizer, grader, f"onnxruntime {onnxruntime.__version__} fp32"


def openvino_plain(precision: str | None) -> Callable[[Bundle, int | None], Networks]:
    """Run by OpenVINO; without a precision the plugin takes BF16 if the CPU has it."""

    def means(bundle: Bundle, threads: int | None) -> Networks:
        import openvino

        settings: dict[str, Any] = {} if threads is None else {"INFERENCE_NUM_THREADS": threads}
        if precision is not None:
            settings["INFERENCE_PRECISION_HINT"] = precision
        core = openvino.Core()
        compiled = [core.compile_model(path, "CPU", settings) for path in _files(bundle)]
        kind = compiled[0].get_property("INFERENCE_PRECISION_HINT").get_type_name()
        localizer, grader = (lambda images, run=run: _array(run(images)[0]) for run in compiled)
        short = {"f32": "fp32", "f16": "fp16"}.get(kind, kind)
        return localizer, grader, f"openvino {openvino.__version__.split('-')[0]} {short}"

    return means


def _torch(bundle: Bundle, threads: int | None, prepare: Callable[[Any], Any], how: str) -> Networks:
    import torch

    from spinescore.benchmarks.phantom.checkpoints import networks_of

    if threads is not None:
        torch.set_num_threads(threads)
    models = [prepare(model) for model in networks_of(bundle)]

    def run(model: Any) -> Network:
        def infer(images: NDArray[np.float32]) -> NDArray[Any]:
            with torch.inference_mode():
                return _array(model(torch.from_numpy(images)).numpy())

        return infer

    localizer, grader = map(run, models)
    return localizer, grader, f"torch {torch.__version__} {how} fp32"


def _files(bundle: Bundle) -> tuple[str, str]:
    localizer, grader = bundle.manifest.localizer.files["cervical"], bundle.manifest.grader.files["corners"]
    return str(bundle.path(localizer["fp32"])), str(bundle.path(grader["fp32"]))


def _array(values: Any) -> NDArray[Any]:
    return np.asarray(values)
