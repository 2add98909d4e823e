"""The kernels compiled for the host in two more ways: with fused multiply-adds, as nvcc does, and with UBSan.

UBSan ends the process at undefined behaviour (an index, a shift, a conversion that no rule covers), so that each build
runs in a process of its own.
"""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import host_build

CPUINFO = Path("/proc/cpuinfo")
BUILDS = {
    "fused": ("-ffp-contract=fast", *(("-mfma",) if platform.machine() == "x86_64" else ())),
    "ubsan": ("-fsanitize=undefined,float-cast-overflow", "-fno-sanitize-recover=all", "-static-libubsan"),
}

RUN = """
import sys
sys.path[:] = sys.argv[3:]
from pathlib import Path
import numpy as np
from helpers import host_run
from helpers.host_build import HostKernels
from spinescore.benchmarks.gpu.averagecases import off, random_average
from spinescore.benchmarks.gpu.decodecases import close, random_decode, random_regions, roi_close
from spinescore.benchmarks.gpu.warpcases import excess, random_warp, warp_edges
from spinescore.kernels.decode import boxes, crops, decode
from spinescore.kernels.warp import warp

kernels = HostKernels(Path(sys.argv[1]))
cases = [*warp_edges(), *(random_warp(np.random.default_rng(seed)) for seed in range(int(sys.argv[2])))]
for number, case in enumerate(cases):
    half = bool(number % 2)
    values = host_run.warp(kernels, case.sources, case.rois, case.spec, half)
    expected = warp(case.sources, case.rois, case.spec)
    assert excess(values, expected, case.spec, case.bound, half) <= 0, (case.name, number)
for seed in range(int(sys.argv[2])):
    rng = np.random.default_rng(seed)
    case = random_decode(rng, half=bool(seed % 2))
    points = host_run.decode(kernels, case.heatmaps, case.rois, case.views, case.spec)
    expected = decode(case.heatmaps, case.rois, case.views, case.spec)
    assert np.array_equal(points["confidence"], expected["confidence"]) and close(points["xy"], expected["xy"]), seed
    case = random_regions(rng)
    size = (case.crop.size, case.crop.size)
    rois = host_run.crops(kernels, case.points, case.views, case.crop)
    assert roi_close(rois, crops(case.points, case.views, case.crop), size), seed
    rois = host_run.boxes(kernels, case.points, case.views, case.box)
    assert roi_close(rois, boxes(case.points, case.views, case.box), (case.box.height, case.box.width)), seed
    case = random_average(rng, bool(seed % 2))
    mean = host_run.average(kernels, case.heatmaps, case.spec, case.shape)
    assert off(case, mean, host_run.mirror(kernels, case.images))[1] == "", seed
print("all cases")
"""


@pytest.mark.versionless
@pytest.mark.parametrize("build", list(BUILDS))
def test_the_references_hold_for_every_build(pytestconfig, build):
    reason = host_build.unavailable()
    if reason:
        pytest.skip(reason)
    if build == "fused" and "-mfma" in BUILDS[build] and " fma " not in CPUINFO.read_text(encoding="utf-8"):
        pytest.skip("this CPU has no fused multiply-add")
    library = host_build.build(pytestconfig.cache.mkdir("kernels"), *BUILDS[build])
    command = [sys.executable, "-c", RUN, str(library), "40", *sys.path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "all cases\n", "")
