"""`--check-localizer` and `--check-grader` in every form: one network, or one for each region or part."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from helpers.golden_networks import SMALL, mean_grader, pool_localizer
from helpers.golden_networks import unpacked as golden
from spinescore.export.ends import softmax
from spinescore.export.proof import prove
from spinescore.export.sessions import Runner
from spinescore.export.sources import InputSize, Network, open_network
from spinescore.runtime import cli
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.errors import CheckpointError
from spinescore.runtime.manifest import NetworkInput
from spinescore.runtime.phantom import write_study

SIZE = NetworkInput(64, 64, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 2, None, None)
LOCALIZERS = {
    "12": {"": pool_localizer(12)},
    "24": {"": pool_localizer(24)},
    "12+12": {"cervical": pool_localizer(12), "lumbar": None},
    "24+24": {"cervical": pool_localizer(24), "lumbar": None},
}
GRADERS = {
    "8": {"": mean_grader(8)},
    "4": {"": mean_grader(4)},
    "2+3": {"bridge": mean_grader(2), "grades": mean_grader(3)},
}


def other(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the same network with other weights."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    tensor = changed.graph.initializer[0]
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(-0.7), tensor.name))
    return changed


def write(folder, kind: str, models: dict, order: list[int] | None = None) -> tuple[str, dict[str, str]]:
    """Write the networks' files and a reference for each; return them as the options name them."""
    named, references = [], {}
    first = next(iter(models.values()))
    for role, model in models.items():
        model = other(first) if model is None else model
        path = folder / f"{kind}-{role}.onnx"
        onnx.save(model, str(path))
        named.append(f"{role}={path}" if role else str(path))
        grey = np.random.default_rng(len(named)).integers(0, 256, (8, 64, 64), np.uint8)
        outputs = Runner(model)(grey / 255, SIZE).astype(np.float32)
        said = "heatmaps" if kind == "localizer" else "logits"
        if role == "grades":  # a reader's network may end in a softmax
            outputs, said = softmax(outputs).astype(np.float32), "probabilities"
        references[role] = str(folder / f"ref-{kind}-{role}.npz")
        np.savez_compressed(references[role], images=grey, outputs=outputs, kind=said)
    return ",".join(named), references


def option(references: dict[str, str]) -> str:
    return ",".join(f"{role}={path}" if role else path for role, path in references.items())


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> str:
    return str(write_study(41, tmp_path_factory.mktemp("study")))


@pytest.mark.parametrize("graders", GRADERS)
@pytest.mark.parametrize("localizers", LOCALIZERS)
def test_every_combination_is_checked_and_says_so(tmp_path, study, capsys, localizers, graders):
    localizer, for_localizer = write(tmp_path, "localizer", LOCALIZERS[localizers])
    grader, for_grader = write(tmp_path, "grader", GRADERS[graders])
    (tmp_path / "small.json").write_text(json.dumps(SMALL), encoding="utf-8")
    words = ["--localizer", localizer, "--grader", grader, "--manifest", str(tmp_path / "small.json")]
    words += ["--check-localizer", option(for_localizer), "--check-grader", option(for_grader)]
    words += ["--golden", study, "--half-weights", *(["--bridge-class", "0"] if graders == "2+3" else [])]
    assert cli.main(["export", *words, "--out", str(tmp_path / "out")]) == 0
    networks = Bundle.open(tmp_path / "out").manifest.provenance["networks"]
    assert len(networks) == len(for_localizer) + len(for_grader)
    for entry in networks.values():
        assert entry["checked"]["difference_of_range"] < 1e-5
        assert entry["checked"]["pictures"] == 8
    used = {entry["checked"]["reference"] for entry in networks.values()}
    assert used == {Path(path).name for path in (*for_localizer.values(), *for_grader.values())}


@pytest.mark.parametrize(("kind", "models"), [("localizer", LOCALIZERS["12+12"]), ("localizer", LOCALIZERS["24+24"])])
def test_references_of_the_other_region_are_refused(tmp_path, kind, models):
    named, references = write(tmp_path, kind, models)
    networks = [opened(part, kind) for part in named.split(",")]
    crossed = dict(zip(references, reversed(references.values()), strict=True))
    with pytest.raises(CheckpointError, match=r"localizer-cervical\.onnx does not give what ref-localizer-lumbar\.npz"):
        prove(networks, option(crossed), SIZE, None, False)
    prove(networks, option(references), SIZE, None, False)


def opened(part: str, kind: str) -> Network:
    role, _, path = part.rpartition("=")
    return open_network(path, kind, role, InputSize(3, 64, 64, "imagenet"))


def test_a_checkpoint_with_24_joints(tmp_path):
    """PyTorch's own file, with one channel; another test compares it with PyTorch's outputs."""
    path = golden("hrnet-zip.pth", tmp_path)
    network = open_network(str(path), "localizer", "", InputSize(None, 64, 64))
    assert network.outputs == 24
    size = NetworkInput(64, 64, 1, (0.5,), (0.25,), 2, None, None)
    grey = np.random.default_rng(2).integers(0, 256, (8, 64, 64), np.uint8)
    outputs = Runner(network.model)(grey / 255, size).astype(np.float32)
    reference = tmp_path / "ref.npz"
    np.savez_compressed(reference, images=grey, outputs=outputs, kind="heatmaps")
    prove([network], str(reference), size, None, False)
    assert network.checked["difference_of_range"] < 1e-5
    swapped = np.concatenate([outputs[:, 12:], outputs[:, :12]], 1)  # lumbar first
    np.savez_compressed(reference, images=grey, outputs=swapped, kind="heatmaps")
    with pytest.raises(CheckpointError, match="does not give what"):
        prove([network], str(reference), size, None, False)
    np.savez_compressed(reference, images=grey, outputs=outputs[:, :12], kind="heatmaps")
    with pytest.raises(CheckpointError, match="12"):
        prove([network], str(reference), size, None, False)
