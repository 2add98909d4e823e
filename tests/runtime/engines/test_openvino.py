"""The OpenVINO engine: the same verbs as ONNX Runtime's, and arithmetic that is not lower than what was asked for."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from helpers.golden_bundle import write_golden_bundle
from helpers.keras_bundle import write_keras_bundle
from helpers.networks_made import cast_network, save
from helpers.scoring import CERVICAL, LUMBAR, assert_found, checked
from helpers.tiny import CROP, DOT_GREYS, HEIGHT, WIDTH, grader, localizer
from spinescore.export.int8 import calibrate, layers, quantize, sample_first
from spinescore.runtime import EngineError, Scorer
from spinescore.runtime.acceptance.gate import verify_device
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.engines.choice import EngineChoice, choices_on
from spinescore.runtime.engines.onnxruntime import OnnxRuntimeEngine

openvino = pytest.importorskip("openvino")
engines = pytest.importorskip("spinescore.runtime.engines.openvino")

HAS_BF16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def infer(engine, inputs):
    outputs = np.full((len(inputs), *engine.output_shape), np.nan, engine.dtype)
    engine.run(inputs, outputs)
    return outputs


@pytest.mark.parametrize("threads", [None, 1])
def test_runs_into_the_callers_buffers_with_any_batch(tmp_path, threads):
    path = save(grader("corners", "corners4"), tmp_path / "g.onnx")
    engine = engines.OpenVinoEngine(path, "fp32", threads)
    assert (engine.name, engine.file, engine.precision, engine.dtype) == ("g.onnx", path, "fp32", np.float32)
    assert (engine.input_shape, engine.output_shape) == ((1, CROP, CROP), (8,))
    assert engine.framework == f"openvino {openvino.__version__.split('-')[0]}"
    inputs = np.random.default_rng(0).random((12, 1, CROP, CROP), np.float32)
    outputs = np.full((12, 8), np.nan, np.float32)
    engine.run(inputs[6:], outputs[6:])
    assert np.isnan(outputs[:6]).all()
    half = outputs[6:].copy()
    engine.run(inputs, outputs)
    assert np.allclose(outputs[6:], half, atol=1e-3)
    assert np.allclose(outputs, infer(OnnxRuntimeEngine(path, "fp32"), inputs), atol=1e-3)
    inputs[:] = 0
    engine.run(inputs, outputs)  # the same buffers with other values
    assert (outputs == outputs[0]).all()


def test_many_buffers(tmp_path):
    engine = engines.OpenVinoEngine(save(cast_network(), tmp_path / "p.onnx"), "fp32")
    for number in range(40):
        assert (infer(engine, np.full((1, 4), number, np.float32)) == number).all()


def test_half_precision_ends(tmp_path):
    model = cast_network(kinds=(TensorProto.FLOAT16, TensorProto.FLOAT16))
    engine = engines.OpenVinoEngine(save(model, tmp_path / "h.onnx"), "fp16")
    inputs = np.arange(8, dtype=np.float16).reshape(2, 4)
    assert engine.dtype == np.float16
    assert (infer(engine, inputs) == inputs).all()


def test_fp32_is_not_bf16(tmp_path):
    """The plugin takes BF16 for itself where the CPU has it; the second is then three digits worse."""
    path = save(localizer(DOT_GREYS[:12]), tmp_path / "l.onnx")
    images = np.random.default_rng(0).random((2, 1, HEIGHT, WIDTH), np.float32)
    wanted = infer(OnnxRuntimeEngine(path, "fp32"), images)
    assert np.abs(infer(engines.OpenVinoEngine(path, "fp32"), images) - wanted).max() < 1e-4
    if not HAS_BF16:
        with pytest.raises(EngineError, match=r"l\.onnx cannot run in bf16: this CPU has no BF16"):
            engines.OpenVinoEngine(path, "bf16")
    else:
        engine = engines.OpenVinoEngine(path, "bf16")
        assert (engine.precision, engine.dtype) == ("bf16", np.float32)
        assert 1e-4 < np.abs(infer(engine, images) - wanted).max() < 0.2


def test_the_cache_is_of_the_content_and_not_of_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "cache"))
    path = save(localizer(DOT_GREYS[:12]), tmp_path / "l.onnx")
    images = np.random.default_rng(0).random((1, 1, HEIGHT, WIDTH), np.float32)
    first = infer(engines.OpenVinoEngine(path, "fp32"), images)
    cached = list((tmp_path / "cache" / "openvino").glob("*/*"))
    assert cached
    assert np.array_equal(infer(engines.OpenVinoEngine(path, "fp32"), images), first)
    assert list((tmp_path / "cache" / "openvino").glob("*/*")) == cached
    save(localizer(DOT_GREYS[12:]), path)
    assert not np.allclose(infer(engines.OpenVinoEngine(path, "fp32"), images), first)


@pytest.fixture
def risky(tmp_path, monkeypatch):
    """An INT8 network whose strided layers the plugin takes out of 8 bits, and pictures for two callers."""
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "cache"))
    bundle = write_keras_bundle(tmp_path / "b")
    images = np.random.default_rng(0).standard_normal((2, 6, 3, CROP, CROP)).astype(np.float32)
    return bundle / "grader-corners.int8.onnx", images


def scales_weights(path) -> bool:
    """Whether this version does what 2026.4.1 does; 2025.0 scales such weights when it reads the file."""
    return engines._scales_constants(openvino.Core().compile_model(str(path), "CPU"))


@pytest.mark.parametrize("rows", [None, 3])
@pytest.mark.parametrize(("twin_bytes", "models"), [(2**24, 2), (0, 1)])
def test_streams_do_not_share_weights_that_are_scaled_at_loading(risky, monkeypatch, twin_bytes, models, rows):
    path, images = risky
    models = models if scales_weights(path) else 1
    monkeypatch.setattr(engines, "_TWIN_BYTES", twin_bytes)
    wanted = [infer(OnnxRuntimeEngine(path, "int8"), part) for part in images]
    for _ in range(2):  # what was found at the first time is known at the second
        engine = engines.OpenVinoEngine(path, "int8", threads=2, callers=2, rows=rows)
        assert len(engine._models) == models
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(partial(infer, engine), images))
        for part, output in zip(wanted, found, strict=True):
            assert np.abs(output - part).max() < 0.05 * np.ptp(wanted)
        monkeypatch.setattr(engines, "_scales_constants", None)


def test_streams_share_a_network_that_computes_nothing_at_loading(risky, monkeypatch, tmp_path):
    path, images = risky
    plain = onnx.load(str(path.with_name("grader-corners.fp32.onnx")))
    sampled = sample_first(plain)
    weighted = layers(sampled, "Conv", "Gemm")
    rounded = quantize(sampled, calibrate(sampled, images[0])["extremes"], {weighted[0], weighted[-1]})
    engine = engines.OpenVinoEngine(save(rounded, tmp_path / "sampled.onnx"), "int8", threads=2, callers=2)
    assert len(engine._models) == 1
    monkeypatch.setattr(engines, "kept_networks", lambda path: None)
    assert len(engines.OpenVinoEngine(path, "int8", threads=2, callers=2)._models) == 1 + scales_weights(path)
    assert len(engines.OpenVinoEngine(path, "int8", threads=1)._models) == 1


def test_an_int8_network_with_a_fixed_batch_takes_any_number_of_such_batches(risky):
    path, images = risky
    engine = engines.OpenVinoEngine(path, "int8", threads=2, callers=2, rows=3)
    fixed = [next(iter(model.inputs[0].partial_shape)).get_length() for model in engine._models]
    assert set(fixed) == {3}
    outputs, expected = infer(engine, images[0]), infer(OnnxRuntimeEngine(path, "int8"), images[0])
    assert np.abs(outputs - expected).max() < 0.05 * np.ptp(expected)
    assert np.array_equal(infer(engine, images[0, :3]), outputs[:3])


def test_a_network_with_a_fixed_batch_is_compiled_once(risky, monkeypatch):
    path, images = risky
    first = infer(engines.OpenVinoEngine(path, "int8", threads=1, rows=6), images[0])
    (blob,) = engines.kept_networks(path).glob("fixed-*.blob")
    compiled = blob.read_bytes()

    def unread(*_):
        raise RuntimeError("the network is read again")

    monkeypatch.setattr(openvino.Core, "read_model", unread)
    assert np.array_equal(infer(engines.OpenVinoEngine(path, "int8", threads=1, rows=6), images[0]), first)
    for other in ({"threads": 2, "rows": 6}, {"threads": 1, "rows": 2}):  # settings of their own
        with pytest.raises(EngineError, match="read again"):
            engines.OpenVinoEngine(path, "int8", **other)
    blob.write_bytes(compiled[:-1] + bytes([compiled[-1] ^ 1]))
    with pytest.raises(EngineError, match="read again"):  # this machine did not sign it
        engines.OpenVinoEngine(path, "int8", threads=1, rows=6)


def test_the_plugin_reads_what_this_machine_compiled_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "cache"))
    path = save(grader("corners", "corners4"), tmp_path / "g.onnx")
    engines.OpenVinoEngine(path, "fp32")
    cache = engines.kept_networks(path)
    (blob,) = cache.glob("*.blob")
    compiled = blob.read_bytes()
    (cache / "other.blob").write_bytes(compiled)
    with engines.plugin_cache(cache):
        assert list(cache.iterdir()) == [blob]
    blob.chmod(0o644)
    blob.write_bytes(compiled[:-1])
    with engines.plugin_cache(cache):
        assert list(cache.iterdir()) == []
    engines.OpenVinoEngine(path, "fp32")
    assert blob.is_file()
    (tmp_path / "cache" / "key").unlink()
    (tmp_path / "cache" / "key").mkdir()
    assert engines.kept_networks(path) is None  # nothing can be signed, so nothing is kept
    engines.OpenVinoEngine(path, "fp32")


def test_no_cache_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "file"))
    engine = engines.OpenVinoEngine(save(cast_network(), tmp_path / "p.onnx"), "fp32")
    assert (infer(engine, np.ones((1, 4), np.float32)) == 1).all()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (cast_network(outputs=("logits", "more")), "1 inputs and 2 outputs"),
        (cast_network(kinds=(TensorProto.INT64, TensorProto.FLOAT)), "its input is i64"),
        (cast_network(kinds=(TensorProto.FLOAT, TensorProto.FLOAT16)), "and its output f16"),
    ],
)
def test_networks_that_do_not_fit_are_refused(tmp_path, model, message):
    with pytest.raises(EngineError, match=rf"Network bad\.onnx.*{message}"):
        engines.OpenVinoEngine(save(model, tmp_path / "bad.onnx"), "fp32")


def test_a_size_that_is_not_fixed_is_refused_by_name(tmp_path):
    engine = engines.OpenVinoEngine(save(cast_network(shape=("n", "width")), tmp_path / "loose.onnx"), "fp32")
    with pytest.raises(EngineError, match=r"loose\.onnx: tensor image has no fixed shape"):
        _ = engine.input_shape


@pytest.mark.parametrize("data", [b"", b"not a network", grader("corners", "corners4").SerializeToString()[:300]])
def test_damaged_and_missing_networks_are_refused_by_name(tmp_path, data):
    (tmp_path / "broken.onnx").write_bytes(data)
    for name in ("broken.onnx", "missing.onnx"):
        with pytest.raises(EngineError, match=rf"OpenVINO cannot load the network {name}"):
            engines.OpenVinoEngine(tmp_path / name, "fp32")


def test_a_failing_run_names_network_and_tensor(tmp_path):
    engine = engines.OpenVinoEngine(save(localizer(DOT_GREYS[:12]), tmp_path / "l.onnx"), "fp32")
    heatmaps = np.zeros((1, 12, HEIGHT // 4, WIDTH // 4), np.float32)
    with pytest.raises(EngineError, match=r"l\.onnx failed on tensor image \(1, 1, 9, 9\)"):
        engine.run(np.zeros((1, 1, 9, 9), np.float32), heatmaps)
    for wrong in (np.zeros((1, 1, HEIGHT, WIDTH)), np.zeros((1, 1, WIDTH, HEIGHT), np.float32).swapaxes(2, 3)):
        with pytest.raises(EngineError, match="contiguous float32"):
            engine.run(wrong, heatmaps)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match=r"l\.onnx is closed"):
        engine.run(np.zeros((1, 1, HEIGHT, WIDTH), np.float32), heatmaps)


FORKS = """
import gc, os, sys
sys.path[:] = sys.argv[3:]
from spinescore.runtime import Scorer
gc.disable()
how, folder = sys.argv[1:3]
scorer = Scorer.open(folder, "cpu", engine="openvino", precision="fp32", require_acceptance=False)
if how == "closed":
    scorer.close()
child = os.fork()
if not child:
    del scorer
    gc.collect()
    sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
@pytest.mark.parametrize("how", ["open", "closed"])
def test_a_forked_child_does_not_wait_for_its_parents_threads(tmp_path, how):
    folder = write_golden_bundle(tmp_path / "b", "none")
    ran = subprocess.run(
        [sys.executable, "-c", FORKS, how, str(folder), *sys.path], capture_output=True, text=True, timeout=120
    )
    assert ran.stdout.split() == ["7"], ran.stderr


def test_without_openvino():
    code = (
        "import sys\nsys.modules['openvino'] = None\n"
        "from pathlib import Path\nfrom spinescore.runtime.engines.choice import EngineChoice, open_on_cpu\n"
        "from spinescore.runtime.errors import EngineError\n"
        "try:\n    open_on_cpu(EngineChoice('openvino', 'fp32'), Path('x'), 'fp32', None)\n"
        "except EngineError as error:\n    print(error)\n"
    )
    found = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "spinescore[openvino]"' in found.stdout


def test_what_a_cpu_can_be_asked_for():
    both = [{"fp32": "a", "fp16": "b"}, {"fp32": "c", "fp16": "d"}]
    assert EngineChoice("openvino", "bf16") in choices_on("cpu", both, Path())
    assert not [choice for choice in choices_on("cpu", both, Path()) if choice.precision == "int8"]
    mixed = [{"fp32": "a"}, {"fp32": "c", "int8": "d"}]
    assert [str(choice) for choice in choices_on("cpu", mixed, Path())] == [
        "openvino fp32",
        "openvino bf16",
        "openvino int8",
        "onnxruntime int8",
    ]
    assert EngineChoice("openvino", "int8").files == ("int8", "fp32")


def test_scores_a_study_once_accepted(tmp_path):
    bundle = Bundle.open(write_golden_bundle(tmp_path / "b", "none"))
    with pytest.raises(EngineError, match="No openvino fp32 has been accepted"):
        Scorer.open(bundle.folder, "cpu", engine="openvino", precision="fp32")
    (outcome,) = verify_device(bundle, "cpu", "openvino", "fp32")
    assert outcome.record.passed
    assert outcome.record.framework.startswith("openvino ")
    with Scorer.open(bundle.folder, "cpu", engine="openvino") as scorer:
        report = checked(scorer.score([CERVICAL.radiograph, LUMBAR.radiograph]))
    assert (report.device.engine, report.device.precision) == (outcome.record.framework, "fp32")
    assert_found(report.regions["cervical"], CERVICAL)
    assert_found(report.regions["lumbar"], LUMBAR)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_what_a_bundle_has_not_in_int8_runs_as_it_is(tmp_path, engine):
    bundle = Bundle.open(write_golden_bundle(tmp_path / "b", "none", int8=True))
    (outcome,) = verify_device(bundle, "cpu", engine, "int8")
    assert list(outcome.record.networks) == ["localizer.fp32.onnx", "grader-corners.int8.onnx"]
    assert outcome.record.passed, outcome.reason
    with Scorer.open(bundle.folder, "cpu", precision="int8") as scorer:
        report = scorer.score([CERVICAL.radiograph, LUMBAR.radiograph])
    assert report.device.precision == "fp32+int8"
    assert_found(report.regions["lumbar"], LUMBAR)
