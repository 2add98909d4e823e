"""INT8: the search for layers that stay in FP32, and exports with INT8 files."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import helper

from helpers.golden_networks import mean_grader, model_of, pool_localizer, unpacked
from spinescore.export import sensitivity
from spinescore.export.bundle import export_bundle
from spinescore.export.checkpoints import read_checkpoint
from spinescore.export.int8 import RULES, calibrate, layers, quantize, sample_first
from spinescore.export.resnet152 import build_resnet
from spinescore.export.sensitivity import make_int8
from spinescore.export.sessions import run_model
from spinescore.runtime import cli
from spinescore.runtime.acceptance.comparison import GradeAgreement
from spinescore.runtime.errors import CheckpointError
from spinescore.runtime.manifest.tolerances import Tolerances
from spinescore.runtime.phantom import write_study


@pytest.fixture(scope="module")
def residual():
    """Return a network of ten convolutions and four sums, small enough to be searched again and again."""
    rng, nodes, constants = np.random.default_rng(3), [], {}

    def convolve(source, name, channels=(8, 8), relu=True):
        constants[f"{name}.w"] = rng.normal(0, 0.2, (*channels, 3, 3)).astype(np.float32)
        constants[f"{name}.b"] = rng.normal(0, 0.1, channels[0]).astype(np.float32)
        nodes.append(helper.make_node("Conv", [source, f"{name}.w", f"{name}.b"], [name], name=name, pads=[1] * 4))
        return rectify(name) if relu else name

    def rectify(name):
        nodes.append(helper.make_node("Relu", [name], [f"{name}.relu"], name=f"{name}.relu"))
        return f"{name}.relu"

    last = convolve("x", "stem", (8, 3))
    for block in range(4):
        inner = convolve(convolve(last, f"a{block}"), f"b{block}", relu=False)
        nodes.append(helper.make_node("Add", [last, inner], [f"sum{block}"], name=f"sum{block}"))
        last = rectify(f"sum{block}")
    convolve(last, "y", (2, 8), relu=False)
    return model_of(nodes, constants, ("N", 3, 64, 64), ("N", 2, 64, 64))


def flipped(count):
    return GradeAgreement(
        corners=1000, logit_difference=0.1, flips=count, reference_total=0, total=0, largest_total_change=0
    )


def attempts(residual, images, flips):
    """Return the search's result if attempt n flips `flips[n]` of 1,000 grades, and later ones as many as the last."""
    left = list(flips)
    reference = run_model(residual, images)
    return make_int8(
        residual, images, reference, lambda _: flipped(left.pop(0) if len(left) > 1 else left[0]), Tolerances(), "net"
    )


def test_search_stops_at_the_bounds(residual, images):
    found = attempts(residual, images, [5])
    assert [step.kept for step in found.steps] == [()] * len(RULES)
    assert found.model is not None
    assert found.fault is None


def test_search_takes_the_rule_of_the_smallest_error(residual, images):
    found = attempts(residual, images, [0])
    best = min(found.steps, key=lambda step: step.error).rule
    ends = {layers(residual, "Conv")[0], layers(residual, "Conv")[-1]}
    chosen = quantize(residual, calibrate(residual, images)[best], ends)
    assert found.model.SerializeToString() == chosen.SerializeToString()


def test_search_keeps_the_sums_then_group_after_group(residual, images, monkeypatch):
    monkeypatch.setattr(sensitivity, "_GROUPS", 3)
    found = attempts(residual, images, [9] * 5 + [4])
    assert [len(step.kept) for step in found.steps] == [0, 0, 0, 1, 2, 3]
    assert all(step.kept[0] == "sums" for step in found.steps[3:])
    assert found.steps[-1].within
    assert found.steps[-1].error < min(step.error for step in found.steps[:3])
    sums = [node for node in found.model.graph.node if node.op_type == "Add"]
    assert not any(name.endswith(".dequantized") for node in sums for name in node.input)


def test_search_that_fails_says_so(residual, images, monkeypatch):
    monkeypatch.setattr(sensitivity, "_MOST_KEPT", 1)
    found = attempts(residual, images, [500])
    assert found.model is None
    assert "not within the tolerances" in found.fault
    assert len(found.steps) == len(RULES) + 2


def test_blank_or_few_images_cannot_calibrate(residual, images):
    for few in (images[:3], np.zeros_like(images)):
        with pytest.raises(CheckpointError, match=r"at least 8 golden pictures .* give more radiographs"):
            make_int8(residual, few, few, lambda _: flipped(0), Tolerances(), "localizer")


def test_network_without_inner_layers_has_no_int8(images):
    found = make_int8(pool_localizer(), images, images, lambda _: flipped(0), Tolerances(), "localizer")
    assert found.model is None
    assert "layers with weights" in found.fault


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    for seed in range(4):
        write_study(41 + seed, folder / str(seed))
    unpacked("hrnet-legacy.pth", folder)
    onnx.save(mean_grader(), str(folder / "grader.onnx"))
    size = {"input": {"height": 64, "width": 64, "preprocessing": "imagenet"}}
    (folder / "small.json").write_text(json.dumps({"localizer": size, "grader": size}))
    return folder


def test_export_writes_int8_beside_the_rest(study, tmp_path, capsys):
    arguments = ["export", "--localizer", f"{study / 'hrnet-legacy.pth'}", "--grader", f"{study / 'grader.onnx'}"]
    arguments += ["--out", f"{tmp_path / 'mine'}", "--manifest", f"{study / 'small.json'}", "--int8"]
    assert cli.main([*arguments, "--golden", *(f"{study / str(n)}" for n in range(4))]) == 0
    said = capsys.readouterr()
    assert "INT8, localizer: ranges by extremes: error" in said.out
    assert "grader: written without INT8: it has" in said.err
    assert "onnxruntime int8" in said.out  # the gate has run, and left its record
    assert list((tmp_path / "mine" / "acceptance").glob("acceptance-cpu-onnxruntime-*-int8-*.json"))
    manifest = json.loads((tmp_path / "mine" / "bundle.json").read_text())
    assert manifest["localizer"]["files"]["lumbar"]["int8"] == "localizer.int8.onnx"
    assert manifest["files"]["localizer.int8.onnx"]["precision"] == "int8"
    assert "int8" not in manifest["grader"]["files"]["corners"]
    steps = manifest["provenance"]["networks"]["localizer"]["int8"]["steps"]
    assert [step["rule"] for step in steps][: len(RULES)] == list(RULES)


def test_strict_export_wants_int8_of_every_network(study, tmp_path, monkeypatch):
    monkeypatch.setattr(sensitivity, "RULES", RULES[:1])  # the localizer's search need not be a long one
    with pytest.raises(CheckpointError, match="grader: no INT8"):
        export_bundle(
            f"{study / 'hrnet-legacy.pth'}",
            f"{study / 'grader.onnx'}",
            tmp_path / "mine",
            manifest=study / "small.json",
            golden=[study],
            int8=True,
            strict=True,
        )
    assert not (tmp_path / "mine").exists()


def test_keras_strides_are_taken_once_before_the_layers_that_share_them(tmp_path):
    tensors = read_checkpoint(unpacked("keras-resnet50-corner4.h5", tmp_path)).tensors
    plain = build_resnet(tensors, 64, 64)
    sampled = sample_first(plain)
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    np.testing.assert_array_equal(run_model(sampled, images, "sampled"), run_model(plain, images, "plain"))
    nodes = {node.name: node for node in sampled.graph.node}
    pools = [name for name in nodes if name.endswith(".sampled")]
    assert len(pools) == 3
    for number, pool in enumerate(pools, 3):
        readers = [name for name, node in nodes.items() if node.input[0] == pool]
        assert readers == [f"conv{number}_block1_0_conv", f"conv{number}_block1_1_conv"]
        strides = {a.name: list(a.ints) for reader in readers for a in nodes[reader].attribute}["strides"]
        assert strides == [1, 1]
    assert sample_first(sampled) == sampled


def test_a_stride_that_not_all_readers_have_stays_where_it_is(hrnet, tmp_path):
    torch = build_resnet(read_checkpoint(unpacked("resnet50-corner4.pth", tmp_path)).tensors, 64, 64)
    assert sample_first(torch) == torch  # the first layer of a block reads every pixel, the shortcut every second one
    assert sample_first(hrnet) == hrnet


def test_the_search_is_held_to_all_criteria_of_the_gate(residual, images):
    """Equal grades are not enough if logits move far (and the other way round)."""
    reference = run_model(residual, images, "FP32")

    def judge(output):
        return GradeAgreement(216, 0.25, 0, 9, 9, 0)

    found = make_int8(residual, images, reference, judge, Tolerances(), "network")
    assert found.model is None
    assert all(step.faults == "logit difference 0.25, at most 0.2" for step in found.steps)
    assert "logit difference 0.25, at most 0.2" in found.fault
    assert "beyond the tolerances: logit difference 0.25" in str(found.steps[0])
