"""Networks that would take a machine's memory or time are refused before an engine opens them."""

import hashlib
import json

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from helpers.networks_made import graph_of, made
from helpers.tiny import write_bundle
from spinescore.kernels import signing
from spinescore.runtime import cli
from spinescore.runtime.bundle import Bundle, shipped_bundles
from spinescore.runtime.bundle.networkcheck import check_networks
from spinescore.runtime.bundle.networkcheck.costs import TooCostly, costs_of, has_sizes
from spinescore.runtime.errors import BundleError

IMAGE = (2, 4, 8, 6)
GIB = 1 << 30


def node(operator, inputs, **attributes):
    outputs = attributes.pop("outputs", ["y"])
    return helper.make_node(operator, inputs, outputs, name=f"my {operator}", **attributes)


def tensor(name, value):
    return numpy_helper.from_array(np.asarray(value), name)


def ints(name, *values):
    return tensor(name, np.array(values, np.int64))


BODY = helper.make_graph(
    [helper.make_node("Relu", ["image"], ["z"])], "b", [], [helper.make_empty_tensor_value_info("z")]
)
HUGE = {
    "ConstantOfShape": ([node("ConstantOfShape", ["s"])], [ints("s", 2**16, 2**16)]),
    "Expand": ([node("Expand", ["image", "s"])], [ints("s", 2**32, 1, 1, 1, 1)]),
    "Tile": ([node("Tile", ["image", "s"])], [ints("s", 1, 1, 2**14, 2**14)]),
    "Resize": ([node("Resize", ["image", "", "s"])], [tensor("s", np.float32([1, 1, 2**14, 2**14]))]),
    "Pad": ([node("Pad", ["image", "s"])], [ints("s", 0, 0, 0, 0, 0, 0, 2**20, 2**20)]),
    "Range": (
        [node("Range", ["a", "s", "b"])],
        [tensor("a", np.array(0)), tensor("s", np.array(2**40)), tensor("b", np.array(1))],
    ),
    "Add": (
        [node("Reshape", ["image", "s"], outputs=["r"]), node("Add", ["r", "w"])],
        [ints("s", -1, 1), tensor("w", np.zeros((1, 2**22), np.float32))],
    ),
    "PRelu": (
        [node("Reshape", ["image", "s"], outputs=["r"]), node("PRelu", ["r", "w"])],
        [ints("s", -1, 1), tensor("w", np.zeros((1, 2**22), np.float32))],
    ),
    "Conv": ([node("Conv", ["image", "w"], pads=[2**16] * 4)], [tensor("w", np.zeros((1, 4, 1, 1), np.float32))]),
    "ConvTranspose": (
        [node("ConvTranspose", ["image", "w"], strides=[2**14, 2**14])],
        [tensor("w", np.zeros((4, 1, 1, 1), np.float32))],
    ),
    "ConvTranspose with a small output": (
        [node("ConstantOfShape", ["s"], outputs=["w"]), node("ConvTranspose", ["image", "w"], pads=[1200] * 4)],
        [ints("s", 4, 1, 2400, 2400)],
    ),
    "LRN": ([node("LRN", ["image"], size=2**24 + 1)], []),
    "MaxPool": ([node("MaxPool", ["image"], kernel_shape=[2**17] * 2, pads=[2**17 - 1] * 4)], []),
}


@pytest.mark.parametrize("name", HUGE)
def test_a_node_that_makes_too_much_is_named(name, tmp_path):
    (nodes, tensors), operator = HUGE[name], name.split()[0]
    with pytest.raises(TooCostly, match=rf"node 'my {operator}' \({operator}\) makes \(.*GiB"):
        costs_of(graph_of(made(nodes, tensors), tmp_path), IMAGE, GIB, 10**13)


UNTOLD = {
    "Loop": node("Loop", ["", "", "image"], body=BODY),
    "If": node("If", ["image"], then_branch=BODY, else_branch=BODY),
    "SequenceMap": node("SequenceMap", ["image"], body=BODY),
    "NonZero": node("NonZero", ["image"]),
    "Unique": node("Unique", ["image"]),
    "Einsum": node("Einsum", ["image"], equation="abcd->d"),
    "QLinearConv": node("QLinearConv", ["image"]),
    "Conv of others": helper.make_node("Conv", ["image"], ["y"], domain="com.microsoft"),
}


@pytest.mark.parametrize("name", UNTOLD)
def test_operators_whose_costs_are_not_known_are_refused(name, tmp_path):
    with pytest.raises(TooCostly, match="is not an operator whose costs are known"):
        costs_of(graph_of(made([UNTOLD[name]]), tmp_path), IMAGE, GIB, 10**13)


TEXTS = {
    "tensor": ([node("Tile", ["t", "s"])], [helper.make_tensor("t", TensorProto.STRING, [1], [b"long"])]),
    "many": ([node("Tile", ["t", "s"])], [helper.make_tensor("t", TensorProto.STRING, [2000], [b"long"] * 2000)]),
    "cast": ([node("Cast", ["image"], outputs=["t"], to=TensorProto.STRING), node("Tile", ["t", "s"])], []),
    "constant": ([node("Constant", [], outputs=["t"], value_string="long"), node("Tile", ["t", "s"])], []),
    "constants": ([node("Constant", [], outputs=["t"], value_strings=["long"]), node("Tile", ["t", "s"])], []),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_refused_as_each_can_be_of_any_size(name, tmp_path):
    nodes, tensors = TEXTS[name]
    with pytest.raises(ValueError, match=r"texts|value_string"):
        costs_of(graph_of(made(nodes, [*tensors, ints("s", 1, 1, 1, 2**20)]), tmp_path), IMAGE, GIB, 10**13)


def test_a_size_that_depends_on_the_picture_is_refused(tmp_path):
    nodes = [
        node("ReduceSum", ["image"], outputs=["a"], keepdims=0),
        node("Cast", ["a"], outputs=["b"], to=TensorProto.INT64),
        node("Reshape", ["b", "one"], outputs=["s"]),
        node("ConstantOfShape", ["s"]),
    ]
    with pytest.raises(TooCostly, match=r"my ConstantOfShape.*its shape cannot be told before it runs"):
        costs_of(graph_of(made(nodes, [ints("one", 1)]), tmp_path), IMAGE, GIB, 10**13)


def test_what_is_held_together_counts(tmp_path):
    shape = ints("s", 2**26)  # 256 MiB
    fills = [node("ConstantOfShape", ["s"], outputs=[f"f{n}"]) for n in range(8)]
    sums = [node("ReduceSum", [f"f{n}"], outputs=[f"r{n}"]) for n in range(8)]
    one_by_one = [each for pair in zip(fills, sums, strict=True) for each in pair]
    last = node("Sum", [f"r{n}" for n in range(8)])
    with pytest.raises(TooCostly, match="with what is held beside it"):  # an engine folds and keeps constants
        costs_of(graph_of(made([*one_by_one, last], [shape]), tmp_path), IMAGE, GIB, 10**13)
    chain = [node("Relu", [f"c{n}" if n else "image"], outputs=[f"c{n + 1}"]) for n in range(1000)]
    found = costs_of(graph_of(made(chain, ends=["c1000"]), tmp_path), IMAGE, GIB, 10**13)
    assert found.memory_bytes == 2 * np.prod(IMAGE) * 4  # input and output of a node
    wide = [node("Relu", ["image"], outputs=[f"c{n}"]) for n in range(100)]
    found = costs_of(graph_of(made([*wide, node("Sum", [f"c{n}" for n in range(100)])]), tmp_path), IMAGE, GIB, 10**13)
    assert found.memory_bytes == 101 * np.prod(IMAGE) * 4


def test_time_is_bounded(tmp_path):
    weights = [tensor("w", np.zeros((64, 4, 33, 33), np.float32))]
    many = [node("Conv", ["image", "w"], pads=[512] * 4, outputs=[f"y{n}"]) for n in range(40)]
    one = costs_of(graph_of(made(many[:1], weights, ["y0"]), tmp_path), IMAGE, 8 * GIB, 10**13)
    assert one.work == pytest.approx(2 * 64 * 1000 * 998 * 4 * 33 * 33, rel=0.01)
    with pytest.raises(TooCostly, match="multiplications"):
        costs_of(graph_of(made(many, weights, ["y0"]), tmp_path), IMAGE, 1 << 60, 10**13)


def test_a_batch_may_be_worst_where_it_is_small(tmp_path):
    folder = write_bundle(tmp_path / "tiny")
    nodes = [
        node("Shape", ["image"], outputs=["i"], end=1),
        node("Sub", ["many", "i"], outputs=["left"]),
        node("Div", ["left", "seven"], outputs=["few"]),  # 1 for a batch of 1, else 0
        node("Mul", ["few", "huge"], outputs=["s"]),
        node("ConstantOfShape", ["s"]),
    ]
    model = made(nodes, [ints("many", 8), ints("seven", 7), ints("huge", 2**40)])
    assert has_sizes(graph_of(model, tmp_path))
    replace(folder, model)
    with pytest.raises(BundleError, match=r"node 'my ConstantOfShape'.*Allowed for 1 pictures"):
        Bundle.open(folder)


def replace(folder, model, name="localizer.fp32.onnx", also=b""):
    content = model.SerializeToString() + also
    (folder / name).write_bytes(content)
    path = folder / "bundle.json"
    document = json.loads(path.read_text())
    document["files"][name] = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "precision": "fp32",
    }
    path.write_text(json.dumps(document))


def test_weights_that_are_stated_but_not_there_count(tmp_path):
    model = made([node("Identity", ["w"])], [ints("w", 1)])
    del model.graph.initializer[0].dims[:]
    model.graph.initializer[0].dims.extend([2**20, 2**20])
    with pytest.raises(TooCostly, match=r"its weights take 4096\.0 GiB"):
        costs_of(graph_of(model, tmp_path), IMAGE, GIB, 10**13)
    sparse = made([node("Relu", ["image"])])
    values, places = ints("v", 1), ints("p", 0)
    sparse.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [2**40]))
    with pytest.raises(TooCostly, match="sparse tensors"):
        costs_of(graph_of(sparse, tmp_path), IMAGE, GIB, 10**13)


DAMAGED = {
    "not sorted": ([node("Relu", ["z"]), node("Relu", ["image"], outputs=["z"])], "nothing before it gives"),
    "twice": ([node("Relu", ["image"]), node("Abs", ["image"])], "which there is already"),
    "no output": ([node("Relu", ["image"], outputs=["z"])], "no node gives its output 'y'"),
    "shapes": ([node("Gemm", ["image", "image"])], "is not understood"),
    "several": ([node("Relu", ["image"], outputs=["y", "z"])], "has 2 outputs"),
    "division": (
        [
            node("Shape", ["image"], outputs=["i"]),
            node("Sub", ["i", "i"], outputs=["z"]),
            node("Div", ["i", "z"]),
        ],
        "divides by zero",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_graphs_that_make_no_sense_are_refused(name, tmp_path):
    nodes, message = DAMAGED[name]
    with pytest.raises(TooCostly, match=message):
        costs_of(graph_of(made(nodes), tmp_path), IMAGE, GIB, 10**13)


def test_a_file_for_onnx_runtime_alone_is_none(tmp_path):
    folder = write_bundle(tmp_path / "tiny")
    content = b"\x0a\x04\x00\x00ORTM" + b"\0" * 32
    (folder / "localizer.fp32.onnx").write_bytes(content)
    document = json.loads((folder / "bundle.json").read_text())
    document["files"]["localizer.fp32.onnx"] |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (folder / "bundle.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match="is no ONNX file, or damaged"):
        Bundle.open(folder)


@pytest.mark.parametrize("name", ["localizer.bin", "localizer.ort", "engines/localizer.onnx"])
def test_networks_have_the_name_of_networks(name, tmp_path):
    folder = write_bundle(tmp_path / "tiny")
    text = (folder / "bundle.json").read_text().replace('"localizer.fp32.onnx"', f'"{name}"')
    (folder / "engines").mkdir()
    (folder / "localizer.fp32.onnx").rename(folder / name)
    (folder / "bundle.json").write_text(text)
    with pytest.raises(BundleError, match=r"networks are \.onnx files outside engines/"):
        Bundle.open(folder)


def test_the_shipped_bundles_pass():
    for name in shipped_bundles():
        bundle = Bundle.open(name)
        check_networks(bundle.folder, bundle.manifest)


def test_an_operator_may_trust_a_network(tmp_path, capsys):
    folder = write_bundle(tmp_path / "tiny")
    replace(folder, made([node("Expand", ["image", "s"])], [ints("s", 2**32, 1, 1, 1, 1)]))
    with pytest.raises(BundleError, match=rf"localizer\.fp32\.onnx may take all.*4 GiB|bundle trust {folder}"):
        Bundle.open(folder)
    assert cli.main(["bundle", "trust", str(folder), "--show"]) == 0
    assert "node 'my Expand' (Expand) makes" in capsys.readouterr().out
    with pytest.raises(BundleError):
        Bundle.open(folder)
    assert cli.main(["bundle", "trust", str(folder)]) == 0
    assert Bundle.open(folder).networks_count
    replace(folder, made([node("Expand", ["image", "s"])], [ints("s", 2**33, 1, 1, 1, 1)]))
    with pytest.raises(BundleError):  # of these networks alone
        Bundle.open(folder)


def test_trust_does_not_cover_weights_that_the_manifest_does_not_list(tmp_path, capsys):
    folder = write_bundle(tmp_path / "tiny")
    replace(folder, made([node("Expand", ["image", "s"])], [ints("s", 2**32, 1, 1, 1, 1)]))
    grader = next(name for name in json.loads((folder / "bundle.json").read_text())["files"] if "grader" in name)
    outside = made([node("Identity", ["w"])], [ints("w", *range(2000))])
    outside.graph.initializer[0].ClearField("raw_data")
    outside.graph.initializer[0].data_location = TensorProto.EXTERNAL
    outside.graph.initializer[0].external_data.add(key="location", value="weights.bin")
    replace(folder, outside, grader)
    assert cli.main(["bundle", "trust", str(folder)]) == 4
    assert "cannot be trusted" in capsys.readouterr().out
    with pytest.raises(BundleError, match="takes weights from"):
        Bundle.open(folder)


def test_nothing_is_signed_for_a_network_that_is_refused(tmp_path, monkeypatch):
    folder = write_bundle(tmp_path / "tiny")
    replace(folder, made([UNTOLD["NonZero"]]))
    signed = []
    monkeypatch.setattr(signing, "_write", lambda *given: signed.append(given))
    with pytest.raises(BundleError):
        Bundle.open(folder)
    assert not signed


def test_a_type_that_engines_pass_over_hides_nothing(tmp_path):
    """The attribute says once more, in a form that no engine reads there, that it holds texts."""
    model = made(*HUGE["Conv"])
    model.graph.node[0].attribute[0].MergeFromString(b"\xa2\x01\x01\x08")  # field 20, packed
    with pytest.raises(TooCostly, match="my Conv"):
        costs_of(graph_of(model, tmp_path), IMAGE, GIB, 10**12)


@pytest.mark.parametrize("declared", [(0, 0, 2**16, 2**16), (2**20, 0, 0, 0), (0, 2**20, 0, 0)])
def test_a_network_is_judged_by_the_sizes_that_it_declares(tmp_path, declared):
    model = made([node("Tile", ["image", "s"])], [ints("s", 1, 1, 1, 1)])
    for dimension, size in zip(model.graph.input[0].type.tensor_type.shape.dim, declared, strict=True):
        if size:
            dimension.dim_value = size
    assert graph_of(model, tmp_path).image == declared
    folder = write_bundle(tmp_path / "tiny")
    replace(folder, model)
    shape = tuple(size or usual for size, usual in zip(declared, (8, 1, 256, 192), strict=True))
    with pytest.raises(BundleError, match=rf"makes \({', '.join(map(str, shape))}\)"):
        Bundle.open(folder)


def test_old_opsets_and_other_inputs_are_refused(tmp_path):
    with pytest.raises(TooCostly, match="opset is 6"):
        costs_of(graph_of(made([node("Relu", ["image"])], opset=6), tmp_path), IMAGE, GIB, 10**13)
    model = made([node("Relu", ["image"])])
    del model.graph.input[0].type.tensor_type.shape.dim[3]
    with pytest.raises(TooCostly, match="3 dimensions"):
        costs_of(graph_of(model, tmp_path), IMAGE, GIB, 10**13)


def test_messages_stay_short(tmp_path):
    nodes = [helper.make_node("Split", ["image"], [f"y{n}" for n in range(4000)], name="x" * 5000, axis=3)]
    with pytest.raises(TooCostly) as caught:
        costs_of(graph_of(made(nodes, ends=["y0"]), tmp_path), (2**12, 2**12, 2**12, 2**12), GIB, 10**13)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("count", [(25_000, 1), (100, 3000)])
def test_graphs_that_are_far_too_large_are_no_networks(tmp_path, count):
    nodes, links = count
    model = made([node("Sum", ["image"] * links, outputs=[f"y{n}"]) for n in range(nodes)], ends=["y0"])
    with pytest.raises(ValueError, match="more than 20000 nodes"):
        graph_of(model, tmp_path)
