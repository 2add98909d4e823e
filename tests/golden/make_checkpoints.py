"""Make the checkpoint files that tests/export reads, with the frameworks that make them in the field.

Run it twice in the folder above: `python -m golden.make_checkpoints torch` in an environment with PyTorch and
safetensors, `python -m golden.make_checkpoints keras` in one with TensorFlow and tf_keras. Every tensor's values follow
from its name and shape (`values`), so that the tests know the content of each entry without a framework. The files lie
in `checkpoints-torch.tar.xz` and `checkpoints-keras.tar.xz`.
"""

from __future__ import annotations

import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from golden.packing import pack

STAGES = ((2, 2), (4, 1))  # (width, blocks): as few layers as show every kind of block of a ResNet
TORCH_SHAPES = {
    "conv1.weight": (4, 3, 3, 3),
    "bn1.weight": (4,),
    "bn1.bias": (4,),
    "bn1.running_mean": (4,),
    "bn1.running_var": (4,),
    "final_layer.weight": (2, 4, 1, 1),
    "final_layer.bias": (2,),
}


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The values that the entry `name` holds in every golden file: multiples of 1/16 in [-4, 4], exact in bfloat16."""
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    return (draw.integers(-64, 65, shape) / 16).astype(np.float32)


def two_values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The values of `make_weights.hrnet`: two of them, in blocks that compress."""
    blocks = np.random.default_rng(0).choice(np.float32([-1.5, 0.75]), (16, 36))
    first = values(name, (-(-int(np.prod(shape)) // 36),))
    signed = blocks[(first * 16).astype(int) % 16].ravel()[: int(np.prod(shape))].reshape(shape)
    return np.abs(signed) if name.endswith("running_var") else signed


def make_torch(folder: Path) -> None:
    """The official HRNet checkpoint in both formats, bare state dicts, and the other precisions."""
    import torch

    state = {name: torch.from_numpy(values(name, shape)) for name, shape in TORCH_SHAPES.items()}
    parameters = [torch.nn.Parameter(tensor.clone()) for tensor in state.values()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    torch.stack([parameter.sum() for parameter in parameters]).sum().backward()
    optimizer.step()
    counted = {**state, "bn1.num_batches_tracked": torch.tensor(7)}
    official = {
        "epoch": 210,
        "model": "pose_hrnet",
        "state_dict": {f"module.{name}": tensor for name, tensor in counted.items()},
        "best_state_dict": counted,
        "perf": np.float64(0.75),
        "optimizer": optimizer.state_dict(),
    }
    torch.save(official, folder / "official_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(official, folder / "official_zip.pth")
    torch.save({"model": state}, folder / "under_model.pt")
    module = torch.nn.Sequential()
    module.conv1 = torch.nn.Conv2d(3, 4, 3, bias=False)
    module.bn1 = torch.nn.BatchNorm2d(4)
    module.final_layer = torch.nn.Conv2d(4, 2, 1)
    module.load_state_dict(counted)
    torch.save(module.state_dict(), folder / "bare_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(module, folder / "whole_model.pth")
    torch.save({name: tensor.half() for name, tensor in state.items()}, folder / "half.pt")
    torch.save({name: tensor.bfloat16() for name, tensor in state.items()}, folder / "bfloat16.pt")
    torch.save({name: tensor.double() for name, tensor in state.items()}, folder / "double.pt")
    wide = torch.from_numpy(values("conv1.weight", (4, 3, 3, 3))).permute(3, 2, 1, 0).contiguous()
    shared = torch.cat([torch.zeros(5), state["bn1.weight"], torch.zeros(3)])
    views = {"conv1.weight": wide.permute(3, 2, 1, 0), "bn1.weight": shared[5:9]}
    torch.save(views, folder / "views.pt")
    try:
        from safetensors.torch import save_file
    except ImportError:
        sys.exit("the safetensors golden needs the package safetensors")
    mixed = {**counted, "bn1.bias": state["bn1.bias"].bfloat16(), "bn1.weight": state["bn1.weight"].half()}
    save_file(mixed, folder / "mixed.safetensors", metadata={"format": "pt"})


def resnet(keras: Any, *, head: bool) -> Any:
    """A thin ResNet with the layers, names and order of `keras.applications.ResNet152`; head: its own classifier."""
    layers = keras.layers

    def unit(x: Any, width: int, kernel: int, name: str, *, stride: int = 1, relu: bool = True) -> Any:
        same = "same" if kernel == 3 else "valid"
        x = layers.Conv2D(width, kernel, strides=stride, padding=same, name=f"{name}_conv")(x)
        x = layers.BatchNormalization(epsilon=1.001e-5, name=f"{name}_bn")(x)
        return layers.Activation("relu", name=f"{name}_relu")(x) if relu else x

    image = keras.Input((32, 32, 3), name="image")
    x = layers.ZeroPadding2D(3, name="conv1_pad")(image)
    x = unit(x, STAGES[0][0], 7, "conv1", stride=2)
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)
    for stage, (width, blocks) in enumerate(STAGES, start=2):
        for block in range(1, blocks + 1):
            name = f"conv{stage}_block{block}"
            stride = 2 if block == 1 and stage > 2 else 1
            shortcut = unit(x, 4 * width, 1, f"{name}_0", stride=stride, relu=False) if block == 1 else x
            y = unit(x, width, 1, f"{name}_1", stride=stride)
            y = unit(y, width, 3, f"{name}_2")
            y = unit(y, 4 * width, 1, f"{name}_3", relu=False)
            x = layers.Add(name=f"{name}_add")([shortcut, y])
            x = layers.Activation("relu", name=f"{name}_out")(x)
    if head:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = layers.Dense(8, name="predictions")(x)
    return fill(keras.Model(image, x, name="resnet152"))


def fill(model: Any) -> Any:
    """Set every weight of a model to `values` of "<layer>/<variable>"."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            fill(layer)
        elif layer.weights:
            kinds = {weight.name.split("/")[-1].split(":")[0]: weight for weight in layer.weights}
            for kind, weight in kinds.items():
                weight.assign(values(f"{layer.name}/{kind}", tuple(weight.shape)))
    return model


def transfer(keras: Any) -> Any:
    """A transfer model: the backbone nested as a submodel, a head of another name on top."""
    backbone = resnet(keras, head=False)
    image = keras.Input((32, 32, 3))
    x = keras.layers.GlobalAveragePooling2D()(backbone(image))
    x = keras.layers.Dropout(0.5)(x)
    return fill(keras.Model(image, keras.layers.Dense(4, activation="softmax", name="grade")(x)))


def in_sequence(keras: Any) -> Any:
    """The same as a Sequential model, compiled and stepped once so that it carries an optimizer's state."""
    backbone = resnet(keras, head=False)
    pool, head = keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4, activation="softmax", name="grade")
    model = keras.Sequential([backbone, pool, head])
    backbone.trainable = False
    model.compile("adam", "categorical_crossentropy")
    model.fit(np.zeros((2, 32, 32, 3), np.float32), np.eye(4, dtype=np.float32)[:2], verbose=0)
    return fill(model)


def make_keras(folder: Path) -> None:
    """Files of Keras 3 (as TensorFlow >= 2.16 has it) and of Keras 2 (tf_keras, as TensorFlow 2.4 to 2.15 had it)."""
    import keras
    import tf_keras

    plans: list[tuple[Any, Callable[..., Any], str, str]] = [
        (keras, resnet, "keras3.keras", "save"),
        (keras, resnet, "keras3.weights.h5", "save_weights"),
        (keras, resnet, "keras3_whole.h5", "save"),
        (keras, transfer, "keras3_transfer.keras", "save"),
        (keras, transfer, "keras3_transfer.weights.h5", "save_weights"),
        (keras, transfer, "keras3_transfer.h5", "save"),
        (keras, in_sequence, "keras3_sequence.keras", "save"),
        (tf_keras, resnet, "keras2_whole.h5", "save"),
        (tf_keras, resnet, "keras2_weights.h5", "save_weights"),
        (tf_keras, resnet, "keras2.weights.h5", "save_weights"),
        (tf_keras, transfer, "keras2_transfer.weights.h5", "save_weights"),
        (tf_keras, resnet, "keras2.keras", "save"),
        (tf_keras, transfer, "keras2_transfer.h5", "save"),
        (tf_keras, in_sequence, "keras2_sequence.h5", "save_weights"),
    ]
    for package, build, name, verb in plans:
        package.backend.clear_session()
        model = build(package, head=True) if build is resnet else build(package)
        getattr(model, verb)(folder / name)
    keras.backend.clear_session()
    keras.config.set_dtype_policy("bfloat16")
    resnet(keras, head=True).save_weights(folder / "keras3_bfloat16.weights.h5")


if __name__ == "__main__":
    framework = sys.argv[1]
    with tempfile.TemporaryDirectory() as temporary:
        {"torch": make_torch, "keras": make_keras}[framework](Path(temporary))
        pack(f"checkpoints-{framework}", Path(temporary))
