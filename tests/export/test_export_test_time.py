"""Exports of localizers that run at several scales and mirrored: graphs of any size, golden inputs, refusals."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import helper

from helpers.golden_networks import SIZES, SMALL, model_of, unpacked, write_inputs
from spinescore.export.bundle import export_bundle
from spinescore.export.golden import localizer_pictures, read_views
from spinescore.export.sessions import run_model
from spinescore.export.verify import verify_bundle
from spinescore.kernels.average import AverageSpec, Run, average
from spinescore.runtime import Scorer, cli, load_study
from spinescore.runtime.acceptance.gate import verify_device
from spinescore.runtime.acceptance.golden import golden_localizers, normalised
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.errors import BundleError, CheckpointError

TEST_TIME = {"scales": [1.0, 1.5], "flip": True, "flip_shift": True}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    unpacked("hrnet-legacy.pth", folder)
    write_inputs(folder)
    return folder


def exported(inputs, out, localizer, fields, test_time, **options):
    document = {**fields, "localizer": {**fields["localizer"], "test_time": test_time}}
    (inputs / "fields.json").write_text(json.dumps(document), encoding="utf-8")
    given = {"manifest": inputs / "fields.json", "golden": [inputs / "study"], **options}
    return export_bundle(f"{inputs / localizer}", f"{inputs / 'grader.onnx'}", out, **given)


def shapes(path):
    graph = onnx.load(str(path)).graph
    return [
        [d.dim_param or d.dim_value for d in end.type.tensor_type.shape.dim]
        for end in (graph.input[0], graph.output[0])
    ]


HRNET = {"localizer": {"input": {"height": 64, "width": 128}}, "grader": SMALL["grader"]}


@pytest.fixture(scope="module")
def report(inputs, tmp_path_factory):
    """Export an HRNet of 64 x 128 pixels, whose stride allows every multiple of 0.5."""
    out = tmp_path_factory.mktemp("bundles") / "mine"
    return exported(inputs, out, "hrnet-legacy.pth", HRNET, TEST_TIME)


def test_one_file_serves_all_scales(report):
    files = report.manifest.localizer.files["cervical"]
    for path in files.values():
        assert shapes(report.folder / path) == [["N", 3, "height", "width"], ["N", 12, "rows", "columns"]]
    assert set(files) == {"fp32", "fp16"}
    assert report.manifest.to_dict()["localizer"]["test_time"] == TEST_TIME


def test_golden_inputs_hold_every_scale_and_the_mean_of_all_runs(inputs, report):
    bundle = Bundle.open(report.folder)
    (golden,) = golden_localizers(bundle)
    images = golden.images()
    assert {name: image.shape[2:] for name, image in images.items()} == {
        "localizer both": (64, 128),
        "localizer both x1.5": (96, 192),
    }
    localizer = bundle.manifest.localizer
    larger = localizer_pictures(read_views([inputs / "study"]), localizer, 1.5)
    np.testing.assert_array_equal(images["localizer both x1.5"], normalised(larger, localizer.input))
    model = onnx.load(str(bundle.path(localizer.files["cervical"]["fp32"])))
    runs = [Run(scale, flip) for scale in (1.0, 1.5) for flip in (False, True)]
    found = [run_model(model, i[..., ::-1] if flip else i) for i in images.values() for flip in (False, True)]
    expected = average(found, AverageSpec(tuple(runs), "stride", 4, True), (16, 32))
    assert np.abs(golden.expected - expected).max() < 1e-3 * np.ptp(expected)  # stored as half
    assert np.abs(found[0] - expected).max() > 0.01 * np.ptp(expected)


def test_golden_crops_that_are_all_alike_are_said(report):
    """This localizer's points lie outside of the pictures, so that all crops show one grey."""
    assert [one for one in report.warnings if "12 golden pictures are all alike" in one and one.startswith("grader")]


def test_such_a_bundle_verifies_is_accepted_and_scores(inputs, report, capsys):
    assert verify_bundle(report.folder).passed
    bundle = Bundle.open(report.folder)
    with Scorer(bundle, HostDevice(1)) as scorer:  # after its self-test
        scorer.score(load_study(inputs / "study"))
    for engine, precision in (("openvino", "fp32"), ("onnxruntime", "fp16")):
        (outcome,) = verify_device(bundle, "cpu", engine, precision)
        assert outcome.record.passed, outcome.reason
        assert outcome.record.figures.heatmap_difference < 0.05
    assert cli.main(["bundle", "info", str(report.folder)]) == 0
    said = "mean heatmaps of 4 runs: scales 1 (64x128), 1.5 (96x192), each as it is and flipped, shifted by one pixel"
    assert f"test time     {said}" in capsys.readouterr().out


def test_flips_alone_leave_the_graph_as_it_is(inputs, tmp_path):
    found = exported(inputs, tmp_path / "b", "hrnet-legacy.pth", HRNET, {"flip": True})
    assert shapes(tmp_path / "b" / "localizer.fp32.onnx")[0] == ["N", 3, 64, 128]
    assert found.manifest.to_dict()["localizer"]["test_time"] == {"scales": [1.0], "flip": True, "flip_shift": True}
    assert golden_localizers(Bundle.open(tmp_path / "b"))[0].scaled == {}


def test_int8_is_judged_by_the_mean_of_all_runs(inputs, tmp_path):
    found = exported(
        inputs, tmp_path / "b", "hrnet-legacy.pth", HRNET, TEST_TIME, int8=True, golden=[], golden_studies=4
    )
    assert shapes(tmp_path / "b" / "localizer.int8.onnx")[0] == ["N", 3, "height", "width"]
    step = next(step for step in found.int8["localizer"].steps if step.within)
    assert step.agreement.points == 4 * 2 * 12
    with Scorer(Bundle.open(tmp_path / "b"), HostDevice(1)):
        pass


def test_the_shift_follows_the_alignment_unless_it_is_stated(inputs, tmp_path):
    for number, (align, stated, shift) in enumerate(
        [("stride", {}, True), ("centre", {}, False), ("centre", {"flip_shift": True}, True)]
    ):
        fields = {"localizer": {**SMALL["localizer"], "align": align}, "grader": SMALL["grader"]}
        found = exported(inputs, tmp_path / str(number), "localizer.onnx", fields, stated)
        assert found.manifest.localizer.test_time.flip_shift is shift


def test_a_ready_file_of_free_size_is_taken(inputs, tmp_path):
    exported(inputs, tmp_path / "b", "localizer.onnx", SMALL, {"scales": [1.0, 0.5, 2.0]})
    assert shapes(tmp_path / "b" / "localizer.fp32.onnx") == [
        ["N", 3, "height", "width"],
        ["N", 12, "rows", "columns"],
    ]


def one_size(shape):
    """Return a localizer that multiplies its heatmaps by a constant of `shape`, and declares a free height."""
    nodes = [
        helper.make_node("AveragePool", ["x"], ["p"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Conv", ["p", "mix"], ["c"]),
        helper.make_node("Mul", ["c", "weights"], ["y"]),
    ]
    rng = np.random.default_rng(6)
    constants = {"mix": rng.normal(size=(12, 3, 1, 1)), "weights": rng.random(shape)}
    constants = {name: value.astype(np.float32) for name, value in constants.items()}
    return model_of(nodes, constants, ("N", 3, "h", 64), ("N", 12, "a", 16))


def test_a_ready_file_of_one_size_is_refused_with_what_to_do(inputs, tmp_path):
    onnx.save(one_size((16, 16)), str(inputs / "one-size.onnx"))
    with pytest.raises(CheckpointError, match=r"one-size\.onnx: does not take pictures of 128x128 pixels.*dynamo=True"):
        exported(inputs, tmp_path / "b", "one-size.onnx", SMALL, {"scales": [1.0, 2.0]})
    assert not (tmp_path / "b").exists()
    onnx.save(one_size((1, 1)), str(inputs / "one-size.onnx"))  # says 64, and follows any width
    exported(inputs, tmp_path / "b", "one-size.onnx", SMALL, {"scales": [1.0, 2.0]})


def test_a_scale_that_the_stride_does_not_allow_is_refused_before_networks_are_read(inputs, tmp_path):
    with pytest.raises(
        BundleError, match=r"localizer\.test_time\.scales\[1\]: 1\.2 makes.*1 \(64 x 64\) and 1\.5 \(96 x 96\)"
    ):
        exported(inputs, tmp_path / "b", "missing.pth", SIZES, {"scales": [1.0, 1.2]})
