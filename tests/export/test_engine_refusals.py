"""Engines by the command line: options, refusals, INT8, and an export that builds engines."""

from __future__ import annotations

import json
import shutil
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from helpers import tiny
from helpers.golden_networks import mean_grader, pool_localizer
from spinescore.export import engine as module
from spinescore.export.engine import BuildOptions, build_engines
from spinescore.export.int8 import calibrate, quantize
from spinescore.runtime import cli
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.engines.sidecar import Sidecar
from spinescore.runtime.errors import EngineError
from spinescore.runtime.files import file_sha256

pytest.importorskip("tensorrt_rtx", reason='TensorRT-RTX is missing: pip install "spinescore[tensorrt-rtx]"')

RTX = BuildOptions("tensorrt_rtx", targets=("8.6", "12.0"))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Bundle, list[Path]]:
    bundle = Bundle.open(tiny.write_bundle(tmp_path_factory.mktemp("bundle")))
    return bundle, build_engines(bundle, RTX)


@pytest.fixture
def copy(built, tmp_path) -> Path:
    return Path(shutil.copytree(built[0].folder, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"targets": ("8.7",)}, "no target 8.7; it builds for 7.5, 8.0, 8.6, 8.9, 12.0, 12.1"),
        ({"targets": ("86",)}, "no target 86"),
        ({"targets": ()}, "--target 8.6"),
        ({"targets": ("8.6",), "version_compatible": True}, "compatibility"),
        ({"targets": ("8.6",), "hardware": "ampere-plus"}, "compatibility"),
    ],
)
def test_options_that_do_not_go_together(built, monkeypatch, options, named):
    monkeypatch.setattr(module, "first_gpu", lambda: None)
    with pytest.raises(EngineError, match=named):
        build_engines(built[0], BuildOptions("tensorrt_rtx", **options))


def test_flavours_that_cannot_do_it(built, monkeypatch):
    lean = types.SimpleNamespace(__name__="tensorrt_lean", __version__="10.16.1.11")
    monkeypatch.setattr(module, "import_flavour", lambda name: lean)
    with pytest.raises(EngineError, match="only runs engines"):
        build_engines(built[0], BuildOptions("tensorrt_lean"))
    levels = types.SimpleNamespace(AMPERE_PLUS=1)  # as TensorRT 10.3
    full = types.SimpleNamespace(Builder=None, HardwareCompatibilityLevel=levels, **vars(lean))
    monkeypatch.setattr(module, "import_flavour", lambda name: full)
    monkeypatch.setattr(module, "first_gpu", lambda: module.Gpu("Orin", (8, 7), 8, "12.6", integrated=True))
    with pytest.raises(EngineError, match=r"cannot build for all GPUs of one compute capability.*update TensorRT"):
        build_engines(built[0], BuildOptions("tensorrt", hardware="same-compute-capability"))
    with pytest.raises(EngineError, match="--target is for TensorRT-RTX"):
        build_engines(built[0], BuildOptions("tensorrt", targets=("8.6",)))
    monkeypatch.setattr(module, "first_gpu", lambda: None)
    with pytest.raises(EngineError, match="finds no GPU and driver"):
        build_engines(built[0], BuildOptions("tensorrt"))


def test_command_builds_lists_and_verifies(tmp_path, capsys):
    bundle = str(tiny.write_bundle(tmp_path / "b"))
    assert cli.main(["engine", "list", bundle]) == 0
    assert "no engines" in capsys.readouterr().out
    assert cli.main(["engine", "build", bundle, "--engine", "tensorrt-rtx", "--target", "8.9"]) == 0
    printed = capsys.readouterr()
    assert [Path(line).name for line in printed.out.splitlines()] == [
        "localizer.fp16.engine",
        "grader-corners.fp16.engine",
    ]
    assert "batch 12 (2 of 2)" in printed.err
    assert cli.main(["engine", "list", bundle]) == 0
    assert "fp16, batch 2, for compute capability 8.9" in capsys.readouterr().out
    assert cli.main(["engine", "verify", bundle, "--json"]) == 0
    assert [row["error"] for row in json.loads(capsys.readouterr().out)] == [None, None]


def with_int8(folder: Path) -> Bundle:
    """Return the tiny bundle, with its localizer in INT8 as well."""
    path = tiny.write_bundle(folder)
    model = onnx.load(str(path / "localizer.fp32.onnx"))
    shape = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim]
    images = np.random.default_rng(5).normal(0, 1, (8, *shape[1:])).astype(np.float32)
    content = quantize(model, calibrate(model, images)["extremes"], set()).SerializeToString()
    (path / "localizer.int8.onnx").write_bytes(content)
    document = json.loads((path / "bundle.json").read_text())
    sha256 = file_sha256(path / "localizer.int8.onnx")
    document["files"]["localizer.int8.onnx"] = {"sha256": sha256, "bytes": len(content), "precision": "int8"}
    for files in document["localizer"]["files"].values():
        files["int8"] = "localizer.int8.onnx"
    (path / "bundle.json").write_text(json.dumps(document))
    return Bundle.open(path)


def test_int8_where_the_bundle_has_it(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SAY_EVERY_S", 0.0)
    said: list[str] = []
    paths = build_engines(with_int8(tmp_path / "b"), replace(RTX, precision="int8"), said.append)
    assert [path.name for path in paths] == ["localizer.int8.engine", "grader-corners.fp16.engine"]
    found = [Sidecar.read(path) for path in paths]
    assert [(sidecar.onnx, sidecar.precision) for sidecar in found] == [
        ("localizer.int8.onnx", "int8"),
        ("grader-corners.fp32.onnx", "fp16"),
    ]
    assert any("localizer.int8.onnx: " in line and ", step " in line for line in said)


def test_int8_is_refused_where_no_network_has_it(built):
    with pytest.raises(EngineError, match=r"has no network in INT8; make them: spinescore export .* --int8"):
        build_engines(built[0], replace(RTX, precision="int8"))


def test_export_builds_engines_on_demand(tmp_path, capsys):
    for name, model in (("localizer", pool_localizer()), ("grader", mean_grader())):
        onnx.save(model, str(tmp_path / f"{name}.onnx"))
    arguments = [f"--{name}={tmp_path / name}.onnx" for name in ("localizer", "grader")]
    fields = "[localizer.input]\npreprocessing = 'none'\n[grader.input]\npreprocessing = 'none'\n"
    (tmp_path / "fields.toml").write_text(fields)
    arguments += [f"--out={tmp_path / 'mine'}", "--golden-studies=1", f"--manifest={tmp_path / 'fields.toml'}"]
    assert cli.main(["export", *arguments, "--engine", "tensorrt-rtx", "--target", "8.9"]) == 0
    printed = [Path(line) for line in capsys.readouterr().out.splitlines() if line.endswith(".engine")]
    assert [path.name for path in printed] == ["localizer.fp16.engine", "grader.fp16.engine"]
    assert all(Sidecar.read(path).compute_capabilities == ("8.9",) for path in printed)


@pytest.mark.parametrize("spoil", ["*.engine", "*.engine.json"])
def test_command_refuses_spoilt_engines(copy, capsys, spoil):
    next(copy.glob(f"engines/*/{spoil}")).write_bytes(b"{")
    assert cli.main(["engine", "verify", str(copy)]) == 4
    assert "spinescore engine build BUNDLE" in capsys.readouterr().out


def test_command_without_a_gpu_names_the_option(copy, capsys, monkeypatch):
    monkeypatch.setattr(module, "first_gpu", lambda: None)
    assert cli.main(["engine", "build", str(copy), "--engine", "tensorrt-rtx"]) == 4
    assert "--target 8.6" in capsys.readouterr().err
