"""Hostile files by the thousand: whatever is read, the answer is a radiograph or a reject with a code, and soon.

`python -m spinescore.benchmarks.fuzz --count 10000 --out F`. Mutants are read in child processes, batch by batch, so
that a crash or a hang is that of one mutant, and the next ones are read all the same. A mutant fails where anything but
`InputRejected` is raised, a reject has no known code or says too little or too much, a radiograph is not what it
promises, 5 s are not enough twice in turn (the machine may be busy), or more than 1.5 GB of memory are taken (the
process and its decoders). Failing mutants are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from spinescore.benchmarks.fuzz.mutations import mutant
from spinescore.benchmarks.fuzz.parents import all_parents
from spinescore.runtime.errors import REJECT_CODES, InputRejected
from spinescore.runtime.files import write_atomic
from spinescore.runtime.reading.decoding import decode
from spinescore.runtime.reading.studies import load_radiograph, load_studies
from spinescore.runtime.study import Radiograph

__all__ = ["SCHEMA", "Broken", "main", "outcome"]

SCHEMA = "spinescore.fuzz/1"
LIMIT_S, LIMIT_MB = 5.0, 1500.0
_DECODE_LIMIT_S = 4.0  # below the limit for the whole, so that a decoder that hangs is a reject
_BATCH = 250
_PATIENCE_S = 30.0  # until a child that says nothing is ended; it draws the mutant in that time, too


class Broken(Exception):
    """What was read is neither a sound radiograph nor a sound reject."""


@dataclass(frozen=True)
class Mutant:
    """One mutant's outcome: `read`, a reject's code, or what went wrong; memory is the peak while it was read."""

    seed: int
    outcome: str
    ms: float
    mb: float | None = None
    decoder: str = ""  # `lost` where its worker crashed or did not end in time
    trace: str = ""
    repeated: bool = False  # read a second time, because the first took too long

    @property
    def failed(self) -> bool:
        sound = self.outcome == "read" or self.outcome in REJECT_CODES
        return not sound or self.ms > LIMIT_S * 1e3 or (self.mb or 0.0) > LIMIT_MB


def outcome(data: bytes, folder: Path, seed: int) -> tuple[str, str]:
    """Read a hostile file as a file, from memory or in its folder: `read` or the reject's code, and the message.

    Raises Broken, and whatever the reader should not have let through.
    """
    path = folder / f"mutant-{seed}"
    path.write_bytes(data)
    try:
        if seed % 4 == 0:
            studies = load_studies([folder])
            for reject in (reject for study in studies for reject in study.rejects):
                _check_reject(reject.code, reject.message, path)
            radiographs = [radiograph for study in studies for radiograph in study.radiographs]
            messages = [reject for study in studies for reject in study.rejects]
            if not radiographs:
                return (messages[0].code, messages[0].message) if messages else ("no-pixels", "skipped")
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


def _check_radiograph(found: Radiograph) -> None:
    pixels, table = found.pixels, found.table
    if pixels.ndim != 2 or pixels.dtype.kind not in "iu" or pixels.dtype.itemsize > 2 or not pixels.flags.c_contiguous:
        raise Broken(f"{pixels.dtype} pixels {pixels.shape}")
    low, high = int(pixels.min()) - found.stored_min, int(pixels.max()) - found.stored_min
    if not 0 <= low <= high < table.size:
        raise Broken(f"pixels {low} to {high} in a table of {table.size}")
    if not np.isfinite(table).all() or table.min() < 0 or table.max() > 1:
        raise Broken("a table that is not within 0 to 1")


def _children(parent_pid: int) -> list[int]:
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/stat") if _parent_of(path) == parent_pid]


def _parent_of(path: Path) -> int | None:
    try:
        return int(path.read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has just ended
        return None


def _peak_mb(restart: bool = False) -> float | None:
    """Peak resident memory of this process and its decoders since the last restart; None where Linux does not say."""
    if sys.platform != "linux":
        return None
    total = 0.0
    for pid in [os.getpid(), *_children(os.getpid())]:
        try:
            if restart:
                Path(f"/proc/{pid}/clear_refs").write_text("5")
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        total += sum(float(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    return total


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
    """The outcome; after one that took too long that of a second reading: the machine may have been busy."""
    found = _read_once(data, folder, seed)
    if found.ms <= LIMIT_S * 1e3:
        return found
    again = _read_once(data, folder, seed)
    return replace(again, mb=max(found.mb or 0.0, again.mb or 0.0) or None, repeated=True)


def _read_once(data: bytes, folder: Path, seed: int) -> Mutant:
    _peak_mb(restart=True)
    started = time.perf_counter()
    trace = message = ""
    try:
        found, message = outcome(data, folder, seed)
    except Exception as fault:
        found, trace = f"{type(fault).__name__}: {fault}"[:300], traceback.format_exc()
    ms = (time.perf_counter() - started) * 1e3
    lost = "made the decoder crash" in message or "were not decoded within" in message
    return Mutant(seed, found, round(ms, 2), _peak_mb(), "lost" if lost else "", trace)


def _batch(seeds: range, files: Sequence[Path]) -> Iterator[Mutant]:
    """The outcomes of `seeds` by a child, and by further ones where it crashes or hangs."""
    at = seeds.start
    while at < seeds.stop:
        with subprocess.Popen(_command(range(at, seeds.stop), files), stdout=subprocess.PIPE, text=True) as child:
            hangs = threading.Event()
            timer = _timer(child, hangs)
            for line in child.stdout or ():
                timer.cancel()
                found = json.loads(line)
                if "begins" not in found:
                    at = found["seed"] + 1
                    yield Mutant(**found)
                timer = _timer(child, hangs)
            timer.cancel()
        if at < seeds.stop:
            said = f"hang: no answer in {_PATIENCE_S:g} s" if hangs.is_set() else f"crash: status {child.returncode}"
            yield Mutant(at, said, _PATIENCE_S * 1e3 if hangs.is_set() else 0.0)
            at += 1


def _command(seeds: range, files: Sequence[Path]) -> list[str]:
    command = [sys.executable, "-m", "spinescore.benchmarks.fuzz", "--child", str(seeds.start), str(seeds.stop)]
    return [*command, "--files", *map(str, files)] if files else command


def _timer(child: subprocess.Popen[str], hangs: threading.Event) -> threading.Timer:
    def end() -> None:
        hangs.set()
        child.kill()

    timer = threading.Timer(_PATIENCE_S, end)
    timer.daemon = True
    timer.start()
    return timer


def _record(found: list[Mutant], arguments: argparse.Namespace, wall_s: float) -> dict[str, Any]:
    ms, mb = [one.ms for one in found], [one.mb or 0.0 for one in found]
    slowest, largest = found[int(np.argmax(ms))], found[int(np.argmax(mb))]
    failed = [one for one in found if one.failed]
    return {
        "schema": SCHEMA,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": {"system": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()},
        "versions": {name: _version(name) for name in ("numpy", "pydicom", "imagecodecs", "pylibjpeg", "pyjpegls")},
        "protocol": " ".join(str(__doc__).split()),
        "count": len(found),
        "first_seed": arguments.seed,
        "parents": {"own_and_pydicom": len(all_parents()), "named": sorted(path.name for path in arguments.files)},
        "limits": {"s": LIMIT_S, "mb": LIMIT_MB, "decode_s": _DECODE_LIMIT_S},
        "outcomes": dict(Counter(one.outcome if not one.failed else "failed" for one in found).most_common()),
        "repeated": sum(one.repeated for one in found),
        "decoder_lost": [one.seed for one in found if one.decoder == "lost"],
        "ms": {f"p{q}": round(float(np.percentile(ms, q)), 1) for q in (50, 90, 99)},
        "slowest": {"seed": slowest.seed, "ms": slowest.ms, "outcome": slowest.outcome},
        "peak_memory": {"seed": largest.seed, "mb": round(largest.mb or 0.0), "outcome": largest.outcome},
        "wall_s": round(wall_s, 1),
        "failures": [asdict(one) for one in failed[:50]],
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _keep(one: Mutant, arguments: argparse.Namespace) -> None:
    write_atomic(arguments.keep / f"{one.seed}.bin", mutant(all_parents(arguments.files), one.seed))
    print(f"{one.seed}: {one.outcome} in {one.ms:.0f} ms, {one.mb} MB\n{one.trace}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 where no mutant failed, 1 where some did."""
    parser = argparse.ArgumentParser(prog="python -m spinescore.benchmarks.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="mutants (1000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="the first one's (0)")
    parser.add_argument("--files", type=Path, nargs="+", default=[], metavar="PATH", help="more files to start from")
    parser.add_argument("--out", type=Path, metavar="F", help="write the figures as JSON")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), metavar="DIR", help="for failing mutants")
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    files = [path for given in arguments.files for path in (sorted(given.rglob("*")) if given.is_dir() else [given])]
    arguments.files = [path for path in files if path.is_file()]
    if arguments.child:
        return _child(range(*arguments.child), arguments.files)
    started, stop = time.perf_counter(), arguments.seed + arguments.count
    found: list[Mutant] = []
    for at in range(arguments.seed, stop, _BATCH):
        for one in _batch(range(at, min(at + _BATCH, stop)), arguments.files):
            found.append(one)
            if one.failed:
                _keep(one, arguments)
        print(f"{len(found)} mutants, {sum(one.failed for one in found)} failed", file=sys.stderr)
    record = _record(found, arguments, time.perf_counter() - started)
    if arguments.out:
        write_atomic(arguments.out, json.dumps(record, indent=1) + "\n")
    print(json.dumps({name: record[name] for name in ("outcomes", "slowest", "peak_memory", "decoder_lost")}))
    return 1 if record["failures"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
