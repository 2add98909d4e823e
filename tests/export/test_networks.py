"""Graphs built from checkpoints, compared with the outputs of the checkpoints' own frameworks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from helpers.golden_networks import HRNETS, KERAS_RESNETS, TORCH_RESNETS, golden_run, unpacked
from spinescore.export.checkpoints import read_checkpoint
from spinescore.export.hrnet import build_hrnet
from spinescore.export.resnet152 import build_resnet, head_of
from spinescore.export.sessions import run_model
from spinescore.runtime.errors import CheckpointError

TOLERANCE = 1e-4  # of the output's range


def tensors_of(name, folder):
    return dict(read_checkpoint(unpacked(name, folder)).tensors)


@pytest.fixture(scope="module")
def hrnet(tmp_path_factory):
    return tensors_of("hrnet-legacy.pth", tmp_path_factory.mktemp("hrnet"))


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    return tensors_of("resnet50-bridge.pth", tmp_path_factory.mktemp("resnet"))


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    return read_checkpoint(unpacked("keras-resnet152-corners4.h5", tmp_path_factory.mktemp("keras")))


@pytest.mark.parametrize("name", [*HRNETS, *TORCH_RESNETS, *KERAS_RESNETS])
def test_graph_computes_what_the_framework_computed(name, tmp_path):
    checkpoint = read_checkpoint(unpacked(name, tmp_path))
    if "hrnet" in name:
        model = build_hrnet(checkpoint.tensors, 64, 64)
    else:
        model = build_resnet(checkpoint.tensors, 64, 64, checkpoint.layers)
    image, expected = golden_run(name, model.graph.input[0].type.tensor_type.shape.dim[1].dim_value)
    found = run_model(model, image).astype(np.float64)
    if name.endswith("softmax.h5"):
        found = np.exp(found) / np.exp(found).sum(1, keepdims=True)
    assert np.abs(found - expected).max() <= TOLERANCE * np.ptp(expected)


def test_graph_is_named_and_shaped_as_bundles_have_it(hrnet):
    model = build_hrnet(hrnet, 64, 96)
    (image,), (heatmaps,) = model.graph.input, model.graph.output
    dims = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (image, heatmaps)]
    assert (image.name, heatmaps.name, dims) == ("image", "heatmaps", [["N", 3, 64, 96], ["N", 12, 16, 24]])
    assert model.ir_version <= 10
    assert {node.op_type for node in model.graph.node} == {"Conv", "Relu", "Add", "Resize"}


def test_same_tensors_give_the_same_bytes(hrnet):
    assert build_hrnet(hrnet).SerializeToString() == build_hrnet(dict(reversed(hrnet.items()))).SerializeToString()


@pytest.mark.parametrize("gone", ["bn1.running_var", "stage3.0.fuse_layers.2.0.1.0.weight", "final_layer.bias"])
def test_missing_tensor_is_named(hrnet, gone):
    with pytest.raises(CheckpointError, match=gone):
        build_hrnet({name: value for name, value in hrnet.items() if name != gone})


@pytest.mark.parametrize("extra", ["stage4.2.fuse_layers.1.0.0.0.weight", "head.weight", "transition2.0.0.weight"])
def test_tensor_without_a_place_is_named(hrnet, extra):
    with pytest.raises(CheckpointError, match=f"have no place.*{extra}"):
        build_hrnet({**hrnet, extra: np.zeros((2, 2, 3, 3), np.float32)})


def test_batch_counters_are_set_aside(hrnet):
    build_hrnet({**hrnet, "bn1.num_batches_tracked": np.array(7)})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("conv1.weight", np.zeros((4, 3, 3), np.float32), "3 axes|shape"),
        ("conv2.weight", np.zeros((4, 5, 3, 3), np.float32), "takes 5 channels, but 4 arrive"),
        ("conv2.weight", np.zeros((4, 4, 2, 2), np.float32), "odd k"),
        ("bn2.bias", np.zeros(5, np.float32), "batch normalisation has"),
        ("bn2.running_var", np.full(4, -1, np.float32), "negative"),
        ("bn2.weight", np.full(4, np.nan, np.float32), "NaN or infinity"),
        ("final_layer.bias", np.zeros(13, np.float32), "its bias has shape"),
    ],
)
def test_impossible_tensor_is_refused(hrnet, name, value, message):
    with pytest.raises(CheckpointError, match=message):
        build_hrnet({**hrnet, name: value})


def test_input_size_must_suit_the_branches(hrnet):
    with pytest.raises(CheckpointError, match="multiples of 32"):
        build_hrnet(hrnet, 64, 48)


def test_neither_network_is_taken_for_the_other(hrnet, resnet):
    with pytest.raises(CheckpointError, match=r"no tensor conv2\.weight"):
        build_hrnet(resnet)
    with pytest.raises(CheckpointError, match="no place"):
        build_resnet(hrnet)


def test_resnet_with_basic_blocks_and_a_head_of_two_layers():
    """torchvision's ResNet18 names, and `fc` as Sequential(Linear, ReLU, Dropout, Linear), against NumPy by hand."""
    rng = np.random.default_rng(3)
    tensors = {"conv1.weight": np.zeros((2, 1, 7, 7), np.float32)}
    tensors["conv1.weight"][:, 0, 3, 3] = (1, -1)
    norms = ["bn1"]
    for stage in range(1, 5):
        for number in (1, 2):
            tensors[f"layer{stage}.0.conv{number}.weight"] = np.zeros((2, 2, 3, 3), np.float32)
            norms.append(f"layer{stage}.0.bn{number}")
        if stage > 1:
            identity = np.eye(2, dtype=np.float32)[:, :, None, None]
            tensors[f"layer{stage}.0.downsample.0.weight"] = identity
            norms.append(f"layer{stage}.0.downsample.1")
    for norm in norms:
        for part, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1 - 1e-5)):
            tensors[f"{norm}.{part}"] = np.full(2, value, np.float32)
    first, second = rng.normal(size=(3, 2)).astype(np.float32), rng.normal(size=(8, 3)).astype(np.float32)
    tensors |= {"fc.0.weight": first, "fc.0.bias": np.ones(3, np.float32), "fc.3.weight": second}
    tensors["fc.3.bias"] = np.zeros(8, np.float32)
    image = np.full((1, 1, 32, 32), 0.5, np.float32)  # flat, so that strides and pooling change nothing
    features = np.array([0.5, 0.0])
    expected = second @ np.maximum(first @ features + 1, 0)
    np.testing.assert_allclose(run_model(build_resnet(tensors, 32, 32), image)[0], expected, rtol=1e-5)


def test_dense_layers_of_uncertain_order_are_refused(resnet):
    square = np.eye(resnet["fc.weight"].shape[1], dtype=np.float32)
    head = {"fc.0.weight": square, "fc.2.weight": square, "fc.4.weight": resnet["fc.weight"]}
    rest = {name: value for name, value in resnet.items() if not name.startswith("fc.")}
    with pytest.raises(CheckpointError, match="more than one can follow"):
        build_resnet({**rest, **head})
    with pytest.raises(CheckpointError, match="no dense layer"):
        build_resnet(rest)


@pytest.mark.parametrize(("outputs", "head"), [(8, "corners4"), (4, "corner4"), (3, "grades"), (2, "bridge")])
def test_head_follows_from_the_outputs(outputs, head):
    assert head_of(outputs) == head


def test_unknown_number_of_outputs_is_refused():
    with pytest.raises(CheckpointError, match="1000 outputs"):
        head_of(1000)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("conv2_block1_1_bn", {"epsilon": 1e-3}, "conv2_block1_1_bn .* has epsilon"),
        ("conv3_block1_2_conv", {"strides": [2, 2]}, "conv3_block1_2_conv .* has strides"),
        ("predictions", {"activation": "sigmoid"}, "predictions comes sigmoid"),
        ("avg_pool", {"data_format": "channels_first"}, "avg_pool .* has data_format channels_first"),
        ("conv1_relu", {"activation": {"class_name": "function", "config": "relu"}}, "activation function relu"),
        ("conv4_block2_3_conv", {"quantization": "int8"}, "has quantization int8, which is not known"),
        ("conv1_conv", {"use_bias": False}, "conv1_conv .* has use_bias False"),
        ("conv4_block2_3_bn", {"dtype": "int8"}, "computes in int8"),
        ("conv2_block1_1_relu", {"trainable": False, "dtype": "mixed_bfloat16"}, None),
    ],
)
def test_settings_of_keras_layers(keras, name, change, message):
    layers = [
        replace(layer, config={**layer.config, **change}) if layer.name == name else layer for layer in keras.layers
    ]
    assert layers != list(keras.layers)
    if message is None:
        build_resnet(keras.tensors, 64, 64, layers)
        return
    with pytest.raises(CheckpointError, match=message):
        build_resnet(keras.tensors, 64, 64, layers)


def test_second_version_of_the_resnet_is_named(keras):
    with pytest.raises(CheckpointError, match=r"ResNet V2 \(conv2_block1_preact_bn/gamma\)"):
        build_resnet({**keras.tensors, "conv2_block1_preact_bn/gamma": np.ones(2, np.float32)}, 64, 64)


def test_keras_layers_and_tensors_that_disagree(keras):
    layers = [replace(layer, name="grade") if layer.name == "predictions" else layer for layer in keras.layers]
    with pytest.raises(CheckpointError, match="dense layers grade, its weights predictions"):
        build_resnet(keras.tensors, 64, 64, layers)


def test_resize_scales_are_the_only_shared_constants(hrnet):
    graph = build_hrnet(hrnet).graph
    uses = [name for node in graph.node for name in node.input]
    constants = [tensor.name for tensor in graph.initializer]
    assert all(uses.count(name) == 1 for name in constants if not name.startswith("upsample."))
    onnx.checker.check_model(build_hrnet(hrnet), full_check=True)
