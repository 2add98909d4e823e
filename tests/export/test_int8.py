"""INT8: the layers in 8 bits, the ranges of activations, and the search for layers that stay in FP32."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from helpers.golden_networks import model_of
from spinescore.export.int8 import RULES, calibrate, layers, quantize, to_tensorrt
from spinescore.export.sensitivity import mean_error
from spinescore.export.sessions import run_model


@pytest.fixture(scope="module")
def ranges(hrnet, images):
    return calibrate(hrnet, images)


@pytest.fixture(scope="module")
def quantized(hrnet, ranges):
    return quantize(hrnet, ranges["extremes"], set())


def dense(weight, *names, transposed=0):
    """Return a chain of Gemm, Relu, Gemm .., one Gemm for each name, all with the same square weight."""
    nodes, last = [], "x"
    for name in names:
        out = "y" if name == names[-1] else f"{name}.out"
        nodes.append(helper.make_node("Gemm", [last, "w", "b"], [out], name=name, transB=transposed))
        last = out
        if out != "y":
            nodes.append(helper.make_node("Relu", [out], [f"{name}.relu"], name=f"{name}.relu"))
            last = f"{name}.relu"
    size = len(weight)
    constants = {"w": np.asarray(weight, np.float32), "b": np.zeros(size, np.float32)}
    return model_of(nodes, constants, ("N", size), ("N", size))


def kinds(model):
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def makers(model):
    return {node.output[0]: node for node in model.graph.node}


def test_all_but_what_is_kept_has_weights_of_8_bits(hrnet, ranges):
    names = layers(hrnet, "Conv")
    kept = {names[0], names[-1], names[40]}
    quantized = quantize(hrnet, ranges["extremes"], kept)
    made = makers(quantized)
    types = kinds(quantized)
    for node in quantized.graph.node:
        if node.op_type != "Conv":
            continue
        if node.output[0] in kept:
            assert types[node.input[1]] == TensorProto.FLOAT
        else:
            assert made[node.input[1]].op_type == "DequantizeLinear"
            assert types[made[node.input[1]].input[0]] == TensorProto.INT8
            assert made[node.input[0]].op_type == "DequantizeLinear"
        assert types[node.input[2]] == TensorProto.FLOAT  # biases are left alone


def test_quantized_network_is_near_and_its_original_untouched(hrnet, images):
    before = hrnet.SerializeToString()
    reference = run_model(hrnet, images)
    found = {rule: quantize(hrnet, ranges, set()) for rule, ranges in calibrate(hrnet, images).items()}
    assert set(found) == set(RULES)
    assert hrnet.SerializeToString() == before
    for quantized in found.values():
        assert 0 < mean_error(reference, run_model(quantized, images)) < 0.03


def test_keeping_everything_changes_nothing(hrnet, images, ranges):
    kept = quantize(hrnet, ranges["extremes"], set(layers(hrnet)))
    assert not any(node.op_type.endswith("Linear") for node in kept.graph.node)
    np.testing.assert_array_equal(run_model(kept, images), run_model(hrnet, images))


def test_result_before_a_relu_is_not_rounded(hrnet, quantized):
    """An engine joins a convolution and the ReLU that alone reads it; rounding between them would prevent that."""
    rounded = {node.input[0] for node in quantized.graph.node if node.op_type == "QuantizeLinear"}
    readers = {}
    for node in hrnet.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    inside = {name for name, found in readers.items() if found == ["Relu"]}
    assert inside
    assert not rounded & inside


def test_upsampling_hands_its_scale_on(quantized):
    made = makers(quantized)
    pairs = {node.input[0]: node for node in quantized.graph.node if node.op_type == "QuantizeLinear"}
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    resized = [node for node in quantized.graph.node if node.op_type == "Resize" and node.output[0] in pairs]
    assert resized
    for node in resized:
        before, after = made[node.input[0]], pairs[node.output[0]]
        assert [values[name] for name in before.input[1:]] == [values[name] for name in after.input[1:]]


@pytest.mark.parametrize("transposed", [0, 1])
def test_one_scale_for_each_output_channel(transposed):
    weight = np.diag([127.0, 1.27, 0.0, -12.7])
    model = dense(weight, "a", "b", "c", transposed=transposed)
    quantized = quantize(model, calibrate(model, np.eye(4, dtype=np.float32))["extremes"], {"a.out", "y"})
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    np.testing.assert_allclose(values["w.scale"], [1, 0.01, 2.0**-14, 0.1], rtol=1e-6)
    np.testing.assert_array_equal(np.diag(values["w.int8"]), [127, 127, 0, -127])
    np.testing.assert_array_equal(values["w"], weight.astype(np.float32))  # the layers that are kept read it
    whole = quantize(model, calibrate(model, np.eye(4, dtype=np.float32))["extremes"], set())  # which they share
    assert [tensor.name for tensor in whole.graph.initializer].count("w.int8") == 1


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=4, max_size=4), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_error_of_a_layer_is_bounded_by_its_steps(row, seed):
    """|y - y'| <= sum |w| dx + |x'| dw, with half a step of input and weight each (plus float32's own rounding)."""
    rng = np.random.default_rng(seed)
    model = dense(rng.normal(0, 1, (4, 4)), "only")
    images = np.array([row, rng.normal(0, 10, 4)], np.float32)
    quantized = quantize(model, calibrate(model, images)["extremes"], set())
    weight = numpy_helper.to_array(model.graph.initializer[0])
    step = np.abs(images).max() / 127 / 2
    bound = np.abs(weight).sum(0) * step + (np.abs(images).max(1)[:, None] * 4 + 4 * step) * np.abs(weight).max(0) / 254
    assert (np.abs(run_model(quantized, images) - run_model(model, images)) <= bound * 1.01 + 1e-4).all()


def test_ranges_by_rule():
    model = dense(np.eye(4), "a", "b")
    values = np.random.default_rng(1).normal(0, 1, (20_000, 4)).astype(np.float32)
    values[0, 0] = 100.0
    found = {rule: ranges["x"] for rule, ranges in calibrate(model, values).items()}
    assert found["extremes"] == (float(values.min()), 100.0)
    assert found["percentile"][1] == pytest.approx(np.percentile(np.abs(values), 99.99), rel=0.02)
    assert 50 < found["least-squares"][1] < 90  # one value in 80,000 cut off a little, for finer steps of all others
    assert found["least-squares"][0] == values.min()  # nothing there is beyond the limit


def test_tensorrts_form_has_zero_points_of_zero_and_is_half(quantized):
    before = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    after = {tensor.name: numpy_helper.to_array(tensor) for tensor in to_tensorrt(quantized).graph.initializer}
    assert {int(before[name]) for name in before if name.endswith(".zero") and before[name].ndim == 0} == {0, 128}
    for name in (name for name in after if name.endswith(".zero")):
        assert after[name].dtype == np.int8
        assert not after[name].any()
        ratio = after[name.replace(".zero", ".scale")] / before[name.replace(".zero", ".scale")]
        np.testing.assert_allclose(ratio, 255 / 127 if before[name].ndim == 0 and not before[name] else 1, rtol=2e-3)
    assert {array.dtype for name, array in after.items() if name.endswith((".bias", ".scale"))} == {np.dtype("float16")}


def test_tensorrt_rtx_reads_its_form(quantized):
    trt = pytest.importorskip("tensorrt_rtx", reason='TensorRT-RTX is missing: pip install "spinescore[tensorrt-rtx]"')
    from spinescore.export.engine import define_network
    from spinescore.runtime.engines.flavours import logger_of

    builder = trt.Builder(logger_of(trt))
    network, _parser = define_network(trt, builder, to_tensorrt(quantized), "localizer.int8.onnx")
    assert sum(network.get_layer(i).type == trt.LayerType.QUANTIZE for i in range(network.num_layers)) > 100
