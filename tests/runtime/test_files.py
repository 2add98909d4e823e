"""Files are written whole or not at all; text tables are aligned."""

from __future__ import annotations

import errno
import os

import cv2
import numpy as np
import pytest

from spinescore.runtime import files
from spinescore.runtime.files import write_atomic, write_png, write_set
from spinescore.runtime.text import table


def test_writes_into_a_folder_that_is_made(tmp_path):
    path = write_atomic(tmp_path / "a" / "b.txt", "Grüße")
    assert path.read_bytes() == "Grüße".encode()
    assert [entry.name for entry in path.parent.iterdir()] == ["b.txt"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_atomic(tmp_path / "report.json", b"old")

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_set_of_files_is_of_one_result(tmp_path):
    for name in ("a", "b", "c", "mine"):
        (tmp_path / name).write_text("old", encoding="utf-8")
    assert write_set(tmp_path, {"a": "new", "b": None, "c": lambda: b"new", "d": lambda: None}) == [
        tmp_path / "a",
        tmp_path / "c",
    ]
    assert {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()} == {
        "a": "new",
        "c": "new",
        "mine": "old",
    }


def test_a_set_that_cannot_be_written_keeps_no_part_of_an_earlier_one(tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text("old", encoding="utf-8")
    write = files.write_atomic

    def full(path, data):
        if path.name == "b":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, data)

    monkeypatch.setattr(files, "write_atomic", full)
    with pytest.raises(OSError, match="No space left"):
        write_set(tmp_path, {"a": "new", "b": "new", "c": "new"})
    assert {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()} == {"a": "new"}


def test_the_umask_decides_who_reads(tmp_path):
    before = os.umask(0o027)
    try:
        assert write_atomic(tmp_path / "x", b"").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_keeps_every_value(tmp_path, shape, dtype):
    image = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    read = cv2.imread(str(write_png(tmp_path / "x.png", image)), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read, image)
    assert read.dtype == dtype


def test_table_aligns_numbers_to_the_right():
    assert table([["C2", 3], ["T12", 12]], ["site", "grade"]).splitlines() == [
        "site  grade",
        "----  -----",
        "C2        3",
        "T12      12",
    ]


def test_table_without_rows():
    assert table([], ["site", "grade"]).splitlines() == ["site  grade", "----  -----"]
