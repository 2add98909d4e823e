"""Ready ONNX files: brought to the bundle's form, or refused with the change to make."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from helpers.golden_networks import images, mean_grader, model_of, pooled, saved
from spinescore.export.ready import read_ready
from spinescore.export.sessions import run_model
from spinescore.runtime.errors import CheckpointError


def test_names_and_batch_are_settled(tmp_path):
    model = mean_grader()
    ready = read_ready(saved(model, tmp_path), "logits", 3, 32, 32)
    assert (ready.outputs, ready.channels, ready.notes) == (8, 3, ())
    assert [ready.model.graph.input[0].name, ready.model.graph.output[0].name] == ["image", "logits"]
    dims = [dim.dim_param or dim.dim_value for dim in ready.model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["N", 3, 32, 32]
    np.testing.assert_array_equal(run_model(ready.model, images()), run_model(model, images()))


def test_nhwc_input_gets_a_transpose(tmp_path):
    model = mean_grader(layout="NHWC")
    ready = read_ready(saved(model, tmp_path), "logits", 3, 32, 32)
    assert any("NHWC" in note for note in ready.notes)
    np.testing.assert_allclose(run_model(ready.model, images()), run_model(model, images("NHWC")), atol=1e-6)


@pytest.mark.parametrize("last", ["Softmax", "LogSoftmax"])
def test_last_softmax_is_removed_and_said(tmp_path, last):
    ready = read_ready(saved(mean_grader(4, last=last), tmp_path), "logits", 3, 32, 32)
    assert ready.notes == (f"the last {last} was removed: bundles hold raw logits",)
    np.testing.assert_array_equal(run_model(ready.model, images()), run_model(mean_grader(4), images()))


def test_tensor_that_bears_the_bundles_name_makes_way(tmp_path):
    nodes = [
        helper.make_node("GlobalAveragePool", ["logits"], ["image"]),
        helper.make_node("Flatten", ["image"], ["y"]),
    ]
    model = model_of(nodes, {}, ("N", 3, 32, 32), ("N", 3), ends=("logits", "y"))
    ready = read_ready(saved(model, tmp_path), "logits", 3, 32, 32)
    np.testing.assert_allclose(run_model(ready.model, images()), images().mean((2, 3)), atol=1e-6)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1)])
def test_heatmaps_come_out_nchw(tmp_path, order):
    ready = read_ready(saved(pooled(order), tmp_path), "heatmaps", 3, 32, 32)
    expected = images().reshape(3, 3, 8, 4, 8, 4).mean((3, 5))
    assert ready.outputs == 3
    np.testing.assert_allclose(run_model(ready.model, images()), expected, atol=1e-6)


def test_heatmaps_of_another_stride_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"wants \(N, joints, 8, 8\)"):
        read_ready(saved(pooled((0, 1, 2, 3), 16), tmp_path), "heatmaps", 3, 32, 32)


@pytest.mark.parametrize(("channels", "height"), [(1, 32), (3, 64)])
def test_input_that_the_manifest_does_not_want_is_refused(tmp_path, channels, height):
    with pytest.raises(CheckpointError, match="the bundle wants"):
        read_ready(saved(mean_grader(size=(32, 32)), tmp_path), "logits", channels, height, 32)


def test_channels_are_the_files_own_where_none_are_wanted(tmp_path):
    assert read_ready(saved(mean_grader(), tmp_path), "logits", None, 32, 32).channels == 3


def test_fixed_batch_that_can_be_freed_is_freed(tmp_path):
    model = mean_grader(batch=1)
    ready = read_ready(saved(model, tmp_path), "logits", 3, 32, 32)
    assert run_model(ready.model, images()).shape == (3, 8)


def test_fixed_batch_inside_is_refused(tmp_path):
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["r"]),
        helper.make_node("ReduceMean", ["r"], ["y"], axes=[2], keepdims=0),
    ]
    model = model_of(nodes, {"shape": np.array([1, 3, -1])}, (1, 3, 32, 32), (1, 3))
    with pytest.raises(CheckpointError, match="batch"):
        read_ready(saved(model, tmp_path), "logits", 3, 32, 32)


def test_half_input_is_refused(tmp_path):
    model = model_of(
        [helper.make_node("Flatten", ["x"], ["y"])], {}, ("N", 3, 4, 4), ("N", 48), kind=TensorProto.FLOAT16
    )
    with pytest.raises(CheckpointError, match="FLOAT16"):
        read_ready(saved(model, tmp_path), "logits", 3, 4, 4)


def test_operator_of_another_domain_is_refused(tmp_path):
    node = helper.make_node("FusedConv", ["x"], ["y"], name="fused", domain="com.microsoft")
    model = model_of([node], {}, ("N", 3, 4, 4), ("N", 3))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(CheckpointError, match=r"fused is com\.microsoft\.FusedConv"):
        read_ready(saved(model, tmp_path), "logits", 3, 4, 4)


def with_functions(calls: dict[str, list[str]], first: str):
    """A grader that calls the function `first`; each function calls others, one after the other."""
    model = mean_grader()
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for name, called in calls.items():
        values = ["a", *(f"v{place}" for place in range(1, len(called))), "b"]
        body = [helper.make_node(one, [before], [after], domain="own" if one in calls else "")
                for one, before, after in zip(called, values, values[1:], strict=False)]  # fmt: skip
        model.functions.append(helper.make_function("own", name, ["a"], ["b"], body, opsets))
    model.graph.node[1].input[0] = "called"
    model.graph.node.insert(1, helper.make_node(first, ["mean"], ["called"], domain="own"))
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


@pytest.mark.parametrize("calls", [{"Once": ["Once"]}, {"Once": ["Twice"], "Twice": ["Identity", "Once"]}])
def test_functions_that_call_themselves_are_refused(tmp_path, calls):
    with pytest.raises(CheckpointError, match=r"net.onnx: its functions cannot be put in place: .*Once.* calls .*Once"):
        read_ready(saved(with_functions(calls, "Once"), tmp_path), "logits", 3, 32, 32)


def test_functions_that_multiply_are_refused(tmp_path):
    doubled = {f"F{number}": [f"F{number + 1}"] * 2 for number in range(40)} | {"F40": ["Identity"]}
    with pytest.raises(CheckpointError, match=r"its functions would become \d{13} nodes, more than 100000"):
        read_ready(saved(with_functions(doubled, "F0"), tmp_path), "logits", 3, 32, 32)


def test_functions_are_put_in_the_place_of_their_calls(tmp_path):
    ready = read_ready(saved(with_functions({"F": ["G", "G"], "G": ["Identity"]}, "F"), tmp_path), "logits", 3, 32, 32)
    assert not ready.model.functions
    assert [node.op_type for node in ready.model.graph.node].count("Identity") == 2


def test_two_outputs_are_refused(tmp_path):
    model = mean_grader()
    model.graph.output.append(helper.make_tensor_value_info("mean", TensorProto.FLOAT, ("N", 3)))
    with pytest.raises(CheckpointError, match="found x, y, mean"):
        read_ready(saved(model, tmp_path), "logits", 3, 32, 32)


@pytest.mark.parametrize("opset", [9, 23])
def test_opset_out_of_reach_is_refused(tmp_path, opset):
    with pytest.raises(CheckpointError, match=f"opset {opset}"):
        read_ready(
            saved(
                model_of([helper.make_node("Flatten", ["x"], ["y"])], {}, ("N", 3, 4, 4), ("N", 48), opset=opset),
                tmp_path,
            ),
            "logits",
            3,
            4,
            4,
        )


def test_result_that_is_not_finite_is_refused(tmp_path):
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Div", ["f", "zero"], ["y"])]
    model = model_of(nodes, {"zero": np.zeros(1, np.float32)}, ("N", 3, 4, 4), ("N", 48))
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        read_ready(saved(model, tmp_path), "logits", 3, 4, 4)


@pytest.mark.parametrize("content", [b"", b"not a network", b"\x08\x08\x12\x04spin"])
def test_file_that_is_no_network_is_refused(tmp_path, content):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"net\.onnx"):
        read_ready(path, "logits", 3, 32, 32)


def test_truncated_file_is_refused(tmp_path):
    path = saved(mean_grader(), tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match=r"net\.onnx"):
        read_ready(path, "logits", 3, 32, 32)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_ready(tmp_path / "none.onnx", "logits", 3, 32, 32)


def external(folder, location="weights.bin"):
    return saved(
        mean_grader(), folder, save_as_external_data=True, all_tensors_to_one_file=True, location=location,
        size_threshold=0,
    )  # fmt: skip


def test_weights_in_a_second_file_are_inlined(tmp_path):
    path = external(tmp_path)
    assert (tmp_path / "weights.bin").stat().st_size > 0
    ready = read_ready(path, "logits", 3, 32, 32)
    (tmp_path / "weights.bin").unlink()
    np.testing.assert_array_equal(run_model(ready.model, images()), run_model(mean_grader(), images()))


@pytest.mark.parametrize(
    "location", ["../weights.bin", "/etc/hostname", "sub/weights.bin", "..\\weights.bin", "C:\\w.bin"]
)
def test_weights_elsewhere_are_refused(tmp_path, location):
    path = external(tmp_path)
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="only a file beside the model"):
        read_ready(path, "logits", 3, 32, 32)


@pytest.mark.parametrize("size", [None, 4])
def test_weights_that_are_gone_or_short_are_refused(tmp_path, size):
    path = external(tmp_path)
    weights = tmp_path / "weights.bin"
    content = weights.read_bytes()
    weights.unlink()
    if size is not None:
        weights.write_bytes(content[:size])
    with pytest.raises(CheckpointError, match=r"tensor \w .* weights\.bin|weights\.bin .* tensor \w"):
        read_ready(path, "logits", 3, 32, 32)


def test_tensors_that_share_the_bytes_of_a_second_file_are_refused(tmp_path):
    path = external(tmp_path)
    model = onnx.load(str(path), load_external_data=False)
    for number in range(4):
        model.graph.initializer.append(model.graph.initializer[0])
        model.graph.initializer[-1].name = f"copy{number}"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match=r"share bytes of weights\.bin"):
        read_ready(path, "logits", 3, 32, 32)


def test_a_folder_is_no_network(tmp_path):
    (tmp_path / "net.onnx").mkdir()
    with pytest.raises(CheckpointError, match=r"net\.onnx is no file"):
        read_ready(tmp_path / "net.onnx", "logits", 3, 32, 32)
