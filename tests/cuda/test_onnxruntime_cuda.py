"""ONNX Runtime's CUDA provider, as far as it shows without a GPU: what is asked of it, and what is refused."""

from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from helpers import tiny
from spinescore.runtime.engines import onnxruntime as module
from spinescore.runtime.engines.onnxruntime import OnnxRuntimeEngine
from spinescore.runtime.errors import EngineError

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
QUEUE = SimpleNamespace(name="GPU X", index=1, compute_capability=(8, 7), stream_handle=0xABC)


class Session:
    """A CPU session that notes which providers were asked for and what was bound where."""

    real = onnxruntime.InferenceSession
    found = (CUDA, CPU)

    def __init__(self, path, options, providers):
        self.asked, self.bound, self.runs = providers, [], []
        self._session = Session.real(path, options, providers=[CPU])
        self.get_inputs, self.get_outputs = self._session.get_inputs, self._session.get_outputs
        Session.latest = self

    def get_providers(self):
        return list(self.found)

    def io_binding(self):
        return SimpleNamespace(bind_input=self._bind, bind_output=self._bind)

    def _bind(self, *arguments):
        self.bound.append(arguments)

    def run_with_iobinding(self, binding, options):
        self.runs.append(options.get_run_config_entry("disable_synchronize_execution_providers"))


@pytest.fixture
def network(tmp_path, monkeypatch):
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    path = tmp_path / "g.onnx"
    path.write_bytes(tiny.grader("corners", "corners4").SerializeToString())
    return path


def memory(address, *shape, dtype=np.float32):
    return SimpleNamespace(address=address, shape=shape, dtype=np.dtype(dtype), nbytes=0)


def test_runs_on_the_queues_stream_and_addresses(network):
    engine = OnnxRuntimeEngine(network, "fp32", queue=QUEUE)
    session = Session.latest
    (name, options), cpu = session.asked
    assert (name, cpu) == (CUDA, CPU)
    assert (options["device_id"], options["user_compute_stream"]) == ("1", str(0xABC))
    assert not engine.capturable
    assert engine.framework == f"onnxruntime {onnxruntime.__version__} CUDA"
    for _ in range(2):
        engine.run(memory(4096, 2, 1, 64, 64), memory(8192, 2, 8))
    assert session.bound == [
        ("image", "cuda", 1, np.float32, [2, 1, 64, 64], 4096),
        ("logits", "cuda", 1, np.float32, [2, 8], 8192),
    ]
    assert session.runs == ["1", "1"]  # without waiting for the GPU
    with pytest.raises(EngineError, match="contiguous float32 buffer, got float16"):
        engine.run(memory(4096, 1, 1, 64, 64, dtype=np.float16), memory(8192, 1, 8))
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match=r"g\.onnx is closed"):
        engine.run(memory(4096, 2, 1, 64, 64), memory(8192, 2, 8))


def test_a_fall_back_to_the_cpu_is_refused(network, monkeypatch):
    monkeypatch.setattr(Session, "found", (CPU,))
    with pytest.raises(EngineError, match=r"could not start its CUDA provider for the network g\.onnx on GPU X"):
        OnnxRuntimeEngine(network, "fp32", queue=QUEUE)


def test_a_runtime_without_the_provider_is_refused(network, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(
        EngineError, match=r"g\.onnx cannot run on GPU X.*no CUDA provider.*pip install onnxruntime-gpu"
    ):
        OnnxRuntimeEngine(network, "fp32", queue=QUEUE)


def test_libraries_of_pythons_packages_are_loaded_in_the_order_of_their_needs(tmp_path, monkeypatch):
    for name in (
        "cudnn/lib/libcudnn.so.9",
        "cublas/lib/libcublas.so.13",
        "cublas/lib/libcublasLt.so.13",
        "other/lib/libx.so.1",
    ):
        (tmp_path / "nvidia" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "nvidia" / name).write_bytes(b"no library")
    loaded = []

    def load(path, mode):
        loaded.append(path.rpartition("/")[2])
        raise OSError("not for this machine")

    monkeypatch.setattr(module.sys, "path", [str(tmp_path)])
    monkeypatch.setattr(module.ctypes, "CDLL", load)
    module.load_cuda_libraries()
    assert loaded == ["libcublasLt.so.13", "libcublas.so.13", "libcudnn.so.9"]
