"""The whole export: bundles from golden checkpoints, ready ONNX and synthetic networks, and their verification."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import onnx
import pytest

from helpers.checkpoint_files import saved
from helpers.golden_networks import SMALL, mean_grader, unpacked, write_inputs
from spinescore.export.bundle import export_bundle
from spinescore.export.checkpoints import read_checkpoint
from spinescore.export.defaults import read_overrides
from spinescore.export.verify import verify_bundle
from spinescore.runtime import cli
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.engines.half import HALF_MAX
from spinescore.runtime.errors import BundleError, CheckpointError


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Golden checkpoints, a small manifest file and the radiographs of one phantom study."""
    folder = tmp_path_factory.mktemp("inputs")
    for name in ("hrnet-legacy.pth", "hrnet-zip.pth", "resnet50-bridge.pth", "resnet50-grades.pth"):
        unpacked(name, folder)
    unpacked("keras-resnet152-corners4.h5", folder)
    write_inputs(folder)
    return folder


def exported(inputs, out, localizer="hrnet-legacy.pth", grader="keras-resnet152-corners4.h5", **options):
    fields = "small.json" if f"{localizer}{grader}".count(".onnx") else "sizes.json"
    options = {"manifest": inputs / fields, "golden": [inputs / "study"], **options}
    return export_bundle(f"{inputs / localizer}", f"{inputs / grader}", out, **options)


def quick(inputs, out, **options):
    """Export two tiny ONNX files, for tests that do not depend on the networks."""
    return exported(inputs, out, "localizer.onnx", "grader.onnx", **options)


@pytest.fixture(scope="module")
def bundle(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "mine"
    return exported(inputs, out)


def test_bundle_opens_and_says_all(bundle):
    manifest = Bundle.open(bundle.folder).manifest
    assert manifest == bundle.manifest
    assert (manifest.name, manifest.version, manifest.grader.head) == ("mine", "1", "corners4")
    assert manifest.localizer.files["cervical"] == manifest.localizer.files["lumbar"]
    assert set(manifest.files) == {
        path.relative_to(bundle.folder).as_posix() for path in bundle.folder.rglob("*.*")
    } - {"bundle.json"}


def test_normalisation_follows_the_framework(bundle):
    localizer, grader = bundle.manifest.localizer.input, bundle.manifest.grader.input
    assert (localizer.mean, localizer.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    grey = 200.0  # Keras' 'caffe' gives 200 - (103.939, 116.779, 123.68) for it
    found = (grey / 255 - np.array(grader.mean)) / np.array(grader.std)
    np.testing.assert_allclose(found, grey - np.array([103.939, 116.779, 123.68]), atol=1e-9)


def test_keypoints_of_twelve_channels_serve_both_regions(bundle):
    keypoints = bundle.manifest.localizer.keypoints
    assert [k.channel for k in keypoints["cervical"]] == [k.channel for k in keypoints["lumbar"]] == list(range(12))
    assert [(k.level, k.point) for k in keypoints["lumbar"][:3]] == [
        ("T12/L1", "centre"),
        ("T12/L1", "anterior"),
        ("L1/L2", "centre"),
    ]


def test_provenance_has_the_sources(bundle, inputs):
    entry = bundle.manifest.provenance["networks"]["grader"]
    content = (inputs / "keras-resnet152-corners4.h5").read_bytes()
    assert (entry["source"], entry["source_bytes"]) == ("keras-resnet152-corners4.h5", len(content))
    assert entry["source_sha256"] == hashlib.sha256(content).hexdigest()
    assert entry["half_precision"]["overflowed"] == 0


def test_half_precision_was_compared(bundle):
    (points,) = bundle.points.values()
    assert (points.points, bundle.grades.corners) == (24, 24)
    assert 0 < points.heatmap_difference < 0.02
    assert 0 < bundle.grades.logit_difference < 0.02


def test_verification_repeats_the_exports_figures(bundle):
    report = verify_bundle(bundle.folder)
    assert report.passed
    assert report.points == {"localizer both": bundle.points["localizer"]}
    assert report.grades == bundle.grades
    assert set(report.fp16_files) == {"localizer both", "grader corners"}


def test_same_inputs_same_bytes(bundle, inputs, tmp_path):
    again = exported(inputs, tmp_path / "mine")
    assert {p: e.sha256 for p, e in again.manifest.files.items()} == {
        p: e.sha256 for p, e in bundle.manifest.files.items()
    }
    assert (again.folder / "bundle.json").read_bytes() == (bundle.folder / "bundle.json").read_bytes()


def altered_golden(bundle, folder, kind, **changes):
    """Return a copy of the bundle whose golden file has other arrays, with the right hash."""
    files = {p.relative_to(bundle.folder): p.read_bytes() for p in bundle.folder.rglob("*.*")}
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    path = folder / "golden" / f"{kind}.npz"
    with np.load(path) as archive:
        arrays = {name: changes[name](archive[name]) if name in changes else archive[name] for name in archive.files}
    np.savez_compressed(path, **{name: array for name, array in arrays.items() if array is not None})
    document = json.loads((folder / "bundle.json").read_text())
    content = path.read_bytes()
    document["files"][f"golden/{kind}.npz"] |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (folder / "bundle.json").write_text(json.dumps(document))


def test_verification_notices_another_result(bundle, tmp_path):
    altered_golden(bundle, tmp_path, "grader", expected_corners=lambda logits: logits + 0.01 * np.ptp(logits))
    report = verify_bundle(tmp_path)
    assert not report.passed
    assert report.fp32_difference["grader corners"] > 1e-3 > report.fp32_difference["localizer both"]


def test_verification_refuses_incomplete_golden_inputs(bundle, tmp_path):
    altered_golden(bundle, tmp_path, "localizer", region_both=lambda regions: None)
    with pytest.raises(BundleError, match="lacks region_both"):
        verify_bundle(tmp_path)


def test_stored_half_without_fp16(inputs, bundle, tmp_path):
    report = exported(inputs, tmp_path / "small", precisions=("fp32",), weights="half", name="thin", version="7")
    manifest = Bundle.open(report.folder).manifest
    assert (manifest.name, manifest.version, report.points, report.grades) == ("thin", "7", {}, None)
    assert {entry.precision for entry in manifest.files.values()} == {"fp32", None}
    sizes = [found.files["localizer.fp32.onnx"].bytes for found in (manifest, bundle.manifest)]
    assert sizes[0] < 0.85 * sizes[1]  # tiny layers: names weigh as much as numbers
    assert verify_bundle(report.folder).passed


def test_the_command_line_exports_and_verifies(inputs, tmp_path, capsys):
    out = str(tmp_path / "mine")
    networks = ["--localizer", str(inputs / "hrnet-zip.pth"), "--grader", str(inputs / "keras-resnet152-corners4.h5")]
    checked = ["--manifest", str(inputs / "small.json"), "--golden-studies", "1", "--half-weights"]
    assert cli.main(["export", *networks, *checked, "--version", "3", "--out", out]) == 0
    assert cli.main(["bundle", "verify", out, "--json"]) == 0
    assert cli.main(["bundle", "info", out]) == 0
    printed = capsys.readouterr().out
    assert '"passed": true' in printed
    assert "fp16" not in Bundle.open(out).manifest.localizer.files["lumbar"]
    assert cli.main(["export", *networks, "--out", str(inputs / "study" / "truth.json")]) == 4


def test_one_network_per_region_and_per_question(inputs, tmp_path):
    hrnet = inputs / "hrnet-zip.pth"
    report = export_bundle(
        f"cervical={hrnet},lumbar={hrnet}",
        f"bridge={inputs / 'resnet50-bridge.pth'},grades={inputs / 'resnet50-grades.pth'}",
        tmp_path / "b",
        manifest=inputs / "small.json",
        golden=[inputs / "study"],
        bridge_class=1,
    )
    manifest = Bundle.open(tmp_path / "b").manifest
    assert manifest.localizer.files["lumbar"]["fp16"] == "localizer-lumbar.fp16.onnx"
    assert manifest.localizer.keypoints["lumbar"][0].channel == 12
    assert manifest.localizer.input.channels == 1
    assert manifest.grader.head == "bridge+grades"
    assert manifest.grader.files["grades"]["fp32"] == "grader-grades.fp32.onnx"
    assert (set(report.points), report.grades.corners) == ({"localizer-cervical", "localizer-lumbar"}, 24)
    with np.load(tmp_path / "b" / "golden" / "grader.npz") as golden:
        bridge, grades = golden["image_bridge"], golden["image_grades"]
    assert (len(bridge), len(grades)) == (12, 24)
    np.testing.assert_array_equal(grades[1::2], bridge)  # the lower corner sees the crop as it is
    assert np.abs(grades[::2, ::-1].astype(int) - bridge).max() <= 1  # the upper one its vertical flip


def test_ready_onnx_in_place_of_a_checkpoint(inputs, tmp_path):
    onnx.save(mean_grader(last="Softmax"), str(tmp_path / "ready.onnx"))
    report = exported(inputs, tmp_path / "b", "localizer.onnx", tmp_path / "ready.onnx")
    assert any("last Softmax was removed" in note for note in report.notes)
    assert verify_bundle(tmp_path / "b").passed


def test_synthetic_networks_on_phantoms(tmp_path):
    (tmp_path / "sizes.json").write_text(json.dumps(SMALL))
    report = export_bundle(
        "synthetic:hrnet-w4",
        "synthetic:resnet50-w4",
        tmp_path / "b",
        manifest=tmp_path / "sizes.json",
        golden_studies=1,
    )
    assert report.grades.corners == 24
    assert "means nothing" in report.manifest.intended_use
    with np.load(tmp_path / "b" / "golden" / "grader.npz") as golden:
        grades = golden["expected_corners"].reshape(-1, 4).argmax(1)
    assert set(grades) == {0, 1, 2, 3}


def overflowing(tmp_path, factor):
    """Return a grader with a layer in the middle that multiplies all values by `factor`."""
    model = mean_grader()
    dense = model.graph.node[1]
    dense.input[0] = "huge"
    model.graph.node.insert(1, onnx.helper.make_node("Mul", ["mean", "factor"], ["huge"], name="too_large"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([factor], np.float32), "factor"))
    onnx.save(model, str(tmp_path / "ready.onnx"))
    return tmp_path / "ready.onnx"


def test_graph_that_cannot_be_half_is_written_in_fp32(inputs, tmp_path):
    model = mean_grader()
    inner = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["dense"], ["same"])],
        "inner",
        [],
        [onnx.helper.make_tensor_value_info("same", onnx.TensorProto.FLOAT, None)],
    )
    model.graph.node[-1].output[0] = "dense"
    model.graph.node.append(
        onnx.helper.make_node("If", ["yes"], ["y"], name="branch", then_branch=inner, else_branch=inner)
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "yes"))
    onnx.save(model, str(tmp_path / "ready.onnx"))
    report = exported(inputs, tmp_path / "b", "localizer.onnx", tmp_path / "ready.onnx")
    assert any("FP32 alone: node branch (If)" in warning for warning in report.warnings)
    assert set(report.manifest.grader.files["corners"]) == {"fp32"}


@pytest.mark.parametrize(("factor", "named"), [(6e4, "huge"), (2 * HALF_MAX, "too_large")])
def test_overflow_drops_the_half_file_and_names_the_layer(inputs, tmp_path, factor, named):
    report = exported(inputs, tmp_path / "b", "localizer.onnx", overflowing(tmp_path, factor))
    assert any(f"layer {named}" in warning for warning in report.warnings)
    assert set(report.manifest.grader.files["corners"]) == {"fp32"}
    assert set(report.manifest.localizer.files["cervical"]) == {"fp32", "fp16"}


def flat_grader(folder, row):
    """Return a grader whose weights are all 0 (`row` 0), or the same for every output (1), or small beside a bias."""
    model = mean_grader()
    weights, bias = (np.array(onnx.numpy_helper.to_array(tensor)) for tensor in model.graph.initializer)
    weights = {"zero": weights * 0, "alike": weights[:, :1].repeat(8, 1), "biased": weights * 1e-3}[row]
    bias = {"zero": bias, "alike": bias * 0, "biased": np.tile(np.float32([9, 0, 0, 0]), 2)}[row]
    for tensor, value in zip(model.graph.initializer, (weights, bias), strict=True):
        tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    onnx.save(model, str(folder / "ready.onnx"))
    return folder / "ready.onnx"


@pytest.mark.parametrize("row", ["zero", "alike"])
def test_grader_that_does_not_look_at_the_picture_is_refused(inputs, tmp_path, row):
    with pytest.raises(CheckpointError, match=r"ready.onnx: gives the same answer for all 12 golden pictures"):
        exported(inputs, tmp_path / "b", "localizer.onnx", flat_grader(tmp_path, row))
    assert not (tmp_path / "b").exists()


def test_localizer_that_does_not_look_at_the_picture_is_refused(inputs, tmp_path):
    weights = read_checkpoint(inputs / "hrnet-legacy.pth").tensors
    dead = {name: value * 0 if name == "final_layer.weight" else value for name, value in weights.items()}
    (tmp_path / "dead.pth").write_bytes(saved(dead))
    with pytest.raises(CheckpointError, match=r"dead.pth: gives the same answer"):
        exported(inputs, tmp_path / "b", tmp_path / "dead.pth")


def test_one_grade_for_all_corners_is_a_warning(inputs, tmp_path):
    report = exported(inputs, tmp_path / "b", "localizer.onnx", flat_grader(tmp_path, "biased"))
    assert any(f"all {report.grades.corners} corners" in one and "grade 0" in one for one in report.warnings)


def test_overflow_is_an_error_where_asked_for(inputs, tmp_path):
    with pytest.raises(CheckpointError, match="layer huge"):
        exported(inputs, tmp_path / "b", "localizer.onnx", overflowing(tmp_path, 6e4), strict=True)
    assert not (tmp_path / "b").exists()


def test_manifest_file_sets_any_field(inputs, tmp_path):
    (tmp_path / "m.toml").write_text(
        """
name = "trial-7"
intended_use = "research"
[localizer]
decode = "quarter"
passes = 2
[localizer.input]
height = 64
width = 64
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
[grader]
abstain_below = 0.25
[grader.input]
height = 64
width = 64
preprocessing = "none"
[grader.crop]
extent = 2.5
[provenance]
trained_on = "1,200 studies"
"""
    )
    report = quick(inputs, tmp_path / "b", manifest=tmp_path / "m.toml")
    manifest = report.manifest
    assert (manifest.name, manifest.intended_use) == ("trial-7", "research")
    assert (manifest.localizer.decode, manifest.localizer.passes) == ("quarter", 2)
    assert (manifest.localizer.input.mean, manifest.localizer.input.std) == ((0.5,) * 3, (0.25,) * 3)
    assert (manifest.grader.input.mean, manifest.grader.input.std) == ((0.0,) * 3, (1.0,) * 3)
    assert (manifest.grader.crop.extent, manifest.grader.crop.unit) == (2.5, "anterior-distance")
    assert manifest.grader.abstain_below == 0.25
    assert manifest.provenance["trained_on"] == "1,200 studies"


@pytest.mark.parametrize(("name", "encoding"), [("m.toml", "utf-8-sig"), ("m.json", "utf-8-sig"), ("m.json", "utf-16")])
def test_manifest_files_as_windows_writes_them(tmp_path, name, encoding):
    text = 'intended_use = "\u00e9tudes"\n' if name == "m.toml" else '{"intended_use": "\u00e9tudes"}'
    (tmp_path / name).write_text(text, encoding=encoding)
    assert read_overrides(tmp_path / name) == {"intended_use": "\u00e9tudes"}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"localizer": {"decod": "dark"}}, "decod"),
        ({"localizer": {"decode": "best"}}, "localizer.decode"),
        ({"localizer": {"input": {"height": "tall"}}}, "localizer.input.height is 'tall'"),
        ({"grader": {"files": {}}}, "grader.files is written by the export"),
        ({"schema": "x"}, "schema is written by the export"),
        ({"grader": {"head": "corner4"}}, "grader.head 'corner4', but the network's outputs make corners4"),
        ({"grader": []}, "grader must be an object"),
        ([], "no object of manifest fields"),
    ],
)
def test_wrong_manifest_file_is_refused_before_any_work(inputs, tmp_path, document, message):
    if isinstance(document, dict):
        document = {
            **SMALL,
            **{k: {**SMALL.get(k, {}), **v} if isinstance(v, dict) else v for k, v in document.items()},
        }
    (tmp_path / "m.json").write_text(json.dumps(document))
    with pytest.raises(BundleError) as caught:
        quick(inputs, tmp_path / "b", manifest=tmp_path / "m.json")
    assert message in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["m.json"]


@pytest.mark.parametrize(
    ("localizer", "grader", "message"),
    [
        ("none.pth", "resnet50-grades.pth", "none.pth cannot be read"),
        ("none.onnx", "resnet50-grades.pth", "none.onnx cannot be read"),
        (
            "resnet50-grades.pth",
            "keras-resnet152-corners4.h5",
            "of a ResNet, and the localizer is an HRNet; are .* exchanged",
        ),
        ("hrnet-legacy.pth", "resnet50-grades.pth", "has 3 outputs"),
        ("hrnet-legacy.pth", "hrnet-legacy.pth", "of an HRNet, and the grader is a ResNet; are .* exchanged"),
    ],
)
def test_networks_that_do_not_fit_are_refused(inputs, tmp_path, localizer, grader, message):
    with pytest.raises(CheckpointError, match=message):
        exported(inputs, tmp_path / "b", localizer, grader)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("localizer", "grader"),
    [
        ("cervical=a.pth", "synthetic:resnet50"),
        ("synthetic:hrnet-w8", "bridge=a.h5"),
        ("synthetic:resnet50", "synthetic:resnet50"),
        ("synthetic:hrnet-w8", "bridge=synthetic:resnet50,grades="),
    ],
)
def test_sources_that_make_no_sense_are_refused(tmp_path, localizer, grader):
    with pytest.raises(CheckpointError):
        export_bundle(localizer, grader, tmp_path / "b")


def test_unusable_golden_radiographs_are_named(inputs, tmp_path):
    (tmp_path / "notes.txt").write_text("no radiograph")
    with pytest.raises(BundleError, match=r"notes\.txt cannot be used"):
        quick(inputs, tmp_path / "b", golden=[tmp_path / "notes.txt"])
    with pytest.raises(BundleError, match="no radiograph in"):
        quick(inputs, tmp_path / "b", golden=[tmp_path])
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_interrupted_export_leaves_the_old_bundle(inputs, bundle, tmp_path, monkeypatch):
    quick(inputs, tmp_path / "b", precisions=("fp32",))
    before = (tmp_path / "b" / "bundle.json").read_bytes()

    def interrupted(path, content):
        raise KeyboardInterrupt

    monkeypatch.setattr("spinescore.export.bundle.write_synced", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quick(inputs, tmp_path / "b")
    assert (tmp_path / "b" / "bundle.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    Bundle.open(tmp_path / "b")
