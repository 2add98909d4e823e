"""The exporter's graphs in PyTorch against ONNX Runtime on the CPU; an unsupported operator is refused by name."""

import re
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper

from spinescore.export.hrnet import build_hrnet
from spinescore.export.resnet152 import build_resnet
from spinescore.export.sessions import run_model
from spinescore.export.synthetic import parse_synthetic, random_tensors
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.engines.half import store_half, to_half
from spinescore.runtime.errors import EngineError

torch = pytest.importorskip("torch")

OF_RANGE = 1e-4


def synthetic(name, height, width):
    outputs, build = (24, build_hrnet) if "hrnet" in name else (16, build_resnet)
    return build(random_tensors(parse_synthetic(f"synthetic:{name}"), outputs, 3), height, width)


def shipped(kind):
    bundle = Bundle.open("phantom-reference")
    files = {
        "localizer": bundle.manifest.localizer.files["cervical"],
        "grader": bundle.manifest.grader.files["corners"],
    }
    return onnx.load(str(bundle.path(files[kind]["fp32"])))


def off(model, dtype="float32", reference=None):
    """The largest difference from ONNX Runtime in FP32 for noise, as a share of the output's range."""
    from spinescore.benchmarks.gpu.onnxtorch import module_of

    shape = [dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    images = np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32)
    expected = run_model(reference or model, images, "a network")
    module = module_of(model, "a network").to(getattr(torch, dtype), memory_format=torch.channels_last)
    with torch.inference_mode():
        answer = module(torch.from_numpy(images).to(getattr(torch, dtype))).float().numpy()
    assert answer.shape == expected.shape
    assert np.ptp(expected) > 0.1
    return np.abs(answer - expected).max() / np.ptp(expected)


@pytest.mark.parametrize("kind", ["localizer", "grader"])
def test_the_shipped_networks(kind):
    assert off(shipped(kind)) < OF_RANGE


@pytest.mark.parametrize(("name", "size"), [("hrnet-w32", (256, 192)), ("resnet152", (224, 224))])
def test_the_full_size_networks(name, size):
    assert off(synthetic(name, *size)) < OF_RANGE


def test_a_file_that_stores_halves_and_a_file_in_half_precision():
    model = synthetic("resnet50-w8", 64, 64)
    assert off(store_half(model), reference=store_half(model)) < OF_RANGE
    assert off(to_half(model)[0], "float16", reference=model) < 0.02


def changed(change):
    model = synthetic("hrnet-w8", 64, 32)
    node = {node.op_type: node for node in model.graph.node}[change[0]]
    if change[1] == "type":
        node.op_type = change[2]
    else:
        for attribute in [one for one in node.attribute if one.name == change[1]]:
            node.attribute.remove(attribute)
        node.attribute.append(helper.make_attribute(change[1], change[2]))
    return model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("Relu", "type", "Sigmoid"), "operators that are not run on PyTorch here: Sigmoid"),
        (("Conv", "group", 2), r"\(Conv\) has {'group': 2}"),
        (("Conv", "pads", [0, 0, 1, 1]), r"the padding \(0, 0, 1, 1\) differs"),
        (("Resize", "mode", "linear"), "does not repeat pixels"),
        (("Relu", "type", "Cast"), "the cast of .* is not one of stored weights"),
    ],
)
def test_what_the_exporter_does_not_write_is_refused_by_name(change, message):
    from spinescore.benchmarks.gpu.onnxtorch import module_of

    model = changed(change)
    if change[2] == "Cast":
        for node in model.graph.node:
            if node.op_type == "Cast":
                node.attribute.append(helper.make_attribute("to", onnx.TensorProto.FLOAT))
    with pytest.raises(EngineError, match=message):
        module_of(model, "net.onnx")


@pytest.mark.parametrize(
    ("is_available", "words"), [(False, "sees no GPU"), (True, r"has no pools of memory.*2\.6 or later")]
)
def test_a_pytorch_that_cannot_stand_in_is_an_engine_error(monkeypatch, is_available, words):
    from spinescore.benchmarks.gpu.torchengine import Cuda

    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_available)
    monkeypatch.delattr(torch.cuda, "MemPool")
    with pytest.raises(EngineError, match=rf"PyTorch {re.escape(torch.__version__)} {words}"):
        Cuda(SimpleNamespace(index=0, stream_handle=0))
