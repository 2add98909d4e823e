"""Opening bundles: every file is checked, and nothing outside of the folder is read."""

import hashlib
import json

import pytest

from helpers.tiny import write_bundle
from spinescore.runtime.bundle import Bundle, manifest_sha256, shipped_bundles
from spinescore.runtime.errors import BundleError
from spinescore.runtime.manifest import Manifest


@pytest.fixture
def folder(tmp_path):
    return write_bundle(tmp_path / "tiny")


def edit(folder, change):
    path = folder / "bundle.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_open_by_path_and_by_text(folder):
    bundle = Bundle.open(folder)
    assert bundle == Bundle.open(str(folder))
    assert bundle.manifest.name == "tiny"
    assert bundle.path("localizer.fp32.onnx") == folder / "localizer.fp32.onnx"
    assert bundle.network(bundle.manifest.grader.files["corners"], ("fp16", "fp32")) == (
        folder / "grader-corners.fp32.onnx",
        "fp32",
    )
    with pytest.raises(BundleError, match="only in fp32"):
        bundle.network(bundle.manifest.grader.files["corners"], ("fp16",))


def test_every_shipped_bundle_opens():
    for name in shipped_bundles():
        assert Bundle.open(name).manifest.name == name


def test_the_hash_is_of_the_manifest_without_engines_and_not_of_its_layout(folder):
    before = Bundle.open(folder).sha256
    path = folder / "bundle.json"
    path.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items())), indent=4))
    assert Bundle.open(folder).sha256 == before
    document = json.loads(path.read_text())
    document["files"]["engines/orin/localizer.plan"] = {"sha256": "0" * 64, "bytes": 1, "precision": "fp16"}
    assert manifest_sha256(Manifest.from_dict(document)) == before
    document["localizer"]["min_confidence"] = 0.31
    assert manifest_sha256(Manifest.from_dict(document)) != before


@pytest.mark.parametrize("name", ["no-such-bundle", "phantom-reference/../..", ""])
def test_no_bundle_names_what_there_is(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match=r"no bundle|bundle\.json"):
        Bundle.open(name)


def test_no_manifest_or_no_json(folder):
    (folder / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match="not valid JSON"):
        Bundle.open(folder)
    (folder / "bundle.json").write_text("[" * 100_000)
    with pytest.raises(BundleError, match="not valid JSON"):
        Bundle.open(folder)
    (folder / "bundle.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BundleError, match="not valid JSON"):
        Bundle.open(folder)
    (folder / "bundle.json").unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle.open(folder)


def test_altered_truncated_and_missing_files(folder):
    model = folder / "localizer.fp32.onnx"
    data = model.read_bytes()
    model.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BundleError, match="was altered"):
        Bundle.open(folder)
    model.write_bytes(data[:-10])
    with pytest.raises(BundleError, match=f"{len(data) - 10} bytes instead of {len(data)}"):
        Bundle.open(folder)
    model.unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    "path", ["../outside.bin", "/etc/hostname", "a/../../outside.bin", "C:\\x", "..\\x", "a:b", "", "."]
)
def test_files_outside_of_the_folder_are_refused(folder, path):
    (folder.parent / "outside.bin").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    edit(folder, lambda d: d["files"].update({path: {"sha256": empty, "bytes": 0, "precision": None}}))
    with pytest.raises(BundleError, match=r"leaves the bundle's folder|cannot be read|bytes instead of"):
        Bundle.open(folder)


def test_links_that_leave_the_folder_are_refused(folder, tmp_path):
    outside = tmp_path / "outside.bin"
    outside.write_bytes(b"")
    try:
        (folder / "inside.bin").symlink_to(outside)
    except OSError:
        pytest.skip("this system makes no links")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    edit(folder, lambda d: d["files"].update({"inside.bin": {"sha256": empty, "bytes": 0, "precision": None}}))
    with pytest.raises(BundleError, match="leaves the bundle's folder"):
        Bundle.open(folder)


def _field(number, content):
    """Return a field of Protocol Buffers that holds bytes."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value):
    return bytes([value & 0x7F | 0x80, *_varint(value >> 7)]) if value > 0x7F else bytes([value])


TENSOR = _field(13, _field(1, b"location") + _field(2, b"weights.bin")) + b"\x70\x01"
PLACES = {
    "initializer": _field(7, _field(5, TENSOR)),
    "sparse": _field(7, _field(15, _field(1, TENSOR))),
    "attribute": _field(7, _field(1, _field(5, _field(5, TENSOR)))),
    "subgraph": _field(7, _field(1, _field(5, _field(6, _field(5, TENSOR))))),
    "function": _field(25, _field(7, _field(5, _field(5, TENSOR)))),
}


def with_network(folder, content):
    """Return the bundle with another network; its manifest has the new hash."""
    path = folder / "localizer.fp32.onnx"
    path.write_bytes(content)
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), "precision": "fp32"}
    edit(folder, lambda document: document["files"].update({path.name: entry}))


@pytest.mark.parametrize("place", PLACES)
def test_weights_in_a_file_that_the_manifest_does_not_list_are_refused(folder, place):
    before = (folder / "localizer.fp32.onnx").read_bytes()
    with_network(folder, before + PLACES[place])  # fields may be repeated: the messages are merged
    (folder / "weights.bin").write_bytes(b"12345678")
    with pytest.raises(BundleError, match=r"localizer\.fp32\.onnx takes weights from 'weights\.bin'"):
        Bundle.open(folder)
    entry = {"sha256": hashlib.sha256(b"12345678").hexdigest(), "bytes": 8, "precision": None}
    edit(folder, lambda document: document["files"].update({"weights.bin": entry}))
    if place == "initializer":
        Bundle.open(folder)
    else:  # the file is listed, but no bundle needs weights in such places
        with pytest.raises(BundleError, match="may take all memory"):
            Bundle.open(folder)


def test_a_network_that_is_cut_off_is_refused(folder):
    with_network(folder, PLACES["subgraph"][:-4])
    with pytest.raises(BundleError, match=r"localizer\.fp32\.onnx is no ONNX file, or damaged"):
        Bundle.open(folder)


LOOP = _field(4, b"Loop")  # the operator of a node


@pytest.mark.parametrize(
    "place",
    [
        _field(7, _field(1, LOOP)),
        _field(7, _field(1, _field(5, _field(6, _field(1, LOOP))))),
        _field(25, _field(7, _field(4, b"Scan") + LOOP)),
        _field(20, _field(1, _field(1, LOOP))),
        _field(7, _field(1, LOOP + _field(3, b"x" * 100_000))),
    ],
)
def test_a_network_that_may_run_for_ever_is_refused(folder, place):
    before = (folder / "localizer.fp32.onnx").read_bytes()
    with_network(folder, before + place)
    with pytest.raises(BundleError, match=r"localizer\.fp32\.onnx may take all memory of this computer, or run for"):
        Bundle.open(folder)


def test_networks_are_checked_once_on_a_machine(folder, monkeypatch, tmp_path):
    checked = []
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("spinescore.runtime.bundle.networkcheck.check_networks", lambda *given: checked.append(given))
    Bundle.open(folder)
    Bundle.open(folder)
    assert len(checked) == 1
    edit(folder, lambda document: document.update({"version": "2"}))  # another bundle
    Bundle.open(folder)
    assert len(checked) == 2
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "another machine"))
    Bundle.open(folder)
    assert len(checked) == 3
    Bundle.open("phantom-reference")
    assert len(checked) == 3


def test_networks_that_nobody_can_sign_are_checked_each_time(folder, monkeypatch, tmp_path):
    checked = []
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("spinescore.runtime.bundle.networkcheck.check_networks", lambda *given: checked.append(given))
    monkeypatch.setattr("spinescore.runtime.bundle.sign", lambda *given: False)
    for _ in range(2):
        Bundle.open(folder)
    assert len(checked) == 2
