"""What is shown on the driver double. Each case runs in a child process: on_double.py CASE KERNELS FOLDER."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import double
import numpy as np
import pytest
import tiny
from engine_double import EngineDouble

from spinescore.runtime import DeviceError, EngineError, Scorer
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices import open_device
from spinescore.runtime.devices.cuda import CudaDevice
from spinescore.runtime.devices.host import HostDevice

CONTROL = double.Control()
LARGEST_PX = 1024 * 768
OUT_OF_MEMORY, LAUNCH_FAILED = 2, 719
STEP = 5
OTHER_GRADES = ((3, 3), (0, 0), (1, 2), (2, 2), (0, 1), (2, 1))
_kernels, _folder = Path(sys.argv[2]), Path(sys.argv[3])


def opened(engines=None, capturable=True, kernels=_kernels, **options):
    """A CUDA device on the double, whose engines are appended to `engines`."""

    def open_engine(path, precision, queue):
        engine = EngineDouble(path, precision, queue, capturable)
        if engines is not None:
            engines.append(engine)
        return engine

    def compiled(source, capability):
        assert capability == (8, 7)
        return double.fatbin(kernels)

    return CudaDevice(**{"largest_image_px": LARGEST_PX, "open_engine": open_engine, "compiled": compiled, **options})


def bundle(**changes):
    return Bundle.open(tiny.write_bundle(_folder / f"bundle{len(list(_folder.iterdir()))}", **changes))


def study(**changes):
    return {
        "cervical": tiny.draw("cervical", **changes).radiograph,
        "lumbar": tiny.draw("lumbar", OTHER_GRADES, **changes).radiograph,
    }


def values(report):
    """(grades by site, points (n, 2), probabilities (m, 4)) of the regions that were scored."""
    discs = [disc for region in report.regions.values() for disc in region.discs]
    corners = [corner for disc in discs for corner in disc.corners]
    points = [point for disc in discs for point in (disc.centre_px, disc.anterior_px)]
    grades = {corner.site: (corner.grade, corner.status) for corner in corners}
    return grades, np.array(points), np.array([corner.probabilities for corner in corners])


def assert_same(cuda, host, points_px=0.1, probability=0.02):
    """Identical grades and totals; points and probabilities within bounds (the warps differ a little)."""
    assert cuda.total == host.total, (cuda.total, host.total)
    found, wanted = values(cuda), values(host)
    assert found[0] == wanted[0]
    assert len(found[0]) == 12 * sum(region.status == "scored" for region in host.regions.values()) > 0
    assert np.abs(found[1] - wanted[1]).max() < points_px, np.abs(found[1] - wanted[1]).max()
    assert np.abs(found[2] - wanted[2]).max() < probability
    rejects = [{name: region.reject for name, region in report.regions.items()} for report in (cuda, host)]
    assert rejects[0] == rejects[1]


def untimed(report):
    document = json.loads(report.to_json())
    for field in ("timings_ms", "within_budget"):
        del document[field]
    return document


def assert_everything_freed():
    assert CONTROL.live() == {}, CONTROL.live()


def case_same_report():
    """Sizes, depths and signs change between replays of one graph; one view alone; facing asked of the model."""
    tested = bundle(**{"localizer.passes": 2})
    with Scorer(tested, opened()) as cuda, Scorer(tested, HostDevice(1)) as host:
        launches = CONTROL.calls("cuGraphLaunch")
        studies = [
            study(),
            study(rows=512, dtype="uint16", facing="right"),
            study(rows=768, dtype="int16"),
            {"lumbar": tiny.draw("lumbar", OTHER_GRADES).radiograph},
            study(),
        ]
        reports = [cuda.score(one) for one in studies]
        assert CONTROL.calls("cuGraphLaunch") - launches == len(studies)
        assert CONTROL.calls("cuGraphInstantiateWithFlags") == 1
        for one, report in zip(studies, reports, strict=True):
            assert_same(report, host.score(one))
        assert untimed(reports[0]) == untimed(reports[-1])
        stages = reports[0].timings_ms
        assert all(value is not None and value >= 0 for value in (stages.localize, stages.crop, stages.grade))
        untagged = [tiny.draw(region, tagged=False, facing="right").radiograph for region in ("cervical", "lumbar")]
        assert_same(cuda.score(untagged), host.score(untagged))
        points = {"cervical": {"C2/C3": ((300.0, 200.0), (230.0, 180.0))}}
        assert_same(cuda.score(study(), keypoints=points), host.score(study(), keypoints=points))
        assert cuda.score(study()).device.kind == "cuda"
    assert_everything_freed()


def case_heads():
    """Other heads, two localizers, three channels, half precision: each through graph and launches alike."""
    variants = [
        {"grader.head": "corner4"},
        {"grader.head": "bridge+grades"},
        {"heads": "separate"},
        {"localizer.input.channels": 3, "localizer.input.mean": [0.0] * 3, "localizer.input.std": [1.0] * 3},
        {"precision": "fp16", "localizer.passes": 2},
    ]
    for changes in variants:
        tested = bundle(**changes)
        with Scorer(tested, opened()) as graph, Scorer(tested, opened(graphs=False)) as plain:
            first = graph.score(study())
            assert untimed(first) == untimed(plain.score(study()))
            with Scorer(tested, HostDevice(1)) as host:
                half = changes.get("precision") == "fp16"
                assert_same(first, host.score(study()), *((1.0, 0.2) if half else ()))
    assert_everything_freed()


def case_crops():
    tested = bundle()
    with Scorer(tested, opened()) as cuda, Scorer(tested, HostDevice(1)) as host:
        found, wanted = cuda.crops(study()).crops, host.crops(study()).crops
        assert len(found) == len(wanted) == 12
        for one, other in zip(found, wanted, strict=True):
            assert (one.region, one.level, one.sites) == (other.region, other.level, other.sites)
            assert np.abs(one.image - other.image).mean() < 0.5 / 255
    assert_everything_freed()


def case_integrated():
    """Host and GPU share their memory: the same report, and no copy of a radiograph."""
    CONTROL.set("integrated", 1)
    tested = bundle()
    with Scorer(tested, opened()) as cuda, Scorer(tested, HostDevice(1)) as host:
        for one in (study(), study(rows=512, dtype="uint16"), study()):
            copies = CONTROL.calls("cuMemcpyHtoDAsync_v2")
            assert_same(cuda.score(one), host.score(one))
            assert CONTROL.calls("cuMemcpyHtoDAsync_v2") - copies == 2  # ROIs and views, written before each replay
    assert_everything_freed()


def case_engine_outside_of_graphs():
    """An engine that cannot be captured runs between graphs."""
    tested, engines = bundle(), []
    with Scorer(tested, opened(engines, capturable=False)) as cuda, Scorer(tested, HostDevice(1)) as host:
        launches = CONTROL.calls("cuGraphLaunch")
        assert_same(cuda.score(study()), host.score(study()))
        assert CONTROL.calls("cuGraphLaunch") - launches == 3  # before the localizer, to the grader, after it
    assert all(engine.closed for engine in engines)
    assert_everything_freed()


def case_many_replays():
    with Scorer(bundle(), opened()) as cuda:
        wanted, before = untimed(cuda.score(study())), CONTROL.live()
        for _ in range(20):
            assert untimed(cuda.score(study())) == wanted
        assert CONTROL.live() == before
    assert_everything_freed()


def case_every_failing_call():
    """Whichever call fails while a scorer is opened: a named error, and nothing stays behind."""
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
    """No memory, a lost GPU, an image larger than declared, damaged kernels: named, with what to do next."""
    tested = bundle()
    CONTROL.set("memory", 1_000_000)
    with pytest.raises(
        DeviceError, match=r"GPU driver double: cuMem\w+ failed: out of memory; .*smaller largest image"
    ):
        opened()
    CONTROL.set("memory", 1 << 40)
    assert_everything_freed()
    with pytest.raises(DeviceError, match=r"kernel image is invalid.*; the compiled kernels are damaged"):
        opened(kernels=_folder / "missing.so")
    assert_everything_freed()
    with Scorer(tested, opened()) as cuda:
        with pytest.raises(
            DeviceError, match=r"up to 786432 pixels, .* 1200 x 900 = 1080000; .*largest_image_px=1080000"
        ):
            cuda.score(study(rows=1200))
        assert cuda.score(study()).total.status == "complete"  # the device goes on
        CONTROL.fail(1, LAUNCH_FAILED, for_good=True, name="cuGraphLaunch")
        with pytest.raises(DeviceError, match=r"cuGraphLaunch failed: unspecified launch failure; .*start the process"):
            cuda.score(study())
        with pytest.raises(DeviceError, match="launch failure"):
            cuda.score(study())
    with pytest.raises(DeviceError, match="closed"):
        cuda.score(study())


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
    """Where the GPU is there, but has no engine for the bundle, `auto` scores on the CPU and `cuda` does not."""
    import spinescore.runtime.devices.cuda as module

    module.fatbin = lambda source, capability: double.fatbin(_kernels)
    folder = bundle().folder
    with pytest.raises(EngineError, match="no CUDA provider"):
        Scorer.open(folder, "cuda", largest_image_px=LARGEST_PX)
    assert_everything_freed()
    with Scorer.open(folder, threads=1) as scorer:
        report = scorer.score(study())
        assert report.device.kind == "cpu"
        assert [warning for warning in report.warnings if "no CUDA provider" in warning]
    module.fatbin = _cannot_build
    with pytest.raises(DeviceError, match="nvcc is missing"):
        Scorer.open(folder, "cuda")
    assert_everything_freed()


def _cannot_build(source, capability):
    from spinescore.kernels.build import KernelBuildError

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


def case_contexts():
    """Another library's context, current on this thread, is current again after each verb and after close."""
    import pycuda.driver as drv

    drv.init()
    theirs = drv.Device(0).retain_primary_context()
    theirs.push()
    device = opened()
    assert CONTROL.live()["current"] == 1
    device.allocate((2, 2), np.float32)
    device.close()
    assert CONTROL.live() == {"context": 1, "current": 1}
    drv.Context.pop()
    assert CONTROL.live() == {"context": 1}
    two = opened()
    three = opened()
    two.close()
    three.synchronise()
    three.close()
    assert CONTROL.live() == {"context": 1}
    theirs.detach()
    assert CONTROL.live().get("context") is None


def case_buffers():
    device = opened()
    buffer = device.allocate((4, 2), np.int32)
    assert device.read(buffer).tolist() == [[0, 0]] * 4
    device.write(buffer[1:3], np.array([[1, 2], [3, 4]], np.int32))
    device.write(buffer[3:], np.array([[5, 6]], np.int32))
    copy = device.read(buffer)
    assert copy.tolist() == [[0, 0], [1, 2], [3, 4], [5, 6]]
    device.write(buffer, np.zeros((4, 2), np.int32))
    assert copy[3].tolist() == [5, 6]
    assert device.read(buffer[1:2][0:1]).tolist() == [[0, 0]]
    with pytest.raises(ValueError, match="got"):
        device.write(buffer, np.zeros((4, 2), np.int64))
    with pytest.raises(ValueError, match="steps of 1"):
        buffer[::2]
    device.close()
    with pytest.raises(DeviceError, match="closed"):
        device.read(buffer)
    assert_everything_freed()


if __name__ == "__main__":
    globals()[f"case_{sys.argv[1]}"]()
