"""Golden files as somebody else may have written them: refused by name, and never larger than they say."""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from helpers.golden_bundle import write_golden_bundle
from spinescore.runtime import BundleError
from spinescore.runtime.acceptance.golden import golden_grader, golden_localizers, has_golden
from spinescore.runtime.acceptance.selftest import SelfTest
from spinescore.runtime.bundle import Bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return Bundle.open(write_golden_bundle(tmp_path_factory.mktemp("golden") / "b", "none"))


def arrays(bundle) -> dict[str, np.ndarray]:
    with np.load(bundle.path("golden/localizer.npz")) as archive:
        return dict(archive)


def header(shape: str, descr: str = "|u1", fortran: bool = False) -> bytes:
    text = f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}".ljust(118 - 1) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def with_entry(bundle, name: str = "", data: bytes = b"", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for key, array in arrays(bundle).items():
            file = io.BytesIO()
            np.save(file, array)
            archive.writestr(f"{key}.npy", data if key == name else file.getvalue())
    return packed.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("image_both", header("(3, 256, 192)"), "cut short"),
        ("image_both", header("(300000, 256, 192)"), "an array of 14745600000 bytes, more than"),
        ("image_both", header("(3, 256, 192)", fortran=True) + bytes(3 * 256 * 192), "plain numbers in C order"),
        ("image_both", header("(3,)", "|O") + b"cos\nsystem\n", "plain numbers in C order"),
        ("image_both", header("(3, 9, 9)") + bytes(243), "the manifest wants 8-bit pictures of 256 x 192"),
        ("image_both", header("()"), "plain numbers in C order"),
        ("image_both", b"no array", "no golden file"),
        ("region_both", header("(3,)") + bytes((0, 1, 7)), "does not name a region for each of 3 pictures"),
        ("region_both", header("(3,)", "|b1") + bytes(3), "does not name a region for each of 3 pictures"),
        ("expected_both", header("(3, 1)", "|S4") + b"0.25" * 3, "has 3 pictures, expected_both 3 outputs of"),
        ("region_both", header("(2,)") + bytes(2), "does not name a region for each of 3 pictures"),
        (
            "expected_both",
            header("(2, 24, 64, 48)") + bytes(2 * 24 * 64 * 48),
            "has 3 pictures, expected_both 2 outputs",
        ),
    ],
)
def test_damaged_arrays_are_refused_by_name(bundle, monkeypatch, tmp_path, name, data, message):
    (tmp_path / "localizer.npz").write_bytes(with_entry(bundle, name, data))
    monkeypatch.setattr(Bundle, "path", lambda bundle, name: tmp_path / "localizer.npz")
    with pytest.raises(BundleError, match=f"Bundle tiny: golden/localizer.npz.*{message}.*export"):
        golden_localizers(bundle)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_methods_that_are_unpacked_without_a_limit_are_refused(bundle, monkeypatch, tmp_path, method):
    (tmp_path / "file.npz").write_bytes(with_entry(bundle, method=method))
    monkeypatch.setattr(Bundle, "path", lambda bundle, name: tmp_path / "file.npz")
    with pytest.raises(BundleError, match="region_both is compressed by another method than deflate; export"):
        golden_localizers(bundle)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 and no more", bytes(1000)])
def test_what_is_no_archive_is_refused(bundle, monkeypatch, tmp_path, data):
    (tmp_path / "file.npz").write_bytes(data)
    monkeypatch.setattr(Bundle, "path", lambda bundle, name: tmp_path / "file.npz")
    for read in (golden_localizers, golden_grader):
        with pytest.raises(BundleError, match="is no golden file"):
            read(bundle)


def test_a_bundle_needs_golden_inputs_of_both_kinds(bundle):
    assert has_golden(bundle)
    one = replace(bundle, manifest=replace(bundle.manifest, golden={"grader": "golden/grader.npz"}))
    assert not has_golden(one)
    assert SelfTest.of(one) is None
