"""The smallest network that OpenVINO's CPU plugin computes wrongly on two streams, to report and to try new versions.

    python -m spinescore.benchmarks.openvino_streams [--processes 20] [--out F]

Version 2026.4.1 does so; 2025.0 does not, since it scales these weights before it loads the network. The network has
one INT8 convolution of 1x1 pixels with stride 2 behind a ReLU (QuantizeLinear and DequantizeLinear around it), as a
ResNet in Keras' layout has at the start of each stage. The plugin moves the stride before the activation's quantization
(a pooling appears there), the convolution leaves 8-bit arithmetic, and its weights are scaled when the network is
loaded: a Convert and a multiplication (`Subgraph`), both of constants. Streams of one compiled model share values that
are computed from constants. In the wrong cases the output is that of weights that were converted and not scaled, for
every stream and every later run: one stream seems to convert them again, in the same memory, after the other has scaled
them.

Each setting is tried in new processes, one compiled model and one run each, and compared with ONNX Runtime's output for
the same file. `wrong` is the number of processes whose output differs by more than 5 % of its range, `unscaled` the
number of those whose output is that of unscaled weights.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from spinescore.benchmarks.harness.child import run_child
from spinescore.benchmarks.harness.record import Command
from spinescore.export.graph import Graph
from spinescore.export.int8 import calibrate, layers, quantize, sample_first
from spinescore.export.sessions import run_model
from spinescore.runtime.machine.processes import worker_command
from spinescore.runtime.machine.processor import processor_kind
from spinescore.runtime.text import table

__all__ = ["SCHEMA", "SETTINGS", "main", "make_network", "measure"]

SCHEMA = "spinescore.openvino-streams/1"

_SIZE_PX, _CHANNELS, _OUTPUTS, _IMAGES = 56, 64, 8, 12
_LAYER = "strided"
_TOLERANCE = 0.05

_APART = {"INFERENCE_NUM_THREADS": 2, "ENABLE_CPU_PINNING": False}
# Name -> the network's file, a fixed batch or None, and the plugin's settings.
SETTINGS: dict[str, tuple[str, int | None, dict[str, Any]]] = {
    "two streams": ("int8", None, {"NUM_STREAMS": 2, **_APART}),
    "two streams, fixed batch": ("int8", _IMAGES, {"NUM_STREAMS": 2, **_APART}),
    "two streams, FP32 beside INT8": ("int8", None, {"NUM_STREAMS": 2, **_APART, "INFERENCE_PRECISION_HINT": "f32"}),
    "one stream, two threads": ("int8", None, {"NUM_STREAMS": 1, **_APART}),
    "one stream, one thread": ("int8", None, {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}),
    "two streams, pooled before (`sample_first`)": ("sampled", None, {"NUM_STREAMS": 2, **_APART}),
    "two streams, FP32 file": ("fp32", None, {"NUM_STREAMS": 2, **_APART}),
}


def make_network() -> onnx.ModelProto:
    """Build a 3x3 convolution, ReLU, the 1x1 convolution with stride 2, ReLU, a mean and a dense layer."""
    rng = np.random.default_rng(0)
    graph = Graph("strided", 3, _SIZE_PX, _SIZE_PX)

    def weights(outputs: int, inputs: int, kernel: int) -> NDArray[np.float32]:
        shape, scale = (outputs, inputs, kernel, kernel), np.sqrt(2 / (kernel * kernel * inputs))
        return np.asarray(rng.standard_normal(shape) * scale, np.float32)

    def bias(outputs: int) -> NDArray[np.float32]:
        return np.asarray(0.1 * rng.standard_normal(outputs), np.float32)

    x = graph.relu(graph.conv("image", weights(_CHANNELS, 3, 3), bias(_CHANNELS), name="first"))
    strided = weights(2 * _CHANNELS, _CHANNELS, 1)
    x = graph.relu(graph.conv(x, strided, bias(2 * _CHANNELS), name=_LAYER, stride=2))
    x = graph.relu(graph.conv(x, weights(2 * _CHANNELS, 2 * _CHANNELS, 1), bias(2 * _CHANNELS), name="next"))
    x = graph.global_mean(x, name="mean")
    x = graph.dense(x, weights(2 * _CHANNELS, _OUTPUTS, 1)[:, :, 0, 0], bias(_OUTPUTS), name="dense")
    return graph.model(x, "logits")


def measure(processes: int) -> dict[str, Any]:
    """Return for each setting how many processes were wrong, and how many took unscaled weights."""
    import openvino

    plain = make_network()
    small = np.random.default_rng(1).standard_normal((_IMAGES, 3, _SIZE_PX // 4, _SIZE_PX // 4), np.float32)
    images = small.repeat(4, axis=2).repeat(4, axis=3)
    models = {"fp32": plain, "int8": _in_int8(plain, images), "sampled": _in_int8(sample_first(plain), images)}
    expected = {name: run_model(model, images, name) for name, model in models.items()}
    unscaled = run_model(_unscaled(models["int8"]), images, "unscaled")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "images.npy", images)
        for name, model in models.items():
            onnx.save(model, str(Path(folder) / f"{name}.onnx"))
        for setting, (name, batch, options) in SETTINGS.items():
            outputs = [_run(Path(folder), name, batch, options) for _ in range(processes)]
            wrong = [output for output in outputs if _differs(expected[name], output)]
            like_unscaled = sum(not _differs(unscaled, output) for output in wrong)
            results[setting] = {"processes": processes, "wrong": len(wrong), "unscaled": like_unscaled}
    return {"openvino": openvino.__version__, "results": results}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print a table, and write the record; status 1 if a setting that spinescore uses was wrong."""
    command = Command("openvino_streams", SCHEMA, __doc__)
    text = "new processes for each setting (20)"
    command.options.add_argument("--processes", type=int, default=20, metavar="N", help=text)
    figures = measure(command.start(argv).processes)
    results = figures["results"]
    rows = [[setting, *map(str, counts.values())] for setting, counts in results.items()]
    title = f"OpenVINO {figures['openvino']}, {processor_kind()}"
    command.publish(figures, f"{title}\n{table(rows, ['setting', 'processes', 'wrong', 'unscaled'])}")
    used = [setting for setting in results if setting.startswith("one stream") or "FP32 file" in setting]
    return int(any(results[setting]["wrong"] for setting in used))


def run_once(request: str) -> None:
    """Load one network with one setting, run it once, and write its output; for a process of its own."""
    import openvino

    folder, name, batch, options = json.loads(request)
    images = np.load(Path(folder) / "images.npy")
    core = openvino.Core()
    model = core.read_model(str(Path(folder) / f"{name}.onnx"))
    if batch is not None:
        model.reshape([batch, *images.shape[1:]])
    output = core.compile_model(model, "CPU", options).create_infer_request().infer({0: images})[0]
    np.save(Path(folder) / "output.npy", output)


def _run(folder: Path, name: str, batch: int | None, options: dict[str, Any]) -> NDArray[np.float32]:
    request = json.dumps([str(folder), name, batch, options])
    run_child(worker_command("spinescore.benchmarks.openvino_streams", request, "run_once"))
    return np.asarray(np.load(folder / "output.npy"), np.float32)


def _in_int8(plain: onnx.ModelProto, images: NDArray[np.float32]) -> onnx.ModelProto:
    """Quantize all layers but the first and the last, as the exporter begins."""
    weighted = layers(plain, "Conv", "Gemm")
    return quantize(plain, calibrate(plain, images)["extremes"], {weighted[0], weighted[-1]})


def _unscaled(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the INT8 network with a strided convolution that takes its 8-bit weights as they are."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    scale = next(tensor for tensor in changed.graph.initializer if tensor.name == f"{_LAYER}.weight.scale")
    scale.CopyFrom(numpy_helper.from_array(np.ones_like(numpy_helper.to_array(scale)), scale.name))
    return changed


def _differs(expected: NDArray[np.float32], output: NDArray[np.float32]) -> bool:
    return not bool(np.abs(output - expected).max() <= _TOLERANCE * np.ptp(expected))


if __name__ == "__main__":
    sys.exit(main())
