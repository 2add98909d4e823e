"""The choice of the network among a file's tensors: wrapped names, averaged weights, OpenMMLab's names."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from golden import make_checkpoints
from golden.packing import contents

from helpers.checkpoint_files import saved
from spinescore.export import read_checkpoint
from spinescore.export.networks import open_graders, open_localizers
from spinescore.export.resnet152 import build_resnet
from spinescore.export.sources import InputSize, open_network, split_key
from spinescore.export.synthetic import parse_synthetic, random_tensors
from spinescore.runtime import cli
from spinescore.runtime.errors import CheckpointError

SIZE = InputSize(None, 64, 64)
WEIGHTS = contents("weights")


def official(name, outputs):
    return dict(random_tensors(parse_synthetic(f"synthetic:{name}"), outputs, 3))


@pytest.fixture(scope="module")
def hrnet(tmp_path_factory):
    """Return a whole HRNet with few weights."""
    path = tmp_path_factory.mktemp("golden") / "w.pth"
    path.write_bytes(WEIGHTS["thin.pth"])
    return dict(read_checkpoint(path).tensors)


@pytest.fixture(scope="module")
def resnet():
    return official("resnet50-w2", 8)


@pytest.fixture
def save(tmp_path):
    def written(root, name="weights.pth"):
        (tmp_path / name).write_bytes(root if isinstance(root, bytes) else saved(root))
        return tmp_path / name

    return written


def behind(prefix, tensors):
    return {prefix + name: value for name, value in tensors.items()}


def raised(tensors):
    """Return the same network after more training."""
    return {name: value + np.float32(1) for name, value in tensors.items()}


def assert_same(found, tensors):
    assert list(found) == list(tensors)
    for name, value in tensors.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("name", ["mmpose1.pth", "mmpose0.pth", "compiled.pth", "averaged.pth"])
def test_files_of_real_trainings_give_the_official_tensors(name, save):
    key = "state_dict" if name == "averaged.pth" else ""
    checkpoint = read_checkpoint(save(WEIGHTS[name]), key)
    assert len(checkpoint.tensors) == 517
    for entry, tensor in checkpoint.tensors.items():
        np.testing.assert_array_equal(tensor, make_checkpoints.two_values(entry, tensor.shape), err_msg=entry)
    if "mmpose" in name:
        assert checkpoint.notes == (
            "its names (backbone.*, head.*) are OpenMMLab's and were brought to the official ones",
        )


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "_orig_mod.module.", "net.", "a.b.c."])
@pytest.mark.parametrize("container", ["", "state_dict", "module", "params_ema", "net"])
def test_one_beginning_is_taken_off_and_said(prefix, container, resnet, save):
    root = behind(prefix, resnet)
    path = save({container: root, "epoch": 3} if container else root)
    checkpoint = read_checkpoint(path)
    assert_same(checkpoint.tensors, resnet)
    assert checkpoint.notes == (f"the beginning {prefix!r} was taken off the names of its {len(resnet)} tensors",)
    assert checkpoint.key == ".".join(filter(None, [container, prefix[:-1]]))
    assert_same(read_checkpoint(path, checkpoint.key).tensors, resnet)


def test_the_network_says_what_was_taken_off(hrnet, save):
    network = open_network(str(save({"state_dict": behind("_orig_mod.", hrnet)})), "localizer", "", SIZE)
    assert network.provenance["source_key"] == "state_dict._orig_mod"
    assert "'_orig_mod.' was taken off" in network.notes[0]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("state_dict", "state_dict_ema"),
        ("model", "model_ema"),
        ("params", "params_ema"),
        ("state_dict", "best_state_dict"),
        ("ema", "model"),
        ("student", "teacher"),
        ("last", "best"),
        ("model_state_dict", "best_model_wts"),
        ("state_dict", "callbacks_best"),
    ],
)
@pytest.mark.parametrize("wrapped", ["", "module."])
def test_two_sets_are_refused_until_one_is_named(first, second, wrapped, resnet, save):
    later = behind(wrapped, raised(resnet))
    path = save({first: resnet, "optimizer": {"state": [resnet["conv1.weight"]]}, second: later})
    with pytest.raises(CheckpointError) as caught:
        open_network(str(path), "grader", "corners", SIZE)
    full = f"{second}.{wrapped}".rstrip(".")
    assert all(part in str(caught.value) for part in ("weights.pth: 2 sets", repr(first), repr(full), f"FILE:{full}"))
    assert_same(read_checkpoint(path, first).tensors, resnet)
    assert_same(read_checkpoint(path, second).tensors, raised(resnet))
    assert_same(read_checkpoint(path, full).tensors, raised(resnet))


@pytest.mark.parametrize(
    ("second", "key"),
    [
        ({"best": {"epoch": 1, "state_dict": None}}, "best.state_dict"),
        ({"ema": {"decay": 0.99, "shadow": None}}, "ema.shadow"),
        ({"callbacks": {"EMA": {"ema_state_dict": None}}}, "callbacks.EMA.ema_state_dict"),
        ({"history": [{"epoch": 1, "state_dict": None}]}, "history.0.state_dict"),
        ({"optimizer": {"ema_weights": None}}, "optimizer.ema_weights"),
    ],
)
def test_a_second_set_deeper_in_the_file_is_found(second, key, hrnet, save):
    def filled(part):
        if isinstance(part, dict):
            return {name: filled(value) for name, value in part.items()}
        return [filled(value) for value in part] if isinstance(part, list) else raised(hrnet) if part is None else part

    path = save({"state_dict": hrnet, **filled(second)})
    with pytest.raises(CheckpointError, match=rf"2 sets of weights fit.*'state_dict', '{re.escape(key)}'"):
        read_checkpoint(path)
    assert_same(read_checkpoint(path, "state_dict").tensors, hrnet)
    assert_same(read_checkpoint(path, key).tensors, raised(hrnet))


@pytest.mark.parametrize("beside", ["ema", "optimizer_states"])
@pytest.mark.parametrize("left_out", ["running_", "nothing"])
def test_an_average_without_names_is_refused_until_the_network_is_named(beside, left_out, hrnet, save):
    average = [value + 1 for name, value in hrnet.items() if left_out not in name]
    filled = {"shadow_params": average} if beside == "ema" else [{"ema": average, "state": {}}]
    path = save({"model": hrnet, beside: filled})
    with pytest.raises(CheckpointError, match=r"beside the weights under 'model' stands a list .*EMA.*FILE:model"):
        read_checkpoint(path)
    assert_same(read_checkpoint(path, "model").tensors, hrnet)


def test_two_sets_in_one_dictionary(hrnet, save):
    root = {**behind("student.", hrnet), **behind("teacher.", raised(hrnet))}
    path = save(root)
    with pytest.raises(CheckpointError, match=r"2 sets of weights fit.*'student', 'teacher'"):
        read_checkpoint(path)
    assert_same(read_checkpoint(path, "teacher").tensors, raised(hrnet))


def test_two_names_of_the_same_weights_are_one_set(hrnet, save):
    copies = {name: value.copy() for name, value in hrnet.items()}
    for other in (hrnet, copies):
        checkpoint = read_checkpoint(save({"state_dict": behind("module.", hrnet), "best_state_dict": other}))
        assert_same(checkpoint.tensors, hrnet)
        assert any("'best_state_dict' are the same" in note for note in checkpoint.notes)


def test_the_only_set_that_fits_is_taken_and_said(hrnet, resnet, save):
    path = save({"critic": {"conv.weight": np.ones((2, 2, 3, 3), np.float32)}, "model": hrnet})
    checkpoint = read_checkpoint(path)
    assert_same(checkpoint.tensors, hrnet)
    assert checkpoint.notes == ("the weights under 'model' were taken; other tensors stand under 'critic'",)
    path = save({"localizer": hrnet, "grader": resnet})
    assert_same(read_checkpoint(path, architecture="hrnet").tensors, hrnet)
    assert_same(read_checkpoint(path, architecture="resnet").tensors, resnet)


def test_tensors_beside_a_wrapped_network_are_named(hrnet, save):
    root = {"state_dict": {**behind("model.", hrnet), "criterion.weight": np.ones(3, np.float32)}}
    with pytest.raises(CheckpointError, match=r"stand 'state_dict.criterion.weight'.*FILE:state_dict.model"):
        read_checkpoint(save(root))
    assert_same(read_checkpoint(save(root), "state_dict.model").tensors, hrnet)


def test_containers_beside_a_network_at_the_top(hrnet, save):
    assert_same(read_checkpoint(save({**hrnet, "optimizer": {"m": hrnet["conv1.weight"]}})).tensors, hrnet)
    path = save({**hrnet, "ema": raised(hrnet)})
    with pytest.raises(CheckpointError, match=r"2 sets of weights fit.*: '\.', 'ema'"):
        read_checkpoint(path)
    assert_same(read_checkpoint(path, ".").tensors, hrnet)
    assert_same(read_checkpoint(path, "ema").tensors, raised(hrnet))


def test_backbone_and_head_in_two_dictionaries(hrnet, save):
    parts = {"backbone": without("final_layer", hrnet)}
    parts["head"] = {name: value for name, value in hrnet.items() if "final_layer" in name}
    assert_same(read_checkpoint(save({**parts, "optimizer": {"m": ones(2, 2)}})).tensors, hrnet)


def test_steps_beside_a_wrapped_network_are_no_tensors_of_it(hrnet, save):
    root = {"ema": {**behind("module.", hrnet), "n_averaged": np.array(5)}}
    assert_same(read_checkpoint(save(root)).tensors, hrnet)


def test_a_key_without_tensors(hrnet, save):
    with pytest.raises(CheckpointError, match="no tensor stands under 'ema'; tensors stand under 'net'"):
        read_checkpoint(save({"net": hrnet, "epoch": 3}), "ema")


def test_sets_in_npz_and_safetensors(hrnet, save):
    root = {**behind("student.", hrnet), **behind("teacher.", raised(hrnet))}
    stream = io.BytesIO()
    np.savez(stream, **root)
    header, body = {}, b""
    for name, value in root.items():
        header[name] = {"dtype": "F32", "shape": value.shape, "data_offsets": [len(body), len(body) + value.nbytes]}
        body += value.tobytes()
    text = json.dumps(header).encode()
    for data in (stream.getvalue(), len(text).to_bytes(8, "little") + text + body):
        with pytest.raises(CheckpointError, match="2 sets of weights"):
            read_checkpoint(save(data))
        assert_same(read_checkpoint(save(data), "teacher").tensors, raised(hrnet))


def test_openmmlab_names_of_a_classifier(resnet, save):
    names = {name: f"head.{name}" if name.startswith("fc.") else f"backbone.{name}" for name in resnet}
    checkpoint = read_checkpoint(save({"state_dict": {names[name]: value for name, value in resnet.items()}}))
    assert_same(checkpoint.tensors, resnet)


@pytest.mark.parametrize(
    ("source", "file", "key"),
    [
        ("w.pth", "w.pth", ""),
        ("w.pth:ema", "w.pth", "ema"),
        ("w.pth:state_dict.ema.module", "w.pth", "state_dict.ema.module"),
        ("C:\\nets\\w.pth", "C:\\nets\\w.pth", ""),
        ("C:/nets/w.pth", "C:/nets/w.pth", ""),
        ("C:w.pth", "C:w.pth", ""),
        ("C:\\nets\\w.pth:ema", "C:\\nets\\w.pth", "ema"),
        ("\\\\?\\C:\\nets\\w.pth", "\\\\?\\C:\\nets\\w.pth", ""),
        ("w.pth:", "w.pth:", ""),
    ],
)
def test_keys_behind_files(source, file, key):
    assert split_key(source) == (Path(file), key)


def test_a_file_that_has_a_colon_in_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        Path("run:3").write_bytes(b"")
    except OSError:
        pytest.skip("no colons in names here")
    assert split_key("run:3") == (Path("run:3"), "")
    assert split_key("run:3:ema") == (Path("run:3"), "ema")


def test_keys_on_the_command_line(hrnet, resnet, save, tmp_path, capsys):
    mild = {name: value / np.float32(32) if value.ndim == 4 else np.abs(value) for name, value in hrnet.items()}
    localizer = save({"state_dict": mild, "state_dict_ema": raised(mild)}, "l.pth")
    grader = save({"ema": {"module": resnet}, "model": raised(resnet)}, "g.pth")
    (tmp_path / "small.json").write_text(
        json.dumps({part: {"input": {"height": 64, "width": 64}} for part in ("localizer", "grader")})
    )
    command = ["export", "--manifest", str(tmp_path / "small.json"), "--golden-studies", "1", "--half-weights", "--out"]
    parts = f"cervical={localizer}:state_dict,lumbar={localizer}:state_dict"
    assert cli.main([*command, str(tmp_path / "b"), "--localizer", parts, "--grader", f"{grader}:ema"]) == 0
    said = capsys.readouterr().err
    taken = "the weights under 'state_dict' were taken; other tensors stand under 'state_dict_ema'"
    assert f"note: localizer-cervical: {taken}" in said.splitlines()
    assert cli.main([*command, str(tmp_path / "c"), "--localizer", str(localizer), "--grader", f"{grader}:ema"]) == 4
    said = capsys.readouterr().err
    assert "l.pth: 2 sets" in said
    assert "state_dict_ema" in said


@pytest.mark.parametrize(("bridge", "grades"), [(2, 7), (7, 3), (3, 2)])
def test_a_fault_in_one_of_two_files_names_it(bridge, grades, save):
    files = {role: save(official("resnet50-w2", outputs), f"{role}.pth") for role, outputs in
             (("bridge", bridge), ("grades", grades))}  # fmt: skip
    at_fault = "grades" if bridge == 2 else "bridge"
    with pytest.raises(CheckpointError, match=rf"{at_fault}\.pth: "):
        open_graders(f"bridge={files['bridge']},grades={files['grades']}", {})


def test_two_files_of_one_name_are_told_apart(hrnet, tmp_path):
    for folder, root in (("a", hrnet), ("b", {**hrnet, "extra.weight": np.ones((2, 2), np.float32)})):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "best.pth").write_bytes(saved(root))
    with pytest.raises(CheckpointError, match=r"^lumbar: best\.pth: HRNet: .*extra\.weight"):
        open_localizers(f"cervical={tmp_path / 'a' / 'best.pth'},lumbar={tmp_path / 'b' / 'best.pth'}", {})


def without(pattern, tensors):
    return {name: value for name, value in tensors.items() if pattern not in name}


def ones(*shape):
    return np.ones(shape, np.float32)


RELATIVES = {
    "monai": (lambda r: {**r, "layer1.0.downsample.0.bias": ones(8)}, "MONAI's.*conv1_t_stride.*torch.onnx.export"),
    "monai type A": (lambda r: without("downsample", r), "layer2.0 halves .* type A"),
    "volumes": (lambda r: {**r, "conv1.weight": ones(2, 3, 7, 7, 7)}, "for volumes"),
    "deep stem": (lambda r: {**without("conv1.weight", r), "conv1.0.weight": ones(2, 3, 3, 3)}, "stem of several"),
    "small stem": (lambda r: {**r, "conv1.weight": ones(2, 3, 3, 3)}, "conv1.weight is 3x3"),
    "resnet-d": (
        lambda r: {
            n.replace("downsample.1", "downsample.2").replace("downsample.0", "downsample.1"): v for n, v in r.items()
        },
        "ResNet-D",
    ),
    "se": (lambda r: {**r, "layer1.0.se.fc1.weight": ones(2, 2, 1, 1)}, "squeeze-and-excitation"),
    "cbam": (lambda r: {**r, "layer1.0.cbam.mlp.weight": ones(2, 2)}, "attention in its blocks"),
    "blur": (lambda r: {**r, "layer2.0.conv3.0.filt": ones(1, 1, 3, 3)}, "BlurPool"),
    "grouped": (lambda r: {n: v[:, :1] if n.endswith("conv2.weight") else v for n, v in r.items()}, "ResNeXt"),
    "group norm": (lambda r: without("running", r), "GroupNorm"),
    "biases": (lambda r: {**r, "layer1.0.conv1.bias": ones(2)}, "came from Keras"),
    "prelu": (lambda r: {**r, "layer1.0.prelu.weight": ones(2)}, "PReLU"),
    "preactivation": (lambda r: {**r, "layer1.0.bn3.weight": ones(2)}, "pre-activation"),
    "two heads": (
        lambda r: {**without("fc.", r), "fc_upper.weight": ones(4, 64), "fc_lower.weight": ones(4, 64)},
        r"several heads \(fc_upper, fc_lower\)",
    ),
    "other head": (lambda r: {n.replace("fc.", "classifier."): v for n, v in r.items()}, "called classifier"),
    "norm in head": (lambda r: {**r, "fc.1.running_mean": ones(8), "fc.1.running_var": ones(8)}, "batch normalisation"),
    "two poolings": (lambda r: {**r, "fc.weight": ones(8, 128)}, "two kinds of pooling"),
    "pruned": (lambda r: {**r, "conv1.weight_mask": ones(2, 3, 7, 7)}, "prune.remove"),
    "wrapped": (lambda r: {n.replace("layer1.", "layer1._orig_mod."): v for n, v in r.items()}, "parts in a wrapper"),
    "quantised": (lambda r: {**r, "conv1.weight_fake_quant.scale": ones(1)}, "quantised"),
    "pose": (lambda r: {**r, "deconv_layers.0.weight": ones(2, 2, 4, 4)}, "gives heatmaps, no grades"),
}


@pytest.mark.parametrize("name", RELATIVES)
def test_relatives_of_resnet_are_refused_with_the_reason(name, resnet):
    change, message = RELATIVES[name]
    with pytest.raises(CheckpointError, match=message):
        build_resnet(change(resnet), 64, 64)


def test_a_wide_resnet_is_read(resnet):
    """The 3x3 convolutions have twice the width, as in wide_resnet50_2; the shapes show it."""
    wide = {}
    for name, value in resnet.items():
        inner = "layer" in name and any(f".{part}." in name for part in ("conv1", "conv2", "bn1", "bn2"))
        wide[name] = np.concatenate([value, value]) if inner else value
        if name.endswith(("conv2.weight", "conv3.weight")):
            wide[name] = np.concatenate([wide[name]] * 2, axis=1) / 2
    graph = build_resnet(wide, 64, 64)
    assert [int(dim.dim_value) for dim in graph.graph.output[0].type.tensor_type.shape.dim][1] == 8


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("incre_modules.0.0.conv1.weight", "HRNet that classifies"),
        ("final_layers.0.weight", "HigherHRNet"),
        ("last_layer.0.weight", "segments"),
        ("keypoint_head.deconv_layers.0.weight", "deconvolutions"),
        ("head.cls_x.weight", "coordinates"),
        ("head.0.weight", "HRNet for faces"),
    ],
)
def test_relatives_of_hrnet_are_refused_with_the_reason(extra, message, hrnet, save):
    root = {**without("final_layer", hrnet), extra: ones(2, 2, 1, 1)}
    with pytest.raises(CheckpointError, match=rf"^weights\.pth: HRNet: .*{message}"):
        open_network(str(save(root)), "localizer", "", SIZE)
