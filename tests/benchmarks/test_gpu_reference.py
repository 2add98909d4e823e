"""The CPU as the reference of the GPU command, with a version of OpenCV that the package itself refuses."""

import cv2
import numpy as np
import pytest

from spinescore.benchmarks.gpu.inputs import picture, score
from spinescore.benchmarks.gpu.reference import ReferenceHost, open_host
from spinescore.kernels.warp import WarpSpec, warp
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.errors import DeviceError
from spinescore.runtime.scoring.pipeline import Pipeline


def test_an_older_opencv_is_refused_by_the_product_and_not_needed_here(monkeypatch):
    assert type(open_host()) is HostDevice
    monkeypatch.setattr(cv2, "__version__", "4.12.0")
    with pytest.raises(DeviceError, match=r"OpenCV 4\.12\.0 rounds coordinates"):
        HostDevice()
    device = open_host()
    assert type(device) is ReferenceHost
    assert cv2.__version__ == "4.12.0"
    device.close()


def test_its_warp_is_the_reference_and_its_points_are_those_of_the_product():
    bundle = Bundle.open("phantom-reference")
    size = bundle.manifest.localizer.input
    study = picture(700, 600, size, 3)
    devices = HostDevice(), ReferenceHost()
    spec = WarpSpec(size.height, size.width, size.antialias, size.mean, size.std)
    out = np.empty((2, size.channels, size.height, size.width), np.float32)
    for slot, source in enumerate(study.sources):
        devices[1].upload(slot, source)
    devices[1].warp(study.whole, spec, out)
    assert np.array_equal(out, warp(study.sources, study.whole, spec).astype(np.float32))
    product, reference = (score(device, Pipeline(bundle, device), study, given=True) for device in devices)
    difference = np.abs(product.logits["corners"] - reference.logits["corners"]).max()
    assert 0 < difference < 0.02 * np.ptp(reference.logits["corners"])
    for device in devices:
        device.close()
