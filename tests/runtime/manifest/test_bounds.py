"""Values in another unit, and names that nearly fit: refused, with the likely right ones."""

import re

import pytest

from helpers.tiny import listed, manifest
from spinescore.runtime.errors import BundleError
from spinescore.runtime.manifest import Manifest


def changed(path, **fields):
    found = listed(manifest())
    place = found
    for name in path.split("."):
        place = place[name]
    place.update(fields)
    return found


def said(path, **fields):
    with pytest.raises(BundleError) as caught:
        Manifest.from_dict(changed(path, **fields))
    return str(caught.value)


def test_a_threshold_that_makes_every_disc_a_bridge():
    assert "grader.bridge_threshold: with 0 every disc is a bridge" in said("grader", bridge_threshold=0.0)
    assert Manifest.from_dict(changed("grader", bridge_threshold=1e-6)).grader.bridge_threshold == 1e-6


@pytest.mark.parametrize("part", ["localizer", "grader"])
@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"low": 0.01}, ["contrast.low: 0.01 looks like a share", "per cent (0-100): low = 1."]),
        ({"low": 0.02, "high": 98.0}, ["contrast.low: 0.02", "low = 2."]),
        ({"low": 0.01, "high": 0.99}, ["contrast.high: 0.99 looks like a share", "low = 1, high = 99"]),
        ({"low": 0.0, "high": 1.0}, ["contrast.high: 1 looks like a share", "low = 0, high = 100"]),
    ],
)
def test_percentiles_are_in_per_cent(part, fields, parts):
    message = said(f"{part}.contrast", **fields)
    assert all(text in message for text in (part, *parts)), message


@pytest.mark.parametrize(("low", "high"), [(0.01, 99.99), (0.5, 99.5), (0.5, 99.0), (0.0, 99.0), (0.05, 99.9), (2, 98)])
def test_percentiles_that_are_meant(low, high):
    contrast = Manifest.from_dict(changed("grader.contrast", low=low, high=high)).grader.contrast
    assert (contrast.low, contrast.high) == (low, high)


@pytest.mark.parametrize(
    ("name", "values", "parts"),
    [
        ("mean", [123.675], ["mean[0]: 123.675 is too large", "grey [0, 1]", "mean = [0.485]", '"caffe"']),
        ("mean", [2047.0], ["of 0-4095 (12-bit pictures)", "mean = [0.4999]"]),
        ("mean", [30000.0], ["of 0-65535 (16-bit pictures)", "mean = [0.4578]"]),
        ("mean", [-3.0], ["mean[0]: -3 is too small", "at least -1"]),
        ("std", [58.395], ["std[0]: 58.395 is too large", "divide mean and std by 255, as std = [0.229]"]),
        ("std", [-0.229], ["std[0]: -0.229 is not a standard deviation", "more than 0"]),
        ("std", [0], ["std[0]: 0 is not a standard deviation"]),
        ("std", [1e-9], ["std[0]: 1e-09 is too small"]),
    ],
)
def test_normalisation_is_in_grey_from_0_to_1(name, values, parts):
    message = said("localizer.input", **{name: values})
    assert all(text in message for text in ("localizer.input", *parts)), message


def test_caffe_is_within_the_bounds():
    document = changed("localizer.input", mean=[103.939 / 255], std=[1 / 255])
    assert Manifest.from_dict(document).localizer.input.std == (1 / 255,)


@pytest.mark.parametrize(
    ("path", "name"), [("localizer", "min_confidence"), ("grader", "bridge_threshold"), ("grader", "abstain_below")]
)
def test_shares_are_not_per_cent(path, name):
    message = said(path, **{name: 30})
    assert f"{path}.{name}: expected a number in [0, 1], found 30; it is a share, and 30 per cent are 0.3" in message
    assert "share" not in said(path, **{name: -1})


@pytest.mark.parametrize(
    ("path", "name", "near"),
    [
        ("", "tolerence", "tolerances"),
        ("", "budget", "budget_ms"),
        ("localizer", "decod", "decode"),
        ("localizer.input", "antialiasing", "antialias"),
        ("grader", "abstain", "abstain_below"),
        ("grader.crop", "extend", "extent"),
    ],
)
def test_misspelt_fields_have_a_near_name(path, name, near):
    document = listed(manifest()) | ({name: 1} if not path else {})
    with pytest.raises(BundleError, match=re.escape(f"{name}: no such field is known; did you mean {near}?")):
        Manifest.from_dict(changed(path, **{name: 1}) if path else document)


def test_a_missing_field_names_the_one_that_is_meant():
    document = listed(manifest())
    document["localizer"]["decod"] = document["localizer"].pop("decode")
    with pytest.raises(BundleError, match=r"localizer\.decode: this field is missing; is localizer\.decod meant to be"):
        Manifest.from_dict(document)


def test_misspelt_values_have_a_near_one():
    assert "found 'percentiles'; did you mean percentile?" in said("grader.contrast", mode="percentiles")
    assert "did you mean" not in said("grader.contrast", mode="full")
