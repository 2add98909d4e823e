"""The long trials of `spinescore archive`: a run that is killed again and again, and the memory of a long run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from spinescore.benchmarks.archiveruns import run_archive, tables_digest
from spinescore.benchmarks.harness.child import SPINESCORE, answer, this_module
from spinescore.benchmarks.harness.environment import mib
from spinescore.benchmarks.harness.processes import descendants, processes_with
from spinescore.benchmarks.harness.studies import write_studies
from spinescore.runtime.archive.layout import Places
from spinescore.runtime.followup.archivefiles import read_rows, table_files
from spinescore.runtime.machine.memory import resident_bytes
from spinescore.runtime.verbs import NOTHING_SCORED, OK

__all__ = ["MOST_GROWTH_BYTES", "MUST_BE_NONE", "SPARE_BYTES", "memory_over", "over_time", "try_kills", "watch_memory"]

MUST_BE_NONE = ("studies_missing", "studies_twice", "files_left", "processes_left")
SPARE_BYTES = 200 << 20
MOST_GROWTH_BYTES = 8 << 20  # of one process, from the first hundred studies to the last
_SEED = 20261129
_VICTIMS = ("run", "worker", "all")
_SHARD_STUDIES = 8
_DELAY_S = 3.0  # a kill falls at most so long after the shard for which it waits, and before the run is far beyond it
_LOOK_S = 0.01
_WAIT_S = 3600.0  # without a new shard
_END_S = 60.0
_LOOKS = 11
_EDGE = 100  # studies at the beginning and at the end of a long run whose memory is compared
_WORKERS = 2


# ---- killing


def try_kills(folder: Path, bundle: str, count: int, kills: int) -> dict[str, Any]:
    """Return the outcome of `count` small studies in a run that is killed; the counts of `MUST_BE_NONE` must be zero.

    In turn the run, a worker, or all processes are killed (SIGKILL) at random times, spread over the run. After a kill
    of the run the same command is called again at once. Raises `TimeoutError` if no shard is written for an hour, or if
    there are too few studies for so many kills.
    """
    write_studies(folder / "studies", count + 1)
    _remove(folder / "studies" / "00000")  # of full size
    undisturbed = _Run(folder / "studies", folder / "undisturbed", bundle)
    undisturbed.end()
    chance, killed, stopped = random.Random(_SEED), Counter[str](), []
    run = _Run(folder / "studies", folder / "killed", bundle)
    shards = -(-count // _SHARD_STUDIES)
    for number in range(kills):
        run.wait_for(number * shards // (kills + 1), chance.uniform(0, _DELAY_S))
        victim = _VICTIMS[number % len(_VICTIMS)]
        stopped.append(run.written)
        killed[run.kill(victim)] += 1
    run.end()
    rows = [row for path in table_files(folder / "killed") for row in read_rows(path)]
    studies = Counter(row["study_instance_uid"] for row in rows if row["row"] in ("study", "not-scored"))
    return {
        "studies": count,
        "shards": shards,
        "kills": dict(killed),
        "shards_at_each_kill": stopped,
        "studies_missing": count - len(studies),
        "studies_twice": sum(number > 1 for number in studies.values()),
        "not_scored": sum(row["row"] == "not-scored" for row in rows),
        "files_left": len(list((folder / "killed").glob(".*"))),
        "processes_left": run.left(),
        "tables_alike": tables_digest(folder / "killed") == tables_digest(folder / "undisturbed"),
    }


class _Run:
    """The command `spinescore archive`, which is called again whenever it was killed."""

    def __init__(self, studies: Path, tables: Path, bundle: str) -> None:
        words = ["archive", str(studies), "--out", str(tables), "--bundle", bundle, "--device", "cpu", "--build", "no"]
        options = ["--workers", str(_WORKERS), "--threads", "1", "--shard-studies", str(_SHARD_STUDIES)]
        self._command, self._places, self._studies = [*SPINESCORE, *words, *options], Places(tables), str(studies)
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    @property
    def written(self) -> int:
        """The number of shards with a file."""
        return len(self._places.written())

    def wait_for(self, shards: int, delay_s: float) -> None:
        """Wait until so many shards are written and the workers run, and then `delay_s`, or until the next shard.

        Raises `TimeoutError` if no shard is written for an hour, or if the run ends.
        """
        last, seen_s = -1, time.monotonic()
        while self.written < shards or len(descendants(self._process.pid)) < _WORKERS:
            if self.written != last:
                last, seen_s = self.written, time.monotonic()
            if self._process.poll() is not None or time.monotonic() - seen_s > _WAIT_S:
                raise TimeoutError(f"the run wrote {last} shards, and no more")
            time.sleep(0.1)
        end, before = time.monotonic() + delay_s, self.written
        while time.monotonic() < end and self.written == before:
            time.sleep(_LOOK_S)
        if self._process.poll() is not None:
            raise TimeoutError("the run ended before it was killed; let it score more studies")

    def kill(self, victim: str) -> str:
        """Kill the run, one of its workers, or all; return the name of the victim."""
        if sys.platform == "win32":
            raise NotImplementedError
        workers = descendants(self._process.pid)
        if victim != "worker":
            self._process.kill()
            self._process.wait()
        for pid in {"run": [], "worker": workers[-1:], "all": workers}[victim]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if victim != "worker":
            self._start()
        return victim

    def end(self) -> None:
        """Wait for the end of the run. Raises `TimeoutError` if it fails or writes nothing."""
        while self._process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_WAIT_S)
        if self._process.returncode not in (OK, NOTHING_SCORED):
            raise TimeoutError(f"the run ended with status {self._process.returncode}")

    def left(self) -> int:
        """Return how many workers are still there a minute after the end; their arguments name the studies."""
        end = time.monotonic() + _END_S
        while (left := len(processes_with(self._studies))) and time.monotonic() < end:
            time.sleep(0.1)
        return left


def _remove(study: Path) -> None:
    for film in study.iterdir():
        film.unlink()
    study.rmdir()


# ---- memory


def watch_memory(folder: Path, bundle: str, count: int) -> dict[str, Any]:
    """Return the memory over a run of many studies, the first of full size and the others small."""
    write_studies(folder / "studies", count)
    words = ("--bundle", bundle, "--folder", str(folder))
    loop = answer(this_module("archive", "--child", "loop", "--most", "5", *words[:3], str(folder / "studies")))
    run = answer(this_module("archive", "--child", "flat", *words))
    each_study = loop["peak_bytes"] - loop["open_bytes"]
    bound = _WORKERS * (loop["open_bytes"] + 2 * each_study) + SPARE_BYTES
    growth = [of_process["last"] - of_process["first"] for of_process in run["processes"]]
    return {
        "studies": run["studies"],
        "scorer_mib": mib(loop["open_bytes"]),
        "largest_study_mib": mib(each_study),
        "all_processes_mib": {"most": mib(run["most"]), "bound": mib(bound)},
        "each_process": [
            {
                "process": name,
                "median_of_first_100_mib": mib(of_process["first"]),
                "median_of_last_100_mib": mib(of_process["last"]),
                "most_mib": mib(of_process["most"]),
                "mib_over_the_run": [mib(size) for size in of_process["looks"]],
            }
            for name, of_process in zip(("run", "worker", "worker"), run["processes"], strict=True)
        ],
        "most_growth_mib": mib(max(growth)),
        "flat": max(growth) <= MOST_GROWTH_BYTES and run["most"] <= bound,
    }


def memory_over(folder: Path, bundle: str) -> dict[str, Any]:
    """Score the studies of a folder, and return the bytes of each process at the outcomes.

    They are resident bytes. `most` is the largest sum of proportional set sizes. It is called in a process of its own.
    """
    samples: list[list[int]] = []
    workers: list[int] = []

    def watch() -> None:
        if not workers:
            workers.extend(descendants()[:_WORKERS])
        samples.append([resident_bytes(), *map(resident_bytes, workers)])

    way, _ = run_archive(folder / "studies", folder / "tables", bundle, (_WORKERS, 1), [], watch)
    processes = [over_time(sizes) for sizes in zip(*samples, strict=True)]
    return {"studies": len(samples), "most": max(way.memory), "processes": processes}


def over_time(sizes: Sequence[int]) -> dict[str, Any]:
    """Return the medians of the first and the last hundred sizes, the largest, and a few over the run."""
    edge = max(1, min(_EDGE, len(sizes) // 2))
    looks = [sizes[look * (len(sizes) - 1) // (_LOOKS - 1)] for look in range(_LOOKS)]
    return {"first": median(sizes[:edge]), "last": median(sizes[-edge:]), "most": max(sizes), "looks": looks}
