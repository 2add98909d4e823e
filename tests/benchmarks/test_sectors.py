"""The simulated loads of `warp` are those of the kernel's addresses; the kept record shows what a line saves."""

import json
from pathlib import Path

import numpy as np

from spinescore.benchmarks import sectors
from spinescore.kernels.warp import ROI, Source, WarpSpec

RECORD = Path(__file__).parents[2] / "benchmarks" / "results" / "warp-sectors.json"


def by_hand(source, roi, spec):
    """The same counts, one lane after the other."""
    totals = {kind: {"loads": 0, "lines": 0, "sectors": 0} for kind in ("stored", "table")}
    rows, columns = source.pixels.shape
    for top in range(0, spec.height, 2):
        for left in range(0, spec.width, 32):
            loads = {}
            for y in range(top, min(top + 2, spec.height)):
                for x in range(left, min(left + 32, spec.width)):
                    u, v = (int(np.floor(roi["matrix"][axis] @ (x, y, 1))) for axis in (0, 1))
                    for tap in range(4):
                        column = min(max(u + tap % 2, 0), columns - 1)
                        row = min(max(v + tap // 2, 0), rows - 1)
                        loads.setdefault(("stored", x % 2, tap), []).append(2 * (row * columns + column))
                        loads.setdefault(("table", x % 2, tap), []).append(4 * int(source.pixels[row, column]))
            for (kind, *_), addresses in loads.items():
                totals[kind]["loads"] += 1
                totals[kind]["lines"] += len({address // 128 for address in addresses})
                totals[kind]["sectors"] += len({address // 32 for address in addresses})
    return totals


def test_lines_and_sectors_are_counted_as_by_hand():
    rng = np.random.default_rng(2)
    source = Source(rng.integers(0, 500, (60, 70)).astype(np.uint16), (np.linspace(0, 1, 500, dtype=np.float32),))
    roi = np.zeros((), ROI)
    roi["matrix"] = [[1.25, 0.5, -3.0], [-0.75, 1.5, 9.0]]
    spec = WarpSpec(7, 42, 1, (0.0,), (1.0,))
    assert sectors.count(source, roi, spec) == by_hand(source, roi, spec)


def test_the_kept_record_says_that_arithmetic_in_place_of_a_table_wins():
    cases = json.loads(RECORD.read_text(encoding="utf-8"))["warp"]
    assert len(cases) == 2
    for case in cases.values():
        assert case["stored"]["loads"] == case["table"]["loads"] > 0
        assert 0.1 < case["lines_saved_by_a_linear_table"] < 0.9
