"""Helpers of the cases_*.py files. Each case runs in a child process: FILE CASE KERNELS FOLDER."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import double
import numpy as np
from engine_double import EngineDouble

from helpers import tiny
from spinescore.export.engineinputs import network_batches
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices.cuda import CudaDevice

CONTROL = double.Control()
LARGEST_PX = 1024 * 768
OTHER_GRADES = ((3, 3), (0, 0), (1, 2), (2, 2), (0, 1), (2, 1))
KERNELS, FOLDER = Path(sys.argv[2]), Path(sys.argv[3])


def opened(engines=None, capturable=True, kernels=KERNELS, **options):
    """A CUDA device on the double, whose engines are appended to `engines`.

    Each engine takes the batch that the exporter builds it for, and no other.
    """

    def open_engine(path, precision, queue):
        batch = network_batches(Bundle.open(path.parent).manifest)[path.name]
        engine = EngineDouble(path, precision, queue, capturable, (batch, batch))
        if engines is not None:
            engines.append(engine)
        return engine

    def compiled(source, capability):
        assert capability == (8, 7)
        return double.codes(kernels)

    return CudaDevice(**{"largest_image_px": LARGEST_PX, "open_engine": open_engine, "compiled": compiled, **options})


def bundle(**changes):
    return Bundle.open(tiny.write_bundle(FOLDER / f"bundle{len(list(FOLDER.iterdir()))}", **changes))


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


def run(cases):
    """Run the case that the command line names."""
    cases[f"case_{sys.argv[1]}"]()
