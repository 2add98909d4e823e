"""The floors' operations and bytes against counts by hand, and the devices' figures against each other."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from helpers import tiny
from spinescore.benchmarks import roofline
from spinescore.export.graph import Graph
from spinescore.export.hrnet import build_hrnet
from spinescore.export.resnet152 import build_resnet
from spinescore.export.synthetic import parse_synthetic, random_tensors
from spinescore.kernels.warp import WarpSpec


def synthetic(name: str, outputs: int):
    return random_tensors(parse_synthetic(f"synthetic:{name}"), outputs, 3)


def gmac(works) -> float:
    return sum(work.flops for work in works if work.tensor_cores) / 2e9


def test_small_network_by_hand():
    """A convolution with ReLU and shortcut is one layer: weights, image and result move once, in two bytes each."""
    graph = Graph("small", 4, 8, 8)
    rng = np.random.default_rng(0)
    first = graph.relu(graph.conv("image", rng.standard_normal((4, 4, 3, 3)), np.zeros(4), name="first"))
    second = graph.conv(first, rng.standard_normal((4, 4, 3, 3)), np.zeros(4), name="second", stride=1)
    added = graph.relu(graph.add(second, "image", name="added"))
    pooled = graph.max_pool(added, name="pooled")
    logits = graph.dense(graph.global_mean(pooled, name="mean"), rng.standard_normal((4, 5)), np.zeros(5), name="dense")
    works = {work.name: work for work in roofline.network_works(graph.model(logits, "logits"), 2)}
    assert list(works) == ["first", "second", "pooled", "mean", "dense"]
    image, weights = 2 * 4 * 8 * 8, 4 * 4 * 9 + 4
    assert works["first"].flops == 2 * image * 36 + image
    assert works["first"].bytes == 2 * (2 * image + weights)
    assert works["second"].flops == 2 * image * 36 + 2 * image
    assert works["second"].bytes == 2 * (3 * image + weights)
    assert works["pooled"].flops == 9 * image / 4
    assert works["pooled"].bytes == 2 * (image + image / 4)
    assert works["dense"].flops == 2 * 2 * 4 * 5
    assert works["dense"].bytes == 2 * (2 * 4 + 4 * 5 + 5 + 2 * 5)
    assert [work.tensor_cores for work in works.values()] == [True, True, False, False, True]


def hrnet_macs(width: int, joints: int) -> int:
    """By stage: branches of 4 blocks with two 3x3 convolutions, then every branch to every other."""
    places = [(64 * 48) >> (2 * branch) for branch in range(4)]
    widths = [width << branch for branch in range(4)]
    macs = 128 * 96 * 64 * 27 + places[0] * 64 * 64 * 9  # the stem
    macs += places[0] * (64 * 64 + 3 * 256 * 64 + 4 * (64 * 64 * 9 + 64 * 256) + 64 * 256)  # layer1
    macs += places[0] * 256 * width * 9 + places[1] * 256 * 2 * width * 9
    macs += sum(places[new] * widths[new - 1] * widths[new] * 9 for new in (2, 3))
    for branches, modules in ((2, 1), (3, 4), (4, 3)):
        for module in range(modules):
            macs += sum(8 * 9 * places[b] * widths[b] ** 2 for b in range(branches))
            for target in range(1 if branches == 4 and module == modules - 1 else branches):
                macs += sum(places[s] * widths[s] * widths[target] for s in range(target + 1, branches))
                for source in range(target):
                    steps = range(source + 1, target + 1)
                    macs += sum(
                        places[s] * 9 * widths[source] * (widths[target] if s == target else widths[source])
                        for s in steps
                    )
    return macs + places[0] * width * joints


def test_hrnet_against_its_architecture_and_the_published_count():
    works = roofline.network_works(build_hrnet(synthetic("hrnet-w32", 17), 256, 192), 1)
    pointwise = sum(work.flops for work in works if work.tensor_cores) - 2 * hrnet_macs(32, 17)
    assert 0 < pointwise < 0.01 * 2 * hrnet_macs(32, 17)
    # The paper states 7.1 GMAC; its convolutions alone, as counted above, are 7.65.
    assert gmac(works) == pytest.approx(7.1, rel=0.09)


def test_resnet152_has_the_published_count():
    works = roofline.network_works(build_resnet(synthetic("resnet152", 8), 224, 224), 12)
    assert gmac(works) / 12 == pytest.approx(11.5, rel=0.01)
    weights = 58.2e6 * 2
    assert sum(work.bytes for work in works) > weights


def test_warp_bytes():
    spec = WarpSpec(224, 224, 1, (0.0,), (1.0,))
    crops = roofline.kernel_works(WarpSpec(256, 192, 4, (0.0,), (1.0,)), spec, 24)[-1]
    samples = 12 * 224 * 224
    assert crops.bytes == samples * 4 * 2 + samples * 2 + 2 * 4 * 65536


@pytest.mark.parametrize("gpu", roofline.load_gpus(), ids=lambda gpu: gpu.name)
def test_rates_follow_from_multiprocessors_and_clock(gpu):
    clock = gpu.multiprocessors * gpu.boost_mhz / 1e6
    assert gpu.fp16_tflops == pytest.approx(clock * gpu.fp16_flops_per_clock, rel=0.01)
    fp32_clock = gpu.multiprocessors * (gpu.fp32_mhz or gpu.boost_mhz) / 1e6
    assert gpu.fp32_tflops == pytest.approx(fp32_clock * 2 * 128, rel=0.01)
    assert gpu.source.startswith("NVIDIA ")
    assert gpu.checked


def test_named_devices_are_there():
    names = " ".join(gpu.name for gpu in roofline.load_gpus())
    wanted = ["Orin Nano", "Orin NX", "AGX Orin", "Thor", "RTX A2000", "4060", "4090", "5090", "H100", "H200"]
    assert all(name in names for name in wanted)


def test_floor_is_the_larger_of_the_two():
    gpu = roofline.load_gpus()[0]
    slow_memory = roofline.Work("copy", 1.0, gpu.bandwidth_gb_s * 1e6, False)
    slow_cores = roofline.Work("product", gpu.fp16_tflops * 2e9, 1.0, True)
    found = roofline.total("both", [slow_memory, slow_cores], gpu)
    assert found.floor_ms == pytest.approx(3.0)
    assert found.memory_bound_ms == pytest.approx(1.0)


def test_command_for_a_bundle(tmp_path, capsys):
    bundle = tiny.write_bundle(tmp_path / "tiny")
    assert roofline.main(["--bundle", str(bundle), "--device", "h100", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "estimate" in found["kind"]
    assert [device["name"] for device in found["devices"]] == ["H100 SXM5 80GB"]
    assert math.isclose(sum(floor["floor_ms"] for floor in found["floors"]), found["study_ms"]["H100 SXM5 80GB"])
    assert roofline.main(["--bundle", str(bundle), "--layers"]) == 0
    assert "estimate" in capsys.readouterr().out


def test_what_is_not_there(tmp_path, capsys):
    assert roofline.main(["--device", "abacus"]) == 2
    assert "abacus" in capsys.readouterr().err
    assert roofline.main(["--bundle", str(tmp_path / "none")]) == 4
    assert "none" in capsys.readouterr().err
