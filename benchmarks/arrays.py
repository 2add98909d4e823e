"""Measures what arrays cost beside files that are read already: `python -m spinescore.benchmarks.arrays [--out F]`.

One phantom study is scored in turns: as a `Study` that `load_study` read before, as arrays with region, facing, spacing
and window, and as arrays with headers. Making the radiographs of the arrays is inside the timed call. `ratio` is a
median over that of the `Study`. Times are elapsed milliseconds of one thread on ONNX Runtime; a busy machine disturbs
the turns alike, but not a median of few rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from spinescore.benchmarks.bench.subject import draw_study
from spinescore.benchmarks.records import publish
from spinescore.runtime import Scorer, Study, load_study, radiograph_from_array
from spinescore.runtime.machine.processor import processor_name
from spinescore.runtime.study import Radiograph

__all__ = ["SCHEMA", "main", "measure"]

SCHEMA = "spinescore.arrays/1"
_WARM_UP = 2


def measure(scorer: Scorer, study: Study, rounds: int) -> dict[str, Any]:
    """Medians in milliseconds of each way, the ratios to the first, and whether all of them gave the same total."""
    calls: dict[str, Callable[[], Any]] = {
        "study": lambda: study,
        "arrays": lambda: [_bare(image) for image in study.radiographs],
        "headers": lambda: [radiograph_from_array(image.pixels, header=image.header) for image in study.radiographs],
    }
    took: dict[str, list[float]] = {name: [] for name in calls}
    totals: dict[str, float | None] = {}
    for _ in range(_WARM_UP + rounds):
        for name, call in calls.items():
            started = time.perf_counter()
            totals[name] = scorer.score(call()).total.value
            took[name].append((time.perf_counter() - started) * 1e3)
    medians = {name: statistics.median(times[_WARM_UP:]) for name, times in took.items()}
    return {
        "median_ms": {name: round(median, 2) for name, median in medians.items()},
        "ratio": {name: round(median / medians["study"], 4) for name, median in medians.items()},
        "same_total": len(set(totals.values())) == 1,
    }


def _bare(image: Radiograph) -> Radiograph:
    from spinescore.runtime.reading.tags import number, text

    centre, width = number(image.header, "WindowCenter"), number(image.header, "WindowWidth")
    return radiograph_from_array(
        image.pixels,
        region=image.region,
        facing=image.facing,
        spacing_mm=image.spacing_mm,
        photometric="MONOCHROME1" if text(image.header, "PhotometricInterpretation") == "MONOCHROME1" else None,
        window=None if centre is None or width is None else (centre, width),
        bits_stored=image.table.size.bit_length() - 1,
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m spinescore.benchmarks.arrays", description=__doc__)
    parser.add_argument("--bundle", default="phantom-reference", metavar="B", help="bundle (phantom-reference)")
    parser.add_argument("--rounds", type=int, default=30, metavar="N", help="rounds that count (30)")
    parser.add_argument("--out", type=Path, metavar="F", help="write the figures as JSON")
    arguments = parser.parse_args(argv)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    with tempfile.TemporaryDirectory(prefix="spinescore-") as scratch:
        drawn = draw_study(Path(scratch))
        with Scorer.open(arguments.bundle, "cpu", threads=1, engine="onnxruntime", precision="fp32") as scorer:
            results = measure(scorer, load_study(*drawn.files), arguments.rounds)
    record = {
        "schema": SCHEMA,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": {"processor": processor_name(), "cores": os.cpu_count(), "load": load},
        "protocol": " ".join(str(__doc__).split()),
        "bundle": arguments.bundle,
        "rounds": arguments.rounds,
        "study": drawn.facts,
        **results,
    }
    publish(record, arguments.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
