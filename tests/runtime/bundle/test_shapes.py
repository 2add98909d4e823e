"""The check's shapes equal ONNX Runtime's, operator by operator."""

import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from helpers.networks_made import graph_of, made
from spinescore.runtime.bundle.networkcheck.costs import TooCostly, costs_of

IMAGE = (2, 4, 8, 6)
LIMITS = (1 << 40, 1 << 60)


def weights(*shape):
    return np.ones(shape, np.float32)


def ints(*values):
    return np.array(values, np.int64)


# The operator, its attributes, its inputs behind the picture, and the opset.
CASES = [
    ("Conv", {"pads": [1, 0, 1, 2], "strides": [2, 1], "dilations": [1, 2]}, [weights(5, 4, 3, 2)], 17),
    ("Conv", {"group": 2}, [weights(6, 2, 1, 3), weights(6)], 17),
    ("Conv", {"auto_pad": "SAME_UPPER", "strides": [3, 2]}, [weights(5, 4, 3, 3)], 17),
    ("Conv", {"auto_pad": "VALID", "strides": [3, 2]}, [weights(5, 4, 3, 3)], 17),
    ("ConvTranspose", {"strides": [2, 3], "pads": [1, 0, 0, 1], "output_padding": [1, 0]}, [weights(4, 5, 3, 2)], 17),
    ("ConvTranspose", {"strides": [2, 2], "auto_pad": "SAME_LOWER", "group": 2}, [weights(4, 5, 3, 3)], 17),
    (
        "ConvTranspose",
        {"strides": [3, 3], "auto_pad": "SAME_LOWER", "output_padding": [1, 1]},
        [weights(4, 5, 1, 4)],
        17,
    ),
    ("ConvTranspose", {"output_shape": [17, 13], "strides": [2, 2]}, [weights(4, 5, 3, 3)], 17),
    ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]}, [], 17),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, [], 17),
    ("MaxPool", {"kernel_shape": [1, 1], "strides": [3, 4], "ceil_mode": 1}, [], 22),
    ("AveragePool", {"kernel_shape": [3, 3], "strides": [3, 5], "pads": [1, 1, 1, 1], "ceil_mode": 1}, [], 22),
    ("AveragePool", {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}, [], 17),
    ("GlobalAveragePool", {}, [], 17),
    ("GlobalMaxPool", {}, [], 17),
    ("MatMul", {}, [weights(6, 7)], 17),
    ("MatMul", {}, [weights(6)], 17),
    ("Reshape", {}, [ints(0, -1, 4)], 17),
    ("Reshape", {}, [ints(-1)], 17),
    ("Flatten", {"axis": 2}, [], 17),
    ("Flatten", {"axis": -1}, [], 17),
    ("Transpose", {"perm": [0, 2, 3, 1]}, [], 17),
    ("Transpose", {}, [], 17),
    ("Unsqueeze", {}, [ints(0, -1)], 17),
    ("Unsqueeze", {"axes": [1]}, [], 11),
    ("Concat", {"axis": -2}, [weights(2, 4, 3, 6)], 17),
    ("Split", {"axis": 1}, [ints(1, 3)], 17),
    ("Split", {"axis": 3, "num_outputs": 2}, [], 18),
    ("Split", {"axis": 1, "split": [3, 1]}, [], 11),
    ("Slice", {}, [ints(1, -2), ints(7, 2**62), ints(2, 3)], 17),
    ("Slice", {}, [ints(-1), ints(-(2**62)), ints(2), ints(-2)], 17),
    ("Slice", {}, [ints(-(2**62), -5), ints(-(2**62), -7), ints(2, 1), ints(-1, -3)], 17),
    ("Slice", {}, [ints(9, -2), ints(2**31 - 1, 2**63 - 1), ints(2, 3), ints(-1, -2)], 17),
    ("Slice", {"axes": [1, 3], "starts": [1, 0], "ends": [3, -1]}, [], 9),
    ("Gather", {"axis": 2}, [ints(0, 3, 3)], 17),
    ("Gather", {"axis": -1}, [np.array(2, np.int64)], 17),
    ("Pad", {}, [ints(0, 0, 1, 2, 0, 0, 3, -1)], 17),
    ("Pad", {}, [ints(1, 2), np.float32(0), ints(3)], 18),
    ("Pad", {"pads": [0, 0, 1, 2, 0, 0, 3, 0]}, [], 9),
    ("Resize", {"mode": "nearest"}, [None, np.array([1, 1, 2, 1.6], np.float32)], 17),
    ("Resize", {"mode": "linear"}, [None, None, ints(2, 4, 17, 3)], 17),
    ("Resize", {"mode": "nearest", "axes": [2, 3]}, [None, None, ints(3, 4)], 18),
    ("Resize", {"mode": "nearest"}, [np.array([1, 1, 2, 3], np.float32)], 10),
    ("Upsample", {"mode": "nearest"}, [np.array([1, 1, 2, 3], np.float32)], 9),
    ("Expand", {}, [ints(3, 2, 1, 8, 6)], 17),
    ("Tile", {}, [ints(1, 2, 1, 3)], 17),
    ("ReduceMean", {"axes": [2, -1]}, [], 17),
    ("ReduceMean", {"keepdims": 0}, [ints(2, -1)], 18),
    ("ReduceMax", {"keepdims": 0}, [], 18),
    ("DepthToSpace", {"blocksize": 2}, [], 17),
    ("SpaceToDepth", {"blocksize": 2}, [], 17),
    ("Add", {}, [weights(3, 1, 4, 1, 6)], 17),
    ("Shape", {}, [], 17),
    ("Shape", {"start": 1, "end": -1}, [], 17),
    ("Size", {}, [], 17),
    ("Softmax", {"axis": 1}, [], 17),
    ("BatchNormalization", {}, [weights(4)] * 4, 17),
    ("Dropout", {}, [], 17),
    ("PRelu", {}, [weights(4, 1, 1)], 17),
]


def model_of(operator, attributes, inputs, opset, outputs=1):
    names = ["image"]
    tensors = []
    for number, value in enumerate(inputs):
        names.append("" if value is None else f"w{number}")
        if value is not None:
            tensors.append(numpy_helper.from_array(np.asarray(value), names[-1]))
    ends = [f"y{number}" for number in range(outputs)]
    node = helper.make_node(operator, names, ends, name="it", **attributes)
    return made([node], tensors, ends, opset)


def told(model, folder):
    """Return the shapes of the outputs that the check computes."""
    return list(costs_of(graph_of(model, folder), IMAGE, *LIMITS).outputs)


@pytest.mark.parametrize(("operator", "attributes", "inputs", "opset"), CASES)
def test_shapes_are_those_of_onnx_runtime(operator, attributes, inputs, opset, tmp_path):
    outputs = 2 if operator == "Split" else 1
    model = model_of(operator, attributes, inputs, opset, outputs)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    made_here = session.run(None, {"image": np.ones(IMAGE, np.float32)})
    assert told(model, tmp_path) == [found.shape for found in made_here]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"kernel_shape": [5, 1], "dilations": [2, 1], "strides": [3, 3]}, "a window that is larger than its 8 places"),
        ({"kernel_shape": [5, 1], "dilations": [2, 1], "auto_pad": "SAME_UPPER"}, "dilations are not known here"),
    ],
)
def test_pools_whose_size_differs_between_engines_are_refused(attributes, message, tmp_path):
    with pytest.raises(TooCostly, match=message):
        told(model_of("MaxPool", attributes, [], 17), tmp_path)


def sized(*nodes, tensors=(), opset=17):
    """Return a graph with a ConstantOfShape whose shape is the nodes' result `s`."""
    return made([*nodes, helper.make_node("ConstantOfShape", ["s"], ["y"])], tensors, opset=opset)


def node(operator, inputs, outputs, **attributes):
    return helper.make_node(operator, inputs, outputs, **attributes)


def tensor(name, value):
    return numpy_helper.from_array(np.asarray(value), name)


SHAPE = node("Shape", ["image"], ["i"])
ARITHMETIC = {
    "as it is": [SHAPE, node("Identity", ["i"], ["s"])],
    "sum and quotient": [
        SHAPE,
        node("Add", ["i", "seven"], ["a"]),
        node("Div", ["a", "minus"], ["b"]),
        node("Neg", ["b"], ["s"]),
    ],
    "as torch flattens": [
        SHAPE,
        node("Gather", ["i", "zero"], ["n"]),
        node("Unsqueeze", ["n", "first"], ["u"]),
        node("Slice", ["i", "first", "two"], ["head"]),
        node("ReduceProd", ["head"], ["all"], keepdims=1),
        node("Concat", ["u", "all"], ["s"], axis=0),
    ],
    "as torch scales": [
        SHAPE,
        node("Cast", ["i"], ["f"], to=1),
        node("Mul", ["f", "half"], ["g"]),
        node("Floor", ["g"], ["h"]),
        node("Cast", ["h"], ["s"], to=7),
    ],
    "as Expand does": [
        SHAPE,
        node("Equal", ["i", "seven"], ["q"]),
        node("Where", ["q", "seven", "i"], ["w"]),
        node("Max", ["w", "two"], ["m"]),
        node("Min", ["m", "seven"], ["s"]),
    ],
    "a range": [
        node("Range", ["zero", "scalar", "one"], ["r"]),
        node("Add", ["r", "two"], ["t"]),
        node("Squeeze", ["t"], ["s"]),
    ],
    "a constant": [node("Constant", [], ["s"], value_ints=[3, 2])],
    "filled": [node("ConstantOfShape", ["two"], ["s"], value=tensor("v", np.array([3], np.int64)))],
    "expanded": [node("Expand", ["seven", "two"], ["e"]), node("Reshape", ["e", "minus_one"], ["s"])],
}
HUGE = {
    "quotient": [node("Div", ["seven", "least"], ["s"])],
    "sum": [node("Add", ["seven", "least"], ["s"])],
    "product": [node("Concat", ["most", "seven"], ["c"], axis=0), node("ReduceProd", ["c"], ["s"])],
}
KNOWN = {
    "least": ints(-(2**63)), "most": ints(2**31 - 1),
    "seven": ints(7), "minus": ints(-2), "zero": np.array(0), "first": ints(0), "two": ints(2), "one": np.array(1),
    "half": np.float32([0.5]), "scalar": np.array(3), "minus_one": ints(-1),
}  # fmt: skip


@pytest.mark.parametrize("name", ARITHMETIC)
def test_sizes_are_computed_as_onnx_runtime_does(name, tmp_path):
    model = sized(*ARITHMETIC[name], tensors=[tensor(key, value) for key, value in KNOWN.items()])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    made_here = session.run(None, {"image": np.ones(IMAGE, np.float32)})
    assert told(model, tmp_path) == [found.shape for found in made_here]


@pytest.mark.parametrize("name", HUGE)
def test_numbers_that_overflow_are_no_sizes(name, tmp_path):
    model = sized(*HUGE[name], tensors=[tensor(key, value) for key, value in KNOWN.items()])
    with pytest.raises(TooCostly, match=r"cannot be told before it runs|product is too large"):
        told(model, tmp_path)
