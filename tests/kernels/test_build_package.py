"""The step that builds the package with compiled kernels, and the tag of its wheel, with a double of nvcc."""

import pytest

from helpers.nvcc_double import FATBIN
from spinescore.kernels import build
from spinescore.kernels.build import SOURCES


@pytest.fixture
def package_step(monkeypatch, tmp_path):
    """The step of building the package, its copying left out, with the folder into which it builds."""
    pytest.importorskip("setuptools", reason="setuptools is not installed, so no package is built here")
    from setuptools import Distribution

    from spinescore.kernels import packaging

    monkeypatch.setattr(packaging.build_py, "run", lambda self: None)
    monkeypatch.setattr(packaging, "_build_module", lambda: build)
    step = packaging.BuildWithKernels(Distribution())
    step.build_lib, step.editable_mode = str(tmp_path), False
    folder = tmp_path / "spinescore" / "kernels"
    folder.mkdir(parents=True)
    return step, folder


def test_a_package_is_built_with_the_fatbins_where_nvcc_is(nvcc, package_step):
    step, folder = package_step
    for suffix in ("fatbin", "ptx"):
        (folder / f"warp-of-an-earlier-build.{suffix}").write_bytes(FATBIN)
    step.run()
    names = [build.shipped_name(source, suffix) for source in SOURCES for suffix in (".fatbin", ".ptx")]
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert nvcc.compiled == [["compute_75", "sm_75", "sm_90"], "--ptx", "--cubin"] * len(SOURCES)


def test_a_package_is_built_without_fatbins_where_nvcc_is_missing_or_fails(nvcc, package_step, monkeypatch):
    step, folder = package_step
    said = []
    monkeypatch.setattr(step, "warn", said.append)
    nvcc.fails = "nvcc fatal: no host compiler"
    step.run()
    nvcc.is_there(False)
    step.run()
    assert [*folder.iterdir()] == []
    assert "no host compiler" in said[0]
    assert "nvcc was not found" in said[1]


@pytest.mark.parametrize(
    ("options", "has_kernels", "platform"),
    [
        ({}, True, "linux_x86_64"),
        ({}, False, "any"),
        ({"plat_name": "linux_aarch64"}, True, "linux_aarch64"),
    ],
)
def test_a_wheel_with_compiled_kernels_has_the_tag_of_its_platform(
    package_step, monkeypatch, options, has_kernels, platform
):
    from spinescore.kernels import packaging

    step, folder = package_step
    monkeypatch.setattr(packaging, "get_platform", lambda folder: "linux_x86_64")
    wheel = packaging.TaggedWheel(step.distribution, **options)
    wheel.bdist_dir, wheel.root_is_pure = step.build_lib, True
    wheel.plat_name_supplied = bool(options)
    if has_kernels:
        (folder / build.shipped_name(SOURCES[0])).write_bytes(FATBIN)
    assert wheel.get_tag() == ("py3", "none", platform)
