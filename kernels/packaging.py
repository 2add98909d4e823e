"""The build steps that compile the kernels for the package. Only setuptools imports this file (pyproject.toml)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from setuptools.command.bdist_wheel import bdist_wheel, get_platform
from setuptools.command.build_py import build_py

__all__ = ["BuildWithKernels", "TaggedWheel"]


class BuildWithKernels(build_py):
    """Copies the modules and, if nvcc is there, puts the fatbins and their PTX beside them.

    Without nvcc the kernels are compiled when they are first used.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        build = _build_module()
        nvcc = build.find_nvcc()
        if nvcc is None:
            self.warn("nvcc was not found: the CUDA kernels will be compiled when they are first used")
            return
        folder = Path(self.build_lib) / "spinescore" / "kernels"
        for stale in (*folder.glob("*.fatbin"), *folder.glob("*.ptx")):
            stale.unlink()
        try:
            for source in build.SOURCES:
                build.compile_fatbin(source, folder / build.shipped_name(source), nvcc)
                build.compile_ptx(source, folder / build.shipped_name(source, ".ptx"), nvcc)
        except build.KernelBuildError as error:
            self.warn(f"{error} The CUDA kernels will be compiled when they are first used.")


class TaggedWheel(bdist_wheel):
    """Tags a wheel that carries compiled kernels for the platform of its nvcc, or for the one that `--plat-name` names.

    Fatbins are the same for every processor of the host, but each platform has GPUs and a CUDA of its own: those that
    a workstation's nvcc makes do not load on a Jetson. A wheel without fatbins stays `py3-none-any`.
    """

    plat_name_supplied: bool  # by an option

    def get_tag(self) -> tuple[str, str, str]:
        if not self.plat_name_supplied and any(Path(self.bdist_dir).glob("spinescore/kernels/*.fatbin")):
            self.plat_name, self.plat_name_supplied = get_platform(None), True
        tag: tuple[str, str, str] = super().get_tag()
        return tag


def _build_module() -> ModuleType:
    """Return build.py, which cannot be imported by its name before the package is installed."""
    spec = importlib.util.spec_from_file_location("spinescore_kernels_build", Path(__file__).with_name("build.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
