"""The manifest file: the printed one has every field and changes nothing; wrong names are reported at once."""

from __future__ import annotations

import json

import pytest

from helpers import tiny
from helpers.golden_networks import unpacked, write_inputs
from spinescore.export.bundle import export_bundle
from spinescore.export.defaults import _parse_toml, contract, read_overrides
from spinescore.export.fields import check_names, commented_manifest
from spinescore.runtime import cli
from spinescore.runtime.errors import BundleError
from spinescore.runtime.manifest import Manifest

TEXT = commented_manifest()
FIELDS = "\n".join(line[2:] if line.startswith("# ") else line for line in TEXT.partition("\n\n")[2].splitlines())
WRITTEN_BY_EXPORT = ("schema", "files", "golden", "localizer.files", "localizer.alternatives", "grader.files")


class Network:
    """The attributes of a network that `contract` reads: the published sizes."""

    channels, outputs, preprocessing, tensors = 3, 24, "imagenet", None

    class size:  # noqa: N801
        height_px, width_px = 256, 192


class Grader(Network):
    class size:  # noqa: N801
        height_px = width_px = 224


def leaves(document, path=""):
    for name, value in document.items():
        field = f"{path}.{name}" if path else name
        if isinstance(value, dict) and value:
            yield from leaves(value, field)
        else:
            yield field, value


def test_all_lines_are_comments_or_tables_and_set_nothing(tmp_path):
    (tmp_path / "m.toml").write_text(TEXT, encoding="utf-8")
    assert read_overrides(tmp_path / "m.toml") == {}
    assert all(line[:1] in ("", "#", "[") and len(line) <= 120 for line in TEXT.splitlines())
    assert TEXT.isascii()


def test_the_defaults_are_those_of_an_export():
    shown = dict(leaves(_parse_toml(FIELDS)))
    usual = dict(leaves(contract({"cervical": Network, "lumbar": Network}, "corners4", Grader, {})))
    assert {name for name in usual if usual[name] != shown.get(name)} == {
        "localizer.input.levels", "grader.input.levels", "provenance",  # TOML has no null
    }  # fmt: skip
    assert set(shown) - set(usual) == {
        "name", "budget_ms", "smallest_detectable_change", "localizer.input.preprocessing",
        "grader.input.preprocessing", "grader.classes.corners", "grader.classes.grades", "grader.classes.bridge",
        "provenance.trained_on",
    }  # fmt: skip


def test_every_field_of_a_manifest_occurs():
    document = tiny.listed(tiny.manifest(alternatives=("narrow",)))
    document |= {"budget_ms": 250.0, "smallest_detectable_change": 2.0}
    for part in ("localizer", "grader"):
        document[part]["contrast"] |= {"mode": "percentile", "over": "picture"}
    document["localizer"]["facing"] = "right"
    assert Manifest.from_dict(document).to_dict() == document  # so that no field is passed over
    shown = _parse_toml(FIELDS)
    check_names(shown, "printed")
    wanted = {name for name, _ in leaves(document) if not name.startswith((*WRITTEN_BY_EXPORT, "provenance"))}
    assert wanted <= {name for name, _ in leaves(shown)}
    for region in ("cervical", "lumbar"):
        assert set(shown["localizer"]["keypoints"][region][0]) == set(document["localizer"]["keypoints"][region][0])


def test_the_printed_file_gives_the_bundle_that_no_file_gives(tmp_path, capsys):
    assert cli.main(["export", "--print-manifest"]) == 0
    (tmp_path / "m.toml").write_text(capsys.readouterr().out, encoding="utf-8")
    write_inputs(tmp_path)
    networks = ("synthetic:hrnet-w4", str(unpacked("keras-resnet50-corner4.h5", tmp_path)))
    options = {"golden": [tmp_path / "study"], "precisions": ("fp32",)}
    plain = export_bundle(*networks, tmp_path / "a" / "mine", **options)
    stated = export_bundle(*networks, tmp_path / "b" / "mine", manifest=tmp_path / "m.toml", **options)
    assert (plain.folder / "bundle.json").read_bytes() == (stated.folder / "bundle.json").read_bytes()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"localizer": {"decod": "dark"}}, "localizer.decod: no such field is known; did you mean localizer.decode?"),
        ({"graders": {"input": {}}}, "graders: no such field is known; did you mean grader?"),
        ({"mean": [0.5]}, "mean: no such field is known; did you mean localizer.input.mean or grader.input.mean?"),
        ({"localizer": {"mode": "dicom"}}, "did you mean localizer.contrast.mode or grader.contrast.mode?"),
        ({"grader": {"input": {"preprocesing": "caffe"}}}, "did you mean grader.input.preprocessing?"),
        ({"tolerances": {"grade_flip": 0}}, "did you mean tolerances.grade_flips?"),
        ({"xyz": 1}, "`spinescore export --print-manifest` shows all of them"),
    ],
)
def test_wrong_names_are_told_with_the_one_that_is_meant(tmp_path, document, message):
    (tmp_path / "m.json").write_text(json.dumps(document))
    with pytest.raises(BundleError) as caught:
        read_overrides(tmp_path / "m.json")
    assert message in str(caught.value)
    assert "m.json: " in str(caught.value)


def test_wrong_values_are_told_with_the_file(tmp_path):
    (tmp_path / "m.json").write_text('{"localizer": {"contrast": {"low": 0.01}}}')
    with pytest.raises(BundleError, match=r"m\.json: .*localizer\.contrast\.low: 0\.01 looks like a share.* low = 1\."):
        export_bundle("synthetic:hrnet-w4", "synthetic:resnet50-w4", tmp_path / "b", manifest=tmp_path / "m.json")
    assert not (tmp_path / "b").exists()


def test_fields_of_ones_own_are_kept_in_provenance(tmp_path):
    (tmp_path / "m.json").write_text('{"provenance": {"anything": {"at": {}, "all": 1}}}')
    assert read_overrides(tmp_path / "m.json") == {"provenance": {"anything": {"at": {}, "all": 1}}}


def test_an_export_wants_its_networks(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["export", "--out", "nowhere"])
    assert stopped.value.code == 2
    assert "required: --localizer, --grader" in capsys.readouterr().err


def test_info_shows_normalisation_and_contrast(tmp_path, capsys):
    changes = {"grader.contrast": {"mode": "percentile", "low": 2.0, "high": 98.0}, "grader.input.levels": 256}
    folder = tiny.write_bundle(tmp_path / "b", **changes)
    assert cli.main(["bundle", "info", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "localizer: mean 0, std 1 of grey 0-1" in printed
    assert "localizer: dicom (the header's window)\n" in printed
    assert "grader: percentile, 2 to 98 % of the exposed field, grey in 256 steps" in printed
