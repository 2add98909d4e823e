"""Reads hostile documents by the thousand: manifests, records, plans, sidecars, reports, points, CSV tables, networks.

`python -m spinescore.benchmarks.fuzz.documents --count 2000 --out F` reads that many mutants of each kind. A mutant
fails if its reader raises any error but those of `KINDS`, writes too long a message, or returns an object that its
users cannot use.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from spinescore.benchmarks.agreement import evaluate, read_readings
from spinescore.benchmarks.fuzz import networks
from spinescore.benchmarks.harness.record import Command
from spinescore.runtime.acceptance import AcceptanceRecord
from spinescore.runtime.bundle import Bundle, manifest_sha256
from spinescore.runtime.bundle.networkcheck import TooCostly, read_network
from spinescore.runtime.bundle.networkcheck.costs import costs_of
from spinescore.runtime.engines import Gpu
from spinescore.runtime.engines.sidecar import SCHEMA as SIDECAR_SCHEMA
from spinescore.runtime.engines.sidecar import Sidecar
from spinescore.runtime.errors import BundleError, EngineError
from spinescore.runtime.followup.cohort import read_cohort
from spinescore.runtime.followup.tables import csv_text, tables_of
from spinescore.runtime.jsonfile import read_json
from spinescore.runtime.manifest import Manifest
from spinescore.runtime.opening.plan import SCHEMA as PLAN_SCHEMA
from spinescore.runtime.opening.plan import LatencyPlan
from spinescore.runtime.scoring.report import StudyReport
from spinescore.runtime.study import REGIONS
from spinescore.runtime.verbs import UsageError
from spinescore.runtime.verbs.keypoints import read_keypoints
from spinescore.runtime.verbs.summary import bundle_summary, study_summary

__all__ = ["KINDS", "SCHEMA", "main", "outcome"]

SCHEMA = "spinescore.fuzz-documents/2"
_MOST_WORDS = 6000  # characters of a refusal
_SCALARS: tuple[Any, ...] = (
    None, True, False, 0, -1, 1e308, -0.0, 10**19, 2**63, "", "a", "=cmd|'/c calc'!A1", "\x1b[31m", "a\nb", "\u202e",
    "../../x", "/dev/zero", "x" * 5000, [], {}, [[]], {"": None}, 1.5, "NaN", "9999-12-31", "\0",
)  # fmt: skip
_RAW = (
    "NaN", "Infinity", "-Infinity", "1e999", "9" * 400, '"\\ud800"', "[" * 2000, '{"a":1,"a":2}', "-", "\ufeff", "{",
)  # fmt: skip
_SIDECAR = {
    "schema": SIDECAR_SCHEMA, "flavour": "tensorrt", "version": "10.3.0", "precision": "fp16", "least_batch": 1,
    "most_batch": 2, "onnx": "localizer.fp16.onnx", "onnx_sha256": "0" * 64, "engine_sha256": "0" * 64,
    "compute_capabilities": ["8.7"], "hardware": "this", "version_compatible": False, "gpu": "Orin",
    "multiprocessors": 16, "driver": "12.6", "platform": "linux-aarch64", "build_seconds": 1.5,
}  # fmt: skip
_IMAGE = (1, 16, 12)
_CANDIDATE = {
    "engine": "onnxruntime", "precision": "fp32", "threads": 2, "passes": 1, "antialias": True, "apart": False,
    "framework": "onnxruntime 1.31", "corners": 0, "grade_flips": 0, "median_shift_px": 0.0, "runs": 9,
    "p50_ms": 20.0, "tail_ms": 25.0,
}  # fmt: skip
_PLAN = {
    "schema": PLAN_SCHEMA, "bundle": {"name": "a", "sha256": "0" * 64}, "budget_ms": 100.0, "percentile": 95.0,
    "machine": {"kind": "cpu", "hardware": "h", "processor": "p", "cores": "2", "platform": "linux-x86_64"},
    "studies": "9 phantoms", "candidates": [_CANDIDATE], "choice": 0, "date": "2026-01-05T00:00:00+00:00",
    "sha256": "",
}  # fmt: skip


def _manifest(path: Path, shipped: Bundle) -> None:
    try:
        document = read_json(path)
    except ValueError as error:
        raise BundleError(str(error)) from error
    manifest = Manifest.from_dict(document)
    manifest_sha256(manifest)
    bundle_summary(Bundle(path.parent, manifest, "0" * 64))


def _record(path: Path, shipped: Bundle) -> None:
    record = AcceptanceRecord.read(path)
    record.faults(shipped.manifest.bounds)
    record.share_of_reference(2)
    record.to_json()


def _plan(path: Path, shipped: Bundle) -> None:
    plan = LatencyPlan.read(path)
    plan.fault(shipped)
    str(plan.chosen.setting)


def _sidecar(path: Path, shipped: Bundle) -> None:
    sidecar = Sidecar.read(path.with_suffix(""))
    sidecar.check_machine(path, "tensorrt", "10.3.0", Gpu("Orin", (8, 7), 8))


def _report(path: Path, shipped: Bundle) -> None:
    cohort = read_cohort(path.parent)
    for name, rows in tables_of(cohort).items():
        csv_text(name, rows)
    for entry in cohort.entries:
        study_summary(entry.report)
        entry.report.to_json()
    if cohort.notes and any(len(note) > _MOST_WORDS for note in cohort.notes):
        raise AssertionError("a note is too long")


def _keypoints(path: Path, shipped: Bundle) -> None:
    read_keypoints(path)


def _csv(path: Path, shipped: Bundle) -> None:
    readings = read_readings(path)
    evaluate(readings, readings, 0, 0)


def _network(path: Path, shipped: Bundle) -> None:
    """Check a network for the two sizes of batch; if it passes, an engine must give outputs of the checked shapes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    graph, _ = read_network(path)
    for batch in (1, 24):
        costs_of(graph, (batch, *_IMAGE), 1 << 30, 10**12)
    try:
        engine = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
        outputs = engine.run(None, {graph.inputs[0]: np.ones((1, *_IMAGE), np.float32)})
    except Exception:  # the engine may refuse more; its exceptions share no base of their own
        return
    shapes = list(costs_of(graph, (1, *_IMAGE), 1 << 30, 10**12).outputs)
    if [output.shape for output in outputs] != shapes:
        raise AssertionError(f"checked {shapes}, the engine gave {[output.shape for output in outputs]}")


Reader = Callable[[Path, Bundle], None]
# Kind -> the file's name, its reader, and the errors by which the reader may refuse it.
KINDS: Mapping[str, tuple[str, Reader, tuple[type[Exception], ...]]] = {
    "manifest": ("bundle.json", _manifest, (BundleError,)),
    "record": ("acceptance-x.json", _record, (EngineError,)),
    "plan": ("plan-cpu-x.json", _plan, (EngineError,)),
    "sidecar": ("x.engine.json", _sidecar, (EngineError,)),
    "report": ("report.json", _report, ()),
    "keypoints": ("points.json", _keypoints, (UsageError,)),
    "csv": ("grades.csv", _csv, (ValueError,)),
    "network": ("network.onnx", _network, (BundleError, TooCostly)),
}


def parents(shipped: Bundle) -> dict[str, Any]:
    """Return a good document of each kind; for CSV its text."""
    record = next((shipped.folder / "acceptance").glob("acceptance-*.json"))
    points = {"centre_px": [1, 2], "anterior_px": [3.5, 4]}
    sites = ("C2-inferior", "C3-superior", "L1-superior")
    corners = [(study, *corner) for study in range(3) for corner in enumerate(sites)]
    rows = [f"s{study},{site},{grade},0.1,0.2,0.3,0.4,p{study},2024010{study + 1}" for study, grade, site in corners]
    return {
        "manifest": shipped.manifest.to_dict(),
        "record": json.loads(record.read_text(encoding="utf-8")),
        "plan": _PLAN,
        "sidecar": _SIDECAR,
        "report": json.loads(_scored().to_json()),
        "keypoints": {"1.2.3": {"cervical": {"C2/C3": points}, "lumbar": {"L5/S1": points}}},
        "network": networks.parents(),
        "csv": "\n".join(["study,site,grade,p0,p1,p2,p3,patient,study_date", *rows, ""]),
    }


def _scored() -> StudyReport:
    """Score a drawn study."""
    from spinescore.runtime import Scorer
    from spinescore.runtime.phantom import draw_view
    from spinescore.runtime.reading.arrays import radiograph_from_array

    views = {region: draw_view(7, region, 0.25).image for region in REGIONS}
    images = {region: radiograph_from_array(view.pixels, region=region) for region, view in views.items()}
    with Scorer.open(device="cpu", engine="onnxruntime") as scorer:
        return scorer.score(images)


def mutant(kind: str, good: Any, seed: int) -> bytes:
    """Return the hostile document `seed` of a kind."""
    rng = random.Random(f"{kind} {seed}")
    if kind == "network":
        return networks.mutant(good, rng)
    if isinstance(good, str):
        text = _spoiled(rng, good)
    else:
        changed = deepcopy(good)
        for _ in range(rng.choice((1, 1, 2, 4))):
            _change(rng, changed)
        if kind in ("record", "plan") and rng.random() < 0.5:  # as an attacker who can compute the digest
            _sign(changed)
        text = json.dumps(changed)
        text = _spoiled(rng, text) if rng.random() < 0.3 else text
    data = text.encode(rng.choice(("utf-8",) * 8 + ("utf-16", "utf-8-sig")), "surrogatepass")
    for _ in range(rng.choice((0, 0, 0, 0, 1, 8))):
        at = rng.randrange(len(data) + 1)
        data = data[:at] + rng.randbytes(rng.randint(0, 3)) + data[at + rng.randint(0, 3) :]
    return data


def _change(rng: random.Random, document: Any) -> None:
    places = list(_places(document))
    if places:
        within, key = rng.choice(places)
        value = within[key]
        if rng.random() < 0.15:
            del within[key]
        elif isinstance(within, list) and rng.random() < 0.2:
            within.extend([value] * rng.choice((1, 20)))
        else:
            within[key] = deepcopy(rng.choice((*_SCALARS, [value], {"a": value}, document)))


def _places(document: Any) -> Any:
    entries = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(entries):
        yield document, key
        if isinstance(value, (dict, list)):
            yield from _places(value)


def _sign(document: Any) -> None:
    if isinstance(document, dict):
        rest = {name: value for name, value in document.items() if name != "sha256"}
        document["sha256"] = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _spoiled(rng: random.Random, text: str) -> str:
    at, end = sorted(rng.randrange(len(text) + 1) for _ in range(2))
    piece = rng.choice((*_RAW, text[at:end], *(str(value) for value in _SCALARS)))
    return text[:at] + piece + text[min(len(text), at + rng.choice((0, 1, 3, len(piece)))) :]


def outcome(kind: str, data: bytes, folder: Path, shipped: Bundle) -> str:
    """Return `read`, or the name of the error that refused the document. Raises every other error."""
    name, read, refusals = KINDS[kind]
    path = folder / name
    path.write_bytes(data)
    try:
        read(path, shipped)
    except refusals as error:
        if len(str(error)) > _MOST_WORDS:
            raise AssertionError(f"a message is too long: {str(error)[:200]}") from error
        return type(error).__name__
    return "read"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 if no mutant failed, else 1."""
    command = Command("fuzz.documents", SCHEMA, __doc__)
    add = command.options.add_argument
    add("--count", type=int, default=2000, metavar="N", help="mutants of each kind (2000)")
    add("--seed", type=int, default=0, metavar="N", help="first seed (0)")
    add("--kind", choices=KINDS, action="append", help="only these kinds; may be repeated")
    arguments = command.start(argv)
    shipped = Bundle.open("phantom-reference")
    good, kinds, failures = parents(shipped), {}, []
    for kind in arguments.kind or KINDS:
        started, outcomes = time.perf_counter(), Counter[str]()
        for seed in range(arguments.seed, arguments.seed + arguments.count):
            with tempfile.TemporaryDirectory(prefix="spinescore-fuzz-") as folder:
                try:
                    outcomes[outcome(kind, mutant(kind, good[kind], seed), Path(folder), shipped)] += 1
                except Exception as fault:
                    outcomes["failed"] += 1
                    failures.append({"kind": kind, "seed": seed, "fault": f"{type(fault).__name__}: {fault}"[:300]})
                    print(kind, seed, traceback.format_exc(limit=-3), file=sys.stderr)
        kinds[kind] = {"outcomes": dict(outcomes.most_common()), "seconds": round(time.perf_counter() - started, 1)}
        print(kind, kinds[kind], file=sys.stderr)
    figures = {"count": arguments.count, "first_seed": arguments.seed, "kinds": kinds, "failures": failures[:50]}
    command.publish(figures, f"{len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
