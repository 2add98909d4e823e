"""Doctor: it names the packages that are installed, and for a missing one the command that installs it."""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from spinescore.runtime import cli, doctor
from spinescore.runtime.machine.packages import PACKAGES

ROOT = Path(__file__).resolve().parents[2]


def named(findings, name) -> doctor.Finding:
    return next(finding for finding in findings if finding.name == name)


def test_installed_packages_have_their_version():
    found = named(doctor.examine(), "numpy")
    assert (found.state, found.detail, found.fix) == ("ok", metadata.version("numpy"), "")


def test_a_missing_package_comes_with_its_extra(monkeypatch):
    known = metadata.version

    def version(name):
        if name == "tqdm":
            raise metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(metadata, "version", version)
    findings = doctor.examine()
    assert named(findings, "tqdm").state == "missing"
    assert named(findings, "tqdm").fix == 'pip install "spinescore[export]"'
    assert 'pip install "spinescore[export]"' in doctor.findings_text(findings)
    assert doctor.can_score(findings)


@pytest.mark.parametrize(
    ("version", "newer"),
    [("2.5.0", True), ("3.0", True), ("2.4.6", False), ("2.4.6.1", True), ("2.4", False), ("2.10.0rc1", True)],
)
def test_a_package_that_is_newer_than_any_tested_is_said_to_be_so(monkeypatch, version, newer):
    known = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: version if name == "numpy" else known(name))
    found = named(doctor.examine(), "numpy")
    assert found.state == "ok"
    assert found.detail == (f"{version}, newer than 2.4.6, the newest that was tested" if newer else version)


def test_what_was_tested_is_what_appliances_install():
    lines = (ROOT / "requirements" / "appliance.txt").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^([\w-]+)==([\w.]+)", lines, re.MULTILINE))  # the last one is for the newest Python
    for name, package in PACKAGES.items():
        if package.extra != "export":
            assert pinned[name] == package.tested, name
    assert len(re.findall(r"^[\w-]+==", lines, re.MULTILINE)) == len(
        re.findall(r"==[^\n]*\\\n    --hash=sha256:[0-9a-f]{64}", lines)
    )


def test_without_the_engine_nothing_can_be_scored(monkeypatch, capsys):
    known = metadata.version

    def version(name):
        if name.startswith("onnxruntime"):
            raise metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(metadata, "version", version)
    assert cli.main(["doctor"]) == 4
    assert "pip install onnxruntime" in capsys.readouterr().out


def test_another_build_of_the_same_library_counts(monkeypatch):
    known = metadata.version

    def version(name):
        if name == "onnxruntime":
            raise metadata.PackageNotFoundError(name)
        return "1.9" if name == "onnxruntime-gpu" else known(name)

    monkeypatch.setattr(metadata, "version", version)
    found = named(doctor.examine(), "onnxruntime")
    assert (found.state, found.detail) == ("ok", "1.9 (onnxruntime-gpu)")


@pytest.mark.parametrize("has_cuda", [False, True])
def test_two_builds_of_onnxruntime_are_seen(monkeypatch, has_cuda):
    """pip installs both into one folder; the package that spinescore needs overwrites the one for the GPU."""
    import onnxruntime

    known = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "1.9" if name == "onnxruntime-gpu" else known(name))
    providers = ["CUDAExecutionProvider"] * has_cuda + ["CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    findings = doctor.examine()
    found = named(findings, "two builds")
    assert found.detail.startswith(f"onnxruntime {known('onnxruntime')} and onnxruntime-gpu 1.9 lie in one folder")
    assert found.state == ("ok" if has_cuda else "missing")
    command = "pip uninstall -y onnxruntime && pip install --force-reinstall --no-deps onnxruntime-gpu"
    assert (command in doctor.findings_text(findings)) == (not has_cuda)
    assert doctor.can_score(findings)


def test_an_onnxruntime_that_cannot_be_imported_is_missing(monkeypatch, tmp_path):
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("raise ImportError('libcudart.so.12: cannot open it')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    (found,) = doctor._providers()
    assert (found.state, found.fix) == ("missing", "pip install --force-reinstall onnxruntime")
    assert found.detail == "installed, but it cannot be imported (libcudart.so.12: cannot open it)"
    assert not doctor.can_score([*doctor._packages(), found])


def test_one_build_of_onnxruntime_is_nothing_to_say():
    assert "two builds" not in [finding.name for finding in doctor.examine()]


OWN = f"python{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.mark.parametrize(
    ("place", "state", "words", "fix"),
    [
        (f"lib/{OWN}", "missing", "is hidden by this virtual environment", True),
        ("lib/python3", "missing", "is hidden by this virtual environment", True),
        (f"local/lib/{OWN}", "missing", "is hidden by this virtual environment", True),
        ("lib/python3.1", "missing", "is for the system's python3.1: make an environment with /", False),
        ("share", "absent", "not installed", False),
    ],
)
def test_jetpacks_tensorrt_that_an_environment_hides(monkeypatch, tmp_path, place, state, words, fix):
    package = tmp_path / "usr" / place / "dist-packages" / "tensorrt"
    package.mkdir(parents=True)
    monkeypatch.setattr(doctor, "_SYSTEM", tmp_path / "usr")
    monkeypatch.setattr(sys, "prefix", "/home/a/.venv")
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "usr"))
    monkeypatch.setattr(doctor, "is_importable", lambda name: False)
    found = named(doctor._gpu(), "TensorRT")
    assert found.state == state
    assert words in found.detail
    assert found.fix == (f"{OWN} -m venv --system-site-packages /home/a/.venv" if fix else "")
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)  # the system's own Python: nothing is hidden
    assert named(doctor._gpu(), "TensorRT").state == "absent"


@pytest.mark.parametrize("environment", ["/opt/conda", "/home/a/.venv"])
def test_jetpacks_tensorrt_that_another_python_does_not_see(monkeypatch, tmp_path, environment):
    """Conda's Python, or an environment of it: its --system-site-packages are not the system's."""
    (tmp_path / "lib" / OWN / "dist-packages" / "tensorrt").mkdir(parents=True)
    monkeypatch.setattr(doctor, "_SYSTEM", tmp_path)
    monkeypatch.setattr(sys, "prefix", environment)
    monkeypatch.setattr(sys, "base_prefix", "/opt/conda")
    monkeypatch.setattr(doctor, "is_importable", lambda name: False)
    found = named(doctor._gpu(), "TensorRT")
    assert (found.state, found.fix) == ("missing", "")
    assert f"is hidden by the Python of {environment}, and is for the system's {OWN}: make" in found.detail
    assert found.detail.endswith(f"with {tmp_path}/bin/{OWN} -m venv --system-site-packages")


def test_an_empty_folder_is_no_tensorrt(monkeypatch, tmp_path):
    (tmp_path / "tensorrt").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    assert named(doctor._gpu(), "TensorRT").state == "absent"


def test_the_command_for_a_hidden_package_keeps_the_environment(tmp_path):
    """It is run on the environment that is there, whose packages stay."""
    import venv

    folder = tmp_path / "venv"
    venv.create(folder, with_pip=False)
    kept = folder / "kept"
    kept.touch()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", str(folder)], check=True)
    assert "include-system-site-packages = true" in (folder / "pyvenv.cfg").read_text(encoding="utf-8")
    assert kept.exists()


def test_a_syntax_without_decoder_comes_with_the_extra(monkeypatch):
    monkeypatch.setattr("spinescore.runtime.reading.decoding.codecs.installed", lambda syntax: ())
    found = named(doctor.examine(), "JPEG 2000")
    assert (found.state, found.fix) == ("missing", 'pip install "spinescore[dicom]"')


def test_a_machine_without_driver(monkeypatch):
    def no_library(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    assert named(doctor.examine(), "driver").state == "absent"


def test_the_driver_states_its_cuda_version(monkeypatch):
    class Driver:
        def cuDriverGetVersion(self, version):  # noqa: N802, the driver's own name
            version._obj.value = 12060
            return 0

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver())
    found = named(doctor.examine(), "driver")
    assert (found.state, found.detail) == ("ok", "supports CUDA 12.6")


@pytest.mark.parametrize("where", [None, "/somewhere/nvcc"])
def test_a_machine_without_compiler(monkeypatch, where):
    def fail(*arguments, **options):
        raise subprocess.TimeoutExpired("nvcc", 20)

    monkeypatch.setattr(shutil, "which", lambda name: where)
    monkeypatch.setattr(subprocess, "run", fail)
    assert named(doctor.examine(), "nvcc").state == "absent"


@pytest.mark.skipif(sys.platform == "win32", reason="the compiler is a shell script here")
def test_what_a_compiler_says_in_another_code_page(monkeypatch, tmp_path):
    compiler = tmp_path / "nvcc"
    compiler.write_bytes(b"#!/bin/sh\nprintf '\\201 2005-2024\\nCuda compilation tools, release 12.6, V12.6.68'\n")
    compiler.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(compiler))
    found = named(doctor.examine(), "nvcc")
    assert (found.state, found.detail) == ("ok", "12.6")


def test_json(capsys):
    assert cli.main(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "spinescore.doctor/1"
    assert document["can_score"] is True
    assert {"Machine", "Packages", "DICOM transfer syntaxes", "Inference"} <= {f["group"] for f in document["findings"]}


def test_hardware_is_stated_for_measurements():
    facts = doctor.hardware()
    assert facts["cores"] >= 1
    assert facts["cpu"]


def test_the_engines_that_were_accepted_are_named(tmp_path, monkeypatch):
    from helpers.golden_bundle import record_of
    from spinescore.runtime.acceptance import write_record
    from spinescore.runtime.bundle import Bundle, shipped_bundles

    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path))
    kind = "a CPU that no bundle was accepted on"
    monkeypatch.setattr("spinescore.runtime.opening.overview.hardware_of", lambda device: kind)
    for name in shipped_bundles():
        bundle = Bundle.open(name)
        assert f"to accept more: spinescore bundle verify {name} --device cpu" in named(doctor.examine(), name).detail
        record = record_of(bundle)
        write_record(replace(record, device={**record.device, "hardware": kind}), bundle)
        assert "onnxruntime 1.2.3 fp16 accepted (25% of the reference's time)" in named(doctor.examine(), name).detail


def test_every_syntax_that_a_decoder_is_for_is_looked_at():
    from spinescore.runtime.reading.decoding.syntaxes import SYNTAXES

    names = {finding.name for finding in doctor.examine() if finding.group == "DICOM transfer syntaxes"}
    assert names == {"uncompressed, deflated", *(syntax.name for syntax in SYNTAXES.values())}
