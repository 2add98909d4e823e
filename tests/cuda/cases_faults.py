"""On the driver double: every failure is named, everything is freed, and threads take turns."""

from __future__ import annotations

import re
import threading
from types import SimpleNamespace

import double
import numpy as np
import pytest
from on_double import CONTROL, FOLDER, KERNELS, LARGEST_PX, assert_everything_freed, bundle, opened, run, study, untimed

from spinescore.kernels.build import KernelBuildError
from spinescore.kernels.compiled import Code
from spinescore.kernels.warp import ROI, Source, WarpSpec, warp
from spinescore.runtime import DeviceError, EngineError, Scorer
from spinescore.runtime.devices import open_device
from spinescore.runtime.devices.cudacontext import is_coherent

LAUNCH_FAILED = 719  # CUDA_ERROR_LAUNCH_FAILED
STEP = 5


def case_every_failing_call():
    """Every call that fails while a scorer is opened gives an error that names it, and leaves nothing behind."""
    tested, messages, nth = bundle(), [], 0
    while nth == len(messages) * STEP:
        nth += STEP
        CONTROL.fail(nth)
        try:
            scorer = Scorer(tested, opened())
        except (DeviceError, EngineError) as error:
            CONTROL.fail(0)
            assert CONTROL.live() == {}, (nth, CONTROL.live())  # also while the error is held
            messages.append(str(error))
        else:
            CONTROL.fail(0)
            scorer.close()
    assert len({message.split(" failed")[0] for message in messages}) > 8, messages
    assert_everything_freed()


def case_failing_capture():
    """Each call of a capture fails once; so does a step that is illegal in one, or raises something of its own."""
    names = ("cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "cuEventRecordWithFlags")
    tested = bundle()
    for name in names:
        CONTROL.fail(1 if name != "cuEventRecordWithFlags" else 6, name=name)
        with pytest.raises(DeviceError, match=f"{name} failed"):
            Scorer(tested, opened())
        CONTROL.fail(0)
        assert_everything_freed()
    CONTROL.fail(5, name="cuLaunchKernel")
    with pytest.raises(DeviceError, match="cuLaunchKernel failed"):
        Scorer(tested, opened())
    assert_everything_freed()
    device = opened()
    buffer = device.allocate((4,), np.float32)
    runs = []
    illegal = {
        "memory is allocated": lambda: device.allocate((1,), np.float32),
        "a buffer is read": lambda: device.read(buffer),
        "a buffer is written": lambda: device.write(buffer, np.zeros(4, np.float32)),
        "the device is waited for": device.synchronise,
    }
    for message, step in illegal.items():
        runs.clear()

        def steps(views, step=step):
            runs.append(views)
            if len(runs) == 2:
                step()

        with pytest.raises(DeviceError, match=message):
            device.capture(steps)
        device.write(buffer, np.arange(4, dtype=np.float32))  # the device goes on
        assert device.read(buffer).tolist() == [0, 1, 2, 3]
    device.close()
    device.close()
    assert_everything_freed()


def case_errors():
    """Errors name missing memory, a lost GPU or damaged kernels, and the next step."""
    tested = bundle()
    CONTROL.set("memory", 1_000_000)
    with pytest.raises(
        DeviceError, match=r"GPU driver double: cuMem\w+ failed: out of memory; .*smaller largest image"
    ):
        opened()
    CONTROL.set("memory", 1 << 40)
    assert_everything_freed()
    with pytest.raises(DeviceError, match=r"the double's kernels .*kernel image is invalid.*if its files are damaged"):
        opened(kernels=FOLDER / "missing.so")
    assert_everything_freed()
    with Scorer(tested, opened()) as cuda:
        CONTROL.fail(1, LAUNCH_FAILED, for_good=True, name="cuGraphLaunch")
        with pytest.raises(DeviceError, match=r"cuGraphLaunch failed: unspecified launch failure; .*start the process"):
            cuda.score(study())
        with pytest.raises(DeviceError, match="launch failure"):
            cuda.score(study())
    with pytest.raises(DeviceError, match="closed"):
        cuda.score(study())


def case_kernels_of_a_newer_cuda():
    """A driver of CUDA 12 refuses machine code and PTX of CUDA 13; PTX of an old ISA serves. Or the error says all."""
    tested, asked = bundle(), []

    def compiled(source, capability, isas=("9.0", "7.4")):
        asked.append(source)
        yield Code(
            double.fatbin(KERNELS) + b"Cuda compilation tools, release 13.0, V13.0.88", "the package's machine code"
        )
        for isa in isas:
            asked.append(isa)
            yield Code(f"// {KERNELS}\n.version {isa}\n".encode() + b"\0", f"PTX of ISA {isa}")
        raise KernelBuildError("nvcc was not found.")

    for version, refusal in ((12060, 200), (12060, 209), (11040, 222), (12020, 801)):
        CONTROL.set("version", version)
        CONTROL.set("refusal", refusal)
        asked.clear()
        with Scorer(tested, opened(compiled=compiled)) as cuda:
            assert cuda.score(study()).total.status == "complete"
        assert asked == [part for source in ("average", "decode", "warp") for part in (source, "9.0", "7.4")]
        assert_everything_freed()
        with pytest.raises(DeviceError) as refused:
            opened(compiled=lambda source, capability: compiled(source, capability, ("9.0",)))
        message = str(refused.value)
        assert (
            f"kernel average cannot be loaded. The driver supports CUDA {version // 1000}.{version % 100 // 10}"
            in message
        )
        assert "the package's machine code (compiled by CUDA 13.0): cuModuleLoadDataEx failed" in message
        assert "PTX of ISA 9.0 (compiled by an unknown CUDA version)" in message
        assert message.endswith("or use device cpu.")
        assert "nvcc was not found. Update the NVIDIA driver" in message
        assert_everything_freed()
    CONTROL.set("version", 13000)
    asked.clear()
    opened(compiled=compiled).close()
    assert asked == ["average", "decode", "warp"]
    asked.clear()
    CONTROL.fail(1, 209, name="cuModuleGetFunction")  # a driver that loads lazily refuses a kernel only now
    opened(compiled=compiled).close()
    assert asked == ["average", "9.0", "decode", "warp"]
    assert_everything_freed()
    assert_everything_freed()


def case_every_word_for_code_that_cannot_be_loaded():
    """If the driver cannot load the first code, the second is tried. A lost context is another fault."""

    def compiled(source, capability):
        yield Code(double.fatbin(KERNELS), "the first")
        yield Code(double.fatbin(KERNELS), "the second")

    for status in (200, 209, 218, 221, 222, 223, 300, 303, 500, 801):
        for name in ("cuModuleLoadDataEx", "cuModuleGetFunction"):
            CONTROL.fail(1, status, name=name)
            opened(compiled=compiled).close()
            assert_everything_freed()
    CONTROL.fail(1, 201, name="cuModuleLoadDataEx")
    with pytest.raises(DeviceError, match=r"cuModuleLoadDataEx failed: invalid device context; close"):
        opened(compiled=compiled)
    assert_everything_freed()


def case_a_slot_that_cannot_grow():
    """If pinned memory is short the larger device memory is given back, too. Later the slot grows twice."""
    device = opened(largest_image_px=100)
    table = np.linspace(0, 1, 4096, dtype=np.float32)
    live = CONTROL.live()
    for _ in range(2):
        CONTROL.fail(1, 2, name="cuMemHostAlloc")
        with pytest.raises(DeviceError, match="cuMemHostAlloc failed: out of memory"):
            device.upload(0, Source(np.zeros((20, 20), np.uint16), (table,)))
        assert CONTROL.live() == live
    CONTROL.fail(1, 2, name="cuMemHostAlloc")
    with pytest.raises(DeviceError, match="cuMemHostAlloc failed: out of memory"):
        device.allocate((4,), np.float32)
    assert CONTROL.live() == live
    spec, roi = WarpSpec(4, 4, 1, (0.0,), (1.0,)), np.zeros(1, ROI)
    roi["matrix"] = [[1, 0, 0], [0, 1, 0]]
    rois, out = device.allocate((1,), ROI), device.allocate((1, 1, 4, 4), np.float32)
    device.write(rois, roi)
    for side in (20, 30, 10, 40):
        source = Source(np.arange(side * side, dtype=np.uint16).reshape(side, side), (table,))
        device.upload(0, source)
        device.warp(rois, spec, out)
        assert np.abs(device.read(out) - warp([source], roi, spec)).max() < 1e-6
    device.close()
    assert_everything_freed()


def case_a_coherent_gpu_has_read_a_radiograph_before_the_next_comes():
    """It reads the host's memory itself: sizes that grow and shrink, and a small image right behind each."""
    CONTROL.set("integrated", 1)
    CONTROL.set("coherent", 1)
    rng, table = np.random.default_rng(3), np.linspace(0, 1, 4096, dtype=np.float32)
    spec, roi = WarpSpec(32, 32, 2, (0.0,), (1.0,)), np.zeros(1, ROI)
    roi["origin"], roi["matrix"] = (5, 3), [[1, 0.1, 0], [-0.1, 1, 0]]
    device = opened(largest_image_px=1)
    rois, out = device.allocate((1,), ROI), device.allocate((1, 1, 32, 32), np.float32)
    device.write(rois, roi)
    for number, side in enumerate(rng.integers(40, 400, 12).tolist()):
        source = Source(rng.integers(0, 4096, (side, side + number)).astype(np.uint16), (table,))
        device.upload(0, source)
        device.warp(rois, spec, out)
        if number % 3:
            device.upload(0, Source(np.zeros((3, 3), np.uint16), (table,)))
        assert np.abs(device.read(out) - warp([source], roi, spec)).max() < 1e-4, number
    device.close()
    assert_everything_freed()


def case_attributes_that_the_driver_does_not_know():
    """A driver or a pycuda that is too old to know an attribute: the GPU then has its own copy of the radiographs."""
    CONTROL.set("integrated", 1)
    CONTROL.set("coherent", 1)
    for nth in (2, 3, 4):  # the first is the number of multiprocessors
        CONTROL.fail(nth, 1, name="cuDeviceGetAttribute")
        device = opened()
        CONTROL.fail(0)
        assert CONTROL.calls("cuMemHostGetDevicePointer_v2") == 0
        device.close()
    attributes = SimpleNamespace(INTEGRATED=1, CAN_MAP_HOST_MEMORY=2)
    drv = SimpleNamespace(device_attribute=attributes, LogicError=ArithmeticError)
    assert not is_coherent(drv, SimpleNamespace(get_attribute=lambda attribute: 1))
    opened().close()
    assert CONTROL.calls("cuMemHostGetDevicePointer_v2") == 5
    assert_everything_freed()


def case_no_gpu():
    for setting, value, message in (
        ("devices", 0, "no CUDA-capable device"),
        ("version", 11030, "CUDA 11.3, at least 11.4"),
    ):
        CONTROL.set(setting, value)
        with pytest.raises(DeviceError, match=f"cuda is not available: .*{message}.*device cpu"):
            open_device("cuda")
        chosen = open_device("auto", threads=1)
        assert chosen.kind == "cpu"
        with Scorer(bundle(), chosen) as scorer:
            assert [w for w in scorer.score(study()).warnings if message in w and w.startswith("Scored on the CPU")]
        CONTROL.set("devices", 1)
    assert_everything_freed()


def case_auto():
    """Where the GPU is there, but has no engine for the bundle, `auto` scores on the CPU and `cuda` does not.

    Without an acceptance record nothing is tried; when none is asked for, what fails is named.
    """
    import spinescore.runtime.devices.cuda as module

    module.codes = lambda source, capability: double.codes(KERNELS)
    folder = bundle().folder
    anything = {"largest_image_px": LARGEST_PX, "require_acceptance": False}
    for message, options in (("No engine has been accepted.*--device cuda", {}), ("no CUDA provider", anything)):
        with pytest.raises(EngineError, match=message):
            Scorer.open(folder, "cuda", **options)
        assert_everything_freed()
        with Scorer.open(folder, threads=1, **options) as scorer:
            report = scorer.score(study())
            assert report.device.kind == "cpu"
            assert [warning for warning in report.warnings if re.search(f"Scored on the CPU.*{message}", warning)]
    module.codes = _cannot_build
    with pytest.raises(DeviceError, match="nvcc is missing"):
        Scorer.open(folder, "cuda", require_acceptance=False)
    assert_everything_freed()


def _cannot_build(source, capability):
    raise KernelBuildError("nvcc is missing")


def case_threads():
    """Any thread may use the device and close it, but two at once are refused; a scorer's calls wait."""
    device = opened()
    inside, go_on, found = threading.Event(), threading.Event(), []

    def steps(views):
        inside.set()
        go_on.wait()

    def capture():
        device.capture(steps)

    other = threading.Thread(target=capture)
    other.start()
    inside.wait()
    with pytest.raises(DeviceError, match="in use by another thread"):
        device.synchronise()
    go_on.set()
    other.join()
    device.synchronise()
    elsewhere = threading.Thread(target=device.close)
    elsewhere.start()
    elsewhere.join()
    assert_everything_freed()
    with Scorer(bundle(), opened()) as cuda:
        one = study()
        threads = [threading.Thread(target=lambda: found.append(untimed(cuda.score(one)))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        assert all(report == found[0] for report in found)
    assert_everything_freed()


if __name__ == "__main__":
    run(globals())
