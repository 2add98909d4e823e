"""Engines' sidecars: read, written, and every reason to refuse an engine."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from helpers.tensorrt_double import GPU, write_engine
from spinescore.runtime.engines import sidecar as module
from spinescore.runtime.engines.places import engine_paths
from spinescore.runtime.engines.sidecar import Sidecar, sidecar_path
from spinescore.runtime.errors import EngineError

CAPABILITY = (8, 9)


@pytest.fixture
def files(tmp_path):
    """(engine, network, sidecar) that fit together."""
    return write_engine(tmp_path)


def test_written_and_read(files, tmp_path):
    engine, onnx, sidecar = files
    assert Sidecar.read(engine) == sidecar
    assert list(engine_paths(tmp_path)) == [engine]
    sidecar.check_files(engine, onnx)
    sidecar.check_machine(engine, "tensorrt", "10.16.1.11", GPU, CAPABILITY)
    without_gpu = replace(sidecar, gpu=None, multiprocessors=None, driver=None)
    without_gpu.write(engine)
    assert Sidecar.read(engine) == without_gpu


@pytest.mark.parametrize("spoil", ["engine", "onnx", "missing engine", "missing onnx"])
def test_files_that_do_not_fit(files, spoil):
    engine, onnx, sidecar = files
    path = engine if "engine" in spoil else onnx
    path.unlink() if "missing" in spoil else path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(EngineError, match=r"spinescore engine build BUNDLE"):
        sidecar.check_files(engine, onnx)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (None, "has no sidecar"),
        ("{", "not valid"),
        ("[]", "expected an object"),
        ('{"schema": "spinescore.engine/9"}', "schema"),
        ('{"schema": "spinescore.engine/1"}', "flavour: this field is missing"),
    ],
)
def test_sidecars_that_are_none(files, text, named):
    engine, _, _ = files
    path = sidecar_path(engine)
    path.unlink() if text is None else path.write_text(text, encoding="utf-8")
    with pytest.raises(EngineError, match=named):
        Sidecar.read(engine)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("flavour", "cudnn"),
        ("sizes", [[256, 192], [384]]),
        ("sizes", [[256, 0]]),
        ("sizes", 3),
        ("least_batch", 0),
        ("most_batch", 1),
        ("gpu", 7),
        ("multiprocessors", "24"),
        ("version_compatible", 1),
        ("unknown", 1),
    ],
)
def test_fields_that_are_wrong(files, field, value):
    engine, _, _ = files
    document = json.loads(sidecar_path(engine).read_text(encoding="utf-8"))
    sidecar_path(engine).write_text(json.dumps({**document, field: value}), encoding="utf-8")
    with pytest.raises(EngineError, match=field):
        Sidecar.read(engine)


RTX = {"flavour": "tensorrt_rtx", "version": "1.7.1.116", "gpu": None, "compute_capabilities": ("8.6", "8.9")}


@pytest.mark.parametrize(
    ("built", "here", "runs"),
    [
        ({}, {"version": "10.16.0.72"}, False),
        ({}, {"flavour": "tensorrt_lean"}, False),
        ({}, {"gpu": "GeForce RTX 4070"}, False),
        ({}, {"capability": (8, 6)}, False),
        ({"version_compatible": True}, {"version": "10.17.0.1"}, True),
        ({"version_compatible": True}, {"flavour": "tensorrt_lean"}, True),
        ({"version_compatible": True}, {"flavour": "tensorrt_rtx"}, False),
        ({"version_compatible": True}, {"version": "10.3.0"}, False),
        ({"version_compatible": True}, {"version": "11.4.0.106"}, False),
        ({"hardware": "same-compute-capability"}, {"gpu": "GeForce RTX 4070"}, True),
        ({"hardware": "same-compute-capability"}, {"capability": (8, 6)}, False),
        ({"hardware": "ampere-plus"}, {"gpu": "Orin", "capability": (8, 7)}, True),
        ({"hardware": "ampere-plus"}, {"gpu": "T4", "capability": (7, 5)}, False),
        (RTX, {"flavour": "tensorrt_rtx", "version": "1.7.1.116"}, True),
        (RTX, {"flavour": "tensorrt_rtx", "version": "1.7.1.116", "capability": (8, 6), "gpu": "RTX A2000"}, True),
        (RTX, {"flavour": "tensorrt_rtx", "version": "1.7.1.116", "capability": (12, 0)}, False),
        (RTX, {"flavour": "tensorrt_rtx", "version": "1.8.0"}, False),
    ],
)
def test_machines(files, built, here, runs):
    engine, _, sidecar = files
    found = {"flavour": "tensorrt", "version": "10.16.1.11", "gpu": GPU, "capability": CAPABILITY, **here}
    sidecar = replace(sidecar, **built)
    if runs:
        sidecar.check_machine(engine, **found)
    else:
        with pytest.raises(EngineError, match=r"localizer\.fp16\.engine.*spinescore engine build BUNDLE"):
            sidecar.check_machine(engine, **found)


def test_another_platform(files, monkeypatch):
    engine, _, sidecar = files
    monkeypatch.setattr(module.platform, "machine", lambda: "riscv64")
    with pytest.raises(EngineError, match="riscv64"):
        sidecar.check_machine(engine, "tensorrt", "10.16.1.11", GPU, CAPABILITY)
