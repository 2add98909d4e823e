"""Measures `spinescore archive` beside one scorer in a loop, and beside the networks alone; or tries its long runs.

    python -m spinescore.benchmarks.archive [--count 60] [--bundle B] [--seconds 20] [--out F]
    python -m spinescore.benchmarks.archive --kills 10 [--count 500] [--bundle B] [--out F]
    python -m spinescore.benchmarks.archive --flat 2000 [--bundle B] [--out F]

The studies are full-size phantoms, a few of them drawn and the others copies under UIDs of their own, uncompressed, in
the system's folder for temporary files. Their headers state region and facing, so that no network is run to find these
out. `loop`: one process opens a scorer with its default threads, reads and scores one study after the other; its rate
is that of all studies but the first. `networks`: for each split of the cores into processes and threads, as many
processes run a study's networks alone, all at once, for `--seconds`. `archive`: the same splits, from the first study
that is done to the last, and `chosen`, with the split that the run measures for itself. `core_ms` is the processor time
of the same for each study; for an archive that of its workers, and as `run` that of the process that feeds them, writes
the tables, and samples the memory here. The tables of all runs must have the same bytes. `memory` is the most that all
processes of a run held together (proportional set size, sampled once a second), beside its bound: for each process the
scorer (the loop's resident memory when it is open) and twice the largest study (the loop's peak less that), and 200
MiB. Exit status 1 if the best rate is below 1.25 x the loop or 0.9 x the networks, or if memory or bytes are not as
they should be.

`--kills`: a run of small studies with two workers is killed so many times (SIGKILL): in turn the run, a worker, and all
processes. After a kill of the run the same command is called again. Each study must be in the tables once, with the
bytes of a run that was not disturbed. `--flat`: the memory of a run of so many small studies (the first of full size)
with two workers: the resident memory of each process at every outcome, and the bound as above. It is flat if no process
grows by more than 8 MiB from the first hundred studies to the last (medians). Exit status 1 if that is not so.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from spinescore.benchmarks.archiveruns import run_archive, tables_digest
from spinescore.benchmarks.archivetrials import MUST_BE_NONE, SPARE_BYTES, memory_over, try_kills, watch_memory
from spinescore.benchmarks.bench.alone import networks_alone
from spinescore.benchmarks.harness.child import answer, ended_together, this_module
from spinescore.benchmarks.harness.environment import memory_bytes, mib
from spinescore.benchmarks.harness.record import Command
from spinescore.benchmarks.harness.studies import write_studies
from spinescore.runtime.archive.crews import splits
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.scorer import Scorer

__all__ = ["main", "most_at_once"]

SCHEMA = "spinescore.archive-throughput/2"
LEAST_OF_LOOP, LEAST_OF_NETWORKS = 1.25, 0.9
_STUDIES, _STUDIES_TO_KILL = 60, 500


def _loop(bundle: str, folders: Sequence[Path]) -> dict[str, Any]:
    """Score studies one after the other with one scorer, as `spinescore score` opens it."""
    from spinescore.runtime import load_study

    with Scorer.open(bundle, "cpu", build="no") as scorer:
        opened = memory_bytes()["resident_bytes"]
        times = []
        for folder in folders:
            scorer.score(load_study(*sorted(folder.glob("*.dcm"))))
            times.append((time.perf_counter(), time.process_time()))
    seconds, core_s = (last - first for first, last in zip(times[0], times[-1], strict=True))
    rate, core_ms = (len(times) - 1) / seconds, core_s * 1e3 / (len(times) - 1)
    return {
        "studies_a_second": rate,
        "core_ms": core_ms,
        "open_bytes": opened,
        "peak_bytes": memory_bytes()["peak_bytes"],
    }


def _networks(bundle: str, threads: int, seconds: float) -> dict[str, Any]:
    """Run a study's networks for so many seconds, after a line on standard output and one on standard input."""
    with Scorer.open(bundle, "cpu", threads=threads, build="no") as scorer:
        choice = scorer.choice
    with networks_alone(Bundle.open(bundle), "cpu", choice, threads) as run_all:
        print("ready", flush=True)
        sys.stdin.readline()
        count, begun, begun_core = 0, time.perf_counter(), time.process_time()
        while (passed := time.perf_counter() - begun) < seconds:
            run_all()
            count += 1
        return {"studies_a_second": count / passed, "core_ms": (time.process_time() - begun_core) * 1e3 / count}


def most_at_once(command: Sequence[str], count: int) -> tuple[float, float]:
    """Return the sum of the rates of `count` processes that begin to run together, and their mean core time in ms."""
    import subprocess

    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    with ended_together(processes):
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
    return sum(one["studies_a_second"] for one in answers), sum(one["core_ms"] for one in answers) / count


def _measure(bundle: str, studies: int, scale: float, seconds: float, scratch: Path) -> dict[str, Any]:
    log: list[str] = []
    folders = write_studies(scratch / "studies", studies, scale=scale, stated=True)
    loop = answer(this_module("archive", "--child", "loop", "--bundle", bundle, "--folder", str(scratch / "studies")))
    figures: dict[str, Any] = {
        "bundle": bundle,
        "studies": len(folders),
        "networks": {},
        "archive": {},
        "core_ms": {"loop": round(loop["core_ms"], 1)},
        "memory_mib": {},
    }
    each_study = loop["peak_bytes"] - loop["open_bytes"]
    digests = set()
    for number, (count, threads) in enumerate([*splits(None, None), (None, None)]):
        name = "chosen" if count is None else f"{count} x {threads}"
        if count is not None:
            words = ("--child", "networks", "--threads", str(threads), "--seconds", str(seconds))
            rate, core_ms = most_at_once(this_module("archive", "--bundle", bundle, *words), count)
            figures["networks"][name] = round(rate, 3)
            figures["core_ms"][f"networks {name}"] = round(core_ms, 1)
        way, places = run_archive(scratch / "studies", scratch / f"tables-{number}", bundle, (count, threads), log)
        digests.add(tables_digest(places.tables))
        bound = way.facts()["processes"] * (loop["open_bytes"] + 2 * each_study) + SPARE_BYTES
        figures["archive"][name] = round(way.rate, 3)
        figures["memory_mib"][name] = {"most": mib(max(way.memory)), "bound": mib(bound)}
        if count is None:
            figures["chosen"] = way.facts()
        else:
            figures["core_ms"][f"archive {name}"] = round(way.core_ms, 1)
            figures["core_ms"][f"run {name}"] = round(way.run_core_ms, 1)
    figures["loop"] = round(loop["studies_a_second"], 3)
    figures["scorer_mib"], figures["largest_study_mib"] = mib(loop["open_bytes"]), mib(each_study)
    figures["tables_alike"] = len(digests) == 1
    best = max(rate for name, rate in figures["archive"].items() if name != "chosen")
    figures["of_loop"] = round(best / figures["loop"], 3)
    figures["of_networks"] = round(best / max(figures["networks"].values()), 3)
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 if all is as the module's text says that it should be, else 1."""
    command = Command("archive", SCHEMA, __doc__)
    _add_options(command.options.add_argument)
    arguments = command.start(argv)
    if arguments.child is not None:
        print(json.dumps(_child(arguments)))
        return 0
    with tempfile.TemporaryDirectory(prefix="spinescore-archive-") as name:
        figures, as_it_should_be = _figures(arguments, Path(name))
    command.publish(figures)
    return 0 if as_it_should_be else 1


def _add_options(add: Callable[..., Any]) -> None:
    add("--count", type=int, metavar="N", help="studies: of full size (60), or small ones with --kills (500)")
    add("--kills", type=int, metavar="N", help="try a run that is killed so many times")
    add("--flat", type=int, metavar="N", help="watch the memory of a run of so many small studies")
    add("--scale", type=float, default=1.0, metavar="S", help="size of the pictures but the first beside full size (1)")
    add("--bundle", default="phantom-reference", metavar="B", help="bundle (phantom-reference)")
    add("--seconds", type=float, default=20.0, metavar="S", help="time of the networks alone (20)")
    add("--child", choices=("loop", "networks", "flat"), help=argparse.SUPPRESS)
    add("--folder", type=Path, help=argparse.SUPPRESS)
    add("--most", type=int, help=argparse.SUPPRESS)
    add("--threads", type=int, help=argparse.SUPPRESS)


def _child(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.child == "loop":
        return _loop(arguments.bundle, sorted(arguments.folder.iterdir())[: arguments.most])
    if arguments.child == "flat":
        return memory_over(arguments.folder, arguments.bundle)
    return _networks(arguments.bundle, arguments.threads, arguments.seconds)


def _figures(arguments: argparse.Namespace, scratch: Path) -> tuple[dict[str, Any], bool]:
    """Return the figures of the measurement or of the trial, and whether they are as they should be."""
    bundle = arguments.bundle
    if arguments.kills:
        trial = try_kills(scratch, bundle, arguments.count or _STUDIES_TO_KILL, arguments.kills)
        right = trial["tables_alike"] and not any(trial[name] for name in MUST_BE_NONE)
        return {"bundle": bundle, "kills": trial}, right
    if arguments.flat:
        trial = watch_memory(scratch, bundle, arguments.flat)
        return {"bundle": bundle, "flat": trial}, trial["flat"]
    figures = _measure(bundle, arguments.count or _STUDIES, arguments.scale, arguments.seconds, scratch)
    return figures, _is_as_it_should_be(figures)


def _is_as_it_should_be(figures: dict[str, Any]) -> bool:
    memory = all(sizes["most"] <= sizes["bound"] for sizes in figures["memory_mib"].values())
    rates = figures["of_loop"] >= LEAST_OF_LOOP and figures["of_networks"] >= LEAST_OF_NETWORKS
    return bool(memory and rates and figures["tables_alike"])


if __name__ == "__main__":
    raise SystemExit(main())
