"""Exports with alternatives to the localizer: files, golden inputs, their accuracy, and bad input."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import onnx
import pytest

from helpers.golden_networks import SMALL, pool_localizer, write_inputs
from spinescore.export.bundle import export_bundle
from spinescore.export.verify import verify_bundle
from spinescore.runtime import Scorer, cli
from spinescore.runtime.acceptance.golden import golden_localizers
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.errors import BundleError, CheckpointError


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


def exported(inputs, out, *alternatives, localizer="{}/localizer.onnx", **options):
    options = {"manifest": inputs / "small.json", "golden": [inputs / "study"], **options}
    named = [text.format(inputs) for text in alternatives]
    return export_bundle(localizer.format(inputs), f"{inputs}/grader.onnx", out, alternatives=named, **options)


@pytest.fixture(scope="module")
def report(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "mine"
    return exported(inputs, out, "same={}/localizer.onnx", "w4=synthetic:hrnet-w4")


def test_every_localizer_has_its_files(report):
    manifest = Bundle.open(report.folder).manifest
    assert manifest == report.manifest
    assert manifest.localizer.names == (None, "same", "w4")
    names = {"fp32": "localizer-w4.fp32.onnx", "fp16": "localizer-w4.fp16.onnx"}
    assert manifest.localizer.alternatives[1].files == {"cervical": names, "lumbar": names}
    assert manifest.provenance["networks"]["localizer-w4"]["source"] == "synthetic:hrnet-w4"
    assert set(report.points) == {"localizer", "localizer-same", "localizer-w4"}  # half precision against FP32


def test_what_an_alternative_costs_is_measured_on_the_golden_inputs(report):
    same, other = report.alternatives["localizer-same"], report.alternatives["localizer-w4"]
    assert (same.points, same.median_shift_px, same.p99_shift_px) == (24, 0, 0)
    assert 0 < other.median_shift_px <= other.p99_shift_px
    kept = report.manifest.provenance["networks"]["localizer-w4"]["beside_localizer"]
    assert (kept["median_shift_px"], kept["p99_shift_px"]) == (other.median_shift_px, other.p99_shift_px)
    assert "beside_localizer" not in report.manifest.provenance["networks"]["localizer"]


def test_golden_heatmaps_of_alternatives(report):
    whole = Bundle.open(report.folder)
    own, other = (golden_localizers(whole.with_localizer(name))[0] for name in (None, "w4"))
    np.testing.assert_array_equal(own.pictures, other.pictures)
    assert own.expected.shape == other.expected.shape
    assert np.abs(own.expected - other.expected).max() > 0


def test_verification_runs_every_localizer(report):
    found = verify_bundle(report.folder)
    assert found.passed
    assert set(found.fp32_difference) == {
        "localizer both",
        "localizer both, same",
        "localizer both, w4",
        "grader corners",
    }
    assert found.alternatives["localizer both, w4"].points == 24
    assert found.alternatives["localizer both, same"].p99_shift_px == 0


def test_a_localizer_that_gives_other_heatmaps_than_at_export_is_noticed(inputs, tmp_path):
    folder = exported(inputs, tmp_path / "b", "w4=synthetic:hrnet-w4", precisions=("fp32",)).folder
    path, manifest = folder / "golden" / "localizer.npz", folder / "bundle.json"
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["expected_both_w4"] = arrays["expected_both_w4"] * 1.01
    np.savez_compressed(path, **arrays)
    document, content = json.loads(manifest.read_text(encoding="utf-8")), path.read_bytes()
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "precision": None}
    document["files"]["golden/localizer.npz"] = entry
    manifest.write_text(json.dumps(document), encoding="utf-8")
    found = verify_bundle(folder)
    assert not found.passed
    assert found.fp32_difference["localizer both, w4"] > 1e-3 > found.fp32_difference["localizer both"]


def test_the_command_line(inputs, tmp_path, capsys):
    out = str(tmp_path / "b")
    command = ["export", "--localizer", str(inputs / "localizer.onnx"), "--grader", str(inputs / "grader.onnx")]
    others = ["--alternative", "w6=synthetic:hrnet-w6", "--alternative", "w4=synthetic:hrnet-w4", "--half-weights"]
    more = ["--manifest", str(inputs / "small.json"), "--golden", str(inputs / "study"), "--out", out]
    assert cli.main([*command, *others, *more]) == 0
    assert cli.main(["bundle", "info", out]) == 0
    printed = capsys.readouterr().out
    assert printed.count("w6: median distance ") == 2
    assert printed.count("median distance of points to the bundle's own") == 4
    assert cli.main(["bundle", "verify", out]) == 0
    assert "localizer both, w4: median distance " in capsys.readouterr().out
    with Scorer.open(out, "cpu", localizer="w4") as scorer:
        assert scorer.bundle.manifest.localizer.files["lumbar"] == {"fp32": "localizer-w4.fp32.onnx"}


def test_one_for_each_region(inputs, tmp_path):
    pair = "cervical={0}/localizer.onnx,lumbar={0}/localizer.onnx"
    report = exported(inputs, tmp_path / "b", f"narrow={pair}", localizer=pair)
    assert report.manifest.localizer.alternatives[0].files["lumbar"]["fp32"] == "localizer-narrow-lumbar.fp32.onnx"
    assert set(report.alternatives) == {"localizer-narrow-cervical", "localizer-narrow-lumbar"}
    assert verify_bundle(report.folder).passed


def test_without_alternatives_nothing_is_written_of_them(inputs, tmp_path):
    report = exported(inputs, tmp_path / "b")
    assert report.alternatives == {}
    assert "alternative" not in (report.folder / "bundle.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("alternatives", "message"),
    [
        (["narrow"], "'narrow' is not NAME=FILE"),
        (["narrow="], "'narrow=' is not NAME=FILE"),
        (["=x.onnx"], "'=x.onnx': a localizer's name has"),
        (["../up={}/localizer.onnx"], "a localizer's name has up to 32 lower-case letters, digits and hyphens"),
        (["a\\b={}/localizer.onnx"], "a localizer's name has"),
        (["lumbar={}/localizer.onnx"], "does not end with a region"),
        (["a={}/localizer.onnx", "a=synthetic:hrnet-w4"], "two alternatives are called 'a'"),
        (["a={}/none.onnx"], "none.onnx cannot be read"),
        (["a=cervical={0}/localizer.onnx,lumbar={0}/localizer.onnx"], "must be given as the localizer is"),
    ],
)
def test_what_is_no_alternative_is_refused(inputs, tmp_path, alternatives, message):
    with pytest.raises(CheckpointError) as caught:
        exported(inputs, tmp_path / "b", *alternatives)
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_other_joints_are_refused(inputs, tmp_path):
    onnx.save(pool_localizer(24), str(tmp_path / "24.onnx"))
    with pytest.raises(
        CheckpointError, match=r"the alternative a has 3 channels, 24 heatmaps .*the localizer 3 channels"
    ):
        exported(inputs, tmp_path / "b", f"a={tmp_path}/24.onnx")


def test_a_manifest_file_cannot_name_them(inputs, tmp_path):
    fields = {**SMALL, "localizer": {**SMALL["localizer"], "alternatives": []}}
    (tmp_path / "m.json").write_text(json.dumps(fields))
    with pytest.raises(BundleError, match=r"localizer\.alternatives is written by the export"):
        exported(inputs, tmp_path / "b", manifest=tmp_path / "m.json")
