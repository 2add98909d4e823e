"""Heatmaps averaged over scales and flips on the host: PyTorch's flip test, and a NumPy reference for scales."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from golden.packing import FOLDER

from helpers.golden_networks import IMAGES, unpacked
from helpers.scoring import CERVICAL, LUMBAR, assert_found, checked
from helpers.tiny import write_bundle
from spinescore.kernels.average import AverageSpec, Run, average
from spinescore.kernels.decode import VIEW, BoxSpec, DecodeSpec, boxes, decode
from spinescore.kernels.warp import Source, WarpSpec, warp
from spinescore.runtime import BundleError, Scorer
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.engines.onnxruntime import OnnxRuntimeEngine
from spinescore.runtime.engines.openvino import OpenVinoEngine
from spinescore.runtime.scoring.budget import Effort
from spinescore.runtime.scoring.geometry import scaled_rois, whole_image

STUDY = (CERVICAL.radiograph, LUMBAR.radiograph)
ALL = ([1.5, 1.0, 0.5], True, True)
CASES = [  # test time, passes, alignment
    (([1.0], True, True), 1, "stride"),
    (([1.0], True, False), 2, "centre"),
    (([1.0, 1.5], False, False), 2, "stride"),
    (ALL, 2, "centre"),
]


@pytest.fixture(scope="module")
def flip_golden(tmp_path_factory):
    """The graph of hrnet-legacy.pth for any size, its images, and what PyTorch gave."""

    from spinescore.export.checkpoints import read_checkpoint
    from spinescore.export.graph import free_size
    from spinescore.export.hrnet import build_hrnet

    folder = tmp_path_factory.mktemp("flip")
    path = unpacked("hrnet-legacy.pth", folder)
    model = build_hrnet(read_checkpoint(path).tensors, 64, 64)
    free_size(model)
    onnx.save(model, str(folder / "localizer.fp32.onnx"))
    images = ((IMAGES[:1] / 255 - 0.5) / 0.25).astype(np.float32)
    with np.load(FOLDER / "flip-test.npz") as archive:
        return folder / "localizer.fp32.onnx", images, dict(archive)


@pytest.mark.parametrize("make", [OnnxRuntimeEngine, OpenVinoEngine])
def test_the_flip_test_is_that_of_pytorch(flip_golden, make):
    path, images, golden = flip_golden
    device = HostDevice(1)
    engine = make(path, "fp32", 1)
    mirrored, plain, turned, mean = (
        np.zeros_like(array) for array in (images, golden["flip"], golden["flip"], golden["flip"])
    )
    device.mirror(images, mirrored)
    for inputs, outputs in ((images, plain), (mirrored, turned)):
        device.run(engine, inputs, outputs)
    for name, shift in (("flip", False), ("shift", True)):
        device.average([plain, turned], AverageSpec((Run(), Run(flipped=True)), "stride", 4, shift), mean)
        assert np.abs(mean - golden[name]).max() <= 1e-4 * np.ptp(golden[name])
    assert np.abs(golden["flip"] - golden["shift"]).max() > 0.05 * np.ptp(golden["flip"])  # they can be told apart


def rois_by_hand(size, box_padding, points, views):
    """What the localizer sees at one size: the whole radiographs, or the boxes of the first pass's points."""
    if points is not None:
        return boxes(points, views, BoxSpec(size.height, size.width, box_padding))
    shape = (size.height, size.width)
    return np.array([whole_image(n, *one.pixels.shape, shape, "stretch", "left") for n, one in enumerate(STUDY)])


def by_hand(bundle, passes):
    """Points of both radiographs from the float64 references and plain calls of ONNX Runtime."""
    localizer = bundle.manifest.localizer
    session = onnxruntime.InferenceSession(str(bundle.path(localizer.files["cervical"]["fp32"])))
    sources = [Source(one.pixels, (one.table,), one.stored_min) for one in STUDY]
    views, points = np.zeros(2, VIEW), None
    views["source"] = views["region"] = [0, 1]
    flips = (False, True) if localizer.averaging.flip else (False,)
    runs = tuple(Run(scale, flip) for scale in localizer.averaging.scales for flip in flips)
    for _ in range(passes):
        heatmaps = []
        for run in runs:
            size = localizer.input_at(run.scale)
            rois = rois_by_hand(size, localizer.box_padding, points, views)
            images = warp(sources, rois, WarpSpec(size.height, size.width, size.antialias, size.mean, size.std))
            images = np.ascontiguousarray(images[..., ::-1] if run.flipped else images, np.float32)
            heatmaps.append(session.run(None, {"image": images})[0])
        spec = AverageSpec(runs, localizer.align, 4, localizer.averaging.flip_shift)
        mean = average(heatmaps, spec, (localizer.input.height // 4, localizer.input.width // 4))
        rois = rois_by_hand(localizer.input, localizer.box_padding, points, views)
        points = decode(mean, rois, views, DecodeSpec(localizer.decode, localizer.align, 4, localizer.channels()))
    return points


def found_points(report):
    return np.array([[[d.centre_px, d.anterior_px] for d in region.discs] for region in report.regions.values()])


@pytest.mark.parametrize(("test_time", "passes", "align"), CASES, ids=str)
def test_scores_are_those_of_the_reference(tmp_path, test_time, passes, align):
    changes = {"localizer.passes": passes, "localizer.align": align, "localizer.input.antialias": 2}
    bundle = Bundle.open(write_bundle(tmp_path / "b", test_time=test_time, **changes))
    reference = by_hand(bundle, passes)
    for threads in (1, 2) if test_time is ALL else (1,):
        with Scorer(bundle, HostDevice(threads)) as scorer:
            report = checked(scorer.score(STUDY))
        assert np.abs(found_points(report) - reference["xy"]).max() < 0.05
        found = [[disc.confidence for disc in region.discs] for region in report.regions.values()]
        assert np.abs(np.array(found) - reference["confidence"].min(-1).clip(0, 1)).max() < 1e-3
        assert report.skipped == ()


@pytest.mark.parametrize("changes", [{}, {"heads": "separate"}, {"localizer.facing": "right"}], ids=str)
def test_what_is_seen_is_found(tmp_path, changes):
    bundle = Bundle.open(write_bundle(tmp_path / "b", test_time=([1.0, 1.5], True, True), **changes))
    with Scorer(bundle, HostDevice(1)) as scorer:
        report = scorer.score(STUDY)
    assert_found(report.regions["cervical"], CERVICAL)
    assert_found(report.regions["lumbar"], LUMBAR)


def test_without_averaging_the_same_bundle_runs_once(tmp_path):
    """An effort without it, and a bundle without the section, give the same points."""
    averaged = Bundle.open(write_bundle(tmp_path / "a", test_time=([1.0, 1.5], True, True)))
    plain = Bundle.open(write_bundle(tmp_path / "p"))
    reports = {}
    for name, bundle, effort in (("off", averaged, Effort(1)), ("none", plain, None), ("on", averaged, None)):
        with Scorer(bundle, HostDevice(1), effort=effort) as scorer:
            reports[name] = found_points(scorer.score(STUDY))
    assert np.array_equal(reports["off"], reports["none"])
    assert 0.01 < np.abs(reports["on"] - reports["none"]).max() < 5


def test_a_network_of_one_size_is_refused_for_several(tmp_path):
    folder = write_bundle(
        tmp_path / "b", **{"localizer.test_time": {"scales": [1.0, 2], "flip": False, "flip_shift": False}}
    )
    with pytest.raises(
        BundleError, match=r"localizer\.fp32\.onnx only takes pictures of 256 x 192 pixels.*scale 2 too"
    ):
        Scorer(Bundle.open(folder), HostDevice(1))


def test_a_larger_view_shows_the_same_field():
    base, size = whole_image(0, 1501, 1200, (256, 192), "letterbox", "right"), (384, 288)
    found = scaled_rois(base, 1.5)
    expected = whole_image(0, 1501, 1200, size, "letterbox", "right")
    np.testing.assert_allclose(found["matrix"], expected["matrix"], atol=2e-4)
    assert (found["origin"] == expected["origin"]).all()
    assert scaled_rois(base, 1.0) == base
