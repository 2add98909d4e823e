"""The TensorRT engine on a double of its module; other checks need a GPU."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest

from helpers.tensorrt_double import HERE, DataType, TensorIOMode, make_double, write_engine
from spinescore.runtime.engines.flavours import import_flavour, installed_flavours, logger_of, start
from spinescore.runtime.engines.sidecar import Sidecar
from spinescore.runtime.engines.tensorrt import TensorRTEngine, open_on_gpu
from spinescore.runtime.errors import EngineError
from spinescore.runtime.opening.building import _builder

HALF = np.dtype(np.float16)


@dataclass(frozen=True)
class Memory:
    address: int
    shape: tuple[int, ...]
    dtype: np.dtype = HALF
    nbytes: int = 0


class Queue:
    name, compute_capability, multiprocessors = HERE
    index, stream_handle = 0, 77

    def __init__(self):
        self.allocated = []

    def allocate(self, shape, dtype):
        self.allocated.append((shape, np.dtype(dtype)))
        return Memory(4096 * len(self.allocated), shape, np.dtype(dtype))


IMAGES, HEATMAPS = Memory(1 << 20, (2, 1, 8, 6)), Memory(2 << 20, (2, 3, 2, 2))


@pytest.fixture
def files(tmp_path):
    """(network, engine) of a bundle."""
    engine, onnx, _ = write_engine(tmp_path)
    return onnx, engine


@pytest.fixture
def install(monkeypatch):
    """Installs a stand-in with the given faults as `tensorrt`."""

    def put(*failing, **changes):
        double = make_double(frozenset(failing), **changes)
        monkeypatch.setitem(sys.modules, "tensorrt", double)
        return double

    return put


@pytest.mark.parametrize("compatible", [False, True])
def test_an_engine_of_another_machine_is_not_loaded(tmp_path, install, monkeypatch, compatible):
    """Its sidecar does not count: an engine that is version-compatible brings code for the host."""
    engine, onnx, sidecar = write_engine(tmp_path)
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "another"))
    replace(sidecar, version_compatible=compatible).write(engine)
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "this"))
    double = install()
    again = f"spinescore engine build {tmp_path}.*spinescore bundle trust {tmp_path}"
    with pytest.raises(EngineError, match=f"was not built on this machine, and is not loaded.*{again}"):
        open_on_gpu(onnx, "fp16", Queue())
    assert double.calls == []
    sidecar.write(engine)
    open_on_gpu(onnx, "fp16", Queue())
    assert double.calls == [("load", b"plan")]


@pytest.fixture
def rtx(files, monkeypatch):
    """(network, engine, function that installs a stand-in for TensorRT-RTX anew)."""
    changes = {"flavour": "tensorrt_rtx", "version": "1.7.1.116", "gpu": None, "multiprocessors": None}
    replace(Sidecar.read(files[1]), **changes).write(files[1])

    def put(*failing):
        double = make_double(frozenset(failing), rtx=True)
        monkeypatch.setitem(sys.modules, "tensorrt_rtx", double)
        return double

    return *files, put


def test_the_runtime_cache_is_kept_after_the_first_run(rtx):
    """A process that is killed has it as well. One that is damaged, or that came with a bundle, is not read."""
    onnx, engine_path, put = rtx
    path = engine_path.with_name(f"{engine_path.name}.runtime-cache")

    def run():
        double = put()
        open_on_gpu(onnx, "fp16", Queue()).run(IMAGES, HEATMAPS)
        return [call[1] for call in double.calls if call[0] == "cache"]

    assert run() == []
    assert path.read_bytes() == b"kernels of 1"
    assert run() == [b"kernels of 1"]
    for foreign in (b"Kernels of 1", b""):
        path.write_bytes(foreign)
        assert run() == []
    assert run() == [b"kernels of 1"]
    put()
    engine = open_on_gpu(onnx, "fp16", Queue())
    for _ in range(2):
        engine.run(IMAGES, HEATMAPS)
        path.unlink(missing_ok=True)  # not written again: nothing was compiled since
    engine.run(Memory(3 << 20, IMAGES.shape), HEATMAPS)
    assert not path.exists()


def test_whether_a_run_can_be_captured_is_asked_before_the_capture(rtx):
    onnx, _, put = rtx
    double = put()
    engine = open_on_gpu(onnx, "fp16", Queue())
    for _ in range(2):
        engine.run(IMAGES, HEATMAPS)
    asked = [call for call in double.calls if call[0] in ("capturable", "execute")]
    assert asked == [("execute", 77), ("capturable", 77), ("execute", 77)]
    double.calls.clear()
    assert engine.capturable
    assert double.calls == []  # a stream that is being captured is not asked
    put("is_stream_capturable")
    engine = open_on_gpu(onnx, "fp16", Queue())
    engine.run(IMAGES, HEATMAPS)
    assert not engine.capturable


@pytest.mark.parametrize("fault", ["create_runtime_config", "create_runtime_cache"])
def test_a_runtime_configuration_that_cannot_be_made(rtx, fault):
    rtx[2](fault)
    with pytest.raises(EngineError, match=f"TensorRT-RTX could not configure an engine: the double failed in {fault}"):
        open_on_gpu(rtx[0], "fp16", Queue())


def test_a_tensorrt_that_cannot_start_is_an_engine_error(files, install):
    """Its bindings raise TypeError, for example if the driver is too old for it."""
    double = install("Runtime")
    words = (
        r"no engine of localizer\.fp16\.onnx.*tensorrt 10\.16\.1\.11 could not start its Runtime: the double failed in "
        r"Runtime\. Is the NVIDIA driver as new.*`spinescore doctor`"
    )
    with pytest.raises(EngineError, match=words) as raised:
        open_on_gpu(files[0], "fp16", Queue())
    assert "small talk" not in str(raised.value)
    assert double.calls == []


def test_a_start_that_fails_without_a_line_has_the_bindings_words(install):
    def refuse(logger):
        raise TypeError("pybind11::init(): factory function returned nullptr")

    with pytest.raises(EngineError, match="could not start its refuse: pybind11::init"):
        start(install(), refuse)


def test_every_engine_has_its_own_lines_of_the_one_logger(files, install):
    """TensorRT keeps the first logger of a process, and gives it the lines of all engines."""
    double = install("execute_async_v3")
    for _ in range(2):
        engine = open_on_gpu(files[0], "fp16", Queue())
        for _ in range(2):
            with pytest.raises(EngineError) as raised:
                engine.run(IMAGES, HEATMAPS)
            assert str(raised.value).count("the double failed in execute_async_v3") == 1
    assert double.registered is logger_of(double)


def test_each_flavour_of_a_process_has_its_own_logger():
    """A bundle's engines may be of two; the lines of one are not told as those of the other."""
    doubles = [make_double(frozenset({"Runtime"}), rtx=rtx) for rtx in (False, True)]
    for double in (*doubles, *doubles):
        with pytest.raises(
            EngineError, match=rf"^{double.__name__} [\d.]+ could not start its Runtime: the double"
        ) as raised:
            start(double, double.Runtime)
        assert str(raised.value).count("the double failed in Runtime") == 1
    assert logger_of(doubles[0]) is not logger_of(doubles[1])
    assert not logger_of(doubles[0]).lines


def test_runs_on_the_queues_stream_with_bindings_by_name(files, install):
    double, queue = install(), Queue()
    engine = open_on_gpu(files[0], "fp16", queue)
    assert (engine.dtype, engine.input_shape, engine.output_shape) == (HALF, (1, 8, 6), (3, 2, 2))
    assert (engine.framework, engine.precision, engine.capturable) == ("tensorrt 10.16.1.11", "fp16", True)
    engine.run(IMAGES, HEATMAPS)
    assert double.calls == [
        ("load", b"plan"),
        ("shape", "image", IMAGES.shape),
        ("memory", 4096, 1000),
        ("address", "image", IMAGES.address),
        ("address", "heatmaps", HEATMAPS.address),
        ("execute", 77),
    ]
    assert queue.allocated == [((1000,), np.dtype(np.uint8))]
    assert not double.runtime.engine_host_code_allowed


def test_a_pair_of_buffers_has_its_own_context_for_good(files, install):
    double, queue = install(), Queue()
    engine = open_on_gpu(files[0], "fp16", queue)
    other = Memory(3 << 20, IMAGES.shape)
    for inputs in (IMAGES, other, IMAGES, other):
        engine.run(inputs, HEATMAPS)
    assert len(queue.allocated) == 2
    assert [call[0] for call in double.calls].count("shape") == 2
    assert [call[0] for call in double.calls].count("execute") == 4


@pytest.mark.parametrize(
    "fault",
    [
        "deserialize_cuda_engine",
        "create_execution_context",
        "set_input_shape",
        "set_tensor_address",
        "execute_async_v3",
    ],
)
def test_tensorrts_own_lines_are_in_the_error(files, install, fault):
    install(fault)
    with pytest.raises(EngineError, match=rf"localizer\.fp16\.engine.*the double failed in {fault}\.") as raised:
        open_on_gpu(files[0], "fp16", Queue()).run(IMAGES, HEATMAPS)
    assert "small talk" not in str(raised.value)


LARGER, LARGER_HEATMAPS = Memory(5 << 20, (2, 1, 16, 12)), Memory(6 << 20, (2, 3, 4, 3))


@pytest.fixture
def several(files, install):
    """(double, engine) of a network of free size, built for two of them."""
    double = install(profiles=[IMAGES.shape, LARGER.shape])
    replace(Sidecar.read(files[1]), sizes=((8, 6), (16, 12))).write(files[1])
    return double, open_on_gpu(files[0], "fp16", Queue())


def test_every_size_has_its_profile(several):
    double, engine = several
    assert (engine.input_shape, engine.output_shape) == ((1, 0, 0), (3, 0, 0))
    for _ in range(2):
        engine.run(IMAGES, HEATMAPS)
        engine.run(LARGER, LARGER_HEATMAPS)
    chosen = [call for call in double.calls if call[0] in ("profile", "shape")]
    assert chosen == [
        ("profile", 0, 77),
        ("shape", "image", IMAGES.shape),
        ("profile", 1, 77),
        ("shape", "image", LARGER.shape),
    ]
    assert [call[0] for call in double.calls].count("execute") == 4


@pytest.mark.parametrize("shape", [(2, 1, 8, 12), (2, 1, 32, 24), (2, 3, 8, 6), (2, 1, 8)])
def test_a_size_that_was_not_built_is_refused(several, shape):
    double, engine = several
    words = r"tensor image needs|built for pictures of 8 x 6 and 16 x 12 pixels, got \d+ x \d+; build it again"
    with pytest.raises(EngineError, match=words):
        engine.run(Memory(7 << 20, shape), HEATMAPS)
    assert "execute" not in [call[0] for call in double.calls]


@pytest.mark.parametrize("size", [(2, 2), (4, 2), (5, 3)])
def test_an_output_of_another_size_is_refused(several, size):
    """A buffer that is too small would be overrun on the GPU."""
    double, engine = several
    words = r"writes heatmaps of \(2, 3, 4, 3\) for image of \(2, 1, 16, 12\), but the buffer has"
    with pytest.raises(EngineError, match=words):
        engine.run(LARGER, Memory(8 << 20, (2, 3, *size)))
    assert "execute" not in [call[0] for call in double.calls]


def test_a_profile_that_tensorrt_does_not_take_is_an_error(files, install):
    install("set_optimization_profile_async", profiles=[IMAGES.shape])
    replace(Sidecar.read(files[1]), sizes=((8, 6),)).write(files[1])
    with pytest.raises(EngineError, match=r"could not take profile 0 of.*set_optimization_profile_async"):
        open_on_gpu(files[0], "fp16", Queue()).run(IMAGES, HEATMAPS)


@pytest.mark.parametrize(
    ("inputs", "outputs", "named"),
    [
        (Memory(1 << 20, (1, 1, 8, 6)), Memory(2 << 20, (1, 3, 2, 2)), "built for 2 to 2 images at once, got 1"),
        (Memory(1 << 20, (2, 1, 8, 5)), HEATMAPS, "tensor image needs"),
        (IMAGES, Memory(2 << 20, (2, 4, 2, 2)), "tensor heatmaps needs"),
        (IMAGES, Memory(2 << 20, (2, 3, 2, 2), np.dtype(np.float32)), "float32"),
    ],
)
def test_buffers_that_do_not_fit(files, install, inputs, outputs, named):
    double = install()
    with pytest.raises(EngineError, match=named):
        open_on_gpu(files[0], "fp16", Queue()).run(inputs, outputs)
    assert "execute" not in [call[0] for call in double.calls]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tensors": {"picture": TensorIOMode.INPUT, "heatmaps": TensorIOMode.OUTPUT}}, "picture"),
        ({"tensors": {"image": TensorIOMode.INPUT}}, "outputs"),
        ({"dtypes": {"image": DataType.INT8, "heatmaps": DataType.INT8}}, "not both half or both float"),
        ({"dtypes": {"image": DataType.HALF, "heatmaps": DataType.FLOAT}}, "not both half or both float"),
    ],
)
def test_ends_that_are_not_ours(files, install, changes, named):
    install(**changes)
    with pytest.raises(EngineError, match=named):
        open_on_gpu(files[0], "fp16", Queue())


def test_nothing_is_loaded_from_an_engine_that_is_refused(files, install):
    double = install()
    onnx, engine = files
    engine.write_bytes(b"pla")
    with pytest.raises(EngineError, match=r"no engine of localizer\.fp16\.onnx.*altered or is truncated"):
        open_on_gpu(onnx, "fp16", Queue())
    assert double.calls == []


def test_the_first_engine_that_fits_is_taken(files, install):
    install()
    onnx, engine = files
    other = engine.parent.parent / "a-first" / engine.name
    other.parent.mkdir()
    other.write_bytes(b"plan")
    replace(Sidecar.read(engine), gpu="another GPU").write(other)
    assert open_on_gpu(onnx, "fp16", Queue()).file == engine
    with pytest.raises(EngineError, match="another GPU"):
        open_on_gpu(onnx, "fp16", Queue(), "a-first")


def test_no_engine_at_all(files, install):
    install()
    with pytest.raises(EngineError, match=r"none was built; run: spinescore engine build BUNDLE"):
        open_on_gpu(files[0].with_name("grader.fp16.onnx"), "fp16", Queue())


def test_missing_library_names_its_extra(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match=r'pip install "spinescore\[tensorrt\]"'):
        TensorRTEngine(files[1], files[0], Queue())


def test_a_folder_with_the_librarys_name_is_not_the_library(monkeypatch, tmp_path):
    """Such as a folder that an uninstallation left, or that lies beside the program; Python imports it."""
    (tmp_path / "tensorrt").mkdir()
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = re.escape(str(tmp_path / "tensorrt"))
    words = rf"tensorrt cannot be imported \(the folder {folder} is not the library\); install it"
    with pytest.raises(EngineError, match=words):
        import_flavour("tensorrt")
    monkeypatch.delitem(sys.modules, "tensorrt")
    assert "tensorrt" not in installed_flavours()
    assert _builder((8, 7))[0] != "tensorrt"
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)


def test_version_compatible_engines_may_bring_host_code(files, install):
    double = install()
    replace(Sidecar.read(files[1]), version_compatible=True, version="10.3.0").write(files[1])
    TensorRTEngine(files[1], files[0], Queue())
    assert double.runtime.engine_host_code_allowed


def test_closed(files, install):
    install()
    engine = open_on_gpu(files[0], "fp16", Queue())
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(IMAGES, HEATMAPS)
