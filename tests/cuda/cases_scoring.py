"""On the driver double: the CUDA device gives what the host device gives."""

from __future__ import annotations

import numpy as np
from engine_double import EngineDouble
from on_double import (
    CONTROL,
    FOLDER,
    OTHER_GRADES,
    assert_everything_freed,
    assert_same,
    bundle,
    opened,
    run,
    study,
    untimed,
)

from helpers import tiny
from spinescore.kernels.average import AverageSpec, Run, average
from spinescore.runtime import Scorer, Study, load_study
from spinescore.runtime.bundle import Bundle, shipped_bundles
from spinescore.runtime.devices import LARGEST_IMAGE_PX
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.engines import onnxruntime, tensorrt
from spinescore.runtime.phantom.study import write_study
from spinescore.runtime.scoring.intake import given_points
from spinescore.runtime.scoring.training import TrainingInputs
from spinescore.runtime.study import LEVELS, REGIONS


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
        assert CONTROL.calls("cuGraphInstantiateWithFlags") == 2  # of studies, and of the networks' self-test
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


def case_test_time():
    """Scales and flips in one graph: one and two passes, whole and half precision, an engine that no graph holds."""
    variants = [
        ({"localizer.passes": 1}, ([1.0], True, True), True),
        ({"localizer.passes": 2}, ([1.0, 1.5], True, True), True),
        ({"localizer.passes": 2, "localizer.align": "centre"}, ([1.0, 0.5, 1.5], False, False), True),
        ({"localizer.passes": 2, "heads": "separate"}, ([1.0, 1.5], True, False), False),
        ({"localizer.passes": 2, "precision": "fp16", "localizer.facing": "right"}, ([1.0, 1.5], True, True), True),
    ]
    for changes, test_time, capturable in variants:
        tested = bundle(test_time=test_time, **changes)
        half = "precision" in changes
        with Scorer(tested, opened(capturable=capturable)) as cuda, Scorer(tested, HostDevice(1)) as host:
            launches = CONTROL.calls("cuGraphLaunch")
            reports = [cuda.score(one) for one in (study(), study(rows=512, facing="right"), study())]
            if capturable:
                assert CONTROL.calls("cuGraphLaunch") - launches == 3
            for one, report in zip((study(), study(rows=512, facing="right")), reports, strict=False):
                assert_same(report, host.score(one), points_px=0.5 if half else 0.1)
            assert untimed(reports[0]) == untimed(reports[2])
    assert_everything_freed()


def case_averaging_is_the_references():
    """The device's verbs on odd sizes: mirrored images bit for bit, the mean as the float64 reference has it."""
    rng = np.random.default_rng(8)
    for dtype, off in ((np.float32, 2e-5), (np.float16, 2e-3)):
        device = opened()
        images = device.allocate((2, 3, 32, 31), dtype)
        mirrored = device.allocate(images.shape, dtype)
        values = rng.normal(size=images.shape).astype(dtype)
        device.write(images, values)
        device.mirror(images[1:2], mirrored[1:2])
        found = device.read(mirrored)
        assert np.array_equal(found[1], values[1, ..., ::-1])
        assert not found[0].any()
        runs = (Run(), Run(flipped=True), Run(1.5), Run(1.5, True))
        maps = [rng.normal(size=(2, 5, *((12, 9) if run.scale > 1 else (8, 6)))).astype(dtype) for run in runs]
        buffers = [device.allocate(one.shape, dtype) for one in maps]
        for buffer, one in zip(buffers, maps, strict=True):
            device.write(buffer, one)
        out = device.allocate((2, 5, 8, 6), dtype)
        spec = AverageSpec(runs, "stride", 4, True)
        device.average(buffers, spec, out)
        assert np.abs(device.read(out) - average(maps, spec, (8, 6))).max() < off
        device.close()
    assert_everything_freed()


def case_localizer_facing():
    """Films that face right and left, shown to the localizer as its bundle states, in both passes."""
    for facing in ("right", "as-is"):
        tested = bundle(**{"localizer.passes": 2, "localizer.facing": facing})
        with Scorer(tested, opened()) as cuda, Scorer(tested, HostDevice(1)) as host:
            for one in (study(facing="right"), study(rows=512), study(facing="right")):
                assert_same(cuda.score(one), host.score(one))
    assert_everything_freed()


def case_training_pictures():
    """Crops for training, cut on the host, are those that the device's grader sees."""
    tested = bundle(**{"localizer.input.fit": "letterbox", "grader.crop.unit": "disc-spacing"})
    for facing in ("left", "right"):
        drawn = {region: tiny.draw(region, facing=facing) for region in REGIONS}
        radiographs = tuple(one.radiograph for one in drawn.values())
        points = {region: dict(zip(LEVELS[region], one.points.tolist(), strict=True)) for region, one in drawn.items()}
        with Scorer(tested, opened()) as cuda, TrainingInputs(tested.manifest) as inputs:
            found = inputs.of(Study(radiographs), given_points(points)).pictures
            expected = cuda.crops(radiographs, points).crops
        assert [(one.region, one.sites) for one in found] == [(one.region, one.sites) for one in expected]
        assert len(found) == 12
        for one, other in zip(found, expected, strict=True):
            assert np.abs(one.image - other.image).max() < 2e-3  # half precision of the device's crops
    assert_everything_freed()


def case_shipped_bundle():
    """A phantom as DICOM files, scored with the bundles that ship with the package."""
    for name in shipped_bundles():
        tested = Bundle.open(name)
        with Scorer(tested, opened(largest_image_px=LARGEST_IMAGE_PX)) as cuda, Scorer(tested, HostDevice()) as host:
            phantom = load_study(write_study(1_000_003, FOLDER / name))
            assert_same(cuda.score(phantom), host.score(phantom), points_px=0.5)
    assert_everything_freed()


def case_engine_choice():
    """Without a TensorRT engine ONNX Runtime runs the network, and the report says so; with one it is not asked."""
    device = opened(open_engine=None)
    onnxruntime.OnnxRuntimeEngine = lambda path, precision, queue, convert: EngineDouble(path, precision, queue)
    with Scorer(bundle(), device) as cuda:
        report = cuda.score(study())
    assert [w for w in report.warnings if w.startswith("localizer.fp32.onnx runs on ONNX Runtime. There is no engine")]
    assert [w for w in report.warnings if w.startswith("grader-corners.fp32.onnx runs on ONNX Runtime.")]
    tensorrt.open_on_gpu = lambda path, precision, queue: EngineDouble(path, precision, queue)
    with Scorer(bundle(), opened(open_engine=None)) as cuda:
        assert not cuda.score(study()).warnings
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


def case_a_localizer_for_each_region_and_silent_headers():
    """Each localizer is asked about both radiographs, though its engine is built for one."""
    tested = bundle(heads="separate")
    silent = [tiny.draw(region, tagged=False).radiograph for region in REGIONS]
    with Scorer(tested, opened()) as cuda, Scorer(tested, HostDevice(1)) as host:
        for one in (silent, silent[::-1], silent[1:]):
            report = cuda.score(one)
            assert_same(report, host.score(one))
            assert sum(region.status == "scored" for region in report.regions.values()) == len(one)
    assert_everything_freed()


def case_one_view_without_graphs():
    """Steps that are queued anew run both views as well: engines are built for the batch of both."""
    alone = {"lumbar": tiny.draw("lumbar", OTHER_GRADES).radiograph}
    for changes in ({"localizer.passes": 2}, {"heads": "separate"}):
        tested = bundle(**changes)
        with Scorer(tested, opened(graphs=False)) as cuda, Scorer(tested, HostDevice(1)) as host:
            for one in (alone, study(), alone):
                assert_same(cuda.score(one), host.score(one))
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
        before = CONTROL.live()
        wanted = untimed(cuda.score(study()))
        for _ in range(8):
            assert untimed(cuda.score(study())) == wanted
        assert CONTROL.live() == before
    assert_everything_freed()


if __name__ == "__main__":
    run(globals())
