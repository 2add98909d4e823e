"""Half precision: the tensors that become half, the loss, and its measurement."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from helpers.golden_networks import golden_run, model_of, unpacked
from spinescore.export.checkpoints import read_checkpoint
from spinescore.export.hrnet import build_hrnet
from spinescore.export.resnet152 import build_resnet
from spinescore.export.rounding import largest_activations, open_rounded, rounded_graph
from spinescore.export.sessions import open_session, run_model, run_session
from spinescore.export.synthetic import parse_synthetic, random_tensors
from spinescore.runtime.engines.half import HALF_MAX, LayerCount, store_half, to_half
from spinescore.runtime.errors import CheckpointError


@pytest.fixture(scope="module")
def hrnet(tmp_path_factory):
    path = unpacked("hrnet-legacy.pth", tmp_path_factory.mktemp("half"))
    return build_hrnet(read_checkpoint(path).tensors, 64, 64)


def scaled(*factors, opset=17):
    """Return y = x * f0 * f1 .., one Mul after the other, each with its number as its name."""
    names = ["x", *(f"m{i}" for i in range(len(factors) - 1)), "y"]
    nodes = [helper.make_node("Mul", [names[i], f"f{i}"], [names[i + 1]], name=f"mul{i}") for i in range(len(factors))]
    constants = {f"f{i}": np.array([factor], np.float32) for i, factor in enumerate(factors)}
    return model_of(nodes, constants, ("N", 1), ("N", 1), opset=opset)


def types_of(model):
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {v.name: v.type.tensor_type.elem_type for v in (*inferred.input, *inferred.value_info, *inferred.output)}


def test_every_tensor_is_half_but_the_scales_of_resize(hrnet):
    half, _ = to_half(hrnet)
    assert set(types_of(half).values()) == {TensorProto.FLOAT16}
    assert not any(node.op_type == "Cast" for node in half.graph.node)
    scales = {node.input[2] for node in half.graph.node if node.op_type == "Resize"}
    kinds = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert scales
    assert {name for name, kind in kinds.items() if kind == TensorProto.FLOAT} == scales


def test_half_file_runs_and_is_near(hrnet):
    image, expected = golden_run("hrnet-legacy.pth", 3)
    found = run_model(to_half(hrnet)[0], image)
    assert 0 < np.abs(found - expected).max() < 0.01 * np.ptp(expected)


def test_original_is_left_alone(hrnet):
    before = hrnet.SerializeToString()
    for change in (to_half, store_half, open_rounded):
        change(hrnet)
    assert hrnet.SerializeToString() == before


def test_report_counts_by_layer():
    kernel = np.array([[[[7e4]]], [[[1e-9]]], [[[3e-6]]], [[[0.0]]], [[[-80.0]]]], np.float32)
    node = helper.make_node("Conv", ["x", "k"], ["y"], name="layer1.0.conv1")
    _, report = to_half(model_of([node], {"k": kernel}, ("N", 1, 4, 4), ("N", 5, 4, 4)))
    assert (report.largest_weight.layer, report.largest_weight.value) == ("layer1.0.conv1", 7e4)
    one = (LayerCount("layer1.0.conv1", 1, 5),)
    assert (report.overflowed, report.flushed, report.subnormal) == (one, one, one)


def test_largest_half_does_not_overflow():
    _, report = to_half(scaled(HALF_MAX))
    assert report.overflowed == ()


def test_constants_inside_nodes_follow():
    value = numpy_helper.from_array(np.array([2.0], np.float32))
    nodes = [
        helper.make_node("Constant", [], ["two"], value=value),
        helper.make_node("Mul", ["x", "two"], ["i"]),
        helper.make_node("Cast", ["i"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Cast", ["whole"], ["y"], to=TensorProto.FLOAT),
    ]
    half, _ = to_half(model_of(nodes, {}, ("N", 1), ("N", 1)))
    assert types_of(half)["y"] == types_of(half)["two"] == TensorProto.FLOAT16
    np.testing.assert_array_equal(run_model(half, np.array([[1.5]], np.float32)), [[3.0]])


def test_scales_that_are_computed_stay_float():
    nodes = [
        helper.make_node("Mul", ["one", "two"], ["scales"]),
        helper.make_node(
            "Resize",
            ["x", "", "scales"],
            ["y"],
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        ),
    ]
    constants = {"one": np.ones(4, np.float32), "two": np.array([1, 1, 2, 2], np.float32)}
    half, _ = to_half(model_of(nodes, constants, ("N", 1, 2, 2), ("N", 1, 4, 4)))
    image = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    np.testing.assert_array_equal(run_model(half, image)[0, 0, 0], [0, 0, 1, 1])


def test_tensor_that_scales_and_multiplies_is_refused():
    nodes = [
        helper.make_node("Resize", ["x", "", "scales"], ["r"], mode="nearest"),
        helper.make_node("Mul", ["r", "scales"], ["y"], name="both"),
    ]
    model = model_of(nodes, {"scales": np.ones(4, np.float32)}, ("N", 1, 2, 4), ("N", 1, 2, 4))
    with pytest.raises(CheckpointError, match="node both"):
        to_half(model)


def test_control_flow_is_refused():
    inner = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "inner", [], [
        helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    ])  # fmt: skip
    node = helper.make_node("If", ["yes"], ["y"], name="branch", then_branch=inner, else_branch=inner)
    with pytest.raises(CheckpointError, match=r"branch \(If\)"):
        to_half(model_of([node], {"yes": np.array(True)}, ("N", 1), ("N", 1)))


def test_stored_half_is_half_the_file_and_nearly_the_same(hrnet):
    small = store_half(hrnet)
    assert {types_of(small)[name] for name in ("image", "heatmaps")} == {TensorProto.FLOAT}
    big = sum(len(t.raw_data) for t in hrnet.graph.initializer)
    assert sum(len(t.raw_data) for t in small.graph.initializer) < 0.6 * big
    image, expected = golden_run("hrnet-legacy.pth", 3)
    assert 0 < np.abs(run_model(small, image) - expected).max() < 2e-3 * np.ptp(expected)


def test_half_of_stored_half_is_half_without_casts(hrnet):
    direct, stored = to_half(hrnet)[0], to_half(store_half(hrnet))[0]
    assert [n.op_type for n in stored.graph.node] == [n.op_type for n in direct.graph.node]
    image, _ = golden_run("hrnet-legacy.pth", 3)
    np.testing.assert_array_equal(run_model(stored, image), run_model(direct, image))


def test_weights_beyond_half_are_stored_as_they_are():
    model = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"w": np.full((1, 300), 1e5, np.float32)}, ("N", 1), ("N", 300),
    )  # fmt: skip
    np.testing.assert_array_equal(run_model(store_half(model), np.ones((1, 1), np.float32))[0], np.full(300, 1e5))


@pytest.mark.parametrize(
    ("factors", "value", "expected"),
    [
        ((1e-4, 1e-4, 1e4), 1.0, 0.0),  # 1e-8 is below the smallest half
        ((300.0, 300.0, 1e-3), 1.0, np.inf),  # 9e4 is above the largest
        ((1.0,), 1 / 3, np.float32(np.float16(1 / 3))),
    ],
)
def test_rounding_shows_what_the_cpu_hides(factors, value, expected):
    """On the CPU, ONNX Runtime keeps FP32 between the nodes of an FP16 graph; the rounded graph must round."""
    assert run_session(open_rounded(scaled(*factors)), np.array([[value]], np.float32)) == expected


def test_rounding_of_stored_half_is_the_rounding_of_the_network(hrnet):
    image, _ = golden_run("hrnet-legacy.pth", 3)
    both = [run_session(open_rounded(model), image) for model in (hrnet, store_half(hrnet))]
    np.testing.assert_array_equal(*both)


def rounded_everywhere(model):
    """Return a copy of `model` with two casts after every value, by the definition of half precision."""
    kinds = types_of(model)
    scales = {node.input[2] for node in model.graph.node if node.op_type == "Resize"}
    weights = [tensor.name for tensor in model.graph.initializer if tensor.name not in scales]
    nodes = []

    def cast(name):
        for source, target, kind in ((name, "h", TensorProto.FLOAT16), (f"{name}.h", "r", TensorProto.FLOAT)):
            nodes.append(helper.make_node("Cast", [source], [f"{name}.{target}"], to=kind))

    for name in ["image", *weights]:
        cast(name)
    for node in model.graph.node:
        inputs = [name if name in scales or not name else f"{name}.r" for name in node.input]
        nodes.append(onnx.NodeProto(op_type=node.op_type, input=inputs, output=node.output, attribute=node.attribute))
        for name in node.output:
            assert kinds[name] == TensorProto.FLOAT
            cast(name)
    naive = onnx.ModelProto()
    naive.CopyFrom(model)
    del naive.graph.node[:], naive.graph.value_info[:]
    naive.graph.node.extend(nodes)
    naive.graph.output[0].name += ".r"
    return naive


@pytest.mark.parametrize("name", ["hrnet-legacy.pth", "resnet"])
def test_rounding_of_fewer_values_gives_the_same_bits(hrnet, name):
    """Casts that change nothing are left out: after a pooling, and before a ReLU."""
    model = hrnet
    if name == "resnet":
        tensors = random_tensors(parse_synthetic("synthetic:resnet50-w8"), outputs=8, channels=3)
        model = build_resnet(tensors, 64, 64)
    image = np.random.default_rng(0).standard_normal((2, 3, 64, 64), np.float32)
    outputs = run_session(open_rounded(model), image)
    np.testing.assert_array_equal(outputs, run_model(rounded_everywhere(model), image))
    rounded, _ = rounded_graph(model)
    followers = {node.input[0]: node.op_type for node in rounded.graph.node}
    convolutions = [node.output[0] for node in rounded.graph.node if node.op_type == "Conv"]
    assert sum(followers[value] == "Relu" for value in convolutions) > len(convolutions) / 3


def test_largest_activations_are_those_of_each_node():
    found = largest_activations(scaled(300.0, -300.0), np.array([[1.0], [-2.0]], np.float32))
    assert [(layer.layer, layer.value) for layer in found] == [("m0", 600.0), ("y", 180000.0)]


@pytest.mark.parametrize("name", ["hrnet-legacy.pth", "resnet"])
def test_the_largest_activation_is_that_of_all_results(hrnet, name):
    """Results of a ReLU or a pooling are left out: none is larger than the result that it chooses from."""
    model = hrnet
    if name == "resnet":
        model = build_resnet(random_tensors(parse_synthetic("synthetic:resnet50-w8"), outputs=8, channels=3), 64, 64)
    image = np.random.default_rng(0).standard_normal((2, 3, 64, 64), np.float32)
    found = largest_activations(model, image)
    every = onnx.ModelProto()
    every.CopyFrom(model)
    values = [value for node in every.graph.node for value in node.output]
    every.graph.output.extend(helper.make_tensor_value_info(value, TensorProto.FLOAT, None) for value in values[:-1])
    results = open_session(every).run(values, {"image": image})
    assert max(layer.value for layer in found) == pytest.approx(max(np.abs(result).max() for result in results), 1e-5)
    assert {layer.layer for layer in found} < set(values)
    assert not any(layer.layer.endswith(".relu") for layer in found)
