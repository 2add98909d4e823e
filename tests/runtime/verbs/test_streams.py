"""Streams and files as on Windows: code pages, readers that go away, files that other programs hold."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from pathlib import Path

import pytest

from helpers import tiny
from helpers.tiny_study import write_study
from spinescore.runtime import cli


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    return str(tiny.write_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.mark.parametrize("name", ["\u00e9tude", "\u0441\u043d\u0438\u043c\u043e\u043a"])
def test_reports_are_utf_8_whatever_the_code_page(bundle, tmp_path, monkeypatch, name):
    """Here the code page of Windows in western Europe, which has the letters of only one of the names."""
    image = write_study(tmp_path / "in", regions=("lumbar",)) / "lumbar.dcm"
    image = image.rename(tmp_path / f"{name}.dcm")
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252"))
    assert cli.main(["score", str(image), "--bundle", bundle, "--json"]) == 0
    document = json.loads(written.getvalue().decode("utf-8"))
    assert document["regions"]["lumbar"]["radiograph"]["source"] == image.name


class WindowsPipe(io.FileIO):
    """The writing end of a pipe, with the error that Windows raises if nobody reads it."""

    def write(self, data):
        try:
            return super().write(data)
        except BrokenPipeError:
            raise OSError(errno.EINVAL, "Invalid argument") from None


@pytest.mark.parametrize("end", [io.FileIO, WindowsPipe])
def test_a_reader_that_went_away_is_no_fault(bundle, monkeypatch, capsys, end):
    reading, writing = os.pipe()
    os.close(reading)
    with io.TextIOWrapper(io.BufferedWriter(end(writing, "w")), encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert cli.main(["bundle", "info", bundle]) == 0
    assert capsys.readouterr().err == ""


def test_what_another_program_holds_is_named(bundle, tmp_path, monkeypatch, capsys):
    """Like a table that is open in a spreadsheet."""
    out, replace = tmp_path / "crops", Path.replace

    def refuse(self, target):
        if Path(target).suffix == ".csv":
            raise PermissionError(errno.EACCES, "Access is denied", str(self), None, str(target))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    study = str(write_study(tmp_path / "in", regions=("lumbar",)))
    assert cli.main(["crops", study, "--bundle", bundle, "--out", str(out)]) == 4
    said = capsys.readouterr().err
    assert f"{out / 'index.csv'}: Access is denied; close what holds it open" in said
    assert "unexpected" not in said
