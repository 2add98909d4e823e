"""PyTorch as an engine against ONNX Runtime on the CPU; a PyTorch that cannot stand in is refused."""

import re
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from spinescore.export.resnet152 import build_resnet
from spinescore.export.sessions import run_model
from spinescore.export.synthetic import parse_synthetic, random_tensors
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.engines.half import to_half
from spinescore.runtime.errors import EngineError

torch = pytest.importorskip("torch")


class Gpu:
    """Stands for `torchengine.Cuda`: tensors are arrays of the host, and work is done at once."""

    device, dtype = torch.device("cpu"), torch.float32

    def tensor(self, memory):
        return torch.from_numpy(memory.values)

    def run(self, work):
        work()


def memory(values):
    return SimpleNamespace(values=values, address=values.ctypes.data, shape=values.shape)


def shipped(kind):
    manifest = Bundle.open("phantom-reference").manifest
    files = {"localizer": manifest.localizer.files["cervical"], "grader": manifest.grader.files["corners"]}
    model = onnx.load(str(Bundle.open("phantom-reference").path(files[kind]["fp32"])))
    return model, model


def in_half():
    model = build_resnet(random_tensors(parse_synthetic("synthetic:resnet50-w8"), 16, 3), 64, 64)
    return to_half(model)[0], model


@pytest.mark.parametrize(
    ("models", "bound"),
    [(lambda: shipped("localizer"), 1e-4), (lambda: shipped("grader"), 1e-4), (in_half, 0.02)],
    ids=["localizer", "grader", "half"],
)
def test_its_outputs_are_those_of_onnx_runtime_and_no_normalisation_is_left(tmp_path, models, bound):
    from spinescore.benchmarks.gpu.torchengine import TorchEngine

    model, reference = models()
    onnx.save(model, str(tmp_path / "network.onnx"))
    engine = TorchEngine(tmp_path / "network.onnx", Gpu())
    assert not any(isinstance(part, torch.nn.BatchNorm2d) for part in engine._module.modules())
    images = np.random.default_rng(0).standard_normal((2, *engine.input_shape), dtype=np.float32)
    expected = run_model(reference, images, "a network")
    outputs = np.empty_like(expected)
    engine.run(memory(images), memory(outputs))
    assert np.ptp(expected) > 0.1
    assert np.abs(outputs - expected).max() < bound * np.ptp(expected)


@pytest.mark.parametrize(
    ("is_available", "words"), [(False, "sees no GPU"), (True, r"has no pools of memory.*2\.6 or later")]
)
def test_a_pytorch_that_cannot_stand_in_is_an_engine_error(monkeypatch, is_available, words):
    from spinescore.benchmarks.gpu.torchengine import Cuda

    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_available)
    monkeypatch.delattr(torch.cuda, "MemPool")
    with pytest.raises(EngineError, match=rf"PyTorch {re.escape(torch.__version__)} {words}"):
        Cuda(SimpleNamespace(index=0, stream_handle=0))
