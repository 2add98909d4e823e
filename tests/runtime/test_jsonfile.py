"""Documents and files that others may have put there are read whole, or refused in words."""

from __future__ import annotations

import json
import math
import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from spinescore.runtime.files import open_regular, read_bytes, read_text
from spinescore.runtime.jsonfile import MAX_DEPTH, parse_json, read_json

POSIX = pytest.mark.skipif(os.name != "posix", reason="Windows has no such files")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "Expecting"),
        ("", "Expecting"),
        ("NaN", "NaN is no number"),
        ('{"a": [1, -Infinity]}', "-Infinity is no number"),
        ("1" + "0" * 400, "401 digits"),
        ("-" + "9" * 5000, "digits"),
        ("1e999", "too large"),
        ("-1e400", "too large"),
        ('"\\ud800"', "surrogate"),
        ('{"\\uDFFF": 1}', "surrogate"),
        ('["\\ud83d\\u0041"]', "surrogate"),
        ('{"a": 1, "b": 2, "a": 3}', "'a' twice"),
        ("[" * 100_000 + "]" * 100_000, "nested"),
        ('{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1), "nested deeper than 64"),
        (b"\xff\xff\xff", "not UTF-8"),
        (b'"\xed\xa0\x80"', "not UTF-8"),  # a surrogate as bytes
    ],
)
def test_what_is_no_document_is_a_value_error(text, words):
    with pytest.raises(ValueError, match=r"\w") as refused:
        parse_json(text)
    assert words in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_documents_are_read_as_editors_write_them(encoding):
    document = {"name": "Knochen\u00fc \U0001f9b4", "numbers": [0, -1, 1.5, 2**60], "deep": [[[]]]}
    assert parse_json(json.dumps(document, ensure_ascii=False).encode(encoding)) == document
    assert parse_json(json.dumps(document)) == document  # with a pair of surrogates


def test_depth_is_counted_beside_wide_lists():
    assert parse_json("[" * (MAX_DEPTH - 1) + "1" + "]" * (MAX_DEPTH - 1))
    assert len(parse_json("[" + "1," * 10_000 + "[]]")) == 10_001


def test_numbers_can_be_left_to_a_caller_that_names_their_place():
    text = '{"a": [NaN, Infinity, 1e999, ' + "9" * 400 + "]}"
    assert parse_json(text, any_number=True)["a"][1:3] == [math.inf, math.inf]
    with pytest.raises(ValueError, match="digits"):
        parse_json("9" * 5000, any_number=True)


def test_a_file_is_read_up_to_its_limit(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert (read_bytes(path, 5), read_text(path, 5)) == (b"12345", "12345")
    with pytest.raises(OSError, match="limit of 4 bytes") as refused:
        read_bytes(path, 4)
    assert refused.value.filename == str(path)
    path.write_bytes(b"")
    assert read_bytes(path, 0) == b""
    with pytest.raises(ValueError, match="Expecting"):
        read_json(path)


def test_a_file_that_grows_while_it_is_read_is_no_larger_than_its_limit(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"1" * 1000)
    fstat = os.fstat

    class Smaller:
        def __init__(self, status):
            self.st_mode, self.st_size = status.st_mode, 10

    monkeypatch.setattr(os, "fstat", lambda descriptor: Smaller(fstat(descriptor)))
    with pytest.raises(OSError, match="limit of 100 bytes"):
        read_bytes(path, 100)
    assert read_bytes(path, 1000) == b"1" * 1000


@POSIX
def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    pipe, device, folder, bound = (tmp_path / name for name in ("pipe", "device", "folder", "socket"))
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    folder.mkdir()
    link = tmp_path / "link"
    link.symlink_to(pipe)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(bound))
        for path in (pipe, device, folder, link, bound):
            with pytest.raises(OSError, match="not a file") as refused:
                open_regular(path)
            assert refused.value.strerror
    with pytest.raises(OSError, match="cannot be a file's") as refused:
        open_regular("a\0b")
    assert refused.value.strerror


@POSIX
def test_descriptors_are_closed_and_not_inherited(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    before = len([*Path("/dev/fd").iterdir()])
    for _ in range(3):
        with pytest.raises(OSError, match="not a file"):
            open_regular(pipe)
    assert len([*Path("/dev/fd").iterdir()]) == before
    path = tmp_path / "file"
    path.write_bytes(b"1")
    with open_regular(path) as file:
        assert not os.get_inheritable(file.fileno())


def test_a_deep_document_is_refused_in_a_thread_with_a_small_stack():
    found: list[str] = []

    def parse():
        try:
            parse_json('{"a":' * 50_000)
        except ValueError as error:
            found.append(str(error))

    threading.stack_size(1 << 20)
    try:
        thread = threading.Thread(target=parse)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(0)
    assert found
    assert sys.getrecursionlimit() >= 1000
