"""Keras models that are a ResNet, or nearly one: their configurations, and the refusals."""

from __future__ import annotations

import json
import lzma
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from golden import make_keras_models
from golden.packing import FOLDER

from spinescore.export.keras_alone import check_classes, check_names
from spinescore.export.keras_check import check_layers
from spinescore.export.keras_config import KerasLayer, connected_layers, parse_config
from spinescore.runtime.errors import CheckpointError


@cache
def configurations() -> dict[str, dict[str, Any]]:
    text = lzma.decompress((FOLDER / "keras-models.json.xz").read_bytes())
    found: dict[str, dict[str, Any]] = json.loads(text)
    return found


def layers_of(framework: str, case: str) -> tuple[KerasLayer, ...]:
    return connected_layers(parse_config(json.dumps(configurations()[framework][case])))


def names_of(layers: Sequence[KerasLayer]) -> list[str]:
    """Return the tensor names of a file with these layers, as far as the check reads them."""
    kinds = {"Conv2D": ("kernel", "bias"), "Dense": ("kernel",)}
    return [
        f"{layer.name}/{part}"
        for layer in layers
        for part in kinds.get(layer.kind, ())
        if part == "kernel" or layer.config["use_bias"]
    ]


@pytest.mark.parametrize("framework", ["keras3", "keras2"])
@pytest.mark.parametrize("case", [case for case, refusal in make_keras_models.CASES.items() if not refusal])
def test_resnets_in_every_dress(framework: str, case: str) -> None:
    if case not in configurations()[framework]:
        pytest.skip("this framework cannot build it")
    layers = layers_of(framework, case)
    assert set(check_layers(layers, names_of(layers))) == {layer.name for layer in layers if layer.kind == "Dense"}


@pytest.mark.parametrize("framework", ["keras3", "keras2"])
@pytest.mark.parametrize("case", [case for case, refusal in make_keras_models.CASES.items() if refusal])
def test_other_networks_are_refused_by_name(framework: str, case: str) -> None:
    if case not in configurations()[framework]:
        pytest.skip("this framework cannot build it")
    with pytest.raises(CheckpointError, match=make_keras_models.CASES[case]) as caught:
        check_layers(layers := layers_of(framework, case), names_of(layers))
    assert "python -m tf2onnx.convert" in str(caught.value)


def test_dense_layers_of_one_shape_are_taken_in_the_models_order() -> None:
    layers = layers_of("keras3", "two_square_dense")
    assert check_layers(layers, names_of(layers)) == ("b", "c", "a")


CLASSES = [
    "input_layer", "zero_padding2d", "conv2d", "batch_normalization", "activation", "zero_padding2d", "max_pooling2d",
    *["conv2d", "batch_normalization"] * 4, *["activation"] * 3, "add", "global_average_pooling2d", "dense",
]  # fmt: skip
TENSORS = ["conv1_conv/kernel", "conv2_block1_3_conv/kernel"]


@pytest.mark.parametrize("more", [[], ["dropout", "random_flip"], ["functional", "input_layer"], ["flatten"]])
def test_numbered_weights_that_list_a_resnet(more: list[str]) -> None:
    check_classes([*CLASSES, *more], TENSORS)
    check_classes(["conv2d", "batch_normalization", "dense"], TENSORS)  # a file that lists layers with variables alone


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["rescaling"], "a layer of class 'rescaling'"),
        (["activation"], "5 layers of class 'activation', 1 more"),
        (["re_lu"], "'re_lu'"),
        (["input_layer"], "2 layers of class 'input_layer'"),
        (["my_model"], "'my_model'"),
        (["global_max_pooling2d"], "'global_max_pooling2d'"),
        (["add"], "2 layers of class 'add'"),
    ],
)
def test_numbered_weights_that_list_more(more: list[str], message: str) -> None:
    with pytest.raises(CheckpointError, match=rf"{message}.*model\.save\('grader\.keras'\)"):
        check_classes([*CLASSES, *more], TENSORS)
    with pytest.raises(CheckpointError, match="0 of the 1 layers of class 'global_average_pooling2d'"):
        check_classes([kind for kind in CLASSES if not kind.startswith("global")], TENSORS)


FLAT = ["image", "conv1_pad", "conv1_conv", "conv1_bn", "conv2_block1_add", "avg_pool", "dropout_3", "grade"]
NESTED = ["input_2", "resnet50", "global_average_pooling2d_1", "grade"]
WEIGHTED = ["conv1_conv", "conv1_bn", "resnet50", "inner", "grade"]


@pytest.mark.parametrize("layers", [FLAT, NESTED, NESTED[1:], ["random_flip", *NESTED[1:]]])
def test_named_weights_that_list_a_resnet(layers: list[str]) -> None:
    check_names(layers, set(layers) & set(WEIGHTED), TENSORS)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["input_2", "rescaling", *NESTED[1:]], "'rescaling', which has no weights"),
        (["prep", *NESTED[1:]], "'prep', which has no weights"),
        (["input_1", "tf.math.truediv", *FLAT[1:]], r"'tf\.math\.truediv'"),
        (["input_2", "resnet50", "grade"], "0 layers that are known as the mean"),
        (["input_2", "resnet50", "max_pool", "grade"], "'max_pool'"),
        ([*FLAT[:5], "inner", *FLAT[5:]], "'inner' before the pooling"),
        ([*FLAT, "re_lu"], "'re_lu'"),
    ],
)
def test_named_weights_that_list_more(layers: list[str], message: str) -> None:
    with pytest.raises(CheckpointError, match=rf"{message}.*model\.save\('grader\.keras'\)"):
        check_names(layers, set(layers) & set(WEIGHTED), TENSORS)
