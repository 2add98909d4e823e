"""Writes the golden networks of this folder: small checkpoints, and what their own frameworks compute with them.

    cd tests
    python -m golden.make_networks torch      # PyTorch 2.13: HRNet, and ResNet in torchvision's layout
    python -m golden.make_networks keras      # TensorFlow 2.21 with tf_keras: ResNet as keras.applications has it

The checkpoints that the framework wrote lie in `networks-torch.tar.xz` and `networks-keras.tar.xz`, its outputs for
`IMAGES` by checkpoint in `networks-torch.npz` and `networks-keras.npz`. Weights take few values, and are made of
few blocks, so that they compress; every batch normalisation has statistics and parameters that an unfolded layer would
miss.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from golden.packing import FOLDER, in_steps, pack

IMAGES = np.random.default_rng(152).integers(0, 256, (2, 3, 64, 64), np.uint8)
DEPTHS = {50: (3, 4, 6, 3), 152: (3, 8, 36, 3)}


def pixels(channels: int) -> np.ndarray:
    return ((IMAGES[:, :channels] / 255 - 0.5) / 0.25).astype(np.float32)


def drawn(
    rng: np.random.Generator, name: str, shape: tuple[int, ...], fan_in: int, *, fine: bool = False
) -> np.ndarray:
    """A weight by its kind: kernels with the spread of He's rule, statistics away from 0 and 1.

    Weights are rows of blocks from a stock for each kind and `fan_in`, and kernels take two magnitudes. With `fine`
    there are no blocks, and every value has four significant bits: such a network's heatmaps keep their maxima in half
    precision and in 8 bits.
    """
    kind, count = name.rsplit(".", 1)[-1].rsplit("/", 1)[-1].split(":")[0], int(np.prod(shape))
    kind, block = ("kernel", 36) if len(shape) > 1 else (kind, 4)
    if fine:
        part, exponent = np.frexp(values_of(rng, kind, shape, fan_in))
        return np.ldexp(np.round(part * 16) / 16, np.maximum(exponent, -8)).astype(np.float32)
    stock = values_of(np.random.default_rng([fan_in, *kind.encode()]), kind, (32, block), fan_in)
    if kind == "kernel":
        large = 2 ** np.rint(np.log2(np.sqrt(2 / fan_in) / np.sqrt((1 + 1 / 16) / 2)))
        stock = large * np.where(stock > 0, 1, -1) * np.where(np.abs(stock) > np.median(np.abs(stock)), 1, 1 / 4)
    else:
        stock = np.rint(stock * 16) / 16
    blocks = stock[rng.integers(len(stock), size=-(-count // block))]
    return blocks.ravel()[:count].reshape(shape).astype(np.float32)


def values_of(rng: np.random.Generator, kind: str, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
    if kind in ("running_var", "moving_variance"):
        return rng.uniform(0.5, 1.5, shape)
    if kind in ("weight", "gamma"):
        return rng.uniform(0.25, 0.75, shape)
    return rng.normal(0, np.sqrt(2 / fan_in) if kind == "kernel" else 0.1, shape)


def checked(output: np.ndarray, name: str) -> np.ndarray:
    if not np.isfinite(output).all() or np.ptp(output) < 1e-2 or np.abs(output[0] - output[1]).max() < 1e-3:
        raise SystemExit(f"{name}: its output hardly depends on its input; it would not test anything")
    return in_steps(output)


def legacy_hrnet() -> Any:
    """The network of hrnet-legacy.pth, without its weights."""
    from spinescore.benchmarks.phantom.networks import HRNet

    return HRNet(2, 12, 3, stem=4, modules=(1, 1, 1))


def make_torch(folder: Path) -> dict[str, np.ndarray]:
    import torch

    from spinescore.benchmarks.phantom.networks import HRNet, ResNet

    networks = {
        "hrnet-legacy.pth": (0, legacy_hrnet()),
        "hrnet-zip.pth": (0, HRNet(2, 24, 1, stem=4, modules=(1, 2, 1))),
        "resnet152-corners4.pth": (27, ResNet(DEPTHS[152], 2, 8)),
        "resnet50-corner4.pth": (37, ResNet(DEPTHS[50], 2, 4, channels=1)),
        "resnet50-bridge.pth": (28, ResNet(DEPTHS[50], 2, 2)),
        "resnet50-grades.pth": (28, ResNet(DEPTHS[50], 2, 3)),
    }
    outputs = {}
    for name, (seed, network) in networks.items():
        rng = np.random.default_rng(seed)
        with torch.no_grad():
            for key, tensor in network.state_dict().items():
                if tensor.is_floating_point():
                    fan_in = int(np.prod(tensor.shape[1:]))
                    values = drawn(rng, key, tuple(tensor.shape), fan_in, fine=name == "hrnet-legacy.pth")
                    tensor.copy_(torch.from_numpy(values))
            network.eval()
            found = network(torch.from_numpy(pixels(network.conv1.in_channels))).numpy()
        outputs[name] = checked(found, name)[: 1 if found.ndim > 2 else None]  # of one image; heatmaps are large
        legacy = name == "hrnet-legacy.pth"
        state = network.state_dict()
        content = {"epoch": 3, "model": "pose_hrnet", "state_dict": {f"module.{k}": v for k, v in state.items()}}
        torch.save(content if legacy else state, folder / name, _use_new_zipfile_serialization=not legacy)
    return outputs


def make_keras(folder: Path) -> dict[str, np.ndarray]:
    import tf_keras as keras
    from tf_keras.src.applications import resnet

    def stack(depths):
        def build(x):
            for index, depth in enumerate(depths):
                x = resnet.stack1(x, 2 * 2**index, depth, stride1=1 if index == 0 else 2, name=f"conv{index + 2}")
            return x

        return build

    def whole(depth, classes, activation=None):
        return resnet.ResNet(
            stack(DEPTHS[depth]), False, True, f"resnet{depth}", weights=None, input_shape=(64, 64, 3), classes=classes,
            classifier_activation=activation,
        )  # fmt: skip

    def transfer(depth, classes):
        backbone = resnet.ResNet(
            stack(DEPTHS[depth]),
            False,
            True,
            f"resnet{depth}",
            include_top=False,
            weights=None,
            input_shape=(64, 64, 3),
        )
        x = keras.layers.GlobalAveragePooling2D()(backbone.output)
        x = keras.layers.Dense(16, activation="relu", name="corner_features")(x)
        return keras.Model(backbone.input, keras.layers.Dense(classes, name="corner_grade")(x))

    networks = {
        "keras-resnet152-corners4.h5": (2, whole(152, 8)),
        "keras-resnet50-corner4.h5": (9, transfer(50, 4)),
        "keras-resnet50-bridge.h5": (23, whole(50, 2)),
        "keras-resnet50-grades-softmax.h5": (8, whole(50, 3, "softmax")),
    }
    outputs = {}
    for name, (seed, network) in networks.items():
        rng = np.random.default_rng(seed)
        for variable in network.weights:
            variable.assign(drawn(rng, variable.name, tuple(variable.shape), int(np.prod(variable.shape[:-1]))))
        outputs[name] = checked(network.predict(pixels(3).transpose(0, 2, 3, 1), verbose=0), name)
        network.save(folder / name) if "152" in name else network.save_weights(folder / name)
    return outputs


if __name__ == "__main__":
    framework = sys.argv[1]
    with tempfile.TemporaryDirectory() as temporary:
        outputs = {"torch": make_torch, "keras": make_keras}[framework](Path(temporary))
        pack(f"networks-{framework}", Path(temporary))
    np.savez_compressed(FOLDER / f"networks-{framework}.npz", **outputs)
