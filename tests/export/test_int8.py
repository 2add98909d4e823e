"""INT8: the layers in 8 bits, the ranges of activations, and the search for layers that stay in FP32."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from helpers.golden_networks import golden_run, mean_grader, model_of, pool_localizer, unpacked
from spinescore.export import sensitivity
from spinescore.export.bundle import export_bundle
from spinescore.export.checkpoints import read_checkpoint
from spinescore.export.hrnet import build_hrnet
from spinescore.export.int8 import RULES, calibrate, layers, quantize, sample_first, to_tensorrt
from spinescore.export.resnet152 import build_resnet
from spinescore.export.sensitivity import make_int8, mean_error
from spinescore.export.sessions import run_model
from spinescore.runtime import cli
from spinescore.runtime.acceptance.comparison import GradeAgreement
from spinescore.runtime.errors import CheckpointError
from spinescore.runtime.manifest.tolerances import Tolerances
from spinescore.runtime.phantom import write_study


@pytest.fixture(scope="module")
def hrnet(tmp_path_factory):
    path = unpacked("hrnet-legacy.pth", tmp_path_factory.mktemp("int8"))
    return build_hrnet(read_checkpoint(path).tensors, 64, 64)


@pytest.fixture(scope="module")
def images(hrnet):
    image, _ = golden_run("hrnet-legacy.pth", 3)
    rng = np.random.default_rng(7)
    return np.concatenate([image, *(image * rng.uniform(0.5, 1.5) + rng.normal(0, 0.1, image.shape) for _ in range(8))]
                          ).astype(np.float32)  # fmt: skip


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


@pytest.fixture(scope="module")
def residual():
    """Return a network of ten convolutions and four sums, small enough to be searched again and again."""
    rng, nodes, constants = np.random.default_rng(3), [], {}

    def convolve(source, name, channels=(8, 8), relu=True):
        constants[f"{name}.w"] = rng.normal(0, 0.2, (*channels, 3, 3)).astype(np.float32)
        constants[f"{name}.b"] = rng.normal(0, 0.1, channels[0]).astype(np.float32)
        nodes.append(helper.make_node("Conv", [source, f"{name}.w", f"{name}.b"], [name], name=name, pads=[1] * 4))
        return rectify(name) if relu else name

    def rectify(name):
        nodes.append(helper.make_node("Relu", [name], [f"{name}.relu"], name=f"{name}.relu"))
        return f"{name}.relu"

    last = convolve("x", "stem", (8, 3))
    for block in range(4):
        inner = convolve(convolve(last, f"a{block}"), f"b{block}", relu=False)
        nodes.append(helper.make_node("Add", [last, inner], [f"sum{block}"], name=f"sum{block}"))
        last = rectify(f"sum{block}")
    convolve(last, "y", (2, 8), relu=False)
    return model_of(nodes, constants, ("N", 3, 64, 64), ("N", 2, 64, 64))


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


def flipped(count):
    return GradeAgreement(
        corners=1000, logit_difference=0.1, flips=count, reference_total=0, total=0, largest_total_change=0
    )


def attempts(residual, images, flips):
    """Return the search's result if attempt n flips `flips[n]` of 1,000 grades, and later ones as many as the last."""
    left = list(flips)
    reference = run_model(residual, images)
    return make_int8(
        residual, images, reference, lambda _: flipped(left.pop(0) if len(left) > 1 else left[0]), Tolerances(), "net"
    )


def test_search_stops_at_the_bounds(residual, images):
    found = attempts(residual, images, [5])
    assert [step.kept for step in found.steps] == [()] * len(RULES)
    assert found.model is not None
    assert found.fault is None


def test_search_takes_the_rule_of_the_smallest_error(residual, images):
    found = attempts(residual, images, [0])
    best = min(found.steps, key=lambda step: step.error).rule
    ends = {layers(residual, "Conv")[0], layers(residual, "Conv")[-1]}
    chosen = quantize(residual, calibrate(residual, images)[best], ends)
    assert found.model.SerializeToString() == chosen.SerializeToString()


def test_search_keeps_the_sums_then_group_after_group(residual, images, monkeypatch):
    monkeypatch.setattr(sensitivity, "_GROUPS", 3)
    found = attempts(residual, images, [9] * 5 + [4])
    assert [len(step.kept) for step in found.steps] == [0, 0, 0, 1, 2, 3]
    assert all(step.kept[0] == "sums" for step in found.steps[3:])
    assert found.steps[-1].within
    assert found.steps[-1].error < min(step.error for step in found.steps[:3])
    sums = [node for node in found.model.graph.node if node.op_type == "Add"]
    assert not any(name.endswith(".dequantized") for node in sums for name in node.input)


def test_search_that_fails_says_so(residual, images, monkeypatch):
    monkeypatch.setattr(sensitivity, "_MOST_KEPT", 1)
    found = attempts(residual, images, [500])
    assert found.model is None
    assert "not within the tolerances" in found.fault
    assert len(found.steps) == len(RULES) + 2


def test_blank_or_few_images_cannot_calibrate(residual, images):
    for few in (images[:3], np.zeros_like(images)):
        with pytest.raises(CheckpointError, match=r"at least 8 golden pictures .* give more radiographs"):
            make_int8(residual, few, few, lambda _: flipped(0), Tolerances(), "localizer")


def test_network_without_inner_layers_has_no_int8(images):
    found = make_int8(pool_localizer(), images, images, lambda _: flipped(0), Tolerances(), "localizer")
    assert found.model is None
    assert "layers with weights" in found.fault


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    for seed in range(4):
        write_study(41 + seed, folder / str(seed))
    unpacked("hrnet-legacy.pth", folder)
    onnx.save(mean_grader(), str(folder / "grader.onnx"))
    size = {"input": {"height": 64, "width": 64, "preprocessing": "imagenet"}}
    (folder / "small.json").write_text(json.dumps({"localizer": size, "grader": size}))
    return folder


def test_export_writes_int8_beside_the_rest(study, tmp_path, capsys):
    arguments = ["export", "--localizer", f"{study / 'hrnet-legacy.pth'}", "--grader", f"{study / 'grader.onnx'}"]
    arguments += ["--out", f"{tmp_path / 'mine'}", "--manifest", f"{study / 'small.json'}", "--int8"]
    assert cli.main([*arguments, "--golden", *(f"{study / str(n)}" for n in range(4))]) == 0
    said = capsys.readouterr()
    assert "INT8, localizer: ranges by extremes: error" in said.out
    assert "grader: written without INT8: it has" in said.err
    assert "onnxruntime int8" in said.out  # the gate has run, and left its record
    assert list((tmp_path / "mine" / "acceptance").glob("acceptance-cpu-onnxruntime-*-int8-*.json"))
    manifest = json.loads((tmp_path / "mine" / "bundle.json").read_text())
    assert manifest["localizer"]["files"]["lumbar"]["int8"] == "localizer.int8.onnx"
    assert manifest["files"]["localizer.int8.onnx"]["precision"] == "int8"
    assert "int8" not in manifest["grader"]["files"]["corners"]
    steps = manifest["provenance"]["networks"]["localizer"]["int8"]["steps"]
    assert [step["rule"] for step in steps][: len(RULES)] == list(RULES)


def test_strict_export_wants_int8_of_every_network(study, tmp_path, monkeypatch):
    monkeypatch.setattr(sensitivity, "RULES", RULES[:1])  # the localizer's search need not be a long one
    with pytest.raises(CheckpointError, match="grader: no INT8"):
        export_bundle(
            f"{study / 'hrnet-legacy.pth'}",
            f"{study / 'grader.onnx'}",
            tmp_path / "mine",
            manifest=study / "small.json",
            golden=[study],
            int8=True,
            strict=True,
        )
    assert not (tmp_path / "mine").exists()


def test_keras_strides_are_taken_once_before_the_layers_that_share_them(tmp_path):
    tensors = read_checkpoint(unpacked("keras-resnet50-corner4.h5", tmp_path)).tensors
    plain = build_resnet(tensors, 64, 64)
    sampled = sample_first(plain)
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    np.testing.assert_array_equal(run_model(sampled, images, "sampled"), run_model(plain, images, "plain"))
    nodes = {node.name: node for node in sampled.graph.node}
    pools = [name for name in nodes if name.endswith(".sampled")]
    assert len(pools) == 3
    for number, pool in enumerate(pools, 3):
        readers = [name for name, node in nodes.items() if node.input[0] == pool]
        assert readers == [f"conv{number}_block1_0_conv", f"conv{number}_block1_1_conv"]
        strides = {a.name: list(a.ints) for reader in readers for a in nodes[reader].attribute}["strides"]
        assert strides == [1, 1]
    assert sample_first(sampled) == sampled


def test_a_stride_that_not_all_readers_have_stays_where_it_is(hrnet, tmp_path):
    torch = build_resnet(read_checkpoint(unpacked("resnet50-corner4.pth", tmp_path)).tensors, 64, 64)
    assert sample_first(torch) == torch  # the first layer of a block reads every pixel, the shortcut every second one
    assert sample_first(hrnet) == hrnet


def test_the_search_is_held_to_all_criteria_of_the_gate(residual, images):
    """Equal grades are not enough if logits move far (and the other way round)."""
    reference = run_model(residual, images, "FP32")

    def judge(output):
        return GradeAgreement(216, 0.25, 0, 9, 9, 0)

    found = make_int8(residual, images, reference, judge, Tolerances(), "network")
    assert found.model is None
    assert all(step.faults == "logit difference 0.25, at most 0.2" for step in found.steps)
    assert "logit difference 0.25, at most 0.2" in found.fault
    assert "beyond the tolerances: logit difference 0.25" in str(found.steps[0])
