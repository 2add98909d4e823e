"""An input's normalisation: stated, or assumed if it is not; an ONNX file must have it stated."""

from __future__ import annotations

import json

import onnx
import pytest

from helpers.golden_networks import SIZES, mean_grader, pool_localizer, unpacked
from spinescore.export.defaults import input_size, mean_and_std
from spinescore.export.networks import open_graders, open_localizers
from spinescore.export.sources import open_network
from spinescore.runtime import cli
from spinescore.runtime.errors import BundleError, CheckpointError


def manifest(kind, **fields):
    return {kind: {"input": {"height": 64, "width": 64, **fields}}}


@pytest.mark.parametrize(("kind", "model"), [("localizer", pool_localizer()), ("grader", mean_grader())])
@pytest.mark.parametrize("fields", [{}, {"mean": [0, 0, 0]}, {"std": [1, 1, 1]}])
def test_onnx_files_want_their_normalisation_stated(tmp_path, kind, model, fields):
    onnx.save(model, str(tmp_path / "net.onnx"))
    size = input_size(manifest(kind, **fields), kind)
    with pytest.raises(CheckpointError) as caught:
        open_network(str(tmp_path / "net.onnx"), kind, "" if kind == "localizer" else "corners", size)
    for line in ("net.onnx", f"[{kind}.input]", *(f'preprocessing = "{n}"' for n in ("imagenet", "caffe", "none"))):
        assert line in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"preprocessing": "caffe"}, "caffe, as the manifest file states"),
        ({"mean": [0, 0, 0], "std": [0.0039, 0.0039, 0.0039]}, "mean and std as the manifest file states them"),
    ],
)
def test_onnx_files_with_it_are_read(tmp_path, fields, said):
    onnx.save(pool_localizer(), str(tmp_path / "net.onnx"))
    (network,) = open_localizers(str(tmp_path / "net.onnx"), manifest("localizer", **fields))
    assert network.provenance["normalisation"] == said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("keras-resnet50-corner4.h5", "caffe, assumed for a Keras file"),
        ("resnet50-corner4.pth", "imagenet, assumed for a PyTorch file"),
    ],
)
def test_what_is_assumed_of_other_files_is_said(tmp_path, name, said):
    path = str(unpacked(name, tmp_path))
    _, (network,) = open_graders(path, SIZES)
    assert network.provenance["normalisation"] == said
    _, (network,) = open_graders(path, manifest("grader", preprocessing="none"))
    assert network.provenance["normalisation"] == "none, as the manifest file states"


def test_weights_alone_of_keras_say_what_they_do_not_show(tmp_path):
    _, (network,) = open_graders(str(unpacked("keras-resnet50-corner4.h5", tmp_path)), SIZES)
    assert any("weights alone do not show operators" in note for note in network.warnings)
    _, (network,) = open_graders(str(unpacked("keras-resnet152-corners4.h5", tmp_path)), SIZES)
    assert network.warnings == ()
    _, (network,) = open_graders(str(tmp_path / "keras-resnet152-corners4.h5"), {})
    assert network.warnings == (
        "the model was built for 64x64 pixels, the manifest gives it 224x224; set grader.input.height and width to "
        "what it was trained on",
    )


def test_short_forms_are_written_out():
    assert mean_and_std("imagenet", 3) == {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    assert mean_and_std("caffe", 3)["std"] == [1 / 255] * 3
    assert mean_and_std("none", 2) == {"mean": [0.0, 0.0], "std": [1.0, 1.0]}
    assert mean_and_std("imagenet", 1)["mean"] == [pytest.approx(0.449)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"preprocessing": "tf"}, r"grader\.input\.preprocessing is 'tf'; known are imagenet, caffe, none"),
        ({"preprocessing": ["none"]}, "known are imagenet"),
        ({"preprocessing": "cafe"}, r"did you mean caffe\?"),
        (
            {"mean": "caffe"},
            r'grader\.input\.mean is \'caffe\'.* write preprocessing = "caffe" instead of mean and std',
        ),
        ({"mean": "usual"}, "list of numbers, per channel; give numbers, or preprocessing.* known are imagenet, caffe"),
        ({"preprocessing": "none", "std": [1, 1, 1]}, "has preprocessing and std"),
    ],
)
def test_short_forms_that_are_none(fields, message):
    with pytest.raises(BundleError, match=message):
        input_size(manifest("grader", **fields), "grader")


def test_the_export_prints_and_keeps_it(tmp_path, capsys):
    onnx.save(pool_localizer(), str(tmp_path / "localizer.onnx"))
    fields = manifest("localizer", preprocessing="none") | manifest("grader")
    (tmp_path / "fields.json").write_text(json.dumps(fields))
    grader = unpacked("keras-resnet152-corners4.h5", tmp_path)
    command = ["export", "--localizer", str(tmp_path / "localizer.onnx"), "--grader", str(grader), "--half-weights"]
    out = tmp_path / "b"
    more = ["--manifest", str(tmp_path / "fields.json"), "--golden-studies", "1", "--out", str(out)]
    assert cli.main([*command, *more]) == 0
    printed = capsys.readouterr().out
    assert "localizer: none, as the manifest file states" in printed
    assert "grader: caffe, assumed for a Keras file" in printed
    written = json.loads((out / "bundle.json").read_text())
    assert (written["localizer"]["input"]["mean"], written["localizer"]["input"]["std"]) == ([0.0] * 3, [1.0] * 3)
    assert "preprocessing" not in written["localizer"]["input"]
