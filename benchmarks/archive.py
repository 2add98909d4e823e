"""Measures `spinescore archive` beside one scorer in a loop, and beside the networks alone.

    python -m spinescore.benchmarks.archive [--count 60] [--flat 2000] [--bundle B] [--seconds 20] [--out F]

The studies are full-size phantoms, a few of them drawn and the others copies under UIDs of their own, uncompressed, in
the system's folder for temporary files. Their headers state region and facing, so that no network is run to find these
out. `loop`: one process opens a scorer with its default threads, reads and scores
one study after the other; its rate is that of all studies but the first. `networks`: for each split of the cores into
processes and threads, as many processes run a study's networks alone, all at once, for `--seconds`. `archive`: the same
splits, from the first study that is done to the last, and `chosen`, with the split that the run measures for itself.
The tables of all runs must have the same bytes. `memory` is the most that all processes of a run held together
(proportional set size, sampled five times a second), beside its bound: for each process the scorer (the loop's resident
memory when it is open) and twice the largest study (the loop's peak less that), and 200 MiB. `flat`: so many small
studies with two processes, with the memory over the run. Exit status 1 if the best rate is below 1.25 x the loop or
0.9 x the networks, or if memory or bytes are not as they should be.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spinescore.benchmarks.bench.alone import networks_alone
from spinescore.benchmarks.harness.child import answer, ended_together, this_module
from spinescore.benchmarks.harness.environment import memory_bytes
from spinescore.benchmarks.harness.record import Command
from spinescore.benchmarks.manystudies import write_studies
from spinescore.runtime.archive.crews import Crews, Opened, splits
from spinescore.runtime.archive.layout import Places
from spinescore.runtime.archive.local import Outcome, Task
from spinescore.runtime.archive.manifest import largest_bytes, make_manifest
from spinescore.runtime.archive.run import score_archive
from spinescore.runtime.archive.scoring import Request
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.followup.archivefiles import table_files
from spinescore.runtime.scorer import Scorer

__all__ = ["main", "most_at_once"]

SCHEMA = "spinescore.archive-throughput/1"
LEAST_OF_LOOP, LEAST_OF_NETWORKS = 1.25, 0.9
SPARE_BYTES = 200 << 20
_LOOKS = 11
_SAMPLE_S = 0.2
_SHARD_STUDIES = 16
_MIB = 1 << 20


class Timed:
    """A way to score that notes when each outcome came, and the memory of all processes meanwhile."""

    def __init__(self, way: Crews) -> None:
        self._way, self.times_s, self.memory = way, [0.0], [0]

    def facts(self) -> dict[str, Any]:
        return self._way.facts()

    def outcomes(self, tasks: Iterator[Task], total: int, opened: Opened, request: Request) -> Iterator[Outcome]:
        times: list[float] = []
        with _sampled() as memory:
            for outcome in self._way.outcomes(tasks, total, opened, request):
                times.append(time.perf_counter())
                yield outcome
        self.times_s, self.memory = times, memory

    @property
    def rate(self) -> float:
        return (len(self.times_s) - 1) / max(self.times_s[-1] - self.times_s[0], 1e-9)


@contextmanager
def _sampled() -> Iterator[list[int]]:
    """Yield a list to which the memory of this process and its descendants is added, five times a second."""
    samples, done = [_all_memory()], threading.Event()

    def sample() -> None:
        while not done.wait(_SAMPLE_S):
            samples.append(_all_memory())

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def _all_memory(proc: Path = Path("/proc")) -> int:
    """Return the proportional set size of this process and its descendants; 0 if the system does not tell it."""
    parents, total = {pid: _parent(proc / str(pid)) for pid in _processes(proc)}, 0
    waiting = [int((proc / "self").readlink().name)] if (proc / "self").exists() else []
    while waiting:
        pid = waiting.pop()
        waiting += [child for child, parent in parents.items() if parent == pid]
        total += _memory(proc / str(pid))
    return total


def _memory(process: Path) -> int:
    """Return the proportional set size of one process; 0 if it has ended."""
    try:
        lines = (process / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def _processes(proc: Path) -> list[int]:
    return [int(folder.name) for folder in proc.glob("[0-9]*")]


def _parent(folder: Path) -> int:
    try:
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _archive(
    studies: Path, tables: Path, bundle: str, split: tuple[int | None, int | None], log: list[str]
) -> tuple[Timed, Places]:
    """Score a folder of studies into tables with this split; with None the run chooses."""
    places = Places(tables)
    make_manifest(places, "folder", str(studies), _SHARD_STUDIES, log.append)
    way = Timed(Crews(*split, 600.0, largest_bytes(places), log.append, places.note))
    request = Request(
        bundle, "cpu", None, None, None, 3, False, "no", split[1], False, False, str(studies)
    )  # the arguments of the command without options
    score_archive(places, request, way, log.append)
    return way, places


def _digest(places: Places) -> str:
    content = b"".join(path.read_bytes() for path in table_files(places.tables))
    return hashlib.sha256(content).hexdigest()


def _loop(bundle: str, folders: Sequence[Path]) -> dict[str, Any]:
    """Score studies one after the other with one scorer, as `spinescore score` opens it."""
    from spinescore.runtime import load_study

    with Scorer.open(bundle, "cpu", build="no") as scorer:
        opened = memory_bytes()["resident_bytes"]
        times = []
        for folder in folders:
            scorer.score(load_study(*sorted(folder.glob("*.dcm"))))
            times.append(time.perf_counter())
    rate = (len(times) - 1) / (times[-1] - times[0])
    return {"studies_a_second": rate, "open_bytes": opened, "peak_bytes": memory_bytes()["peak_bytes"]}


def _networks(bundle: str, threads: int, seconds: float) -> dict[str, Any]:
    """Run a study's networks for so many seconds, after a line on standard output and one on standard input."""
    with Scorer.open(bundle, "cpu", threads=threads, build="no") as scorer:
        choice = scorer.choice
    with networks_alone(Bundle.open(bundle), "cpu", choice, threads) as run_all:
        print("ready", flush=True)
        sys.stdin.readline()
        count, begun = 0, time.perf_counter()
        while (passed := time.perf_counter() - begun) < seconds:
            run_all()
            count += 1
        return {"studies_a_second": count / passed}


def most_at_once(command: Sequence[str], count: int) -> float:
    """Return the sum of the rates of `count` processes that begin to run together."""
    import subprocess

    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    rate = 0.0
    with ended_together(processes):
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in processes:
            lines = process.communicate()[0].splitlines()
            rate += float(json.loads(lines[-1])["studies_a_second"])
    return rate


def _measure(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    log: list[str] = []
    bundle = arguments.bundle
    folders = write_studies(scratch / "studies", arguments.count, scale=arguments.scale, stated=True)
    loop = answer(this_module("archive", "--child", "loop", "--bundle", bundle, "--folder", str(scratch / "studies")))
    figures: dict[str, Any] = {
        "bundle": bundle,
        "studies": len(folders),
        "networks": {},
        "archive": {},
        "memory_mib": {},
    }
    each_study = loop["peak_bytes"] - loop["open_bytes"]
    digests = set()
    for number, (count, threads) in enumerate([*splits(None, None), (None, None)]):
        name = "chosen" if count is None else f"{count} x {threads}"
        if count is not None:
            words = ("--child", "networks", "--threads", str(threads), "--seconds", str(arguments.seconds))
            rate = most_at_once(this_module("archive", "--bundle", bundle, *words), count)
            figures["networks"][name] = round(rate, 3)
        way, places = _archive(scratch / "studies", scratch / f"tables-{number}", bundle, (count, threads), log)
        digests.add(_digest(places))
        bound = way.facts()["processes"] * (loop["open_bytes"] + 2 * each_study) + SPARE_BYTES
        figures["archive"][name] = round(way.rate, 3)
        figures["memory_mib"][name] = {"most": _mib(max(way.memory)), "bound": _mib(bound)}
        if count is None:
            figures["chosen"] = way.facts()
    figures["loop"] = round(loop["studies_a_second"], 3)
    figures["scorer_mib"], figures["largest_study_mib"] = _mib(loop["open_bytes"]), _mib(each_study)
    figures["tables_alike"] = len(digests) == 1
    best = max(rate for name, rate in figures["archive"].items() if name != "chosen")
    figures["of_loop"] = round(best / figures["loop"], 3)
    figures["of_networks"] = round(best / max(figures["networks"].values()), 3)
    return figures


def _flat(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Return the memory over a run of many small studies."""
    write_studies(scratch / "small", arguments.flat)
    way, _ = _archive(scratch / "small", scratch / "flat", arguments.bundle, (2, 1), [])
    memory = way.memory
    looks = [memory[look * (len(memory) - 1) // (_LOOKS - 1)] for look in range(_LOOKS)]
    return {"studies": arguments.flat, "memory_mib_over_the_run": [_mib(size) for size in looks]}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 if rates, memory and bytes are as they should be, else 1."""
    command = Command("archive", SCHEMA, __doc__)
    add = command.options.add_argument
    add("--count", type=int, default=60, metavar="N", help="full-size studies (60)")
    add(
        "--flat",
        type=int,
        default=2000,
        metavar="N",
        help="small studies of the run for memory; 0 leaves it out (2000)",
    )
    add("--scale", type=float, default=1.0, metavar="S", help="size of the pictures but the first beside full size (1)")
    add("--bundle", default="phantom-reference", metavar="B", help="bundle (phantom-reference)")
    add("--seconds", type=float, default=20.0, metavar="S", help="time of the networks alone (20)")
    add("--child", choices=("loop", "networks"), help=argparse.SUPPRESS)
    add("--folder", type=Path, help=argparse.SUPPRESS)
    add("--threads", type=int, help=argparse.SUPPRESS)
    arguments = command.start(argv)
    if arguments.child == "loop":
        print(json.dumps(_loop(arguments.bundle, sorted(arguments.folder.iterdir()))))
        return 0
    if arguments.child == "networks":
        print(json.dumps(_networks(arguments.bundle, arguments.threads, arguments.seconds)))
        return 0
    with tempfile.TemporaryDirectory(prefix="spinescore-archive-") as name:
        figures = _measure(arguments, Path(name))
        if arguments.flat:
            figures["flat"] = _flat(arguments, Path(name))
    command.publish(figures)
    return 0 if _is_as_it_should_be(figures) else 1


def _is_as_it_should_be(figures: dict[str, Any]) -> bool:
    memory = all(sizes["most"] <= sizes["bound"] for sizes in figures["memory_mib"].values())
    rates = figures["of_loop"] >= LEAST_OF_LOOP and figures["of_networks"] >= LEAST_OF_NETWORKS
    return bool(memory and rates and figures["tables_alike"])


def _mib(count: int) -> float:
    return round(count / _MIB, 1)


if __name__ == "__main__":
    raise SystemExit(main())
