"""The record `spinescore.latency/2`: its head, its protocol, and how it is read again. Its schema stands beside it."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from spinescore.benchmarks.bench.machine import settings
from spinescore.benchmarks.bench.measure import Plan
from spinescore.benchmarks.bench.rounds import SETTLE_S
from spinescore.benchmarks.bench.subject import PhantomStudy
from spinescore.runtime.verbs import UsageError

__all__ = ["SCHEMA", "head", "latency_schema", "read", "to_json"]

SCHEMA = "spinescore.latency/2"
_FILE = "latency.schema.json"
_LARGEST_BYTES = 2**28
_PACKAGES = (
    "spinescore", "numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "opencv-python-headless", "pydicom",
    "imagecodecs", "torch",
)  # fmt: skip
_PROTOCOL = f"""
    Files in the page cache, engines open and warm; times by the monotonic clock. Steady state: in every round each
    work has its turn, once, in an order drawn anew: the whole study, from the paths of two uncompressed DICOM files to
    the report object (read, grey-scale table, localizer passes, decoding, crops, grading, report); its networks alone
    (whole batches of random numbers, on the engine, precision and threads of the study, as often as a study has them,
    in one session a network); each peer. Before each the process rests {SETTLE_S:g} s. Different
    studies: each once, from its paths to the report, after its files were read once. Stages are those that the reports
    state; total is all of them. Rounds end when there are as many as asked for, or when the time is over.
    Networks that find no spine in the phantom, as random ones, are given its true points in place of theirs; their
    localizer runs all the same. Peers get the same files and points, and are timed only where they give the same 24
    grades. Cold start: from before a process is made to the line that it writes after its first study; files and
    compiled networks may be in caches. `spinescore score`: from before that process is made to its end. Warm start: the
    bundle opened again in one process. Memory: of a process that scored four studies, and of one that imports the same
    libraries and runs the networks alone. Images: the two pictures resampled, 12 bits, each size and transfer syntax in
    turn. Load: each worker has its own scorer and an equal share of the cores; throughput in a closed loop; latency in
    an open one, with Poisson arrivals, from the intended arrival. Energy: studies without rest. Percentiles are
    interpolated; the 99th of fewer than 100 values lies between the two largest."""


def head(study: PhantomStudy, plan: Plan, cores: int) -> dict[str, Any]:
    """When, on what, with which versions, on which files, and by which protocol."""
    from spinescore.runtime.doctor import hardware
    from spinescore.runtime.files import file_sha256

    files = [{"name": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)} for path in study.files]
    return {
        "schema": SCHEMA,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "hardware": {**hardware(), **settings()},
        "versions": {"python": platform.python_version(), **_versions()},
        "protocol": " ".join(_PROTOCOL.split()),
        "plan": json.loads(json.dumps(asdict(plan))),
        "study": {**study.facts, "files": files},
        "results": [],
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # noqa: PERF203
            continue
    return found


def latency_schema() -> dict[str, Any]:
    """The published JSON Schema of a record."""
    schema: dict[str, Any] = json.loads((Path(__file__).parent / _FILE).read_text(encoding="utf-8"))
    return schema


def to_json(record: dict[str, Any]) -> str:
    """Two spaces of indentation, series of numbers on one line each."""
    text = json.dumps(record, indent=2, allow_nan=False)
    return _joined(text) + "\n"


def read(path: Path) -> dict[str, Any]:
    """A record. Raises `UsageError` where the file is none, or of another version of the schema."""
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise UsageError(f"{path} is larger than a record of latency can be")
        record = json.loads(path.read_bytes())  # UTF-16 is what PowerShell's `>` writes
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or type(error).__name__})") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid JSON ({error})") from error
    schema = record.get("schema") if isinstance(record, dict) else None
    if schema != SCHEMA or not isinstance(record.get("results"), list):
        raise UsageError(
            f"{path} is no record {SCHEMA} but {schema or 'something else'}: spinescore bench --out writes one"
        )
    found: dict[str, Any] = record
    return found


def _joined(text: str) -> str:
    """Lists of numbers alone on one line."""
    import re

    number = r"-?\d[\d.eE+-]*"
    return re.sub(rf"\[\s+({number}(?:,\s+{number})*)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)
