"""Estimates the least time of a study's networks and kernels on named GPUs, from datasheets.

    python -m spinescore.benchmarks.roofline [--bundle B] [--device NAME] [--layers] [--json]

Nothing is measured here. The floor of a layer is the larger of two times: its operations over the device's dense FP16
tensor rate, and its bytes over the memory bandwidth (S. Williams et al., Roofline, CACM 52(4), 2009). The floor of a
network is the sum over its layers. A layer is a convolution or matrix product with the element-wise operations behind
it, as engines fuse them; weights, inputs and outputs move once, in half precision. Launches, caches that keep a tensor
from one layer to the next, and clocks below the stated one are left out. `devices.json` names the sources of the
figures.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from spinescore.benchmarks.harness.record import to_json
from spinescore.kernels.decode import DISCS
from spinescore.kernels.warp import WarpSpec
from spinescore.runtime.engines.half import to_half
from spinescore.runtime.errors import BundleError, SpineScoreError
from spinescore.runtime.manifest import NetworkInput
from spinescore.runtime.scoring.networks import HEATMAP_STRIDE

__all__ = ["Floor", "Gpu", "Work", "floor_ms", "kernel_works", "load_gpus", "network_works"]

_HALF_BYTES = 2
_TABLE_BYTES = 4 * 2**16
_SOURCE_PX = (3000, 2500)  # a usual radiograph of 16 bits
_LOCALIZER_BATCH, _GRADER_BATCH = 2, 2 * DISCS
_FUSED = {"Relu", "Add", "Resize", "Flatten", "Cast"}
_SAMPLE_FLOPS = 24  # two coordinates of two products each, four weights, four taps, the test of being inside
_DARK_FLOPS = 24 * 2 * 11 * 7  # the separable blur of 11 taps on the 7 x 7 pixels about a peak, both ways, about


@dataclass(frozen=True)
class Gpu:
    """A row of `devices.json`. The rates are multiprocessors times clock times rate per clock."""

    name: str
    mode: str
    compute_capability: str
    multiprocessors: int
    boost_mhz: float
    fp16_flops_per_clock: int  # of one multiprocessor, dense
    fp16_tflops: float
    fp32_tflops: float
    bandwidth_gb_s: float
    source: str
    checked: str  # the figures that a second source confirms, and that source
    fp32_mhz: float | None = None  # if FP32 runs at another clock than the tensor cores


@dataclass(frozen=True)
class Work:
    """Operations and bytes of a layer or kernel for its whole batch. A multiply-add counts as two."""

    name: str
    flops: float
    bytes: float
    tensor_cores: bool


@dataclass(frozen=True)
class Floor:
    """The floor of a network or kernel on a device, and the part of it that is bound by memory."""

    name: str
    gpu: str
    gflops: float
    megabytes: float
    floor_ms: float
    memory_bound_ms: float


def load_gpus() -> tuple[Gpu, ...]:
    """Return the devices of `devices.json`."""
    document = json.loads(Path(__file__).with_name("devices.json").read_text(encoding="utf-8"))
    return tuple(Gpu(**row) for row in document["devices"])


def network_works(model: onnx.ModelProto, batch: int) -> list[Work]:
    """Return the layers of a network in half precision, with their operations and bytes for `batch` images."""
    half, _ = to_half(model)
    for end in (*half.graph.input, *half.graph.output):
        end.type.tensor_type.shape.dim[0].dim_value = batch
    graph = onnx.shape_inference.infer_shapes(half, strict_mode=True, data_prop=True).graph
    elements = {v.name: _elements(v) for v in (*graph.input, *graph.output, *graph.value_info)}
    weights = {tensor.name: math.prod(tensor.dims) for tensor in graph.initializer}
    layers: list[list[onnx.NodeProto]] = []
    home: dict[str, int] = {}  # tensor -> the layer that outputs it
    for node in graph.node:
        number = _joined(node, graph, home)
        if number is None:
            number = len(layers)
            layers.append([])
        layers[number].append(node)
        home[node.output[0]] = number
    outputs = {value.name for value in graph.output}
    return [_layer_work(layer, graph, elements, weights, outputs) for layer in layers]


def _joined(node: onnx.NodeProto, graph: onnx.GraphProto, home: dict[str, int]) -> int | None:
    """Return the layer that an element-wise node is fused to: the last one with an input that no other node reads."""
    if node.op_type not in _FUSED:
        return None
    alone = [name for name in node.input if name in home and sum(name in other.input for other in graph.node) == 1]
    return max((home[name] for name in alone), default=None)


def _layer_work(
    layer: Sequence[onnx.NodeProto],
    graph: onnx.GraphProto,
    elements: dict[str, int],
    weights: dict[str, int],
    outputs: set[str],
) -> Work:
    written = {node.output[0] for node in layer}
    nodes = {id(node) for node in layer}
    read_elsewhere = {name for node in graph.node if id(node) not in nodes for name in node.input}
    read = {name for node in layer for name in node.input if name and name not in written}
    moved = sum(weights[name] if name in weights else elements[name] for name in read)
    moved += sum(elements[name] for name in written if name in outputs or name in read_elsewhere)
    flops = sum(_flops(node, elements, graph) for node in layer)
    dense = any(node.op_type in ("Conv", "Gemm") for node in layer)
    return Work(layer[0].name or layer[0].output[0], flops, moved * _HALF_BYTES, dense)


def _flops(node: onnx.NodeProto, elements: dict[str, int], graph: onnx.GraphProto) -> float:
    out = elements[node.output[0]]
    if node.op_type in ("Conv", "Gemm"):
        dims = next(tensor.dims for tensor in graph.initializer if tensor.name == node.input[1])
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        taps = int(dims[1 if attributes.get("transB") else 0] if node.op_type == "Gemm" else math.prod(dims[1:]))
        return 2.0 * out * taps
    if node.op_type == "MaxPool":
        return float(out * math.prod(next(a.ints for a in node.attribute if a.name == "kernel_shape")))
    if node.op_type == "GlobalAveragePool":
        return float(elements[node.input[0]])
    return float(out) if node.op_type in ("Relu", "Add") else 0.0


def kernel_works(localizer: WarpSpec, crop: WarpSpec, joints: int, crops: int = _GRADER_BATCH) -> list[Work]:
    """Return the work of our own kernels for both views; sources of 3000 x 2500 pixels of 16 bits are read once."""
    views = _LOCALIZER_BATCH
    peaks = joints * localizer.height * localizer.width / 16
    heatmaps = views * peaks
    return [
        _warp_work("warp localizer", localizer, views, views),
        Work("decode", heatmaps + views * 2 * DISCS * _DARK_FLOPS, heatmaps * _HALF_BYTES, False),
        _warp_work("warp crops", crop, crops, views),
    ]


def _warp_work(name: str, spec: WarpSpec, count: int, views: int) -> Work:
    samples = count * spec.height * spec.width * spec.antialias**2
    source = min(views * math.prod(_SOURCE_PX), 4 * samples) * 2
    out = count * spec.channels * spec.height * spec.width * _HALF_BYTES
    return Work(name, float(samples * _SAMPLE_FLOPS), float(source + views * _TABLE_BYTES + out), False)


def floor_ms(work: Work, gpu: Gpu) -> tuple[float, float]:
    """Return the times by the operations and by the bytes in milliseconds; the floor is the larger."""
    rate = gpu.fp16_tflops if work.tensor_cores else gpu.fp32_tflops
    return work.flops / (rate * 1e9), work.bytes / (gpu.bandwidth_gb_s * 1e6)


def total(name: str, works: Sequence[Work], gpu: Gpu) -> Floor:
    """Return the floor of layers that run one after another."""
    times = [floor_ms(work, gpu) for work in works]
    return Floor(
        name,
        gpu.name,
        sum(work.flops for work in works) / 1e9,
        sum(work.bytes for work in works) / 1e6,
        sum(max(pair) for pair in times),
        sum(by_bytes for by_flops, by_bytes in times if by_bytes > by_flops),
    )


def _elements(value: onnx.ValueInfoProto) -> int:
    return math.prod(dim.dim_value for dim in value.type.tensor_type.shape.dim)


def published_works() -> dict[str, list[Work]]:
    """Return the work of HRNet-W32 (256x192, 24 heatmaps), ResNet152 (224x224, 8 logits) and the kernels."""
    from spinescore.export.hrnet import build_hrnet
    from spinescore.export.resnet152 import build_resnet
    from spinescore.export.synthetic import parse_synthetic, random_tensors

    hrnet = build_hrnet(random_tensors(parse_synthetic("synthetic:hrnet-w32"), 24, 3), 256, 192)
    resnet = build_resnet(random_tensors(parse_synthetic("synthetic:resnet152"), 8, 3), 224, 224)
    grey = ((0.0,) * 3, (1.0,) * 3)
    kernels = kernel_works(WarpSpec(256, 192, 4, *grey), WarpSpec(224, 224, 2, *grey), 24)
    return {
        f"hrnet-w32 x{_LOCALIZER_BATCH}": network_works(hrnet, _LOCALIZER_BATCH),
        f"resnet152 x{_GRADER_BATCH}": network_works(resnet, _GRADER_BATCH),
        **{work.name: [work] for work in kernels},
    }


def bundle_works(name: str) -> dict[str, list[Work]]:
    """Return the same for the networks of a bundle, with every pass of the localizer."""
    from spinescore.runtime.bundle import Bundle
    from spinescore.runtime.scoring.networks import FLIPS

    bundle = Bundle.open(name)
    localizer, grader = bundle.manifest.localizer, bundle.manifest.grader
    works: dict[str, list[Work]] = {}
    crops = 0
    regions = ["cervical"] if localizer.shared else ["cervical", "lumbar"]
    for region in regions:
        path, _ = bundle.network(localizer.files[region], ("fp32", "fp16"))  # type: ignore[index]
        works[path.name] = [
            work
            for size in localizer.run_inputs
            for work in network_works(_sized(onnx.load(str(path)), size), _LOCALIZER_BATCH // len(regions))
        ] * localizer.passes
    for files in grader.files.values():
        path, _ = bundle.network(files, ("fp32", "fp16"))
        model = onnx.load(str(path))
        outputs = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
        count = _GRADER_BATCH * len(FLIPS[outputs])
        works[path.name] = network_works(model, count)
        crops += count
    crop, whole = (
        WarpSpec(size.height, size.width, size.antialias, size.mean, size.std)
        for size in (grader.input, localizer.input)
    )
    joints = max(point.channel for points in localizer.keypoints.values() for point in points) + 1
    for work in kernel_works(whole, crop, joints, crops):
        works[work.name] = [work] * (1 if work.name == "warp crops" else localizer.passes)
    return works


def _sized(model: onnx.ModelProto, size: NetworkInput) -> onnx.ModelProto:
    """Set the localizer's size of input; its heatmaps have a quarter of it."""
    for end, stride in ((model.graph.input[0], 1), (model.graph.output[0], HEATMAP_STRIDE)):
        for dimension, side in zip(end.type.tensor_type.shape.dim[2:], (size.height, size.width), strict=True):
            dimension.dim_value = side // stride
    return model


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m spinescore.benchmarks.roofline", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--bundle", metavar="B", help="a bundle's networks (HRNet-W32 and ResNet152)")
    parser.add_argument("--device", metavar="NAME", help="only devices whose name contains NAME")
    parser.add_argument("--layers", action="store_true", help="print a line for each layer")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    gpus = [gpu for gpu in load_gpus() if (arguments.device or "").lower() in gpu.name.lower()]
    if not gpus:
        names = ", ".join(gpu.name for gpu in load_gpus())
        print(f"no device is called {arguments.device!r}; known: {names}", file=sys.stderr)
        return 2
    try:
        works = bundle_works(arguments.bundle) if arguments.bundle else published_works()
    except SpineScoreError as error:
        print(f"spinescore: {error}", file=sys.stderr)
        return 4 if isinstance(error, BundleError) else 1
    print(to_json(_document(works, gpus)) if arguments.json else _table(works, gpus, arguments.layers))
    return 0


def _document(works: dict[str, list[Work]], gpus: Sequence[Gpu]) -> dict[str, Any]:
    return {
        "kind": "estimate from datasheets, not a measurement",
        "devices": [asdict(gpu) for gpu in gpus],
        "layers": {name: [asdict(work) for work in layers] for name, layers in works.items()},
        "floors": [asdict(total(name, layers, gpu)) for gpu in gpus for name, layers in works.items()],
        "study_ms": {gpu.name: sum(total(*one, gpu).floor_ms for one in works.items()) for gpu in gpus},
    }


def _table(works: dict[str, list[Work]], gpus: Sequence[Gpu], with_layers: bool) -> str:
    lines = ["Floors in milliseconds: an estimate from datasheets, not a measurement. Real times are longer.", ""]
    for name, layers in works.items():
        flops, moved = sum(work.flops for work in layers), sum(work.bytes for work in layers)
        lines.append(f"{name:<24}{flops / 1e9:10.2f} GFLOP {moved / 1e6:10.1f} MB {len(layers):5} layers")
        if with_layers:
            lines += [f"    {work.name:<44}{work.flops / 1e9:9.3f} GFLOP {work.bytes / 1e6:9.2f} MB" for work in layers]
    lines += ["", f"{'':<24}" + "".join(f"{name[:16]:>18}" for name in works) + f"{'study':>12}"]
    for gpu in gpus:
        floors = [total(name, layers, gpu).floor_ms for name, layers in works.items()]
        lines.append(f"{gpu.name:<24}" + "".join(f"{floor:18.4f}" for floor in floors) + f"{sum(floors):12.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
