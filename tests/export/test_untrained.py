"""The manifest of networks that are still to be trained has the inputs that an export of them will write."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.golden_networks import unpacked
from spinescore.export.defaults import contract, read_overrides
from spinescore.export.networks import open_graders, open_localizers
from spinescore.export.untrained import untrained_manifest
from spinescore.runtime.errors import BundleError
from spinescore.runtime.manifest import HEAD_OUTPUTS
from spinescore.runtime.study import REGIONS

STATED = """\
[localizer]
passes = 2
facing = "right"
[localizer.input]
channels = 1
height = 128
width = 96
fit = "letterbox"
levels = 256
preprocessing = "none"
[grader.input]
height = 64
width = 64
mean = [0.5, 0.5, 0.5]
std = [0.2, 0.2, 0.2]
[grader.contrast]
mode = "percentile"
low = 2.0
over = "picture"
"""
INPUTS = {
    "localizer": ("input", "contrast", "facing", "align", "box_padding", "passes"),
    "grader": ("input", "contrast", "crop", "head"),
}


def written(folder: Path, text: str) -> Path:
    path = folder / "m.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("text", ["[localizer.input]\nchannels = 1\n", STATED])
def test_inputs_are_those_that_an_export_writes(tmp_path, text):
    path = written(tmp_path, text)
    overrides = read_overrides(path)
    (localizer,) = open_localizers(str(unpacked("hrnet-zip.pth", tmp_path)), overrides)
    head, (grader,) = open_graders(str(unpacked("resnet152-corners4.pth", tmp_path)), overrides)
    exported = contract(dict.fromkeys(REGIONS, localizer), head, grader, overrides)
    untrained = untrained_manifest(path).to_dict()
    for part in untrained.values():  # a manifest leaves these out if they have their defaults
        if "contrast" in part:
            part["contrast"].setdefault("over", "exposed")
    untrained["localizer"].setdefault("facing", "left")
    for part, names in INPUTS.items():
        assert {name: untrained[part].get(name) for name in names} == {name: exported[part].get(name) for name in names}


@pytest.mark.parametrize(
    ("text", "head"),
    [
        ("", "corners4"),
        ('[grader]\nhead = "corner4"\n', "corner4"),
        ('[grader.classes]\nbridge = ["bridge", "no-bridge"]\n', "bridge+grades"),
        ('[grader.classes]\ncorners = ["3", "2", "1", "0"]\n', "corner4"),
    ],
)
def test_the_head_follows_from_what_is_stated(tmp_path, text, head):
    manifest = untrained_manifest(written(tmp_path, text))
    assert manifest.grader.head == head
    assert tuple(manifest.grader.files) == tuple(HEAD_OUTPUTS[head])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[grader]\nhead = "corners8"\n', "grader.head is 'corners8'; known are corners4, corner4, bridge"),
        ("[localizer.input]\nheight = 0\n", "localizer.input.height is 0"),
        ("[localizer.contrast]\nlow = 99.5\nmode = 'percentile'\n", "localizer.contrast"),
    ],
)
def test_wrong_fields_are_refused_by_name(tmp_path, text, named):
    with pytest.raises(BundleError, match=r"m\.toml: .*") as caught:
        untrained_manifest(written(tmp_path, text))
    assert named in str(caught.value)
