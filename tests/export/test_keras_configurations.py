"""Configurations in Keras files: layers that are refused, names, and variables without names."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from golden import make_checkpoints

from helpers.checkpoint_files import CHECKPOINTS
from spinescore.export import read_checkpoint
from spinescore.export.keras_alone import resnet_names
from spinescore.runtime.errors import CheckpointError


def archive(config: object, weights: bytes, *, method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        file.writestr("metadata.json", "{}")
        file.writestr("config.json", config if isinstance(config, str) else json.dumps(config))
        file.writestr("model.weights.h5", weights)
    return stream.getvalue()


def parts(name: str) -> tuple[Any, bytes]:
    with zipfile.ZipFile(io.BytesIO(CHECKPOINTS[name])) as file:
        return json.loads(file.read("config.json")), file.read("model.weights.h5")


def save(folder: Path, data: bytes, name: str = "grader.keras") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "layer",
    [
        {"class_name": "Lambda", "config": {"name": "prep", "function": {"class_name": "__lambda__", "config": {}}}},
        {"class_name": "TFOpLambda", "config": {"name": "prep", "function": "math.truediv"}},
        {"class_name": "Dense", "config": {"name": "prep", "activation": {"class_name": "__lambda__", "config": {}}}},
        {"class_name": "TimeDistributed", "config": {"name": "t", "layer": {"class_name": "Lambda", "config": {}}}},
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_lambda_layers_are_refused(layer: dict[str, Any], nested: bool, tmp_path: Path) -> None:
    config, weights = parts("keras3_transfer.keras")
    layers = config["config"]["layers"]
    (layers[1]["config"]["layers"] if nested else layers).append(layer)
    with pytest.raises(CheckpointError, match=r"is a (Lambda|TFOpLambda|__lambda__): code"):
        read_checkpoint(save(tmp_path, archive(config, weights)))


def test_lambda_in_a_whole_h5_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, CHECKPOINTS["keras2_whole.h5"], "grader.h5")
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"].append({"class_name": "Lambda", "config": {"name": "prep", "function": "cos"}})
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(CheckpointError, match="layer 'prep' of the model is a Lambda"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "configuration is damaged"),
        ("[" * 100_000, "configuration is damaged"),
        ("3", "lists no layers"),
        ({"config": {"layers": [3]}}, "layer without a class"),
        ({"config": {"layers": [{"class_name": "Dense", "config": {}}]}}, "has no name"),
        ({"config": {"layers": []}}, "belongs to no layer of the model's configuration"),
    ],
)
def test_configurations_that_cannot_be(config: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(save(tmp_path, archive(config, parts("keras3.keras")[1])))


def test_configuration_that_contradicts_the_stored_names(tmp_path: Path) -> None:
    config, weights = parts("keras3.keras")
    layers = config["config"]["layers"]
    one, two = (index for index, entry in enumerate(layers) if entry["class_name"] == "Conv2D" and index < 8)
    layers[one], layers[two] = layers[two], layers[one]
    with pytest.raises(CheckpointError, match=r"is layer 'conv1_conv' by its own name, 'conv2_block1_1_conv'"):
        read_checkpoint(save(tmp_path, archive(config, weights)))


def test_layers_carry_the_configuration(tmp_path: Path) -> None:
    layers = read_checkpoint(save(tmp_path, CHECKPOINTS["keras3_transfer.keras"])).layers
    by_name = {layer.name: layer for layer in layers}
    assert by_name["conv1_bn"].path == ("resnet152",)
    assert by_name["conv1_bn"].config["epsilon"] == pytest.approx(1.001e-5)
    assert by_name["grade"].kind == "Dense"
    assert by_name["grade"].config["activation"] == "softmax"
    assert by_name["grade"].path == ()


def test_models_of_a_class_of_their_own_are_told_what_to_save(tmp_path: Path) -> None:
    config = {"module": "__main__", "class_name": "Grader", "config": {"trainable": True}}
    with pytest.raises(CheckpointError, match=r"of a class of its own.*keras\.Model\(image, model\.call\(image\)\)"):
        read_checkpoint(save(tmp_path, archive(config, parts("keras3.keras")[1])))
    path = save(tmp_path, CHECKPOINTS["keras3.weights.h5"], "grader.weights.h5")
    with h5py.File(path, "r+") as file:
        file.move("layers/dense", "head")
    with pytest.raises(CheckpointError, match=r"keeps layers in 'head'.*model\.call\(image\)"):
        read_checkpoint(path)


def test_packed_keras_archive(tmp_path: Path) -> None:
    config, weights = parts("keras3.keras")
    tensors = read_checkpoint(save(tmp_path, archive(config, weights, method=zipfile.ZIP_DEFLATED))).tensors
    np.testing.assert_array_equal(tensors["predictions/bias"], make_checkpoints.values("predictions/bias", (8,)))


def test_integer_variables_of_other_layers_are_left_out(tmp_path: Path) -> None:
    path = save(tmp_path, CHECKPOINTS["keras3.weights.h5"], "grader.weights.h5")
    with h5py.File(path, "r+") as file:
        file.create_dataset("layers/random_flip/seed_generator/vars/0", data=np.array([1, 2], np.uint32))
        file["layers/random_flip/seed_generator/vars"].attrs["name"] = "seed_generator"
    assert not any("seed" in name for name in read_checkpoint(path).tensors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.copy("layers/conv2d", "layers/conv2d_99"), "cannot be told from the shapes"),
        (lambda file: file.copy("layers/dense", "layers/dense_1"), "more than one Dense layer"),
        (lambda file: file.move("layers/dense", "layers/embedding"), "no layer of a ResNet"),
        (lambda file: file.move("layers/conv2d_4", "layers/conv2d_77"), "cannot be told from the shapes"),
        (lambda file: file.pop("layers/batch_normalization_3"), "batch normalisation of its width"),
        (lambda file: file.move("layers/dense/vars/1", "layers/dense/vars/2"), "does not number its variables"),
        (lambda file: file.pop("layers/batch_normalization/vars/3"), "nothing says which"),
        (lambda file: file.copy("layers/dense/vars/1", "layers/dense/vars/2"), "more than a dense layer has"),
    ],
)
def test_unnamed_variables_that_are_ambiguous(change: Callable[[Any], None], message: str, tmp_path: Path) -> None:
    path = save(tmp_path, CHECKPOINTS["keras2.weights.h5"], "grader.weights.h5")
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


@pytest.mark.parametrize("depths", [(3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3), (1, 1, 1, 1)])
@pytest.mark.parametrize("width", [4, 16, 64])
def test_the_order_of_any_resnet(depths: tuple[int, ...], width: int) -> None:
    expected, shapes, inputs = ["conv1"], [(7, 7, 3, width)], width
    for stage, count in enumerate(depths, start=2):
        inner = width << (stage - 2)
        for block in range(1, count + 1):
            kernels = {1: (1, 1, inputs, inner), 2: (3, 3, inner, inner), 0: (1, 1, inputs, 4 * inner)}
            kernels[3] = (1, 1, inner, 4 * inner)
            for part in (1, 2, 0, 3) if block == 1 else (1, 2, 3):
                expected.append(f"conv{stage}_block{block}_{part}")
                shapes.append(kernels[part])
            inputs = 4 * inner
    slots = [(f"layers/c{n}", "conv2d", n, shape) for n, shape in enumerate(shapes)]
    slots += [(f"layers/b{n}", "batch_normalization", n, shape[-1:]) for n, shape in enumerate(shapes)]
    names = resnet_names(slots)
    assert [names[f"layers/c{n}"] for n in range(len(shapes))] == [f"{name}_conv" for name in expected]
    assert [names[f"layers/b{n}"] for n in range(len(shapes))] == [f"{name}_bn" for name in expected]
