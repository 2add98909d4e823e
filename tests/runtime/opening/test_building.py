"""What opening a scorer would build, and real builds by TensorRT-RTX for a GPU that a double names."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace

import pytest

from helpers.golden_bundle import write_golden_bundle
from helpers.tensorrt_double import HERE, make_double, write_engine
from helpers.tiny import write_bundle
from spinescore.runtime import Scorer, cli
from spinescore.runtime.acceptance import gate
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.engines.places import engine_paths, failure, note_failure, store_engine
from spinescore.runtime.engines.sidecar import Sidecar
from spinescore.runtime.errors import DeviceError
from spinescore.runtime.files import file_sha256
from spinescore.runtime.machine import child
from spinescore.runtime.opening import background, building
from spinescore.runtime.opening.background import Build
from spinescore.runtime.opening.building import BuildJob, find_build
from spinescore.runtime.opening.inuse import EngineInUse
from spinescore.runtime.opening.openscorer import Opening
from spinescore.runtime.opening.request import Request
from spinescore.runtime.scoring.studyscorer import StudyScorer

AUTO = Request("auto")
TARGET = "tensorrt-10.16.1.11-sm89"
GPU = str(HERE)
JOB = BuildJob(GPU, "8.9", (), "tensorrt", TARGET)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    return Bundle.open(write_golden_bundle(tmp_path_factory.mktemp("golden") / "b", "none"))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A cache of this test's own."""
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def gpu(monkeypatch):
    """A GPU, and a TensorRT that builds for it; both doubles."""
    monkeypatch.setattr(building, "first_gpu", lambda: HERE)
    monkeypatch.setitem(sys.modules, "tensorrt", make_double())


def copied(bundle, tmp_path) -> Bundle:
    return Bundle.open(write_golden_bundle(tmp_path / "b", "none"))


def in_use(bundle, build) -> EngineInUse:
    return EngineInUse(Opening(StudyScorer(bundle, HostDevice(1)), (), build), bundle)


def test_with_a_gpu_and_a_builder_there_is_something_to_do(bundle, gpu):
    assert find_build(bundle, AUTO) == (JOB, ())
    assert find_build(bundle, Request("cuda", "tensorrt", "fp16")) == (JOB, ())


@pytest.mark.parametrize(
    "request_",
    [
        Request("cpu"),
        Request("auto", "onnxruntime"),
        Request("auto", "openvino"),
        Request("cuda", precision="fp32"),
        Request("cuda", precision="int8"),
        Request("auto", require_acceptance=False),
    ],
    ids=str,
)
def test_nothing_is_built_that_was_not_asked_for(bundle, gpu, request_):
    assert find_build(bundle, request_) == (None, ())


@pytest.mark.parametrize("lacking", ["gpu", "tensorrt", "exporter", "interpreter", "golden inputs"])
def test_nothing_is_built_where_something_is_lacking(bundle, gpu, monkeypatch, tmp_path, lacking):
    def no_gpu():
        raise DeviceError("none")

    find_spec = importlib.util.find_spec
    if lacking == "gpu":
        monkeypatch.setattr(building, "first_gpu", no_gpu)
    if lacking == "tensorrt":
        monkeypatch.setattr(building, "installed_flavours", lambda: ("tensorrt_lean",))
    if lacking == "exporter":
        monkeypatch.setattr(building, "find_spec", lambda name: None if name == "onnx" else find_spec(name))
    if lacking == "interpreter":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    if lacking == "golden inputs":
        bundle = Bundle.open(write_bundle(tmp_path / "b"))
    assert find_build(bundle, AUTO) == (None, ())


def test_tensorrt_rtx_builds_for_the_gpus_that_it_knows(bundle, monkeypatch):
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is missing")
    monkeypatch.setattr(building, "installed_flavours", lambda: ("tensorrt_rtx",))
    for capability, target in (((8, 9), f"tensorrt_rtx-{trt.__version__}-sm89"), ((8, 7), None)):
        gpu = HERE._replace(compute_capability=capability)
        monkeypatch.setattr(building, "first_gpu", lambda gpu=gpu: gpu)
        job, warnings = find_build(bundle, AUTO)
        assert (job and job.target, warnings) == (target, ())


def test_engines_that_are_there_are_checked_before_others_are_built(bundle, gpu, tmp_path):
    bundle = copied(bundle, tmp_path)
    source = bundle.path("localizer.fp32.onnx")
    (tmp_path / "like").mkdir()
    like = replace(write_engine(tmp_path / "like")[2], onnx=source.name, onnx_sha256=file_sha256(source))
    for target, changes in (
        ("here", {}),
        ("other-gpu", {"gpu": "another"}),
        ("other-version", {"version": "10.3.0"}),
        ("other-flavour", {"flavour": "tensorrt_rtx", "version": "0.1"}),
        ("int8", {"precision": "int8"}),
    ):
        engine = bundle.folder / "engines" / target / "localizer.fp16.engine"
        store_engine(engine, b"plan", replace(like, **changes))
    assert find_build(bundle, AUTO) == (replace(JOB, untried=("here",)), ())
    note_failure(bundle.folder, "here", "It is spoilt.")
    job, warnings = find_build(bundle, AUTO)
    told = f"No engine could be made for {GPU}. It is spoilt. To try again: spinescore engine build {bundle.folder}"
    assert (job, warnings) == (JOB, (told,))
    note_failure(bundle.folder, TARGET, "It is spoilt.")
    assert find_build(bundle, AUTO) == (None, (told,))


def rtx_job() -> BuildJob:
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is missing")
    return BuildJob(GPU, "8.9", (), "tensorrt_rtx", f"tensorrt_rtx-{trt.__version__}-sm89")


def test_a_real_build_in_its_process(bundle, tmp_path):
    """By TensorRT-RTX, for a named GPU; without one the gate then refuses, and the engines stay for it."""
    job, said = rtx_job(), []
    bundle = copied(bundle, tmp_path)
    with Build(bundle, job, replace(AUTO, progress=said.append)) as build:
        (told,) = build.wait()
    assert told.startswith(f"No engine could be made for {GPU}. Device cuda is not available: ")
    assert (build.finished, build.judged) == (True, False)
    assert any("building localizer.fp32.onnx" in line for line in said)
    assert failure(bundle.folder, job.target) in told
    found = list(engine_paths(bundle.folder))
    assert [path.parent.name for path in found] == [job.target] * 2
    for path in found:
        sidecar = Sidecar.read(path)
        sidecar.check_files(path, bundle.path(sidecar.onnx))
        sidecar.check_machine(path, "tensorrt_rtx", sidecar.version, HERE)


def test_the_gate_runs_on_what_was_built(bundle, tmp_path, monkeypatch):
    job, asked = rtx_job(), []
    bundle = copied(bundle, tmp_path)

    def verify(bundle, device, engine, precision, say, target):
        asked.append((device, engine, precision, target, len(list(engine_paths(bundle.folder)))))
        return []

    monkeypatch.setattr(gate, "verify_device", verify)
    reason, judged = building.run(bundle, replace(job, untried=("gone",)), lambda line: None)
    assert asked == [("cuda", "tensorrt", "fp16", target, n) for target, n in (("gone", 0), (job.target, 2))]
    assert reason == f"There are no engines in gone. There are no engines in {job.target}."
    assert not judged


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise SystemExit(3)", "The builder ended with exit status 3."),
        ("print('no JSON'); print('[1]'); print('[\"accepted\"]')", "The builder ended with exit status 0."),
    ],
)
def test_a_builder_that_says_nothing(bundle, tmp_path, monkeypatch, code, reason):
    monkeypatch.setattr(child, "worker_command", lambda module, request: [sys.executable, "-c", code])
    with Build(copied(bundle, tmp_path), JOB, AUTO) as build:
        (told,) = build.wait()
    assert reason in told
    build.close()


def test_a_builder_that_cannot_be_started(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(child, "worker_command", lambda module, request: [str(tmp_path / "nothing")])
    with Build(copied(bundle, tmp_path), JOB, AUTO) as build:
        (told,) = build.wait()
    assert "No process can be started (" in told


def test_a_builder_that_does_not_listen_is_killed(bundle, monkeypatch):
    monkeypatch.setattr(background, "_END_S", 0.1)
    code = "import time; time.sleep(600)"
    monkeypatch.setattr(child, "worker_command", lambda module, request: [sys.executable, "-c", code])
    build = Build(bundle, JOB, AUTO)
    engine = in_use(bundle, build)
    assert not engine.renew()
    assert engine.warnings == (f"Engines for {GPU} are being built ({TARGET}); this was scored without them.",)
    engine.close()
    assert build.finished
    assert engine.warnings == ()
    engine.close()
    assert failure(bundle.folder, TARGET) == ""


def test_an_engine_that_does_not_open_leaves_the_scorer_as_it_is(bundle, monkeypatch):
    answer = json.dumps({"accepted": True, "reason": "", "judged": True})
    monkeypatch.setattr(child, "worker_command", lambda module, request: [sys.executable, "-c", f"print({answer!r})"])
    build = Build(bundle, JOB, AUTO)
    build.wait()

    def out_of_memory(*arguments):
        raise DeviceError("Out of memory.")

    engine = in_use(bundle, build)
    monkeypatch.setattr("spinescore.runtime.opening.candidates.hardware_of", out_of_memory)
    assert not engine.renew()
    assert not engine.renew()
    assert engine.warnings == (f"The engine that was built for {GPU} was not taken. Out of memory.",)
    engine.close()


def test_names_that_are_not_known(bundle, capsys):
    with pytest.raises(ValueError, match="there is no build 'later'; choose one of auto, no, now, background"):
        Scorer.open(bundle.folder, "cpu", build="later")
    with pytest.raises(SystemExit):
        cli.main(["score", "nowhere", "--build", "later"])
    assert "background" in capsys.readouterr().err
