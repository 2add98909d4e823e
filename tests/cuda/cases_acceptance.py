"""On the driver double: a GPU's engine is opened once it was accepted, and a wrong one is not accepted."""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import re
import shutil
from pathlib import Path

import double
import numpy as np
import pytest
from engine_double import EngineDouble
from on_double import FOLDER, KERNELS, LARGEST_PX, assert_everything_freed, run, study

from helpers.golden_bundle import write_golden_bundle
from spinescore.runtime import EngineError, Scorer, SelfTestError, cli
from spinescore.runtime.acceptance import gate
from spinescore.runtime.acceptance.gate import verify_device
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices import first_gpu
from spinescore.runtime.engines import gpu_of, onnxruntime, tensorrt
from spinescore.runtime.engines.onnxruntime import OnnxRuntimeEngine
from spinescore.runtime.engines.sidecar import Sidecar, this_platform
from spinescore.runtime.files import file_sha256

PHANTOM = "phantom-reference"
REAL = OnnxRuntimeEngine


class WrongEngine(EngineDouble):
    """Its heatmaps come out moved by two pixels, and its logits in another order."""

    def infer(self, inputs, outputs):
        super().infer(inputs, outputs)
        values = (ctypes.c_ubyte * outputs.nbytes).from_address(outputs.address)
        shaped = np.frombuffer(values, outputs.dtype).reshape(outputs.shape)
        shaped[:] = np.roll(shaped, 2, axis=-1)


def prepare(engine=EngineDouble):
    """Kernels and ONNX Runtime's CUDA provider of the double, and a cache of this case's own."""
    import spinescore.runtime.devices.cuda as module

    os.environ["SPINESCORE_CACHE"] = str(FOLDER / "cache")
    gate.can_start = lambda: False  # a new process would have no double
    module.codes = lambda source, capability: double.codes(KERNELS)

    def opened(path, precision, threads=None, *, queue=None, convert=False):
        if queue is None:
            return REAL(path, precision, threads)
        return engine(path, precision, queue, convert=convert)

    onnxruntime.OnnxRuntimeEngine = opened


def case_shipped_bundle_is_accepted():
    prepare()
    accept(PHANTOM, FOLDER / "cache" / "acceptance")


def case_accepted_by_the_command():
    prepare()
    folder = write_golden_bundle(FOLDER / "b", "none")
    accept(str(folder), folder / "acceptance")


def accept(bundle, records_folder):
    """`bundle verify --device cuda` accepts ONNX Runtime in both precisions, and `auto` then scores on the GPU."""
    with pytest.raises(EngineError, match=rf"No engine has been accepted.*verify {re.escape(bundle)} --device cuda"):
        Scorer.open(bundle, "cuda")
    with Scorer.open(bundle, "auto", threads=1) as scorer:
        assert scorer.score({}).device.kind == "cpu"
    with contextlib.redirect_stderr(io.StringIO()):
        assert cli.main(["bundle", "verify", bundle, "--device", "cuda"]) == 0
    records = [path.read_text(encoding="utf-8") for path in records_folder.rglob("*.json")]
    assert sorted(json.loads(record)["precision"] for record in records) == ["fp16", "fp32"]
    assert all('"hardware": "driver double with 16 multiprocessors"' in record for record in records)
    for device in ("cuda", "auto"):
        with Scorer.open(bundle, device, largest_image_px=LARGEST_PX) as scorer:
            report = scorer.score({})
            assert report.device.kind == "cuda"
            assert report.device.precision in ("fp16", "fp32")  # the faster one on the double
            assert not [warning for warning in report.warnings if "accept" in warning], report.warnings
    assert_everything_freed()


def case_wrong_engine_is_not_accepted():
    prepare(WrongEngine)
    folder = write_golden_bundle(FOLDER / "b", "none")
    outcomes = verify_device(Bundle.open(folder), "cuda")
    assert [str(outcome.choice) for outcome in outcomes] == ["onnxruntime fp16", "onnxruntime fp32"]
    for outcome in outcomes:
        assert "p99 shift px 2, at most 1" in outcome.reason, outcome.reason
        assert not outcome.record.passed
    with pytest.raises(EngineError, match=r"onnxruntime fp\d\d was not accepted.*p99 shift px"):
        Scorer.open(folder, "cuda", largest_image_px=LARGEST_PX)
    with pytest.raises(SelfTestError, match=r"computes wrongly in this process.*points shift by more than 1 px"):
        Scorer.open(folder, "cuda", largest_image_px=LARGEST_PX, require_acceptance=False)
    with Scorer.open(folder, threads=1) as scorer:
        said = r"Scored on the CPU\. Engine onnxruntime fp\d\d was not accepted"
        assert [warning for warning in scorer.score(study()).warnings if re.match(said, warning)]
    assert_everything_freed()


def case_tensorrt_engines():
    """Engines of two targets: each has a record beside it; what was built later is passed over until it is accepted."""
    prepare()
    folder = write_golden_bundle(FOLDER / "b", "none")
    tensorrt.TensorRTEngine = TensorRTDouble
    write_engines(folder, "first")
    bundle = Bundle.open(folder)
    (outcome,) = verify_device(bundle, "cuda", "tensorrt")
    assert outcome.path.parent == folder / "engines" / "first", outcome.reason
    assert set(outcome.record.networks) == {
        f"engines/first/{name}.fp16.engine" for name in ("localizer", "grader-corners")
    }
    write_engines(folder, "second")
    with Scorer.open(folder, "cuda", largest_image_px=LARGEST_PX) as scorer:
        report = scorer.score(study())
    assert report.device.engine == "tensorrt 10.16"
    said = "The engines in engines/second have not been accepted, and were passed over: spinescore bundle verify"
    assert [warning for warning in report.warnings if warning.startswith(said)]
    shutil.rmtree(folder / "engines" / "first")
    with pytest.raises(EngineError, match="No tensorrt has been accepted"):
        Scorer.open(folder, "cuda", engine="tensorrt", largest_image_px=LARGEST_PX)
    assert [one.record is not None for one in verify_device(bundle, "cuda", "tensorrt")] == [True]
    path = folder / "engines" / "second" / "localizer.fp16.engine"
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(EngineError, match="altered"):
        Scorer.open(folder, "cuda", engine="tensorrt", largest_image_px=LARGEST_PX)
    assert_everything_freed()


class TensorRTDouble(EngineDouble):
    """Runs the network that its engine was built from; file and machine are checked as the real one does."""

    def __init__(self, path, onnx, queue):
        sidecar = Sidecar.read(path)
        sidecar.check_files(path, onnx)
        sidecar.check_machine(path, "tensorrt", "10.16", gpu_of(queue))
        super().__init__(onnx, "fp16", queue, batches=(sidecar.least_batch, sidecar.most_batch))
        self.name, self.file, self.framework = path.name, path, "tensorrt 10.16"


def write_engines(folder, target):
    for name, batch in (("localizer", 2), ("grader-corners", 12)):
        engine = folder / "engines" / target / f"{name}.fp16.engine"
        engine.parent.mkdir(parents=True, exist_ok=True)
        engine.write_bytes(f"{target} {name}".encode())
        onnx = folder / f"{name}.fp32.onnx"
        sidecar = Sidecar(
            flavour="tensorrt",
            version="10.16",
            precision="fp16",
            least_batch=batch,
            most_batch=batch,
            onnx=onnx.name,
            onnx_sha256=file_sha256(onnx),
            engine_sha256=file_sha256(engine),
            compute_capabilities=("8.7",),
            hardware="this",
            version_compatible=False,
            gpu=first_gpu().name,
            multiprocessors=first_gpu().multiprocessors,
            driver="13.0",
            platform=this_platform(),
            build_seconds=1.0,
        )
        sidecar.write(Path(engine))


if __name__ == "__main__":
    run(globals())
