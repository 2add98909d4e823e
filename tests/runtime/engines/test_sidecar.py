"""Engines' sidecars: read, written, and every reason to refuse an engine."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from helpers.tensorrt_double import HERE, write_engine
from spinescore.runtime.engines import Gpu
from spinescore.runtime.engines import sidecar as module
from spinescore.runtime.engines.places import engine_paths
from spinescore.runtime.engines.sidecar import Sidecar, sidecar_path
from spinescore.runtime.errors import EngineError

ORIN = Gpu("Orin", (8, 7), 16)


@pytest.fixture
def files(tmp_path):
    """(engine, network, sidecar) that fit together."""
    return write_engine(tmp_path)


def test_written_and_read(files, tmp_path):
    engine, onnx, sidecar = files
    assert Sidecar.read(engine) == sidecar
    assert list(engine_paths(tmp_path)) == [engine]
    sidecar.check_files(engine, onnx)
    sidecar.check_machine(engine, "tensorrt", "10.16.1.11", HERE)
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


AGX = {"gpu": "Orin", "multiprocessors": 16, "compute_capabilities": ("8.7",)}
RTX = {"flavour": "tensorrt_rtx", "version": "1.7.1.116", "gpu": None, "compute_capabilities": ("8.6", "8.9")}


@pytest.mark.parametrize(
    ("built", "here", "runs"),
    [
        ({}, {"version": "10.16.0.72"}, False),
        ({}, {"flavour": "tensorrt_lean"}, False),
        ({}, {"gpu": HERE._replace(name="GeForce RTX 4070")}, False),
        ({}, {"gpu": HERE._replace(compute_capability=(8, 6))}, False),
        ({}, {"gpu": HERE._replace(multiprocessors=20)}, False),
        ({"multiprocessors": None}, {}, False),
        (AGX, {"gpu": ORIN}, True),
        (AGX, {"gpu": ORIN._replace(multiprocessors=8)}, False),  # an Orin Nano has the same name
        ({**AGX, "multiprocessors": None}, {"gpu": ORIN}, False),
        ({**AGX, "hardware": "same-compute-capability"}, {"gpu": ORIN._replace(multiprocessors=8)}, True),
        ({"version_compatible": True}, {"version": "10.17.0.1"}, True),
        ({"version_compatible": True}, {"flavour": "tensorrt_lean"}, True),
        ({"version_compatible": True}, {"flavour": "tensorrt_rtx"}, False),
        ({"version_compatible": True}, {"version": "10.3.0"}, False),
        ({"version_compatible": True}, {"version": "11.4.0.106"}, False),
        ({"hardware": "same-compute-capability"}, {"gpu": HERE._replace(name="GeForce RTX 4070")}, True),
        ({"hardware": "same-compute-capability"}, {"gpu": HERE._replace(compute_capability=(8, 6))}, False),
        ({"hardware": "ampere-plus"}, {"gpu": ORIN}, True),
        ({"hardware": "ampere-plus"}, {"gpu": Gpu("T4", (7, 5), 40)}, False),
        (RTX, {"flavour": "tensorrt_rtx", "version": "1.7.1.116"}, True),
        (RTX, {"flavour": "tensorrt_rtx", "version": "1.7.1.116", "gpu": Gpu("RTX A2000", (8, 6), 26)}, True),
        (RTX, {"flavour": "tensorrt_rtx", "version": "1.7.1.116", "gpu": Gpu("RTX 5060", (12, 0), 30)}, False),
        (RTX, {"flavour": "tensorrt_rtx", "version": "1.8.0"}, False),
    ],
)
def test_machines(files, built, here, runs):
    engine, _, sidecar = files
    found = {"flavour": "tensorrt", "version": "10.16.1.11", "gpu": HERE, **here}
    sidecar = replace(sidecar, **built)
    if runs:
        sidecar.check_machine(engine, **found)
    else:
        with pytest.raises(EngineError, match=r"localizer\.fp16\.engine.*spinescore engine build BUNDLE"):
            sidecar.check_machine(engine, **found)


def test_the_message_tells_an_orin_from_another(files):
    engine, _, sidecar = files
    words = (
        r"is for Orin with 16 multiprocessors \(compute capability 8\.7\), this is Orin with 8 multiprocessors \(8\.7\)"
    )
    with pytest.raises(EngineError, match=words):
        replace(sidecar, **AGX).check_machine(engine, "tensorrt", "10.16.1.11", ORIN._replace(multiprocessors=8))
    with pytest.raises(EngineError, match="an unknown number of multiprocessors"):
        replace(sidecar, multiprocessors=None).check_machine(engine, "tensorrt", "10.16.1.11", HERE)


def test_another_platform(files, monkeypatch):
    engine, _, sidecar = files
    monkeypatch.setattr(module.platform, "machine", lambda: "riscv64")
    with pytest.raises(EngineError, match="riscv64"):
        sidecar.check_machine(engine, "tensorrt", "10.16.1.11", HERE)
