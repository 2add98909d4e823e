"""Small networks for the check, and how it reads them."""

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
