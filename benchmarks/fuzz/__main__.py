"""Reads hostile files by the thousand: the answer must be a radiograph or a reject with a code, and soon.

`python -m spinescore.benchmarks.fuzz --count 10000 --out F`. Mutants are read in child processes, batch by batch, so
that a crash or a hang costs one mutant and the next ones are read all the same. A mutant fails if anything but
`InputRejected` is raised; if a reject has an unknown code or says too little or too much; if a radiograph breaks its
contract; if reading takes longer than 5 s twice in turn (the machine may be busy); or if more than 1.5 GB of memory are
used (the process and its decoders). Failing mutants are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spinescore.benchmarks.fuzz.mutations import mutant
from spinescore.benchmarks.fuzz.parents import all_parents
from spinescore.benchmarks.harness.child import Child, this_module
from spinescore.benchmarks.harness.environment import child_stats, memory_bytes
from spinescore.benchmarks.harness.record import Command
from spinescore.benchmarks.harness.timing import percentiles
from spinescore.runtime.errors import REJECT_CODES, InputRejected
from spinescore.runtime.files import write_atomic
from spinescore.runtime.reading.decoding import decode
from spinescore.runtime.reading.studies import load_radiograph, load_studies
from spinescore.runtime.study import Radiograph

__all__ = ["SCHEMA", "Broken", "main", "outcome"]

SCHEMA = "spinescore.fuzz/2"
LIMIT_S, LIMIT_MB = 5.0, 1500.0
_DECODE_LIMIT_S = 4.0  # below the limit of the whole, so that a hanging decoder gives a reject
_BATCH = 250
_PATIENCE_S = 30.0  # until a silent child is killed; it also draws the mutant in that time


class Broken(Exception):
    """The reader returned neither a sound radiograph nor a sound reject."""


@dataclass(frozen=True)
class Mutant:
    """One mutant's outcome: `read`, a reject's code, or the fault; memory is the peak while it was read."""

    seed: int
    outcome: str
    ms: float
    mb: float | None = None
    decoder: str = ""  # `lost` if its worker crashed or did not end in time
    trace: str = ""
    repeated: bool = False  # read a second time, because the first took too long

    @property
    def failed(self) -> bool:
        sound = self.outcome == "read" or self.outcome in REJECT_CODES
        return not sound or self.ms > LIMIT_S * 1e3 or (self.mb or 0.0) > LIMIT_MB


def outcome(data: bytes, folder: Path, seed: int) -> tuple[str, str]:
    """Read a hostile file by path, from memory or in its folder; returns `read` or the reject's code, and the message.

    Raises Broken, and every error that the reader should have caught.
    """
    path = folder / f"mutant-{seed}"
    path.write_bytes(data)
    try:
        if seed % 4 == 0:
            studies = load_studies([folder])
            rejects = [reject for study in studies for reject in study.rejects]
            for reject in rejects:
                _check_reject(reject.code, reject.message, path)
            radiographs = [radiograph for study in studies for radiograph in study.radiographs]
            if not radiographs:
                return (rejects[0].code, rejects[0].message) if rejects else ("no-pixels", "skipped")
        else:
            radiographs = [load_radiograph(path if seed % 4 < 3 else data)]
        for radiograph in radiographs:
            _check_radiograph(radiograph)
        return "read", ""
    except InputRejected as fault:
        _check_reject(fault.code, str(fault), path)
        return fault.code, str(fault)
    finally:
        path.unlink()


def _check_reject(code: str, message: str, path: Path) -> None:
    if code not in REJECT_CODES:
        raise Broken(f"unknown code {code}")
    if not 20 < len(message) < 1500 or str(path.parent) in message:
        raise Broken(f"a message that is too short or too long, or names a folder: {message[:200]}")


def _check_radiograph(radiograph: Radiograph) -> None:
    pixels, table = radiograph.pixels, radiograph.table
    if pixels.ndim != 2 or pixels.dtype.kind not in "iu" or pixels.dtype.itemsize > 2 or not pixels.flags.c_contiguous:
        raise Broken(f"{pixels.dtype} pixels {pixels.shape}")
    low, high = int(pixels.min()) - radiograph.stored_min, int(pixels.max()) - radiograph.stored_min
    if not 0 <= low <= high < table.size:
        raise Broken(f"pixels {low} to {high} in a table of {table.size}")
    if not np.isfinite(table).all() or table.min() < 0 or table.max() > 1:
        raise Broken("a table that is not within 0 to 1")


def _peak_mb(restart: bool = False) -> float | None:
    """Return the peak memory of this process and its decoders since the last restart; None outside of Linux."""
    if sys.platform != "linux":
        return None
    total = 0
    for pid in [os.getpid(), *(child for child, _ in child_stats())]:
        folder = Path(f"/proc/{pid}")
        if restart:
            with suppress(OSError):
                (folder / "clear_refs").write_text("5")
        total += memory_bytes(folder / "status")["peak_bytes"] or 0
    return total / 2**20


def _child(seeds: range, files: Sequence[Path]) -> int:
    """Read the mutants of `seeds`; one line of JSON before and one after each."""
    os.environ.setdefault(decode.TIMEOUT_VARIABLE, f"{_DECODE_LIMIT_S}")
    parents = all_parents(files)
    with tempfile.TemporaryDirectory(prefix="spinescore-fuzz-") as folder:
        for seed in seeds:
            print(json.dumps({"begins": seed}), flush=True)
            print(json.dumps(asdict(_read(mutant(parents, seed), Path(folder), seed))), flush=True)
    return 0


def _read(data: bytes, folder: Path, seed: int) -> Mutant:
    """Return the outcome; if reading took too long, that of a second reading: the machine may have been busy."""
    first = _read_once(data, folder, seed)
    if first.ms <= LIMIT_S * 1e3:
        return first
    again = _read_once(data, folder, seed)
    return replace(again, mb=max(first.mb or 0.0, again.mb or 0.0) or None, repeated=True)


def _read_once(data: bytes, folder: Path, seed: int) -> Mutant:
    _peak_mb(restart=True)
    started = time.perf_counter()
    trace = message = ""
    try:
        result, message = outcome(data, folder, seed)
    except Exception as fault:
        result, trace = f"{type(fault).__name__}: {fault}"[:300], traceback.format_exc()
    ms = (time.perf_counter() - started) * 1e3
    lost = "made the decoder crash" in message or "were not decoded within" in message
    return Mutant(seed, result, round(ms, 2), _peak_mb(), "lost" if lost else "", trace)


def _batch(seeds: range, files: Sequence[Path]) -> Iterator[Mutant]:
    """Yield the outcomes of `seeds`, read by a child, and by further ones after a crash or a hang."""
    at = seeds.start
    while at < seeds.stop:
        with Child(_command(range(at, seeds.stop), files), _PATIENCE_S) as child:
            for line in child:
                if "begins" not in line:
                    at = line["seed"] + 1
                    yield Mutant(**line)
            fault = f"hang: no answer in {_PATIENCE_S:g} s" if child.hung else f"crash: status {child.status}"
            trace = child.errors()[-2000:]
        if at < seeds.stop:
            yield Mutant(at, fault, _PATIENCE_S * 1e3 if child.hung else 0.0, trace=trace)
            at += 1


def _command(seeds: range, files: Sequence[Path]) -> list[str]:
    words = ["--child", str(seeds.start), str(seeds.stop)]
    return this_module("fuzz", *words, *(["--files", *map(str, files)] if files else []))


def _figures(mutants: list[Mutant], arguments: argparse.Namespace, wall_s: float) -> dict[str, Any]:
    ms, mb = [one.ms for one in mutants], [one.mb or 0.0 for one in mutants]
    slowest, largest = mutants[int(np.argmax(ms))], mutants[int(np.argmax(mb))]
    failed = [one for one in mutants if one.failed]
    return {
        "count": len(mutants),
        "first_seed": arguments.seed,
        "parents": {"own_and_pydicom": len(all_parents()), "named": sorted(path.name for path in arguments.files)},
        "limits": {"s": LIMIT_S, "mb": LIMIT_MB, "decode_s": _DECODE_LIMIT_S},
        "outcomes": dict(Counter(one.outcome if not one.failed else "failed" for one in mutants).most_common()),
        "repeated": sum(one.repeated for one in mutants),
        "decoder_lost": [one.seed for one in mutants if one.decoder == "lost"],
        "ms": percentiles(ms, 1),
        "slowest": {"seed": slowest.seed, "ms": slowest.ms, "outcome": slowest.outcome},
        "peak_memory": {"seed": largest.seed, "mb": round(largest.mb or 0.0), "outcome": largest.outcome},
        "wall_s": round(wall_s, 1),
        "failures": [asdict(one) for one in failed[:50]],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 if no mutant failed, else 1."""
    command = Command("fuzz", SCHEMA, __doc__)
    add = command.options.add_argument
    add("--count", type=int, default=1000, metavar="N", help="mutants (1000)")
    add("--seed", type=int, default=0, metavar="N", help="first seed (0)")
    add("--files", type=Path, nargs="+", default=[], metavar="PATH", help="more files to start from")
    add("--keep", type=Path, default=Path("fuzz-failures"), metavar="DIR", help="folder for failing mutants")
    add("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = command.start(argv)
    files = [path for given in arguments.files for path in (sorted(given.rglob("*")) if given.is_dir() else [given])]
    arguments.files = [path for path in files if path.is_file()]
    if arguments.child:
        return _child(range(*arguments.child), arguments.files)
    started, stop = time.perf_counter(), arguments.seed + arguments.count
    mutants: list[Mutant] = []
    for at in range(arguments.seed, stop, _BATCH):
        for one in _batch(range(at, min(at + _BATCH, stop)), arguments.files):
            mutants.append(one)
            if one.failed:
                write_atomic(arguments.keep / f"{one.seed}.bin", mutant(all_parents(arguments.files), one.seed))
                print(f"{one.seed}: {one.outcome} in {one.ms:.0f} ms, {one.mb} MB\n{one.trace}", file=sys.stderr)
        print(f"{len(mutants)} mutants, {sum(one.failed for one in mutants)} failed", file=sys.stderr)
    figures = _figures(mutants, arguments, time.perf_counter() - started)
    shown = ("outcomes", "slowest", "peak_memory", "decoder_lost")
    command.publish(figures, json.dumps({name: figures[name] for name in shown}))
    return 1 if figures["failures"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
