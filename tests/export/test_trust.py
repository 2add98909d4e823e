"""An export's assumptions and checks: printed last, kept, shown, and noted in reports."""

from __future__ import annotations

import json
import shutil

import onnx
import pytest
from golden.packing import FOLDER

from helpers import tiny_study
from helpers.golden_networks import mean_grader, unpacked, write_inputs
from spinescore.export.verify import verify_bundle
from spinescore.runtime import Scorer, cli, load_study
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.bundle.provenance import UNCHECKED_NOTE, trust_of, unchecked_note
from spinescore.runtime.manifest import Manifest

FIELDS = {
    "localizer": {"input": {"height": 64, "width": 32}},
    "grader": {"input": {"height": 64, "width": 64}},
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    for name in ("hrnet-legacy.pth", "resnet152-corners4.pth"):
        unpacked(name, folder)
    write_inputs(folder)
    for name in ("reference-localizer.npz", "reference-grader-torch.npz"):
        shutil.copy(FOLDER / name, folder)
    (folder / "fields.json").write_text(json.dumps(FIELDS), encoding="utf-8")
    return folder


def export(inputs, out, *options, fields="fields.json", grader="resnet152-corners4.pth"):
    call = ["export", "--localizer", f"{inputs}/hrnet-legacy.pth", "--grader", f"{inputs}/{grader}"]
    call += ["--manifest", f"{inputs}/{fields}", "--golden", f"{inputs}/study", "--half-weights", "--out", str(out)]
    return cli.main([*call, *(option.format(inputs) for option in options)])


CHECKS = ("--check-localizer", "{0}/reference-localizer.npz", "--check-grader", "{0}/reference-grader-torch.npz")


@pytest.fixture(scope="module")
def unchecked(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "unchecked"
    assert export(inputs, out) == 0
    return out


@pytest.fixture(scope="module")
def checked(inputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "checked"
    assert export(inputs, out, *CHECKS) == 0
    return out


def test_unchecked_export_ends_with_what_it_took_for_granted(inputs, tmp_path, capsys):
    assert export(inputs, tmp_path / "b") == 0
    out = capsys.readouterr().out
    assert out.isascii()
    last = out[out.rindex("\n\n") + 2 :].splitlines()
    assert last == [
        "localizer: not checked against the framework that trained it; taken for granted:",
        "  normalisation: mean 0.485, 0.456, 0.406, std 0.229, 0.224, 0.225 of grey 0..1",
        "  strides: those of the official HRNet",
        "  activations: ReLU",
        "  BatchNorm epsilon: 1e-05",
        "  upsampling in the fuse layers: nearest",
        "  heatmap order: disc by disc from above, centre then anterior",
        "grader: not checked against the framework that trained it; taken for granted:",
        "  normalisation: mean 0.485, 0.456, 0.406, std 0.229, 0.224, 0.225 of grey 0..1",
        "  strides: in the 3x3 (torchvision) of each stage",
        "  activations: ReLU",
        "  BatchNorm epsilon: 1e-05",
        "  class order: upper-0, upper-1, upper-2, upper-3, lower-0, lower-1, lower-2, lower-3",
    ]


def test_what_is_stated_is_not_taken_for_granted(inputs, tmp_path):
    grader = {"mean": [0.5] * 3, "std": [0.5] * 3}
    fields = {**FIELDS, "grader": {"input": {**FIELDS["grader"]["input"], **grader}}}
    classes = [f"{corner}-{grade}" for corner in ("lower", "upper") for grade in range(4)]
    fields["grader"]["classes"] = {"corners": classes}
    (inputs / "stated.json").write_text(json.dumps(fields), encoding="utf-8")
    assert export(inputs, tmp_path / "b", fields="stated.json") == 0
    (_, found) = trust_of(Bundle.open(tmp_path / "b").manifest)
    assert not any(item.startswith(("normalisation", "class order")) for item in found.assumed)


def test_a_graph_has_its_layers_in_the_file(inputs, tmp_path):
    onnx.save(mean_grader(), str(inputs / "grader.onnx"))
    given = {"mean": [0.0] * 3, "std": [1.0] * 3}
    fields = {**FIELDS, "grader": {"input": {**FIELDS["grader"]["input"], **given}}}
    (inputs / "onnx.json").write_text(json.dumps(fields), encoding="utf-8")
    assert export(inputs, tmp_path / "b", fields="onnx.json", grader="grader.onnx") == 0
    (_, found) = trust_of(Bundle.open(tmp_path / "b").manifest)
    assert found.assumed == ("class order: upper-0, upper-1, upper-2, upper-3, lower-0, lower-1, lower-2, lower-3",)


def test_checked_export_keeps_and_shows_the_check(checked, capsys):
    manifest = Bundle.open(checked).manifest
    record = manifest.provenance["networks"]["grader"]["checked"]
    assert (record["reference"], record["pictures"], record["kind"]) == ("reference-grader-torch.npz", 8, "logits")
    assert record["difference_of_range"] <= 1e-5 < record["stored_difference_of_range"]
    assert len(record["sha256"]) == 64
    for call in (["bundle", "info", str(checked)], ["bundle", "verify", str(checked)], ["doctor", str(checked)]):
        assert cli.main(call) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert "localizer: checked against reference-localizer.npz (8 pictures, heatmaps, SHA-256 " in out.replace(
            "localizer checked", "localizer: checked"
        )
        assert "with its weights stored in half" in out
        assert "heatmap order" in out
        assert "strides" not in out


def test_unchecked_bundle_shows_its_list(unchecked, capsys):
    for call in (["bundle", "info", str(unchecked)], ["bundle", "verify", str(unchecked)], ["doctor", str(unchecked)]):
        assert cli.main(call) == 0
        out = capsys.readouterr().out
        assert "not checked against the framework that trained it; taken for granted:" in out
        assert "BatchNorm epsilon: 1e-05" in out


def test_wrong_reference_is_refused_and_nothing_is_written(inputs, tmp_path, capsys):
    out = tmp_path / "b"
    assert export(inputs, out, *CHECKS[:2], "--check-grader", "{0}/reference-localizer.npz") == 4
    assert "reference-localizer.npz: 'images' has shape (8, 64, 32)" in capsys.readouterr().err
    assert export(inputs, out, *CHECKS[2:], "--check-kind", "probabilities") == 4
    assert "off with logits where probabilities are said" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_reports_of_an_unchecked_bundle_carry_one_note(unchecked, checked, tmp_path):
    study = load_study(tiny_study.write_study(tmp_path / "study"))
    for folder, count in ((unchecked, 1), (checked, 0)):
        with Scorer.open(folder, device="cpu") as scorer:
            assert scorer.score(study).warnings.count(UNCHECKED_NOTE) == count


def test_bundles_that_say_nothing_have_no_note():
    document = Bundle.open("phantom-reference").manifest.to_dict()
    for entry in document["provenance"]["networks"].values():
        del entry["checked"], entry["assumed"]
    manifest = Manifest.from_dict(document)
    assert (trust_of(manifest), unchecked_note(manifest)) == ((), ())
    assert "classes" not in manifest.to_dict()["grader"]


def test_verification_reports_it(checked):
    assert any("checked against" in line for line in verify_bundle(checked).trust)


@pytest.mark.parametrize(
    "entry",
    [
        None, [], "x", {}, {"assumed": "x"}, {"assumed": [["a"], {"b": 1}, "c\n\x1b[31md", "e" * 9999] * 9},
        {"assumed": [], "checked": {"reference": "r", "pictures": float("inf")}},
        {"assumed": [], "checked": {"reference": "r", "pictures": 8, "kind": "k", "sha256": 3}},
    ],
)  # fmt: skip
def test_forged_provenance_is_text_at_most(checked, entry):
    manifest = Bundle.open(checked).manifest
    manifest.provenance["networks"]["grader"] = entry
    for found in trust_of(manifest):
        assert found.line.isprintable()
        assert len(found.line) < 8000
    assert unchecked_note(manifest) in ((), (UNCHECKED_NOTE,))
