"""Engines built by TensorRT-RTX without a GPU, and the command line's output about them."""

from __future__ import annotations

import json
import shutil
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from helpers import tiny
from helpers.golden_networks import mean_grader, pool_localizer
from spinescore.export import engine as module
from spinescore.export.engine import BuildOptions, build_engine, build_engines, define_network
from spinescore.export.engineinputs import engine_model, network_batches
from spinescore.export.hrnet import build_hrnet
from spinescore.export.int8 import calibrate, quantize
from spinescore.export.resnet152 import build_resnet
from spinescore.export.synthetic import parse_synthetic, random_tensors
from spinescore.runtime import cli
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.engines.flavours import logger_of
from spinescore.runtime.engines.half import to_half
from spinescore.runtime.engines.sidecar import Sidecar
from spinescore.runtime.errors import EngineError
from spinescore.runtime.files import file_sha256

trt = pytest.importorskip("tensorrt_rtx", reason='TensorRT-RTX is missing: pip install "spinescore[tensorrt-rtx]"')

RTX = BuildOptions("tensorrt_rtx", targets=("8.6", "12.0"))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Bundle, list[Path]]:
    bundle = Bundle.open(tiny.write_bundle(tmp_path_factory.mktemp("bundle")))
    return bundle, build_engines(bundle, RTX)


@pytest.fixture
def copy(built, tmp_path) -> Path:
    return Path(shutil.copytree(built[0].folder, tmp_path / "copy"))


def half(name: str, outputs: int) -> onnx.ModelProto:
    tensors = random_tensors(parse_synthetic(f"synthetic:{name}"), outputs, 3)
    model = build_hrnet(tensors, 256, 192) if name.startswith("hrnet") else build_resnet(tensors, 224, 224)
    return to_half(model)[0]


def test_an_engine_for_each_network_with_its_sidecar(built):
    bundle, paths = built
    folder = bundle.folder / "engines" / f"tensorrt_rtx-{trt.__version__}-sm86-sm120"
    assert paths == [folder / "localizer.fp16.engine", folder / "grader-corners.fp16.engine"]
    for path, batch in zip(paths, (2, 12), strict=True):
        sidecar = Sidecar.read(path)
        assert (sidecar.flavour, sidecar.version) == ("tensorrt_rtx", trt.__version__)
        assert (sidecar.least_batch, sidecar.most_batch, sidecar.precision) == (batch, batch, "fp16")
        assert (sidecar.compute_capabilities, sidecar.gpu) == (("8.6", "12.0"), None)
        assert sidecar.engine_sha256 == file_sha256(path)
        sidecar.check_files(path, bundle.path(sidecar.onnx))
    assert not list(folder.glob("*.cache")), "TensorRT-RTX has no use for a timing cache"


def test_the_bundle_keeps_its_name(built):
    assert Bundle.open(built[0].folder).sha256 == built[0].sha256


@pytest.mark.parametrize(("name", "outputs"), [("hrnet-w4", 12), ("resnet152-w4", 8)])
def test_every_tensor_is_half(name, outputs):
    """The ends and, since the network is strongly typed, every result of a layer; only Resize's scales stay float."""
    builder = trt.Builder(logger_of(trt))
    network, _parser = define_network(trt, builder, half(name, outputs), name)
    assert network.get_input(0).dtype == network.get_output(0).dtype == trt.DataType.HALF
    given = [network.get_layer(number).get_output(0).dtype for number in range(network.num_layers)]
    assert given.count(trt.DataType.HALF) > 100
    assert trt.DataType.FLOAT not in given


@pytest.mark.parametrize(("name", "outputs", "batch"), [("hrnet-w4", 12, 2), ("resnet152-w4", 8, 12)])
def test_thin_networks(name, outputs, batch, tmp_path):
    plan = build_engine(trt, half(name, outputs), name, batch, RTX, tmp_path / "cache")
    assert len(plan) > 100_000


@pytest.mark.parametrize(
    ("name", "outputs", "batch", "least_mb"), [("hrnet-w32", 24, 2, 56), ("resnet152", 8, 12, 115)]
)
def test_full_size_networks(name, outputs, batch, least_mb, tmp_path):
    """The engine has 28.5 or 58.2 million weights in half precision."""
    plan = build_engine(trt, half(name, outputs), name, batch, RTX, tmp_path / "cache")
    assert least_mb < len(plan) / 1e6 < 1.2 * least_mb


class Noted:
    """A builder of TensorRT-RTX that notes the shapes of its networks and the limits of its configurations."""

    def __init__(self, logger):
        self._builder = trt.Builder(logger)
        self.create_network = self._builder.create_network
        self.create_optimization_profile = self._builder.create_optimization_profile
        self.create_builder_config = self._builder.create_builder_config

    def build_serialized_network(self, network, config):
        limit = config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE)
        Noted.latest = tuple(network.get_input(0).shape), limit
        return b"plan"


@pytest.mark.parametrize("any_batch", [False, True])
def test_a_batch_is_fixed_and_the_workspace_limited(tmp_path, any_batch):
    """Shapes that stay free cost TensorRT-RTX kernels of their own; a Jetson has one memory for all."""
    double = types.ModuleType("tensorrt_rtx")
    vars(double).update({**vars(trt), "Builder": Noted})
    options = replace(RTX, any_batch=any_batch)
    build_engine(double, half("hrnet-w4", 12), "w4", 2, options, tmp_path / "cache", workspace=1 << 28)
    shape, limit = Noted.latest
    assert (shape, limit) == ((-1 if any_batch else 2, 3, 256, 192), 1 << 28)


@pytest.mark.parametrize("integrated", [False, True])
def test_an_integrated_gpu_has_its_workspace_limited(built, monkeypatch, integrated):
    limits = []

    def build(*arguments, workspace):
        limits.append(workspace)
        raise EngineError("no more is needed")

    monkeypatch.setattr(module, "build_engine", build)
    monkeypatch.setattr(module, "first_gpu", lambda: module.Gpu("GPU", (8, 6), 8, "12.6", integrated))
    with pytest.raises(EngineError, match="no more"):
        build_engines(built[0], BuildOptions("tensorrt_rtx"))
    assert limits == [1 << 30 if integrated else None]


def test_a_gpu_that_tensorrt_rtx_does_not_know_is_named(built, monkeypatch):
    monkeypatch.setattr(module, "first_gpu", lambda: module.Gpu("NVIDIA H200", (9, 0), 132, "13.0"))
    with pytest.raises(EngineError, match=r"has no target 9\.0; it builds for 7\.5, "):
        build_engines(built[0], BuildOptions("tensorrt_rtx"))


def test_any_batch(tmp_path):
    bundle = Bundle.open(tiny.write_bundle(tmp_path, precision="fp16"))
    paths = build_engines(bundle, BuildOptions("tensorrt_rtx", targets=("8.9",), any_batch=True))
    found = [Sidecar.read(path) for path in paths]
    assert [(sidecar.least_batch, sidecar.most_batch) for sidecar in found] == [(1, 2), (1, 12)]
    assert [sidecar.onnx for sidecar in found] == ["localizer.fp16.onnx", "grader-corners.fp16.onnx"]


def test_a_profile_for_every_scale(tmp_path):
    """The engine is built for these shapes and no others, as its sidecar states."""
    test_time = ([1.0, 1.5, 0.5], True, True)
    bundle = Bundle.open(tiny.write_bundle(tmp_path, precision="fp16", test_time=test_time, alternatives={"narrow": 1}))
    localizer, grader, narrow = map(Sidecar.read, build_engines(bundle, BuildOptions("tensorrt_rtx", targets=("8.9",))))
    assert localizer.sizes == narrow.sizes == ((256, 192), (384, 288), (128, 96))
    assert (localizer.least_batch, localizer.most_batch, grader.sizes) == (2, 2, ())
    text = json.loads((tmp_path / "engines").glob("*/grader*.json").__next__().read_text(encoding="utf-8"))
    assert "sizes" not in text  # as sidecars of before


class Profiles:
    """The part of TensorRT's builder that profiles need."""

    shape, name = (-1, 3, -1, -1), "image"

    def __init__(self):
        self.shapes = []

    def get_input(self, number):
        return self

    def create_optimization_profile(self):
        return self

    def set_shape(self, name, least, usual, most):
        self.shapes.append((least, usual, most))

    def add_optimization_profile(self, profile):
        return len(self.shapes) - 1


def test_profiles_hold_the_batch_and_the_size():
    asked = Profiles()
    for any_batch, size in ((False, (256, 192)), (True, (384, 288))):
        module._add_profile(asked, asked, asked, 2, any_batch, size)
    one, other = (2, 3, 256, 192), (2, 3, 384, 288)
    assert asked.shapes == [(one, one, one), ((1, 3, 384, 288), other, other)]


@pytest.mark.parametrize(
    ("changes", "batches"),
    [
        ({}, [2, 12]),
        ({"heads": "separate"}, [1, 1, 12]),
        ({"alternatives": {"narrow": 1}}, [2, 12, 2]),  # the bundle's own is whole where an alternative fails
        ({"heads": "separate", "alternatives": {"narrow": 1}}, [1, 1, 12, 1, 1]),
        ({"grader.head": "corner4"}, [2, 24]),
        ({"grader.head": "bridge+grades"}, [2, 12, 24]),
    ],
)
def test_batches_are_the_pipelines(tmp_path, changes, batches):
    files = changes and {"grader.files": tiny.manifest(head=changes.get("grader.head", "corners4"))["grader"]["files"]}
    bundle = Bundle.open(tiny.write_bundle(tmp_path, **changes, **files))
    assert list(network_batches(bundle.manifest).values()) == batches


def test_what_tensorrt_says_of_a_network_it_cannot_read(tmp_path):
    model = half("hrnet-w4", 12)
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(EngineError, match="cannot read the network odd: NoSuchOperator conv1: "):
        build_engine(trt, model, "odd", 2, RTX, tmp_path / "cache")


def test_single_precision_ends_are_refused(tmp_path):
    tensors = random_tensors(parse_synthetic("synthetic:hrnet-w4"), 12, 3)
    with pytest.raises(EngineError, match=r"tensor image is .*FLOAT, not half"):
        build_engine(trt, build_hrnet(tensors, 256, 192), "single", 2, RTX, tmp_path / "cache")


def test_a_network_that_overflows_is_refused(tmp_path):
    model = tiny.grader("corners", "corners4")
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e6), weight.name))
    path = tmp_path / "large.fp32.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(EngineError, match=r"large\.fp32\.onnx overflows"):
        engine_model(path, "fp16")


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
