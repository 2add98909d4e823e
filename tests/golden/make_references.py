"""Writes the reference files of this folder by the lines of docs/weights.md: outputs of PyTorch and Keras.

    cd tests
    python -m golden.make_references torch      # PyTorch 2.13
    python -m golden.make_references keras      # TensorFlow 2.21 with tf_keras

`reference-localizer.npz` is hrnet-legacy.pth on pictures of 64x32 as these lines write it. The graders' files hold
besides `images`, `outputs` and `kind` what the same network gives if its pictures are normalised in other ways
(`outputs_bgr`, ..), and stand for as many wrong references.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
from golden.make_networks import DEPTHS, legacy_hrnet
from golden.packing import FOLDER, contents, in_steps

IMAGENET = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def pictures(height: int, width: int) -> np.ndarray:
    """Eight smooth pictures in steps of grey, which compress well; no two alike, none symmetric."""
    rng = np.random.default_rng(13)
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [
        sum(
            rng.normal() * np.sin(rng.uniform(3, 25) * x + rng.uniform(3, 25) * y + rng.uniform(0, 6)) for _ in range(6)
        )
        for _ in range(8)
    ]
    grey = np.stack([(wave - wave.min()) / np.ptp(wave) for wave in waves])
    return (np.rint(grey * 24) * 10).astype(np.uint8)


def normalised(grey: np.ndarray, way: str) -> np.ndarray:
    """N x H x W x 3 in the ways that REF files of other people have."""
    rgb = np.repeat(grey[..., None], 3, -1) / 255.0
    mean, std = IMAGENET
    caffe = rgb * 255 - [103.939, 116.779, 123.68]
    ways = {
        "imagenet": (rgb - mean) / std,
        "bgr": (rgb - mean[::-1]) / std[::-1],
        "undivided": (rgb * 255 - mean) / std,
        "none": rgb,
        "none255": rgb * 255,
        "caffe": caffe,
        "caffe_rgb": rgb * 255 - [123.68, 116.779, 103.939],
        "symmetric": rgb * 2 - 1,
        "itself": (rgb - rgb.mean((1, 2, 3), keepdims=True)) / rgb.std((1, 2, 3), keepdims=True),
    }
    return ways[way].astype(np.float32)


WAYS = ("imagenet", "bgr", "undivided", "none", "none255", "caffe", "caffe_rgb", "symmetric", "itself")


def by_the_page(number: int, folder: Path, written: str, old: str = "", new: str = "", **names: object) -> bytes:
    """The file that program `number` of docs/weights.md writes, run in `folder`; `new` takes the place of `old`."""
    page = FOLDER.parent.parent / "docs" / "weights.md"
    programs = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    with contextlib.chdir(folder):
        exec(compile(programs[number].replace(old, new) if old else programs[number], "docs/weights.md", "exec"), names)
        return Path(written).read_bytes()


def make_torch(folder: Path) -> None:
    import torch

    from spinescore.benchmarks.phantom.networks import ResNet

    model = legacy_hrnet()
    checkpoints = contents("networks-torch")
    state = torch.load(io.BytesIO(checkpoints["hrnet-legacy.pth"]))["state_dict"]
    model.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    grey = pictures(64, 32)

    with np.load(io.BytesIO(by_the_page(0, folder, "ref-localizer.npz", model=model, grey=grey))) as written:
        rounded = {**written, "outputs": in_steps(written["outputs"], 5e-6)}
    np.savez_compressed(FOLDER / "reference-localizer.npz", **rounded)

    grader = ResNet(DEPTHS[152], 2, 8)
    grader.load_state_dict(torch.load(io.BytesIO(checkpoints["resnet152-corners4.pth"])))
    grader.eval()
    grey = pictures(64, 64)
    found = {}
    with torch.no_grad():
        for way in WAYS:
            images = torch.from_numpy(normalised(grey, way).transpose(0, 3, 1, 2).copy())
            found[f"outputs_{way}"] = grader(images).numpy()
    outputs = found.pop("outputs_imagenet")
    np.savez_compressed(FOLDER / "reference-grader-torch.npz", images=grey, outputs=outputs, kind="logits", **found)


def make_keras(folder: Path) -> None:
    from tf_keras.src.applications import resnet

    def stack(x):
        for index, depth in enumerate(DEPTHS[50]):
            x = resnet.stack1(x, 2 * 2**index, depth, stride1=1 if index == 0 else 2, name=f"conv{index + 2}")
        return x

    model = resnet.ResNet(stack, False, True, "resnet50", weights=None, input_shape=(64, 64, 3), classes=3)
    checkpoint = folder / "keras-resnet50-grades-softmax.h5"
    checkpoint.write_bytes(contents("networks-keras")[checkpoint.name])
    model.load_weights(checkpoint)
    grey = pictures(64, 64)

    model.save(folder / "resnet152.keras")
    right = folder / "right.npz"
    right.write_bytes(by_the_page(1, folder, "ref-grader.npz", "import keras ", "import tf_keras as keras ", grey=grey))

    found = {f"outputs_{way}": model.predict(normalised(grey, way), verbose=0) for way in WAYS if way != "caffe"}
    with np.load(right) as written:
        np.savez_compressed(FOLDER / "reference-grader-keras.npz", **written, **found)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        {"torch": make_torch, "keras": make_keras}[sys.argv[1]](Path(temporary))
