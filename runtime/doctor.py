"""What this machine can run, and what is missing for the rest. Nothing is loaded that is not installed."""

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
from typing import Any, Literal

from spinescore.runtime.machine.packages import PACKAGES, is_newer, version_of
from spinescore.runtime.machine.processor import instruction_sets, processor_name
from spinescore.runtime.text import one_line

__all__ = ["Finding", "can_score", "examine", "findings_dict", "findings_text", "hardware"]

State = Literal["ok", "missing", "absent"]  # absent: not here, and nothing that this package could install


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `fix` is the line that brings what is missing, empty where there is none."""

    group: str
    name: str
    state: State
    detail: str
    fix: str = ""


def examine(bundles: Sequence[str] = ()) -> list[Finding]:
    """Look at Python, the CPU, packages, decoders, inference providers, the GPU's parts and the shipped bundles.

    `bundles` are looked at besides.
    """
    return [*_machine(), *_packages(), *_decoders(), *_providers(), *_gpu(), *_bundles(bundles)]


def can_score(findings: list[Finding]) -> bool:
    """Everything that scoring on the CPU needs is here."""
    needed = {name for name, package in PACKAGES.items() if package.extra is None}
    return all(finding.state == "ok" for finding in findings if finding.name in needed)


def findings_text(findings: list[Finding]) -> str:
    """The findings by group, one line each, and below the lines that bring what is missing."""
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
    """The findings as a JSON document."""
    return {
        "schema": "spinescore.doctor/1",
        "can_score": can_score(findings),
        "findings": [asdict(f) for f in findings],
    }


def hardware() -> dict[str, Any]:
    """CPU, cores and system, for the record of a measurement."""
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
    flags = " ".join(facts["cpu_flags"])
    version = platform.python_version()
    supported = sys.version_info >= (3, 10)
    return [
        Finding("Machine", "Python", "ok" if supported else "missing", f"{version}, {platform.platform(terse=True)}"),
        Finding("Machine", "CPU", "ok", ", ".join(filter(None, (facts["cpu"], f"{facts['cores']} cores", flags)))),
        _signing(),
    ]


def _signing() -> Finding:
    """Whether what is made on this machine can be signed, without which it does not count later."""
    from spinescore.kernels.signing import key_fault

    fault = key_fault()
    return Finding(
        "Machine", "signing", "absent" if fault else "ok", fault or "what is made here is signed, and counts"
    )


def _packages() -> list[Finding]:
    findings = []
    for name, package in PACKAGES.items():
        extra = package.extra
        group = "Packages" if extra is None else f"Packages of the extra [{extra}]"
        found = version_of(name)
        if found:
            newer = is_newer(found, package.tested)
            note = f"{found}, newer than {package.tested}, the newest that was tested" if newer else found
            findings.append(Finding(group, name, "ok", note))
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
    import onnxruntime

    names = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    return [Finding("Inference", "ONNX Runtime", "ok", f"{onnxruntime.__version__}: {', '.join(names)}")]


def _gpu() -> list[Finding]:
    group = "NVIDIA GPU (not needed to score on a CPU)"
    findings = [_gpu_itself(group), _driver(group), _nvcc(group)]
    for module, name in (
        ("pycuda", "pycuda"),
        ("tensorrt", "TensorRT"),
        ("tensorrt_lean", "TensorRT lean runtime"),
        ("tensorrt_rtx", "TensorRT-RTX"),
    ):
        here = util.find_spec(module) is not None
        findings.append(Finding(group, name, "ok" if here else "absent", "installed" if here else "not installed"))
    return findings


def _gpu_itself(group: str) -> Finding:
    """The GPU that device `cuda` opens, and what device `auto` does without one."""
    from spinescore.runtime.devices import first_gpu, gpu_is_there
    from spinescore.runtime.errors import DeviceError

    try:
        name, capability = first_gpu()
    except DeviceError as error:
        if gpu_is_there():
            return Finding(
                group, "GPU", "missing", f"there, but cannot be used; device auto scores on the CPU. {error}"
            )
        return Finding(group, "GPU", "absent", "none: device auto scores on the CPU")
    return Finding(group, "GPU", "ok", f"{name}, compute capability {capability[0]}.{capability[1]}")


def _driver(group: str) -> Finding:
    """The CUDA version that the driver supports, asked of the driver's own library (cuDriverGetVersion)."""
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
        told = subprocess.run([program, "--version"], capture_output=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(group, "nvcc", "absent", f"on PATH, but does not run ({type(error).__name__})")
    release = re.search(rb"release ([\d.]+)", told)
    return Finding(group, "nvcc", "ok", release[1].decode() if release else "version unknown")


def _bundles(more: Sequence[str]) -> list[Finding]:
    from spinescore.runtime.bundle import shipped_bundles

    names = (*shipped_bundles(), *more)
    if names:
        whose = "Bundles" if more else "Bundles that ship with the package"
        group = f"{whose}, and their engines on this"
        places = ("CPU", "GPU") if _has_gpu() else ("CPU",)
        engines = {"CPU": _engines, "GPU": _engines_on_gpu}
        found = [Finding(f"{group} {place}", name, "ok", engines[place](name)) for place in places for name in names]
        return [*found, *(trust for name in names for trust in _trust(name))]
    return [Finding("Bundles that ship with the package", "none", "absent", "this installation holds no bundle")]


def _engines(name: str) -> str:
    """What scores the bundle on this CPU: what was accepted, the fastest first, and what was not."""
    from spinescore.runtime.acceptance import find_records, verify_command
    from spinescore.runtime.bundle import Bundle
    from spinescore.runtime.errors import SpineScoreError
    from spinescore.runtime.machine.processor import processor_kind
    from spinescore.runtime.opening import Wanted
    from spinescore.runtime.opening.checking import find_check

    try:
        bundle = Bundle.open(name)
    except SpineScoreError as error:
        return str(error)
    records, passes = find_records(bundle, "cpu", processor_kind()), bundle.manifest.localizer.passes
    parts = [
        f"{record.framework} {record.precision} accepted ({record.share_of_reference(passes):.2f} of the time)"
        for record in records.accepted
    ]
    parts += [f"{record.framework} {record.precision} {record.refusal}" for record in records.failed]
    parts.append("onnxruntime fp32 needs no record")
    check, warnings = find_check(bundle, Wanted("cpu"))
    if check is not None:
        parts.append(f"{check.framework} ({' or '.join(check.precisions)}) is checked when a scorer is opened")
    again = "" if records.accepted else f"; to accept more: {verify_command(bundle, 'cpu')}"
    return ". ".join((", ".join(parts) + again, *records.passed_over, *warnings))


def _trust(name: str) -> list[Finding]:
    """Whether the bundle's networks were checked against their framework; nothing of a bundle that does not say."""
    from spinescore.runtime.bundle import Bundle
    from spinescore.runtime.bundle.provenance import trust_of
    from spinescore.runtime.errors import SpineScoreError

    try:
        networks = trust_of(Bundle.open(name).manifest)
    except SpineScoreError:
        return []
    group = f"Networks of {name}"
    return [Finding(group, found.name, "ok" if found.checked else "absent", found.line) for found in networks]


def _has_gpu() -> bool:
    from spinescore.runtime.devices import first_gpu
    from spinescore.runtime.errors import DeviceError

    try:
        first_gpu()
    except DeviceError:
        return False
    return True


def _engines_on_gpu(name: str) -> str:
    """What scores the bundle on this GPU, and what opening a scorer would build."""
    from spinescore.runtime.acceptance import find_records, verify_command
    from spinescore.runtime.bundle import Bundle
    from spinescore.runtime.devices import hardware_of
    from spinescore.runtime.errors import SpineScoreError
    from spinescore.runtime.opening import Wanted
    from spinescore.runtime.opening.building import find_plan

    try:
        bundle = Bundle.open(name)
        records = find_records(bundle, "cuda", hardware_of("cuda"))
        plan, warnings = find_plan(bundle, Wanted("cuda"))
    except SpineScoreError as error:
        return str(error)
    parts = [f"{record.framework} {record.precision} accepted" for record in records.accepted]
    parts += [f"{record.framework} {record.precision} {record.refusal}" for record in records.failed]
    if plan is not None:
        parts += [f"engines in {target} are to be checked" for target in plan.untried]
        parts += [f"{plan.flavour} builds {plan.target} when a scorer is opened"] if plan.flavour else []
    return ", ".join((*parts, *warnings)) or f"none; to accept what is installed: {verify_command(bundle, 'cuda')}"
