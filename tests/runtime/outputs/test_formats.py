"""The table of formats agrees with the type, the docstring, the option and the names that folders pass over."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from helpers import tiny
from spinescore.runtime import OutputError, cli, write_results
from spinescore.runtime.outputs.formats import DEFAULT_FORMATS, FORMATS, ResultFormat
from spinescore.runtime.outputs.results import check_formats
from spinescore.runtime.reading.inputs import is_own
from spinescore.runtime.study import REGIONS

ROOT = Path(__file__).parents[3]


def test_the_type_names_the_formats_of_the_table():
    assert get_args(ResultFormat) == tuple(FORMATS)
    assert set(DEFAULT_FORMATS) <= set(FORMATS)


def test_the_table_is_read_without_the_modules_that_make_the_files():
    code = "import sys, spinescore.runtime.outputs.formats\nprint(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    package = "spinescore.runtime.outputs"
    assert [name for name in loaded if name.startswith(package)] == [package, f"{package}.formats", f"{package}.words"]


def test_the_docstring_names_every_format_and_file():
    for name, form in FORMATS.items():
        assert f"`{name}`" in write_results.__doc__
        assert f"`{form.file.format(region='<region>')}`" in write_results.__doc__


@pytest.mark.parametrize("name", list(FORMATS))
def test_a_folder_passes_the_files_over_when_it_is_read(name):
    for region in REGIONS:
        assert is_own(FORMATS[name].file.format(region=region))


def test_the_option_shows_every_format(capsys):
    with pytest.raises(SystemExit):
        cli.main(["score", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name, form in FORMATS.items():
        assert f"{name} ({form.meaning})" in text


def test_the_documentation_names_every_file():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "".join(page.read_text("utf-8") for page in pages)
    for name, form in FORMATS.items():
        assert f"| `{name}` | `{form.file.format(region='<region>')}` |" in text


def test_formats_come_in_the_order_of_the_table_and_once():
    assert check_formats(["png", "json", "png"]) == ["json", "png"]
    assert check_formats([]) == []


def test_a_generator_is_read_once():
    assert check_formats(name for name in ("csv", "json")) == ["json", "csv"]


@pytest.mark.parametrize("formats", [None, 3, True])
def test_what_is_no_list_is_refused_with_the_default(formats):
    with pytest.raises(TypeError, match=r"formats takes names of formats.*leave it out for json, png"):
        check_formats(formats)


def test_an_exhausted_generator_is_refused_and_nothing_is_removed(tmp_path):
    names = iter(["json"])
    list(names)
    (tmp_path / "report.json").write_text("of before", encoding="utf-8")
    study = {"lumbar": tiny.draw("lumbar").radiograph.pixels}
    with pytest.raises(ValueError, match="iterator with nothing left"):
        write_results(study, None, tmp_path, formats=names)
    assert (tmp_path / "report.json").read_text("utf-8") == "of before"


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.is_dicom])
def test_dicom_formats_cannot_be_anonymous(name):
    with pytest.raises(OutputError, match=f"the format {name} names the patient"):
        check_formats(["json", name], anonymous=True)
