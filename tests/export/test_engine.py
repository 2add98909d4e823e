"""Engines built by TensorRT-RTX without a GPU, and the command line's output about them."""

from __future__ import annotations

import json
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from helpers import tiny
from spinescore.export import engine as module
from spinescore.export.engine import BuildOptions, build_engine, build_engines, define_network
from spinescore.export.engineinputs import engine_model, network_batches
from spinescore.export.hrnet import build_hrnet
from spinescore.export.resnet152 import build_resnet
from spinescore.export.synthetic import parse_synthetic, random_tensors
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
