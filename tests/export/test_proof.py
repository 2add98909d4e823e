"""Exports compared with PyTorch's and Keras' outputs: right references pass, each kind of wrong one is explained."""

from __future__ import annotations

import io
import os
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from golden.packing import FOLDER

from helpers.golden_networks import unpacked
from spinescore.export.ends import softmax
from spinescore.export.networks import in_bundle_order
from spinescore.export.proof import prove
from spinescore.export.sessions import Runner
from spinescore.export.sources import InputSize, open_network
from spinescore.runtime.errors import CheckpointError
from spinescore.runtime.manifest import NetworkInput

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CAFFE = (tuple(mean / 255 for mean in (103.939, 116.779, 123.68)), (1 / 255,) * 3)


def golden(name):
    with np.load(FOLDER / f"reference-{name}.npz") as archive:
        return {entry: archive[entry] for entry in archive.files}


class Case:
    """A golden network, its input, and its right reference; `check` writes another one and compares the network."""

    def __init__(self, folder, checkpoint, role, reference, height, width, normalisation):
        self.folder, self.arrays = folder, golden(reference)
        kind = "localizer" if role == "" else "grader"
        path = str(unpacked(checkpoint, folder))
        self.network = open_network(path, kind, role, InputSize(None, height, width))
        self.size = NetworkInput(height, width, 3, *normalisation, 2, None, None)

    def write(self, **changes):
        arrays = {name: self.arrays[name] for name in ("images", "outputs", "kind")}
        path = self.folder / "ref.npz"
        np.savez_compressed(path, **{k: v for k, v in {**arrays, **changes}.items() if v is not None})
        return path

    def check(self, path=None, size=None, said=None, network=None, stored_half=False, **changes):
        network = replace(network or self.network)
        prove([network], str(path or self.write(**changes)), size or self.size, said, stored_half)
        return network.checked

    def refusal(self, **options):
        with pytest.raises(CheckpointError) as error:
            self.check(**options)
        return str(error.value)


@pytest.fixture(scope="module")
def localizer(tmp_path_factory):
    return Case(tmp_path_factory.mktemp("l"), "hrnet-legacy.pth", "", "localizer", 64, 32, IMAGENET)


@pytest.fixture(scope="module")
def grader(tmp_path_factory):
    return Case(tmp_path_factory.mktemp("t"), "resnet152-corners4.pth", "corners", "grader-torch", 64, 64, IMAGENET)


@pytest.fixture(scope="module")
def keras(tmp_path_factory):
    name = "keras-resnet50-grades-softmax.h5"
    return Case(tmp_path_factory.mktemp("k"), name, "grades", "grader-keras", 64, 64, CAFFE)


@pytest.mark.parametrize("name", ["localizer", "grader", "keras"])
def test_what_the_framework_gave_passes_with_figures(name, request):
    case = request.getfixturevalue(name)
    checked = case.check()
    assert checked["difference_of_range"] <= 1e-5
    assert (checked["reference"], checked["pictures"]) == ("ref.npz", 8)
    assert checked["kind"] == {"localizer": "heatmaps", "grader": "logits", "keras": "probabilities"}[name]
    assert "stored_difference_of_range" not in checked


def test_rounding_of_stored_weights_is_a_figure_of_its_own(grader):
    checked = grader.check(stored_half=True)
    assert checked["difference_of_range"] <= 1e-5
    assert checked["stored_difference_of_range"] < 1e-3


@pytest.mark.parametrize(
    "change",
    [
        lambda a: {"images": (a["images"].astype(np.uint16) * 257)},
        lambda a: {"images": (a["images"] / 255).astype(np.float32)},
        lambda a: {"images": np.asfortranarray(a["images"])},
        lambda a: {"images": a["images"][:, None]},
        lambda a: {"images": a["images"][..., None], "outputs": a["outputs"].transpose(0, 2, 3, 1)},
        lambda a: {"outputs": a["outputs"].astype(np.float64), "kind": None},
    ],
)
def test_every_form_of_the_same_reference_passes(localizer, change):
    assert localizer.check(**change(localizer.arrays))["difference_of_range"] <= 1e-5


# The reference that was computed with another normalisation, and what the refusal says.
WAYS = {
    "bgr": "the channels in the opposite order (BGR for RGB)",
    "undivided": "ImageNet's mean and std taken of grey 0..255 (not divided by 255)",
    "none": "no normalisation (grey 0..1)",
    "none255": "no normalisation (grey 0..255)",
    "caffe": "Keras' 'caffe' normalisation (BGR, 0..255 minus the means)",
    "caffe_rgb": "Keras' 'caffe' means, in the order RGB",
    "symmetric": "grey brought to -1..1",
    "itself": "each picture brought to mean 0 and std 1 by itself",
}


@pytest.mark.parametrize("way", WAYS)
def test_another_normalisation_is_named(grader, way):
    message = grader.refusal(outputs=grader.arrays[f"outputs_{way}"])
    assert message.startswith("resnet152-corners4.pth does not give what ref.npz says: ")
    assert f"off with {WAYS[way]}. " in message
    assert "nothing was written" in message
    assert ("export that to ONNX" in message) == (way == "itself")


@pytest.mark.parametrize("way", ["imagenet", "none255", "caffe_rgb"])
def test_another_normalisation_is_named_for_keras(keras, way):
    words = {**WAYS, "imagenet": "ImageNet's mean and std of grey 0..1 (RGB)"}
    words["caffe_rgb"] = "the channels in the opposite order (BGR for RGB)"
    assert f"off with {words[way]}. " in keras.refusal(outputs=keras.arrays[f"outputs_{way}"])


def test_what_a_refusal_says_to_state_makes_it_pass(grader):
    message = grader.refusal(outputs=grader.arrays["outputs_caffe"])
    lists = message.split("[grader.input] mean = [")[1].rstrip(".").split("], std = [")
    mean, std = (tuple(float(number) for number in text.rstrip("]").split(",")) for text in lists)
    stated = replace(grader.size, mean=mean, std=std)
    assert grader.check(size=stated, outputs=grader.arrays["outputs_caffe"])["difference_of_range"] <= 1e-5


def test_probabilities_and_logits_are_told_apart(grader, keras):
    assert "off with logits where probabilities are said. Save kind=" in grader.refusal(said="probabilities")
    wrong = "off with probabilities where logits are said. Save kind="
    assert wrong in grader.refusal(outputs=softmax(grader.arrays["outputs"]))
    assert wrong in keras.refusal(said="logits")
    assert grader.check(outputs=softmax(grader.arrays["outputs"]), said="probabilities")


def test_sigmoids_and_logarithms_are_named(grader):
    outputs = grader.arrays["outputs"]
    assert "off with a sigmoid of each output" in grader.refusal(outputs=1 / (1 + np.exp(-outputs)))
    whole = softmax(outputs, 8)
    assert "off with one softmax over all 8 outputs. " in grader.refusal(outputs=whole, said="probabilities")
    assert "off with logarithms of probabilities" in grader.refusal(outputs=np.log(softmax(outputs)))


def test_two_mistakes_at_once_are_named(keras):
    message = keras.refusal(outputs=keras.arrays["outputs_none255"], said="logits")
    assert "off with no normalisation (grey 0..255) and probabilities where logits are said" in message


def test_class_order_is_named_and_its_advice_works(grader):
    order = [4, 5, 6, 7, 0, 1, 2, 3]
    message = grader.refusal(outputs=grader.arrays["outputs"][:, order])
    assert "off with the classes in another order" in message
    stated = '["lower-0", "lower-1", "lower-2", "lower-3", "upper-0", "upper-1", "upper-2", "upper-3"]'
    assert f"[grader.classes] corners = {stated}" in message
    names = [name.strip(' "') for name in stated.strip("[]").split(",")]
    (network,) = in_bundle_order([grader.network], {"grader": {"classes": {"corners": names}}})
    assert grader.check(network=network)["difference_of_range"] <= 1e-5  # REF in the network's own order


def test_stated_order_is_that_of_the_reference_too(grader):
    names = ["upper-3", "upper-2", "upper-1", "upper-0", "lower-3", "lower-2", "lower-1", "lower-0"]
    (network,) = in_bundle_order([grader.network], {"grader": {"classes": {"corners": names}}})
    assert grader.check(network=network)["difference_of_range"] <= 1e-5
    turned = grader.refusal(network=network, outputs=grader.arrays["outputs"][:, ::-1])
    assert '[grader.classes] corners = ["lower-0", "lower-1"' in turned


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: h[..., ::-1], "heatmaps with left and right exchanged"),
        (lambda h: h[:, :, ::-1], "heatmaps that are upside down"),
        (lambda h: h[:, [1, 0, *range(2, 12)]], "the heatmaps in another order"),
        (lambda h: np.roll(h, 1, 3), "heatmaps moved by one pixel right"),
        (lambda h: np.roll(h, -1, 2), "heatmaps moved by one pixel up"),
    ],
)
def test_changed_heatmaps_are_named(localizer, change, words):
    assert f"off with {words}. " in localizer.refusal(outputs=change(localizer.arrays["outputs"]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g: g[:, :, ::-1], "pictures with left and right exchanged"),
        (lambda g: g[:, ::-1], "pictures that are upside down"),
        (lambda g: 255 - g, "pictures in the negative"),
        (lambda g: g.astype(np.uint16), "pictures of 8 bits, saved as uint16"),
        (lambda g: np.pad(g, ((0, 0), (0, 0), (0, 1)), mode="edge")[:, :, 1:], "pictures moved by one pixel right"),
    ],
)
def test_changed_pictures_are_named(localizer, change, words):
    images = change(localizer.arrays["images"])
    if words.endswith("right") and "moved" in words:  # the network saw the pictures one pixel further right
        moved = np.pad(images, ((0, 0), (0, 0), (1, 0)), mode="edge")[:, :, :-1]
        outputs = Runner(localizer.network.model)(moved / 255, localizer.size).astype(np.float32)
        assert f"off with {words}. " in localizer.refusal(images=images, outputs=outputs)
        return
    assert f"off with {words}. " in localizer.refusal(images=images)


def test_turned_pictures_of_a_grader_are_named(grader):
    message = grader.refusal(images=grader.arrays["images"].swapaxes(1, 2))
    assert "off with pictures with rows and columns exchanged" in message
    assert "grader.crop.anterior" in grader.refusal(images=grader.arrays["images"][:, :, ::-1])


def test_what_nothing_explains_says_where_to_look(localizer):
    rng = np.random.default_rng(0)
    noise = localizer.arrays["outputs"] + rng.normal(size=localizer.arrays["outputs"].shape).astype(np.float32)
    message = localizer.refusal(outputs=noise)
    assert "None of the usual mistakes" in message
    assert "epsilon" in message
    assert "ONNX" in message


def test_small_differences_are_refused_too(localizer):
    outputs = localizer.arrays["outputs"].copy()
    outputs[3, 5, 7, 2] += 3e-4 * np.ptp(outputs)
    assert "3.0e-04 of the outputs' range off" in localizer.refusal(outputs=outputs)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": None}, "no entry 'images'"),
        ({"outputs": None}, "no entry 'outputs'"),
        ({"images": lambda a: a[:7], "outputs": lambda a: a[:7]}, "7 pictures; give 8 to 512"),
        ({"images": lambda a: a.swapaxes(1, 2)}, "height before width"),
        ({"images": lambda a: a[:, :, :, None].repeat(3, 3)}, "one channel"),
        ({"images": lambda a: a * 0 + 7}, "a picture of one grey"),
        ({"images": lambda a: a[[0] * 8]}, "fewer than 8 different"),
        ({"images": lambda a: a.astype(np.float32)}, "goes from 0 to 240"),
        ({"images": lambda a: np.where(a == a, np.nan, a)}, "goes from nan"),
        ({"images": lambda a: a.astype(np.int64)}, "of type int64"),
        ({"images": lambda a: a.astype(object)}, "would run code"),
        ({"images": lambda a: a.astype(complex)}, "holds complex128"),
        ({"outputs": lambda a: a.argmax(1)}, "too coarse"),
        ({"outputs": lambda a: a.astype(np.float16)}, "too coarse"),
        ({"outputs": lambda a: a[:, :11]}, "the network gives (8, 12, 16, 8)"),
        ({"outputs": lambda a: a * np.inf}, "NaN or infinity"),
        ({"outputs": lambda a: a[[0] * 8]}, "hardly differs"),
    ],
)
def test_unusable_reference_is_refused_by_name(localizer, changes, words):
    made = {k: v and v(localizer.arrays[k]) for k, v in changes.items()}
    message = localizer.refusal(**made)
    assert message.startswith("ref.npz: ")
    assert words in message


@pytest.mark.parametrize("kind", [None, "softmax", b"\xff\xfe", np.array("logits", object), np.zeros((0,), "U3")])
def test_kind_must_be_said(grader, kind):
    message = grader.refusal(kind=kind)
    assert message.startswith("ref.npz: ")
    assert "kind" in message


def test_kind_of_the_option_comes_first(grader):
    assert grader.check(path=grader.write(kind=None), said="logits")["kind"] == "logits"


def header(shape, dtype="|u1"):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (header((1 << 40, 64, 32)), "declares the shape"),
        (header((8, 64, 32)), "declares the shape"),
        (header((-8, 64, 32)), "declares the shape|damaged header"),
        (header((8, 64, 32))[:20], "damaged header"),
        (b"", "damaged header"),
        (b"\x93NUMPY\x09\x00" + bytes(200), "damaged header"),
        (header((8, 64, 32)) + bytes(64 << 20), "zip bomb|more than 512 pictures"),
        (header((0, 64, 32)), "is empty"),
    ],
)
def test_forged_entry_is_refused(localizer, content, words):
    path = localizer.folder / "forged.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", content)
    with pytest.raises(CheckpointError, match=rf"^forged\.npz: .*({words})"):
        localizer.check(path=path)


def test_other_files_are_refused(localizer, tmp_path):
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "cut.npz").write_bytes(localizer.write().read_bytes()[:2000])
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.npz")
    for name in ("text.npz", "cut.npz", "absent.npz", "pipe.npz", "."):
        with pytest.raises(CheckpointError, match=r"no \.npz|truncated|no file|cannot be read"):
            localizer.check(path=tmp_path / name)


def test_one_reference_for_each_network(localizer):
    with pytest.raises(CheckpointError, match=r"2 network\(s\).*cervical=REF,lumbar=REF"):
        prove(
            [replace(localizer.network, role=role) for role in ("cervical", "lumbar")],
            "a.npz",
            localizer.size,
            None,
            False,
        )
    with pytest.raises(CheckpointError, match=r"1 network\(s\).*one file"):
        prove([localizer.network], "cervical=a.npz,lumbar=b.npz", localizer.size, None, False)
    both = [replace(localizer.network, role=role) for role in ("cervical", "lumbar")]
    path = localizer.write()
    prove(both, f"cervical={path},lumbar={path}", localizer.size, None, False)
    assert all(network.checked for network in both)


def test_random_weights_cannot_be_checked(localizer):
    network = open_network("synthetic:hrnet-w8", "localizer", "", InputSize(None, 64, 32))
    with pytest.raises(CheckpointError, match="random weights cannot be checked"):
        prove([network], str(localizer.write()), localizer.size, None, False)
