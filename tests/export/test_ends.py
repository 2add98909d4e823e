"""Ends of ready graphs: probabilities that are cut back to logits, and ends that are refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from helpers.golden_networks import images, mean_grader, model_of, pooled, saved
from spinescore.export.ready import read_ready
from spinescore.export.sessions import run_model
from spinescore.runtime.errors import CheckpointError


def ended(*nodes, outputs=8, opset=17, **constants):
    """Return the mean grader with further nodes after its logits `dense`; their result is `y`."""
    model = mean_grader(outputs, last="Identity")
    del model.graph.node[-1]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    return model


def node(operator, inputs, outputs, **attributes):
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


CORNERS = {"corners": np.array([-1, 2, 4]), "flat": np.array([-1, 8])}
BOTH = [node("Reshape", "dense corners", "c"), node("Softmax", "c", "s", axis=-1), node("Reshape", "s flat", "y")]
HALVES = [
    node("Split", "dense", "upper lower", axis=1),
    node("Softmax", "upper", "sa", axis=1),
    node("Softmax", "lower", "sb", axis=1),
    node("Concat", "sa sb", "y", axis=1),
]
NAMED = [node("Softmax", "dense", "s", axis=1), node("Identity", "s", "i"), node("Flatten", "i", "y")]
SHARED = [node("Softmax", "dense", "s", axis=1), node("ReduceMax", "s", "m", axes=[1]), node("Identity", "s", "y")]


@pytest.mark.parametrize(
    ("nodes", "outputs"),
    [(BOTH, 8), (HALVES, 8), (NAMED, 4), (SHARED, 3), ([node("LogSoftmax", "dense", "y", axis=1)], 2)],
    ids=["W5", "concat", "identity", "shared", "log"],
)
def test_softmax_at_the_end_is_cut_off_wherever_it_stands(tmp_path, nodes, outputs):
    ready = read_ready(saved(ended(*nodes, outputs=outputs, **CORNERS), tmp_path), "logits", 3, 32, 32)
    assert any("Softmax was removed" in note for note in ready.notes)
    np.testing.assert_array_equal(run_model(ready.model, images()), run_model(mean_grader(outputs), images()))


EXP = [
    node("Reshape", "dense corners", "c"),
    node("Exp", "c", "e"),
    node("ReduceSum", "e axis", "t", keepdims=1),
    node("Div", "e t", "p"),
    node("Reshape", "p flat", "y"),
]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Sigmoid", "dense", "y")], r"within 0\.\.1, as a sigmoid does \(it ends in Sigmoid\)"),
        ([node("Sigmoid", "dense", "s"), node("Mul", "s one", "y")], r"as a sigmoid does \(it ends in Mul\)"),
        ([node("Clip", "dense zero one", "y")], "it ends in Clip"),
        ([node("Tanh", "dense", "t"), node("Identity", "t", "y")], r"bounded values \(it ends in Tanh\)"),
        (EXP, "groups of 4 outputs that sum to 1, and no Softmax node"),
        ([*BOTH[:2], node("Mul", "s hundred", "m"), node("Reshape", "m flat", "y")], "that sum to 100"),
        ([node("Reshape", "dense pairs", "c"), *BOTH[1:]], "groups of 2 outputs .* read are groups of 4"),
        (
            [node("Reshape", "dense pairs", "c"), node("Softmax", "c", "s", axis=1), BOTH[2]],
            "groups of 4 outputs that sum to 1, grade by grade; read are groups of 4, corner by corner",
        ),
    ],
    ids=["sigmoid", "scaled", "clip", "tanh", "written out", "percent", "pairs", "interleaved"],
)
def test_ends_that_are_no_logits_are_refused(tmp_path, nodes, message):
    numbers = {"one": np.float32(1), "zero": np.float32(0), "hundred": np.float32(100), "axis": np.array([-1])}
    model = ended(*nodes, **CORNERS, **numbers, pairs=np.array([-1, 4, 2]))
    with pytest.raises(CheckpointError, match=message):
        read_ready(saved(model, tmp_path), "logits", 3, 32, 32)


@pytest.mark.parametrize("last", ["Sigmoid", "Softmax"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1)])
def test_heatmaps_within_0_to_1_want_a_stated_confidence(tmp_path, last, order):
    model = pooled((0, 1, 2, 3))
    constants = {"rows": np.array([0, 3, -1]), "back": np.array([0, 3, 8, 8])}
    behind = [node("Sigmoid", "p", "n")]
    if last == "Softmax":
        behind = [node("Reshape", "p rows", "r"), node("Softmax", "r", "s", axis=-1), node("Reshape", "s back", "n")]
    model.graph.node[1].input[0] = "n"
    model.graph.node[1].attribute[0].CopyFrom(helper.make_attribute("perm", order))
    nodes = [model.graph.node[0], *behind, model.graph.node[1]]
    model = model_of(nodes, constants, ("N", 3, 32, 32), ("N", "a", "b", "c"))
    path = saved(model, tmp_path)
    with pytest.raises(CheckpointError, match=rf"a {last.lower()} at the end.*localizer\.min_confidence"):
        read_ready(path, "heatmaps", 3, 32, 32)
    ready = read_ready(path, "heatmaps", 3, 32, 32, confidence_stated=True)
    assert any(f"end in a {last.lower()} and are taken as they are" in note for note in ready.notes)


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Softmax", "dense", "y", axis=0)],
        [node("ReduceMean", "dense", "m", axes=[0], keepdims=1), node("Sub", "dense m", "y")],
        [node("RandomNormalLike", "dense", "r"), node("Add", "dense r", "y")],
    ],
)
def test_answers_that_depend_on_the_batch_or_on_chance_are_refused(tmp_path, nodes):
    with pytest.raises(CheckpointError, match=r"differently alone and in a batch.*model\.eval\(\)"):
        read_ready(saved(ended(*nodes), tmp_path), "logits", 3, 32, 32)


def test_loops_are_refused_before_they_run(tmp_path):
    body = helper.make_graph(
        [node("Identity", "go", "on"), node("Identity", "v", "w")],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, None),
        ],
    )
    model = ended(helper.make_node("Loop", ["", "go", "dense"], ["y"], name="forever", body=body), go=np.array(True))
    with pytest.raises(CheckpointError, match="forever is a Loop, which can run without end"):
        read_ready(saved(model, tmp_path), "logits", 3, 32, 32)


def test_weights_of_a_node_in_a_second_file_are_refused(tmp_path):
    model = ended(node("Constant", "", "one"), node("Mul", "dense one", "y"))
    tensor = numpy_helper.from_array(np.ones(1, np.float32), "hidden")
    onnx.external_data_helper.set_external_data(tensor, "weights.bin")
    tensor.ClearField("raw_data")
    del model.graph.node[-2].input[:]
    model.graph.node[-2].attribute.append(helper.make_attribute("value", tensor))
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="tensor hidden of a node lies in another file"):
        read_ready(path, "logits", 3, 32, 32)
