"""The record `spinescore.latency/2`: its head, its protocol, and how it is read again. Its schema stands beside it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spinescore.benchmarks.bench.measure import Plan
from spinescore.benchmarks.harness import record
from spinescore.benchmarks.harness.timing import SETTLE_S
from spinescore.runtime.jsonfile import read_json
from spinescore.runtime.phantom.labelled import PhantomStudy
from spinescore.runtime.verbs import UsageError, unreadable

__all__ = ["SCHEMA", "head", "latency_schema", "read"]

SCHEMA = "spinescore.latency/2"
_LARGEST_BYTES = 2**28
_PROTOCOL = f"""
    Files are in the page cache, engines are open and warm; times are of the monotonic clock. Steady state: in every
    round each work has one turn, in an order drawn anew: the whole study, from the paths of two uncompressed DICOM
    files to the report object (read, grey-scale table, localizer passes, decoding, crops, grading, report); its
    networks alone (whole batches of random numbers, on the engine, precision and threads of the study, as often as a
    study runs them, in one session a network); each peer. Before each turn the process rests {SETTLE_S:g} s. Different
    studies: each once, from its paths to the report, after its files were read once. Stages are those that the reports
    state; total is their sum. Rounds end after the number asked for, or when the time is over. If networks find no
    spine in the phantom, as random ones do not, its true points replace theirs; their localizer runs all the same.
    Peers get the same files and points, and are timed only if they give the same 24 grades. Cold start: from before a
    process is made to the line that it writes after its first study; files and compiled networks may be in caches.
    `spinescore score`: from before that process is made to its end. Warm start: the bundle opened again in one process.
    Memory: of a process that scored four studies, and of one that imports the same libraries and runs the networks
    alone. Images: the two pictures resampled, 12 bits, each size and transfer syntax in turn. Load: each worker has its
    own scorer and an equal share of the cores; throughput in a closed loop; latency in an open one, with Poisson
    arrivals, from the intended arrival. Energy: studies without rest. Percentiles are interpolated; the 99th of fewer
    than 100 values lies between the two largest."""


def head(study: PhantomStudy, plan: Plan) -> dict[str, Any]:
    """Return the record before anything is measured: the shared head, the plan, the study and no results."""
    from spinescore.runtime.files import file_sha256

    files = [{"name": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in study.files]
    return {
        **record.head(SCHEMA, _PROTOCOL, ["spinescore", *sys.argv[1:]]),
        "plan": json.loads(json.dumps(asdict(plan))),
        "study": {**study.facts, "files": files},
        "results": [],
    }


def latency_schema() -> dict[str, Any]:
    """Return the published JSON Schema of a record."""
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("latency.schema.json").read_text(encoding="utf-8"))
    return schema


def read(path: Path) -> dict[str, Any]:
    """Read a record. Raises `UsageError` if the file is no record, or has another version of the schema."""
    try:
        document = read_json(path, _LARGEST_BYTES)
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        raise UsageError(f"{path} is not valid JSON ({error})") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA or not isinstance(document.get("results"), list):
        raise UsageError(
            f"{path} is no record {SCHEMA} but {schema or 'something else'}: spinescore bench --out writes one"
        )
    latency: dict[str, Any] = document
    return latency
