"""Small networks for the check of networks and for the engines, and how the check reads them."""

import mmap

from onnx import TensorProto, helper

from spinescore.runtime.bundle.networkcheck.graph import read_graph


def made(nodes, tensors=(), ends=("y",), opset=17):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", None, None, None])],
        [helper.make_empty_tensor_value_info(name) for name in ends],
        list(tensors),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def graph_of(model, folder):
    path = folder / "network.onnx"
    path.write_bytes(model.SerializeToString())
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return read_graph(data)


def save(model, path):
    path.write_bytes(model.SerializeToString())
    return path


def cast_network(inputs=("image",), outputs=("logits",), kinds=(TensorProto.FLOAT, TensorProto.FLOAT), shape=("n", 4)):
    """Return a network whose first output is its input as another type; further outputs are the input itself."""
    node = helper.make_node("Cast", [inputs[0]], [outputs[0]], to=kinds[1])
    more = [helper.make_node("Identity", [inputs[0]], [name]) for name in outputs[1:]]
    graph = helper.make_graph(
        [node, *more],
        "g",
        [helper.make_tensor_value_info(name, kinds[0], shape) for name in inputs],
        [helper.make_tensor_value_info(name, kinds[1], shape) for name in outputs],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
