"""Report what this machine can run, and what is missing for the rest."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import util
from pathlib import Path
from typing import Any, Literal

from spinescore.runtime.engines import ENGINES
from spinescore.runtime.machine.packages import CUDA_BUILD, PACKAGES, installed, is_importable, is_newer, version_of
from spinescore.runtime.machine.processor import instruction_sets, processor_name
from spinescore.runtime.text import one_line

__all__ = ["Finding", "can_score", "examine", "findings_dict", "findings_text", "hardware"]

State = Literal["ok", "missing", "absent"]  # absent: not here, and this package cannot install it
_SYSTEM = Path("/usr")  # its packages for Python are hidden in a virtual environment


@dataclass(frozen=True)
class Finding:
    """One thing that was examined. `fix` is the command that installs what is missing, if there is one."""

    group: str
    name: str
    state: State
    detail: str
    fix: str = ""


def examine(bundles: Sequence[str] = ()) -> list[Finding]:
    """Examine Python, the CPU, packages, decoders, inference providers, the GPU, and the shipped and named bundles."""
    return [*_machine(), *_packages(), *_decoders(), *_providers(), *_gpu(), *_bundles(bundles)]


def can_score(findings: list[Finding]) -> bool:
    """Whether everything is here that scoring on the CPU needs."""
    needed = {name for name, package in PACKAGES.items() if package.extra is None}
    return all(finding.state == "ok" for finding in findings if finding.name in needed)


def findings_text(findings: list[Finding]) -> str:
    """Return the findings by group, one line each, and below them the commands that install what is missing."""
    width = max(len(finding.name) for finding in findings)
    lines: list[str] = []
    group = ""
    for finding in findings:
        if finding.group != group:
            group = finding.group
            lines += ["", group]
        state = "ok" if finding.state == "ok" else "--"
        lines.append(one_line(f"  {state}  {finding.name:<{width}}  {finding.detail}"))
    fixes = dict.fromkeys(finding.fix for finding in findings if finding.fix)
    if fixes:
        lines += ["", "To add what is missing:", *(f"  {fix}" for fix in fixes)]
    return "\n".join(lines[1:])


def findings_dict(findings: list[Finding]) -> dict[str, Any]:
    """Return the findings as a JSON document."""
    return {
        "schema": "spinescore.doctor/1",
        "can_score": can_score(findings),
        "findings": [asdict(f) for f in findings],
    }


def hardware() -> dict[str, Any]:
    """Return CPU, cores and system, for the record of a measurement."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": processor_name(),
        "cpu_flags": list(instruction_sets()),
        "cores": available,
        "machine": platform.machine(),
        "system": platform.system(),
    }


def _machine() -> list[Finding]:
    facts = hardware()
    words = filter(None, (facts["cpu"], f"{facts['cores']} cores", " ".join(facts["cpu_flags"])))
    return [
        Finding("Machine", "Python", "ok", f"{platform.python_version()}, {platform.platform(terse=True)}"),
        Finding("Machine", "CPU", "ok", ", ".join(words)),
        _signing(),
    ]


def _signing() -> Finding:
    """Whether files that are made on this machine can be signed; otherwise they do not count later."""
    from spinescore.kernels.signing import key_fault

    fault = key_fault()
    detail = fault or "files made here are signed, and count later"
    return Finding("Machine", "signing", "absent" if fault else "ok", detail)


def _packages() -> list[Finding]:
    findings = []
    for name, package in PACKAGES.items():
        extra = package.extra
        group = "Packages" if extra is None else f"Packages of the extra [{extra}]"
        version = version_of(name)
        if version:
            note = f", newer than {package.tested}, the newest that was tested"
            findings.append(Finding(group, name, "ok", version + note * is_newer(version, package.tested)))
        else:
            fix = f'pip install "spinescore[{extra}]"' if extra else f"pip install {name}"
            findings.append(Finding(group, name, "missing", "not installed", fix))
    return findings


def _decoders() -> list[Finding]:
    if util.find_spec("pydicom") is None:
        return []
    from spinescore.runtime.reading.decoding import codecs
    from spinescore.runtime.reading.decoding.syntaxes import SYNTAXES

    findings = [Finding("DICOM transfer syntaxes", "uncompressed, deflated", "ok", "read without a decoder")]
    for uid, syntax in SYNTAXES.items():
        name, installed = syntax.name, codecs.installed(uid)
        if installed:
            findings.append(Finding("DICOM transfer syntaxes", name, "ok", ", ".join(installed)))
        else:
            fix = 'pip install "spinescore[dicom]"'
            findings.append(Finding("DICOM transfer syntaxes", name, "missing", "no decoder is installed", fix))
    return findings


def _providers() -> list[Finding]:
    if util.find_spec("onnxruntime") is None:
        return []
    try:
        import onnxruntime
    except ImportError as error:
        detail = f"installed, but it cannot be imported ({error})"
        return [Finding("Inference", "onnxruntime", "missing", detail, "pip install --force-reinstall onnxruntime")]
    names = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    found = Finding("Inference", "ONNX Runtime", "ok", f"{onnxruntime.__version__}: {', '.join(names)}")
    return [found, *_two_builds("CUDA" in names)]


def _two_builds(has_cuda: bool) -> list[Finding]:
    """Return a finding if onnxruntime and onnxruntime-gpu are both installed: the later one overwrites the other."""
    builds = [f"{name} {version}" for name in ("onnxruntime", "onnxruntime-gpu") if (version := installed(name))]
    if len(builds) < 2:
        return []
    both = f"{' and '.join(builds)} lie in one folder, and the one that was installed later overwrote the other"
    if has_cuda:
        return [Finding("Inference", "two builds", "ok", f"{both}; the CUDA provider is there")]
    return [Finding("Inference", "two builds", "missing", f"{both}: the CUDA provider is gone", CUDA_BUILD)]


def _gpu() -> list[Finding]:
    group = "NVIDIA GPU (not needed to score on a CPU)"
    findings = [_gpu_itself(group), _driver(group), _nvcc(group)]
    frameworks = {
        module: framework.title
        for row in ENGINES.values()
        if row.prebuilt  # those of the other engines are among the packages
        for module, framework in row.frameworks.items()
    }
    for module, name in {"pycuda": "pycuda", **frameworks}.items():
        if is_importable(module):
            findings.append(Finding(group, name, "ok", "installed"))
        else:
            findings.append(_hidden(group, name, module) or Finding(group, name, "absent", "not installed"))
    return findings


def _hidden(group: str, name: str, module: str) -> Finding | None:
    """Return a finding if the system has the package, as JetPack's TensorRT, and this Python does not see it.

    A virtual environment hides the system's packages; another Python than the system's (Conda, pyenv) has its own.
    """
    is_system = Path(sys.base_prefix) == _SYSTEM
    if is_system and sys.prefix == sys.base_prefix:
        return None
    places = [
        *_SYSTEM.glob(f"lib/python3*/dist-packages/{module}"),
        *_SYSTEM.glob(f"local/lib/python3*/dist-packages/{module}"),
    ]
    own = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for place in sorted(places, key=lambda place: own not in place.parts):
        python = place.parent.parent.name
        detail = f"{place} is hidden by {'this virtual environment' if is_system else f'the Python of {sys.prefix}'}"
        if is_system and python in (own, "python3"):
            return Finding(group, name, "missing", detail, f"{own} -m venv --system-site-packages {sys.prefix}")
        command = f"{_SYSTEM / 'bin' / python} -m venv --system-site-packages"
        detail += f", and is for the system's {python}: make an environment with {command}"
        return Finding(group, name, "missing", detail)
    return None


def _gpu_itself(group: str) -> Finding:
    """Return the GPU that device `cuda` opens, or what device `auto` does without one."""
    from spinescore.runtime.devices import first_gpu, gpu_is_there
    from spinescore.runtime.errors import DeviceError

    try:
        gpu = first_gpu()
    except DeviceError as error:
        if gpu_is_there():
            return Finding(
                group, "GPU", "missing", f"there, but cannot be used; device auto scores on the CPU. {error}"
            )
        return Finding(group, "GPU", "absent", "none: device auto scores on the CPU")
    major, minor = gpu.compute_capability
    return Finding(group, "GPU", "ok", f"{gpu}, compute capability {major}.{minor}")


def _driver(group: str) -> Finding:
    """Return the CUDA version that the driver's own library says it supports (cuDriverGetVersion)."""
    from spinescore.runtime.devices.cudadriver import DRIVER_LIBRARY, cuda_version

    version = ctypes.c_int()
    try:
        failed = ctypes.CDLL(DRIVER_LIBRARY).cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return Finding(group, "driver", "absent", f"{DRIVER_LIBRARY} is not installed")
    if failed:
        return Finding(group, "driver", "absent", f"{DRIVER_LIBRARY} answers with error {failed}")
    return Finding(group, "driver", "ok", f"supports CUDA {cuda_version(version.value)}")


def _nvcc(group: str) -> Finding:
    program = shutil.which("nvcc")
    if program is None:
        return Finding(group, "nvcc", "absent", "not on PATH")
    try:
        output = subprocess.run([program, "--version"], capture_output=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(group, "nvcc", "absent", f"on PATH, but does not run ({type(error).__name__})")
    release = re.search(rb"release ([\d.]+)", output)
    return Finding(group, "nvcc", "ok", release[1].decode() if release else "version unknown")


def _bundles(more: Sequence[str]) -> list[Finding]:
    from spinescore.runtime.bundle import shipped_bundles
    from spinescore.runtime.opening.overview import engines_here

    shipped = "Bundles that ship with the package"
    names = (*shipped_bundles(), *more)
    if not names:
        return [Finding(shipped, "none", "absent", "this installation holds no bundle")]
    group = f"{'Bundles' if more else shipped}, and their engines on this"
    places = {"CPU": "cpu", "GPU": "cuda"} if _gpu_itself("").state == "ok" else {"CPU": "cpu"}
    findings = [
        Finding(f"{group} {place}", name, "ok", engines_here(name, kind))
        for place, kind in places.items()
        for name in names
    ]
    return [*findings, *(trust for name in names for trust in _trust(name))]


def _trust(name: str) -> list[Finding]:
    """Return whether the bundle's networks were checked against their framework, if the bundle says so."""
    from spinescore.runtime.bundle import Bundle
    from spinescore.runtime.bundle.provenance import trust_of
    from spinescore.runtime.errors import SpineScoreError

    try:
        networks = trust_of(Bundle.open(name).manifest)
    except SpineScoreError:
        return []
    group = f"Networks of {name}"
    return [Finding(group, one.name, "ok" if one.checked else "absent", one.line) for one in networks]
