"""The meaning of a grader's outputs: stated by the owner, required if there is no usual order, kept in the manifest."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import helper

from helpers.golden_networks import SMALL, mean_grader, unpacked, write_inputs
from spinescore.export.bundle import export_bundle
from spinescore.export.networks import in_bundle_order
from spinescore.export.sessions import run_model
from spinescore.export.sources import InputSize, open_network
from spinescore.runtime import cli
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.engines.half import to_half
from spinescore.runtime.errors import BundleError, CheckpointError
from spinescore.runtime.manifest import CLASSES

PICTURES = np.random.default_rng(4).normal(size=(3, 3, 64, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    for name in ("resnet50-bridge.pth", "resnet50-grades.pth"):
        unpacked(name, folder)
    write_inputs(folder)
    onnx.save(mean_grader(2), str(folder / "bridge.onnx"))
    onnx.save(mean_grader(3), str(folder / "grades.onnx"))
    return folder


def grader(path, role="corners"):
    return open_network(str(path), "grader", role, InputSize(None, 64, 64, "none"))


def stated(**classes):
    return {"grader": {"classes": classes}}


def exported(inputs, out, classes=None, source="bridge={0}/bridge.onnx,grades={0}/grades.onnx", **options):
    fields = {**SMALL, "grader": {**SMALL["grader"], **({} if classes is None else {"classes": classes})}}
    (inputs / "fields.json").write_text(json.dumps(fields), encoding="utf-8")
    options = {"manifest": inputs / "fields.json", "golden": [inputs / "study"], "precisions": ("fp32",), **options}
    return export_bundle(f"{inputs}/localizer.onnx", source.format(inputs), out, **options)


def logits(bundle, role):
    model = onnx.load(str(bundle.folder / f"grader-{role}.fp32.onnx"))
    return run_model(model, PICTURES)


def test_bridge_network_without_a_statement_stops_with_both_choices(inputs, tmp_path):
    with pytest.raises(CheckpointError) as error:
        exported(inputs, tmp_path / "b")
    message = str(error.value)
    assert message.startswith("bridge.onnx: which of its 2 outputs means bridge")
    first = '(in a --manifest file: [grader.classes] bridge = ["bridge", "no-bridge"])'
    assert f"--bridge-class 0 if the first output is the bridge {first}" in message
    assert '--bridge-class 1 if the second is (bridge = ["no-bridge", "bridge"])' in message
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("by", ["option", "manifest"])
def test_either_statement_of_the_bridge_is_followed(inputs, tmp_path, by):
    def bundle(bridge_class):
        order = ["bridge", "no-bridge"] if bridge_class == 0 else ["no-bridge", "bridge"]
        how = {"bridge_class": bridge_class} if by == "option" else {"classes": {"bridge": order}}
        return exported(inputs, tmp_path / str(bridge_class), **how)

    first, second = bundle(0), bundle(1)
    np.testing.assert_array_equal(logits(first, "bridge"), logits(second, "bridge")[:, ::-1])
    np.testing.assert_array_equal(logits(first, "grades"), logits(second, "grades"))
    for report in (first, second):
        manifest = Bundle.open(report.folder).manifest
        assert manifest.grader.classes == {"bridge": ("no-bridge", "bridge"), "grades": ("0", "1", "2")}
    assert (
        "order bridge, no-bridge to no-bridge, bridge"
        in first.manifest.provenance["networks"]["grader-bridge"]["changes"][-1]
    )


def test_contradicting_and_idle_statements_are_refused(inputs, tmp_path):
    with pytest.raises(BundleError, match="--bridge-class 0 contradicts"):
        exported(inputs, tmp_path / "b", {"bridge": ["no-bridge", "bridge"]}, bridge_class=0)
    with pytest.raises(BundleError, match="this grader has none"):
        exported(inputs, tmp_path / "b", source="{0}/grader.onnx", bridge_class=0)


def test_random_weights_need_no_statement(inputs, tmp_path):
    source = "bridge=synthetic:resnet50-w2,grades=synthetic:resnet50-w2"
    exported(inputs, tmp_path / "b", source=source)


@pytest.mark.parametrize("turned", [False, True], ids=["gemm", "other end"])
@pytest.mark.parametrize("transposed", [False, True])
def test_outputs_are_brought_to_the_bundles_order_exactly(tmp_path, turned, transposed):
    model = mean_grader(8)
    if transposed:
        weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
        weight.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(onnx.numpy_helper.to_array(weight).T), "w"))
        model.graph.node[-1].attribute.append(helper.make_attribute("transB", 1))
    if turned:
        model.graph.node[-1].output[:] = ["almost"]
        model.graph.node.append(helper.make_node("Neg", ["almost"], ["y"]))
    onnx.save(model, str(tmp_path / "g.onnx"))
    network = grader(tmp_path / "g.onnx")
    order = [f"{corner}-{grade}" for grade in (3, 1, 0, 2) for corner in ("lower", "upper")]
    (ordered,) = in_bundle_order([network], stated(corners=order))
    before, after = run_model(network.model, PICTURES), run_model(ordered.model, PICTURES)
    np.testing.assert_array_equal(after, before[:, [order.index(name) for name in CLASSES[8]]])
    assert any(node.op_type == "Gather" for node in ordered.model.graph.node) == turned
    half = run_model(to_half(ordered.model)[0], PICTURES)
    np.testing.assert_allclose(half, after, atol=0.05)


def test_checkpoint_with_another_order_keeps_its_architecture(inputs):
    network = grader(inputs / "resnet50-grades.pth", "grades")
    (ordered,) = in_bundle_order([network], stated(grades=[2, 1, 0]))
    assert {node.op_type for node in ordered.model.graph.node} == {node.op_type for node in network.model.graph.node}
    before, after = run_model(network.model, PICTURES), run_model(ordered.model, PICTURES)
    np.testing.assert_allclose(after, before[:, ::-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "classes",
    [
        ["0", "1"],
        {"corner": ["0"]},
        {"corners": "0123"},
        {"corners": ["0", "1", "2", "3"]},
        {"corners": [*CLASSES[8][:7], "upper-0"]},
        {"corners": [{"a": 1}, *CLASSES[8][1:]]},
        {"bridge": ["bridge", "no-bridge"]},
    ],
)
def test_statement_that_is_no_order_is_refused(inputs, tmp_path, classes):
    with pytest.raises(BundleError, match=r"grader\.classes"):
        exported(inputs, tmp_path / "b", classes, source="{0}/grader.onnx")
    assert not (tmp_path / "b").exists()


def test_manifest_of_another_order_is_refused(inputs, tmp_path):
    report = exported(inputs, tmp_path / "b", bridge_class=1)
    document = report.manifest.to_dict()
    document["grader"]["classes"]["bridge"].reverse()
    (report.folder / "bundle.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(BundleError, match=r"grader\.classes\.bridge: .*no-bridge, bridge; export"):
        Bundle.open(report.folder)


def test_order_is_shown(inputs, tmp_path, capsys):
    exported(inputs, tmp_path / "b", bridge_class=0)
    assert cli.main(["bundle", "info", str(tmp_path / "b")]) == 0
    out = capsys.readouterr().out
    assert "outputs       bridge: no-bridge, bridge\n              grades: 0, 1, 2\n" in out


def test_the_option_of_the_command_line(inputs, tmp_path, capsys):
    call = ["export", "--localizer", f"{inputs}/localizer.onnx", "--grader"]
    call += [f"bridge={inputs}/bridge.onnx,grades={inputs}/grades.onnx", "--manifest", f"{inputs}/small.json"]
    call += ["--golden", f"{inputs}/study", "--out", str(tmp_path / "b")]
    assert cli.main(call) == 4
    assert "--bridge-class 0" in capsys.readouterr().err
    assert cli.main([*call, "--bridge-class", "0"]) == 0
