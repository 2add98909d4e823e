"""ONNX Runtime's CUDA provider, as far as it shows without a GPU: what is asked of it, and what is refused."""

import importlib.util
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from helpers import tiny
from spinescore.runtime.engines import choice, cudalibraries
from spinescore.runtime.engines import onnxruntime as module
from spinescore.runtime.engines.choice import EngineChoice, choices_on, open_on_gpu
from spinescore.runtime.engines.onnxruntime import OnnxRuntimeEngine
from spinescore.runtime.errors import EngineError

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
QUEUE = SimpleNamespace(name="GPU X", index=1, compute_capability=(8, 7), stream_handle=0xABC)


VALUES = {  # options of the CUDA provider that are used, and their values; it refuses others
    "device_id": {"1"},
    "user_compute_stream": {str(0xABC)},
    "do_copy_in_default_stream": {"0", "1"},
    "use_tf32": {"0", "1"},
    "cudnn_conv_algo_search": {"EXHAUSTIVE", "HEURISTIC", "DEFAULT"},
    "enable_cuda_graph": {"0", "1"},
    "prefer_nhwc": {"0", "1"},
}


class Session:
    """A CPU session that stands for one on a GPU, and notes the providers, the bindings and the runs.

    As the real one it drops a provider that it cannot start, takes no CPU provider if the fallback to it is off, and
    replays for a graph's ID the buffers with which the graph was captured.
    """

    real = onnxruntime.InferenceSession
    found = (CUDA, CPU)

    def __init__(self, path, options, providers, enable_fallback=1):
        assert not enable_fallback, "ONNX Runtime would print, and try again on the CPU"
        self.asked, self.bound, self.runs, self.graphs, self.released = providers, [], [], {}, []
        for name, values in providers[0][1].items():
            if values not in VALUES.get(name, ()):
                raise RuntimeError(f"[ONNXRuntimeError] : 1 : FAIL : Unknown provider option: {name}={values}")
        if CUDA not in self.found or CPU in providers:
            Session.real(path, options, providers=[one for one in providers if one == CPU])
        self._session = Session.real(path, providers=[CPU])
        self.get_inputs, self.get_outputs = self._session.get_inputs, self._session.get_outputs
        Session.latest = self

    def get_providers(self):
        return list(self.found)

    def io_binding(self):
        binding = []

        def bind(*arguments):
            self.bound.append(arguments)
            binding.append(arguments[-1])

        return SimpleNamespace(bind_input=bind, bind_output=bind, addresses=binding)

    def run_with_iobinding(self, binding, options):
        graph = int(options.get_run_config_entry("gpu_graph_id"))
        captured = self.graphs.setdefault(graph, binding)
        assert captured is binding, "the graph would work on the buffers of another binding"
        self.runs.append((options.get_run_config_entry("disable_synchronize_execution_providers"), graph))

    def release_captured_graph(self, graph):
        self.released.append(graph)


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
    ((name, options),) = session.asked
    assert name == CUDA
    assert (options["device_id"], options["user_compute_stream"]) == ("1", str(0xABC))
    assert (options["cudnn_conv_algo_search"], options["enable_cuda_graph"]) == ("HEURISTIC", "1")
    assert options["prefer_nhwc"] == "0"
    assert not engine.capturable
    assert engine.framework == f"onnxruntime {onnxruntime.__version__} CUDA"
    for _ in range(2):
        engine.run(memory(4096, 2, 1, 64, 64), memory(8192, 2, 8))
    assert session.bound == [
        ("image", "cuda", 1, np.float32, [2, 1, 64, 64], 4096),
        ("logits", "cuda", 1, np.float32, [2, 8], 8192),
    ]
    assert session.runs == [("1", 1), ("1", 1)]  # without waiting for the GPU
    with pytest.raises(EngineError, match="contiguous float32 buffer, got float16"):
        engine.run(memory(4096, 1, 1, 64, 64, dtype=np.float16), memory(8192, 1, 8))
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match=r"g\.onnx is closed"):
        engine.run(memory(4096, 2, 1, 64, 64), memory(8192, 2, 8))


def test_half_precision_has_its_channels_last(network):
    OnnxRuntimeEngine(network, "fp16", queue=QUEUE)
    assert Session.latest.asked[0][1]["prefer_nhwc"] == "1"


HALF = EngineChoice("onnxruntime", "fp16")


def test_an_fp32_file_runs_in_half_precision(network):
    """Converted when it is loaded; the file stays the one that records and reports name."""
    engine, warning = open_on_gpu(HALF, network, "fp32", QUEUE)
    assert (engine.dtype, engine.precision, engine.file, warning) == (np.float16, "fp16", network, None)
    ((_, options),) = Session.latest.asked
    assert options["prefer_nhwc"] == "1"
    images = np.random.default_rng(4).uniform(0, 1, (2, 1, 64, 64)).astype(np.float32)
    (whole,) = Session.real(str(network), providers=[CPU]).run(None, {"image": images})
    (half,) = Session.latest._session.run(None, {"image": images.astype(np.float16)})
    np.testing.assert_allclose(half, whole, rtol=5e-3, atol=5e-3 * np.abs(whole).max())
    assert open_on_gpu(EngineChoice("onnxruntime", "fp32"), network, "fp32", QUEUE)[0].dtype == np.float32


def test_a_network_that_overflows_is_not_converted(network):
    model = onnx.load(str(network))
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e7), weight.name))
    onnx.save(model, str(network))
    with pytest.raises(EngineError, match=r"g\.onnx overflows in half precision in .*Use fp32"):
        open_on_gpu(HALF, network, "fp32", QUEUE)


def test_without_the_converter_an_accepted_half_precision_is_refused(network, monkeypatch):
    """The package was there when the engine was accepted, and is gone."""
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(EngineError, match=r'g\.onnx is in FP32.*pip install "spinescore\[export\]".*or use fp32'):
        open_on_gpu(HALF, network, "fp32", QUEUE)


@pytest.mark.parametrize("installed", [True, False])
def test_half_precision_is_offered_for_fp32_files_on_a_gpu(tmp_path, monkeypatch, installed):
    find_spec = importlib.util.find_spec
    hidden = {"openvino"} if installed else {"onnx", "openvino"}
    monkeypatch.setattr(choice, "find_spec", lambda name: None if name in hidden else find_spec(name))
    files = [{"fp32": "localizer.fp32.onnx"}, {"fp32": "grader.fp32.onnx"}]
    names = ["fp16", "fp32"] if installed else ["fp32"]
    assert [one.precision for one in choices_on("cuda", files, tmp_path)] == names
    assert choices_on("cpu", files, tmp_path) == []
    assert [one.precision for one in choices_on("cuda", [{"int8": "g.int8.onnx"}], tmp_path)] == []


def test_every_pair_of_buffers_has_a_graph_of_its_own(network, monkeypatch):
    monkeypatch.setattr(module, "_KEPT_BINDINGS", 2)
    engine = OnnxRuntimeEngine(network, "fp32", queue=QUEUE)
    for first in (4096, 8192, 4096, 12288, 4096):
        engine.run(memory(first, 2, 1, 64, 64), memory(1 << 20, 2, 8))
    assert [graph for _, graph in Session.latest.runs] == [1, 2, 1, 3, 4]
    assert Session.latest.released == [1, 2]


def test_a_fall_back_to_the_cpu_is_refused(network, monkeypatch):
    """By ONNX Runtime itself: the real one refuses each operator that it would run on the CPU."""
    monkeypatch.setattr(Session, "found", (CPU,))
    words = (
        r"could not start its CUDA provider for the network g\.onnx on GPU X, or an operator of the network runs on "
        r"the CPU alone .*fallback to CPU EP has been explicitly disabled"
    )
    with pytest.raises(EngineError, match=words):
        OnnxRuntimeEngine(network, "fp32", queue=QUEUE)


def test_a_session_that_took_another_provider_is_refused(network, monkeypatch):
    monkeypatch.setattr(Session, "get_providers", lambda session: [CPU])
    with pytest.raises(
        EngineError, match=r"CUDA provider cannot load the network g\.onnx on GPU X \(it gave no reason"
    ):
        OnnxRuntimeEngine(network, "fp32", queue=QUEUE)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the library is made by a compiler for Linux")
def test_the_providers_missing_library_is_named(network, monkeypatch, tmp_path):
    """Its own file is loaded to find out; here it needs a library that is not there."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path / "onnxruntime" / "capi"
    folder.mkdir(parents=True)
    (tmp_path / "empty.c").write_text("int cudnn_missing(void) { return 0; }")
    (tmp_path / "provider.c").write_text("int cudnn_missing(void); int Provider(void) { return cudnn_missing(); }")
    library = tmp_path / "libcudnn_missing.so"
    build = [compiler, "-shared", "-fPIC", "-Wl,--no-as-needed"]
    subprocess.run([*build, "-o", str(library), f"-Wl,-soname,{library.name}.9", str(tmp_path / "empty.c")], check=True)
    provider = folder / "libonnxruntime_providers_cuda.so"
    command = [*build, "-o", str(provider), str(tmp_path / "provider.c"), str(library)]
    subprocess.run(command, check=True)
    monkeypatch.setattr(onnxruntime, "__file__", str(folder.parent / "__init__.py"))
    monkeypatch.setattr(Session, "found", (CPU,))
    words = r"g\.onnx on GPU X: libcudnn_missing\.so\.9: cannot open shared object file.*Install the CUDA and cuDNN"
    with pytest.raises(EngineError, match=words):
        OnnxRuntimeEngine(network, "fp32", queue=QUEUE)


def test_a_runtime_without_the_provider_is_refused(network, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(
        EngineError, match=r"g\.onnx cannot run on GPU X.*no CUDA provider.*Install onnxruntime-gpu in place of"
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

    monkeypatch.setattr(cudalibraries.sys, "path", [str(tmp_path)])
    monkeypatch.setattr(cudalibraries.ctypes, "CDLL", load)
    cudalibraries.load_cuda_libraries()
    assert loaded == ["libcublasLt.so.13", "libcublas.so.13", "libcudnn.so.9"]
