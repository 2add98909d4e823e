"""The steps in PyTorch, which the GPU command times beside ours, against the references; where PyTorch is installed."""

from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from spinescore.benchmarks.gpu.decodecases import CHANNELS
from spinescore.benchmarks.gpu.inputs import picture
from spinescore.export.hrnet import build_hrnet
from spinescore.export.resnet152 import build_resnet
from spinescore.export.sessions import run_model
from spinescore.export.synthetic import parse_synthetic, random_tensors
from spinescore.kernels.decode import CropSpec, DecodeSpec, crops, decode
from spinescore.kernels.warp import WarpSpec, warp
from spinescore.runtime.manifest import Crop, NetworkInput

torch = pytest.importorskip("torch")

WHOLE = NetworkInput(128, 96, 1, (0.4,), (0.3,), antialias=4, levels=None, fit="letterbox")
DISC = NetworkInput(64, 64, 1, (0.5,), (0.25,), antialias=2, levels=None, fit=None)


@pytest.fixture(scope="module")
def networks():
    """Thin ones with random weights."""
    localizer = random_tensors(parse_synthetic("synthetic:hrnet-w8"), 24, 1)
    grader = random_tensors(parse_synthetic("synthetic:resnet50-w8"), 8, 1)
    return build_hrnet(localizer, WHOLE.height, WHOLE.width), build_resnet(grader, DISC.height, DISC.width)


@pytest.fixture
def bundle(networks, tmp_path):
    for name, model in zip(("localizer.onnx", "grader.onnx"), networks, strict=True):
        onnx.save(model, str(tmp_path / name))
    read = {"decode": "dark", "align": "stride", "channels": lambda: CHANNELS}
    localizer = SimpleNamespace(files={"cervical": {"fp32": "localizer.onnx"}}, input=WHOLE, **read)
    grader = SimpleNamespace(
        files={"corners": {"fp32": "grader.onnx"}}, input=DISC, crop=Crop("anterior-distance", 3.2, "left")
    )
    return SimpleNamespace(
        manifest=SimpleNamespace(localizer=localizer, grader=grader), path=lambda name: tmp_path / name
    )


def seen(study, rois, size):
    spec = WarpSpec(size.height, size.width, size.antialias, size.mean, size.std)
    return warp(study.sources, rois, spec).astype(np.float32)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint8"])
def test_the_same_points_and_logits_as_the_references(bundle, networks, given, dtype):
    from spinescore.benchmarks.gpu.torchpeer import TorchPeer

    study = picture(500, 420, WHOLE, 3, dtype)
    points, logits = TorchPeer(bundle, "cpu", torch.float32).score(study, given)
    heatmaps = run_model(networks[0], seen(study, study.whole, WHOLE), "heatmaps")
    views = study.given if given else study.views
    expected = decode(heatmaps, study.whole, views, DecodeSpec("dark", "stride", 4, CHANNELS))
    assert np.abs(points["xy"] - expected["xy"]).max() < 0.05
    assert np.abs(points["confidence"] - expected["confidence"]).max() < 1e-3
    rois = crops(points, views, CropSpec(DISC.height, "anterior-distance", 3.2, "left")).reshape(-1)
    wanted = run_model(networks[1], seen(study, rois, DISC), "logits")
    assert np.ptp(wanted) > 0.1
    assert np.abs(logits - wanted).max() < 2e-3 * np.abs(wanted).max()


def test_weights_that_are_stored_in_half():
    """The shipped bundle's localizer, on a picture of noise."""
    from spinescore.benchmarks.phantom.checkpoints import networks_of
    from spinescore.runtime.bundle import Bundle

    shipped = Bundle.open("phantom-reference")
    size = shipped.manifest.localizer.input
    image = np.random.default_rng(0).standard_normal((1, size.channels, size.height, size.width), dtype=np.float32)
    path = shipped.path(shipped.manifest.localizer.files["cervical"]["fp32"])
    wanted = run_model(onnx.load(str(path)), image, "heatmaps")
    with torch.inference_mode():
        found = networks_of(shipped)[0](torch.from_numpy(image)).numpy()
    assert np.abs(found - wanted).max() < 1e-3 * np.ptp(wanted)
