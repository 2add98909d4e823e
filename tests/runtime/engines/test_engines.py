"""The ONNX Runtime engine and the devices' door."""

import subprocess
import sys
import threading
import weakref

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from helpers.networks_made import cast_network, save
from helpers.tiny import CROP, DOT_GREYS, HEIGHT, WIDTH, grader, localizer
from spinescore.runtime.devices import DEVICES, KINDS, device_kind, host, open_device
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.engines.choice import open_on_cpu
from spinescore.runtime.engines.onnxruntime import OnnxRuntimeEngine
from spinescore.runtime.errors import DeviceError, EngineError


@pytest.mark.parametrize("threads", [None, 1])
def test_runs_into_the_callers_buffers_with_any_batch(tmp_path, threads):
    engine = OnnxRuntimeEngine(save(grader("corners", "corners4"), tmp_path / "g.onnx"), "fp32", threads)
    assert (engine.name, engine.precision, engine.dtype) == ("g.onnx", "fp32", np.float32)
    assert (engine.input_shape, engine.output_shape) == ((1, CROP, CROP), (8,))
    inputs = np.random.default_rng(0).random((12, 1, CROP, CROP), np.float32)
    outputs = np.full((12, 8), np.nan, np.float32)
    engine.run(inputs[6:], outputs[6:])
    assert np.isnan(outputs[:6]).all()
    half = outputs[6:].copy()
    engine.run(inputs, outputs)
    assert np.allclose(outputs[6:], half, atol=1e-4)
    inputs[:] = 0
    engine.run(inputs, outputs)  # the same buffers with other values
    assert (outputs == outputs[0]).all()
    assert not np.allclose(outputs[6:], half)


def test_buffers_of_the_past_are_let_go(tmp_path):
    engine = OnnxRuntimeEngine(save(cast_network(), tmp_path / "p.onnx"), "fp32")
    seen = []
    for number in range(100):
        inputs, outputs = np.full((1, 4), number, np.float32), np.zeros((1, 4), np.float32)
        engine.run(inputs, outputs)
        assert (outputs == number).all()
        seen.append(weakref.ref(inputs))
    del inputs, outputs
    assert 0 < sum(reference() is not None for reference in seen) < 80


def test_half_precision_ends(tmp_path):
    model = cast_network(kinds=(TensorProto.FLOAT16, TensorProto.FLOAT16))
    engine = OnnxRuntimeEngine(save(model, tmp_path / "h.onnx"), "fp16")
    inputs, outputs = np.arange(8, dtype=np.float16).reshape(2, 4), np.zeros((2, 4), np.float16)
    engine.run(inputs, outputs)
    assert engine.dtype == np.float16
    assert (outputs == inputs).all()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (cast_network(outputs=("logits", "more")), "1 inputs and 2 outputs"),
        (cast_network(kinds=(TensorProto.INT64, TensorProto.FLOAT)), r"tensor image is tensor\(int64\)"),
        (cast_network(kinds=(TensorProto.FLOAT, TensorProto.FLOAT16)), "but logits is"),
    ],
)
def test_networks_that_do_not_fit_are_refused(tmp_path, model, message):
    with pytest.raises(EngineError, match=rf"Network bad\.onnx.*{message}"):
        OnnxRuntimeEngine(save(model, tmp_path / "bad.onnx"), "fp32")


def test_a_size_that_is_not_fixed_is_refused_by_name(tmp_path):
    engine = OnnxRuntimeEngine(save(cast_network(shape=("n", "width")), tmp_path / "loose.onnx"), "fp32")
    with pytest.raises(EngineError, match=r"loose\.onnx: tensor image has no fixed shape"):
        _ = engine.input_shape


@pytest.mark.parametrize("data", [b"", b"not a network", grader("corners", "corners4").SerializeToString()[:300]])
def test_damaged_networks_are_refused_by_name(tmp_path, data):
    (tmp_path / "broken.onnx").write_bytes(data)
    with pytest.raises(EngineError, match=r"cannot load the network broken\.onnx"):
        OnnxRuntimeEngine(tmp_path / "broken.onnx", "fp32")


def test_a_failing_run_names_network_and_tensor(tmp_path):
    engine = OnnxRuntimeEngine(save(localizer(DOT_GREYS[:12]), tmp_path / "l.onnx"), "fp32")
    heatmaps = np.zeros((1, 12, HEIGHT // 4, WIDTH // 4), np.float32)
    with pytest.raises(EngineError, match=r"l\.onnx failed on tensor image \(1, 1, 9, 9\)"):
        engine.run(np.zeros((1, 1, 9, 9), np.float32), heatmaps)
    with pytest.raises(EngineError, match="contiguous float32"):
        engine.run(np.zeros((1, 1, HEIGHT, WIDTH), np.float64), heatmaps)


def test_a_damaged_network_leaves_no_lines_of_the_library(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"x")
    code = (
        "import sys\nfrom pathlib import Path\nfrom spinescore.runtime.engines.onnxruntime import OnnxRuntimeEngine\n"
        "from spinescore.runtime.errors import EngineError\n"
        "try:\n    OnnxRuntimeEngine(Path(sys.argv[1]), 'fp32')\nexcept EngineError:\n    print('refused')\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "broken.onnx")], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "refused"
    assert not found.stderr.strip()


def test_the_door_of_devices():
    assert isinstance(open_device("cpu"), HostDevice)
    assert isinstance(open_device(), HostDevice)
    with pytest.raises(DeviceError, match="cuda is not available"):
        open_device("cuda")
    with pytest.raises(ValueError, match="no device 'tpu'"):
        open_device("tpu")
    with pytest.raises(ValueError, match="at least 1"):
        open_device("cpu", threads=0)


@pytest.mark.parametrize("threads", [1, 2])
def test_networks_are_loaded_side_by_side_and_come_in_order(tmp_path, monkeypatch, threads):
    files = [(save(cast_network(), tmp_path / f"{name}.onnx"), "fp32") for name in "abc"]
    assert [engine.name for engine in HostDevice(threads).engines(files)] == ["a.onnx", "b.onnx", "c.onnx"]
    two, loading = threading.Barrier(2), []

    def load(choice, path, *others):
        if threads == 2 and path.stem in "ab":
            two.wait(20)  # passes only where both are under way at the same time
        loading.append(path.stem)
        if path.stem in "bc":
            raise EngineError(f"{path.stem} is damaged")

    monkeypatch.setattr(host, "open_on_cpu", load)
    with pytest.raises(EngineError, match="b is damaged"):
        HostDevice(threads).engines(files)
    assert sorted(loading) == ["a", "b", "c"]


def test_buffers_are_zeroed_and_reads_are_copies():
    device = HostDevice()
    buffer = device.allocate((2, 3), np.float32)
    device.write(buffer[1:], np.ones((1, 3), np.float32))
    copy = device.read(buffer)
    device.write(buffer, np.zeros((2, 3), np.float32))
    assert copy.tolist() == [[0] * 3, [1] * 3]
    device.close()
    device.close()


def test_models_of_the_tests_are_valid():
    onnx.checker.check_model(localizer(DOT_GREYS), full_check=True)


def test_every_name_of_a_device_has_its_row():
    assert {"auto", *KINDS} == set(DEVICES)


def test_auto_is_the_first_kind_whose_hardware_is_there(monkeypatch):
    def gone():
        raise DeviceError("gone")

    for hardware, kind in ((lambda: "a GPU", "cuda"), (gone, "cpu")):
        monkeypatch.setitem(KINDS, "cuda", KINDS["cuda"]._replace(hardware=hardware))
        assert [device_kind(name) for name in ("auto", "cuda", "cpu")] == [kind, "cuda", "cpu"]


def test_an_onnxruntime_that_cannot_be_imported_is_an_engine_error(monkeypatch, tmp_path):
    """Such as its CUDA build on a machine without CUDA's libraries."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, OnnxRuntimeEngine.__module__)
    words = r"ONNX Runtime cannot be imported \(.*\); install it again: pip install --force-reinstall onnxruntime \(for"
    with pytest.raises(EngineError, match=words):
        open_on_cpu(None, tmp_path / "g.onnx", "fp32", 1)
