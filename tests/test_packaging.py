"""pyproject.toml agrees with the tree."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib; the other versions run this")

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("benchmarks", "export", "kernels", "runtime")


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_folder_with_code_is_packaged(project):
    folders = {
        "spinescore." + ".".join(source.parent.relative_to(ROOT).parts)
        for package in PACKAGES
        for source in (ROOT / package).rglob("*.py")
        if "__pycache__" not in source.parts
    }
    assert folders | {"spinescore.requirements"} == set(project["tool"]["setuptools"]["packages"])


@pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="this is no checkout")
def test_the_tree_is_small():
    """It travels to GPU machines in one parcel of 64 MiB, beside wheels and build outputs."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name]
    assert sum(path.lstat().st_size for path in files if path.exists()) < 46_000_000


def test_constraints_name_the_floors(project):
    """The oldest versions that are tested are the oldest that pip accepts (in major and minor number)."""
    extras = project["project"]["optional-dependencies"]
    tools = ("hypothesis", "jsonschema", "nvidia-cuda-nvdisasm", "pytest", "spinescore", "tomli")
    tested = (
        "agreement",
        "appliance",
        "archive-dicomweb",
        "association",
        "dicom",
        "export",
        "openvino",
        "parquet",
        "plots",
        "results",
        "test",
    )
    stated = project["project"]["dependencies"] + [line for extra in tested for line in extras[extra]]
    floors = dict(re.match(r"([\w-]+)>=(\d+\.\d+)", line).groups() for line in stated if not line.startswith(tools))
    constraints = (ROOT / "tests" / "constraints-oldest.txt").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([\w-]+)==(\d+\.\d+)", constraints, re.MULTILINE))
    assert pinned == floors


def test_command_is_installed(project):
    assert project["project"]["scripts"] == {"spinescore": "spinescore.runtime.cli:main"}


def test_licence_is_whole():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert text.rstrip().endswith("limitations under the License.")


def test_codes_and_schema_are_in_the_wheel(project):
    patterns = project["tool"]["setuptools"]["package-data"]["spinescore.runtime"]
    for name in ("codes.json", "codes.md", "report.schema.json", "py.typed"):
        assert any((ROOT / "runtime" / name).match(pattern) for pattern in patterns), name


def test_pages_and_examples_are_in_the_source_distribution(tmp_path):
    unwanted = shutil.ignore_patterns(
        ".*", "tests", "build", "demo", "dist", "*.egg-info", "__pycache__", "*.onnx", "*.png"
    )
    shutil.copytree(ROOT, tmp_path / "tree", ignore=unwanted)
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    command = [sys.executable, "-c", build, str(tmp_path / "out")]
    subprocess.run(command, cwd=tmp_path / "tree", check=True, capture_output=True)
    (archive,) = (tmp_path / "out").iterdir()
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    pages = [path for folder in (".", "docs", "examples", "requirements") for path in (ROOT / folder).glob("*.*")]
    kinds = (".md", ".py", ".txt")
    assert {path.relative_to(ROOT).as_posix() for path in pages if path.suffix in kinds} - names == set()
