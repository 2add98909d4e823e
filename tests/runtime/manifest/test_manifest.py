"""The manifest: a field that is missing, unknown, mistyped or out of range is refused, and the message names it."""

import copy
import json
import re

import pytest

from helpers.tiny import listed, manifest
from spinescore.runtime.bundle import manifest_sha256
from spinescore.runtime.errors import BundleError
from spinescore.runtime.manifest import Averaging, Manifest

HEADS = ["corners4", "corner4", "bridge+grades"]


def document(head="corners4", heads=24):
    return listed(manifest(heads, head))


def places(node, path=()):
    """Return every field of the document as a path of keys, without fields of free-form objects."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield (*path, key)
            if (*path, key) != ("provenance",):
                yield from places(value, (*path, key))
    elif isinstance(node, list) and node and isinstance(node[0], dict):
        yield from places(node[0], (*path, 0))


def changed(path, value, head="corners4"):
    found = document(head)
    node = found
    for key in path[:-1]:
        node = node[key]
    if value is KeyError:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return found


def dotted(path):
    return re.sub(r"\.(\d+)", r"[\1]", ".".join(str(key) for key in path))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("heads", [24, 12, "separate"])
def test_round_trip(head, heads):
    found = document(head, heads)
    read = Manifest.from_dict(json.loads(json.dumps(found)))
    assert read.to_dict() == found
    assert Manifest.from_dict(read.to_dict()) == read
    assert read.localizer.shared == (heads != "separate")
    assert read.localizer.tells_regions == (heads != 12)


def timed_document(**changes):
    found = document()
    found["localizer"]["test_time"] = {"scales": [1.0, 1.5], "flip": True, "flip_shift": False, **changes}
    return found


def test_test_time_may_be_left_out_and_then_leaves_no_trace():
    plain, timed = Manifest.from_dict(document()), Manifest.from_dict(timed_document())
    assert "test_time" not in plain.to_dict()["localizer"]
    assert plain.localizer.averaging == Averaging((1.0,), False, False)
    assert timed.to_dict() == timed_document()
    assert (timed.localizer.averaging.runs, timed.localizer.averaging.cost) == (4, 6.5)
    size = timed.localizer.input_at(1.5)
    assert (size.height, size.width, size.antialias) == (384, 288, 4)
    assert manifest_sha256(plain) != manifest_sha256(timed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scales": [1.0, 1.3]}, "scales[1]: 1.3 makes an input of 332.8 x 249.6 pixels"),
        ({"scales": [1.0, 1.3]}, "The nearest scales for 256 x 192: 1 (256 x 192) and 1.5 (384 x 288)"),
        ({"scales": [1.0, 0.1]}, "0.5 (128 x 96) and 1 (256 x 192)"),
        ({"scales": [1.0, 40]}, "The nearest scales for 256 x 192: 16 (4096 x 3072)"),
        ({"scales": [1.0, -1]}, "localizer.test_time.scales[1]: expected a number"),
        ({"scales": [1.0, float("nan")]}, "localizer.test_time.scales[1]: expected a number"),
        ({"scales": 1.0}, "localizer.test_time.scales: expected an array"),
        ({"scales": []}, "localizer.test_time.scales: 1.0, the input's own size, must be one of them"),
        ({"scales": [1.5]}, "localizer.test_time.scales: 1.0, the input's own size, must be one of them"),
        ({"scales": [1.0, 1]}, "localizer.test_time.scales: a scale stands there twice"),
        ({"scales": [k / 2 for k in range(1, 10)]}, "localizer.test_time.scales: 9 scales, at most 8"),
        ({"flip": 1}, "localizer.test_time.flip: expected one of True, False"),
        ({"flip_shift": None}, "localizer.test_time.flip_shift"),
        ({"flips": True}, "localizer.test_time.flips: no such field is known; did you mean flip?"),
    ],
)
def test_test_time_that_the_network_cannot_run_is_refused(changes, message):
    with pytest.raises(BundleError, match=re.escape(message)):
        Manifest.from_dict(timed_document(**changes))


@pytest.mark.parametrize(
    ("height", "width", "scale", "allowed"),
    [
        (320, 160, 1.2, True),
        (288, 192, 1.3333, True),  # 384 x 256
        (288, 192, 1.5, False),  # 432 is no multiple of 32
        (240, 176, 2, True),  # of a network whose stride is 16 at most
        (240, 176, 1.5, False),
        (250, 192, 2, True),
        (256, 256, 1.125, True),
        (256, 256, 1.0625, False),
    ],
)
def test_scales_are_multiples_of_the_stride_that_the_input_shows(height, width, scale, allowed):
    found = timed_document(scales=[1.0, scale], flip=False)
    found["localizer"]["input"] |= {"height": height, "width": width}
    if allowed:
        assert Manifest.from_dict(found).localizer.averaging.scales == (1.0, scale)
    else:
        with pytest.raises(BundleError, match="the stride of the network's coarsest branch"):
            Manifest.from_dict(found)


def test_channels_follow_the_keypoints_in_any_order():
    found = document()
    found["localizer"]["keypoints"]["lumbar"].reverse()
    found["localizer"]["keypoints"]["cervical"][0]["channel"] = 99
    channels = Manifest.from_dict(found).localizer.channels()
    assert channels[0][0] == (99, 1)
    assert channels[1] == tuple((12 + 2 * disc, 13 + 2 * disc) for disc in range(6))


@pytest.mark.parametrize("path", list(places(document())), ids=dotted)
def test_every_field_is_needed(path):
    if path in {("localizer", "files", "cervical", "fp32"), ("localizer", "files", "lumbar", "fp32"),
                ("grader", "files", "corners", "fp32")}:  # fmt: skip
        named = dotted(path[:-1])
    elif path[0] == "files" and len(path) == 2:
        named = "not listed in files"
    else:
        named = dotted(path)
    with pytest.raises(BundleError, match=re.escape(named)):
        Manifest.from_dict(changed(path, KeyError))


@pytest.mark.parametrize("value", [{"odd": 1}, [None], "", -7, 1e9, float("nan"), True])
@pytest.mark.parametrize("path", [p for p in places(document()) if p != ("provenance",)], ids=dotted)
def test_every_field_has_a_type_and_a_range(path, value):
    with pytest.raises(BundleError, match=re.escape(dotted(path))):
        Manifest.from_dict(changed(path, value))


@pytest.mark.parametrize(
    "path",
    [(), ("localizer",), ("localizer", "input"), ("localizer", "files"), ("localizer", "files", "lumbar"),
     ("localizer", "contrast"), ("localizer", "keypoints"), ("localizer", "keypoints", "cervical", 3), ("grader",),
     ("grader", "input"), ("grader", "crop"), ("grader", "files"), ("golden",), ("files", "localizer.fp32.onnx")],
    ids=dotted,
)  # fmt: skip
def test_unknown_fields_are_refused(path):
    with pytest.raises(BundleError, match=re.escape(dotted((*path, "surprise")))):
        Manifest.from_dict(changed((*path, "surprise"), "x"))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("schema",), "spinescore.bundle/2", "schema: this version reads spinescore.bundle/1"),
        (("localizer", "input", "mean"), [0.0, 0.0], "localizer.input.mean: expected 1 numbers, found 2"),
        (("localizer", "input", "std"), [0.0], "localizer.input.std[0]"),
        (("localizer", "passes"), 3, "localizer.passes: expected one of 1, 2"),
        (("localizer", "passes"), True, "localizer.passes"),
        (("localizer", "contrast", "low"), 99.0, "localizer.contrast.low: must be below high"),
        (("localizer", "keypoints", "cervical", 1, "point"), "centre", "localizer.keypoints.cervical"),
        (("localizer", "keypoints", "cervical", 1, "channel"), 0, "localizer.keypoints.cervical"),
        (("localizer", "keypoints", "cervical", 1, "level"), "L1/L2", "localizer.keypoints.cervical[1].level"),
        (("grader", "input", "height"), 32, "grader.input: crops are square"),
        (("grader", "head"), "corner4 ", "grader.head: expected one of corners4"),
        (("grader", "files", "corners", "fp32"), "other.onnx", "'other.onnx' is not listed in files"),
        (("files", "grader-corners.fp32.onnx", "precision"), "fp16", "files.grader-corners.fp32.onnx.precision"),
        (("files", "grader-corners.fp32.onnx", "sha256"), "A" * 64, "files.grader-corners.fp32.onnx.sha256"),
        (("golden",), {"localizer": "golden.npz"}, "golden.localizer: 'golden.npz' is not listed"),
    ],
)
def test_messages(path, value, message):
    with pytest.raises(BundleError, match=re.escape(message)):
        Manifest.from_dict(changed(path, value))


def test_a_head_wants_its_own_networks():
    found = document("bridge+grades")
    found["grader"]["files"] = copy.deepcopy(document()["grader"]["files"])
    with pytest.raises(BundleError, match=r"grader\.files\.bridge: this field is missing"):
        Manifest.from_dict(found)


@pytest.mark.parametrize("wrong", [None, [], "text", 3])
def test_no_object_is_no_manifest(wrong):
    with pytest.raises(BundleError, match="expected an object"):
        Manifest.from_dict(wrong)


@pytest.mark.parametrize("heads", [24, "separate"])
def test_alternatives_in_their_order(heads):
    found = listed(manifest(heads, alternatives=("narrow", "a-2")))
    read = Manifest.from_dict(json.loads(json.dumps(found)))
    assert read.to_dict() == found
    assert read.localizer.names == (None, "narrow", "a-2")
    assert len(read.networks) == 3  # without the alternatives
    found["localizer"]["alternatives"].reverse()
    assert manifest_sha256(Manifest.from_dict(found)) != manifest_sha256(read)


def test_a_manifest_without_alternatives_does_not_name_them():
    empty = document()
    empty["localizer"]["alternatives"] = []
    assert Manifest.from_dict(empty).to_dict() == document()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ((0, "name"), "../up", "localizer.alternatives[0].name: a localizer's name has up to 32 lower-case letters"),
        ((0, "name"), "a/b", "localizer.alternatives[0].name: a localizer's name"),
        ((0, "name"), "Narrow", "localizer.alternatives[0].name: a localizer's name"),
        ((0, "name"), "my-lumbar", "localizer.alternatives[0].name: a localizer's name"),
        ((0, "name"), "", "localizer.alternatives[0].name: expected text"),
        ((1, "name"), "narrow", "localizer.alternatives[1].name: there is another alternative 'narrow'"),
        ((0, "note"), "x", "localizer.alternatives[0].note: no such field"),
        ((0, "files", "lumbar"), {}, "localizer.alternatives[0].files.lumbar: expected at least one of fp32"),
        ((0, "files", "thorax"), {}, "localizer.alternatives[0].files.thorax: no such field"),
        ((0, "files", "lumbar"), {"fp32": "other.onnx"}, "localizer.alternatives[0].files: expected files as in "),
        ((1, "files"), {region: {"fp32": "other.onnx"} for region in ("cervical", "lumbar")},
         "localizer.alternatives[1].files.cervical.fp32: 'other.onnx' is not listed in files"),
        ((1, "files"), {region: {"fp16": "localizer.fp32.onnx"} for region in ("cervical", "lumbar")},
         "files.localizer.fp32.onnx.precision: expected fp16, as localizer.alternatives[1].files.cervical has it"),
        ((0,), None, "localizer.alternatives[0]: expected an object"),
    ],
)  # fmt: skip
def test_alternatives_are_checked_as_the_localizer_is(path, value, message):
    found = listed(manifest(alternatives=("narrow", "thin")))
    node = found["localizer"]["alternatives"]
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises(BundleError, match=re.escape(message)):
        Manifest.from_dict(found)


@pytest.mark.parametrize("missing", ["name", "files"])
def test_an_alternative_has_a_name_and_files(missing):
    found = listed(manifest(alternatives=("narrow",)))
    del found["localizer"]["alternatives"][0][missing]
    with pytest.raises(BundleError, match=re.escape(f"localizer.alternatives[0].{missing}: this field is missing")):
        Manifest.from_dict(found)
