"""The trial by killing: studies are sent to an appliance whose processes are killed, and each must arrive once.

The modality is dcmtk's `dcmsend`, a process for each radiograph. It sends a radiograph again until dcmsend's exit
status and its own count say that it was acknowledged, and never after that, so that an acknowledged one that got lost
stays lost. The archive is Orthanc. What it has is read from Orthanc itself, and a script of Orthanc notes each arrival.
While the studies are sent, each process of the service, its supervisor, or all of them are killed in turn (SIGKILL), at
random times, once for ten studies. With `archive` Orthanc is killed in its turn, too; it may then get an object again
that it did not have. Then the service works without being killed until it is idle. A study that was parked because its
worker was killed twice is retried by hand, and counted. Needs dcmtk and Orthanc.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from spinescore.benchmarks.harness.appliance import processes_of, write_config
from spinescore.benchmarks.harness.child import SPINESCORE, end_session, run_child, session
from spinescore.benchmarks.harness.orthanc import Orthanc
from spinescore.benchmarks.harness.ports import free_port, listens, wait_until
from spinescore.benchmarks.harness.studies import write_studies

__all__ = ["MUST_BE_NONE", "try_kills"]

MUST_BE_NONE = ("acknowledged_and_lost", "studies_without_report", "studies_with_several_reports", "reports_sent_twice",
                "unknown_reports", "parts_left")  # fmt: skip

_SEED = 20261129
_STUDIES_A_KILL = 10
_DELAY_S = 1.5  # a kill falls at most so long after its study is sent
_END_S = 600.0
_LOOK_S = 2.0
_VICTIMS = ("receive", "all", "work", "supervisor", "send", "web")


def try_kills(folder: Path, bundle: str, count: int, *, archive: bool = False) -> dict[str, Any]:
    """Return the outcome of `count` studies; the counts of `MUST_BE_NONE` are zero if nothing went wrong.

    With `archive`, Orthanc is killed as well. Raises `TimeoutError` if the service does not become idle.
    """
    with closing(Orthanc(folder / "orthanc")) as orthanc:
        orthanc.wait()
        return _try_kills(folder, bundle, count, orthanc, archive)


def _try_kills(folder: Path, bundle: str, count: int, orthanc: Orthanc, archive: bool) -> dict[str, Any]:
    port = free_port()
    config = write_config(folder, port, orthanc.port, bundle, quiet_s=120.0, quiet_complete_s=0.0)
    # Headers state the regions, so that a study is complete with its second radiograph.
    studies = write_studies(folder / "studies", count + 1, stated=True)[1:]
    films = [sorted(study.glob("*.dcm")) for study in studies]
    chance = random.Random(_SEED)
    killed_at = set(chance.sample(range(count), count // _STUDIES_A_KILL))
    started_s = time.monotonic()
    with closing(_Service(config, chance, orthanc.kill if archive else None)) as service:
        wait_until(lambda: listens(port), "the service listening")
        tries = 0
        for number, study in enumerate(films):
            if number in killed_at:
                service.kill_soon()
            tries += sum(_send(film, port) for film in study)
    parked = _finish(config)
    seconds = time.monotonic() - started_s
    return {
        "studies": count,
        "kills": dict(service.kills),
        "transfers_not_acknowledged": tries - 2 * count,
        "retried_by_hand": parked,
        "seconds": round(seconds, 1),
        **_outcome(folder / "spool", orthanc, films, archive),
        "audit": run_child([*SPINESCORE, "audit", "verify", "--config", str(config)]).strip().partition(": ")[2],
    }


def _send(film: Path, port: int) -> int:
    """Send a radiograph until it is acknowledged; return the number of tries."""
    words = ["-aet", "MODALITY", "-aec", "SPINESCORE", "127.0.0.1", str(port), str(film)]
    command = ["dcmsend", "-v", "-to", "5", "-ta", "30", "-td", "60", *words]
    end = time.monotonic() + _END_S
    tries = 0
    while time.monotonic() < end:
        tries += 1
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if ended.returncode == 0 and "with status SUCCESS  : 1" in ended.stdout + ended.stderr:
            return tries
        time.sleep(0.2)
    raise TimeoutError("a radiograph was not acknowledged within 10 minutes")


class _Service:
    """A service in a process group of its own that is started again whenever it ends, and its killer."""

    def __init__(self, config: Path, chance: random.Random, kill_archive: Callable[[], None] | None) -> None:
        self._kill_archive = kill_archive
        self._victims = _VICTIMS if kill_archive is None else (*_VICTIMS, "archive")
        self._command = [*SPINESCORE, "serve", "--config", str(config)]
        self._chance = chance
        self.kills: Counter[str] = Counter()
        self._ends = threading.Event()
        self._process = self._start()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()
        self._killers: list[threading.Timer] = []

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, stderr=subprocess.DEVNULL, start_new_session=True)

    def _keep(self) -> None:
        while not self._ends.wait(0.05):
            if self._process.poll() is not None:
                self._process = self._start()

    def kill_soon(self) -> None:
        """Kill the process whose turn it is, or all, at a random time in the next moments."""
        victim = self._victims[len(self._killers) % len(self._victims)]
        killer = threading.Timer(self._chance.uniform(0, _DELAY_S), self._kill, (victim,))
        killer.start()
        self._killers.append(killer)

    def _kill(self, victim: str) -> None:
        if sys.platform == "win32":  # where the appliance does not run
            raise NotImplementedError
        supervisor = self._process.pid
        if victim == "archive" and self._kill_archive is not None:
            self._kill_archive()
            self.kills[victim] += 1
            return
        with suppress(ProcessLookupError):
            if victim == "all":
                os.killpg(supervisor, signal.SIGKILL)
            elif victim == "supervisor":
                os.kill(supervisor, signal.SIGKILL)
            elif (child := processes_of(supervisor).get(victim)) is not None:
                os.kill(child, signal.SIGKILL)
            else:  # it is just being started
                victim += ", not there"
            self.kills[victim] += 1

    def close(self) -> None:
        """End the service in good order."""
        for killer in self._killers:
            killer.join()
        self._ends.set()
        self._keeper.join()
        end_session(self._process)


def _finish(config: Path) -> int:
    """Let the service work until it is idle; return the number of studies that were retried by hand."""
    retried = 0
    for _ in range(3):
        with session([*SPINESCORE, "serve", "--config", str(config), "--until-idle"]) as service:
            _wait_while_it_moves(service, config)
        parked = [number for number, state in _states(config) if state == "parked"]
        if not parked:
            break
        for number in parked:
            run_child([*SPINESCORE, "study", "retry", str(number), "--config", str(config)])
        retried += len(parked)
    return retried


def _wait_while_it_moves(service: subprocess.Popen[bytes], config: Path) -> None:
    """Wait until the service has ended. Raises `TimeoutError` if no study changes its state for 10 minutes."""
    states, end = _states(config), time.monotonic() + _END_S
    while True:
        with suppress(subprocess.TimeoutExpired):
            service.wait(_LOOK_S)
            return
        before, states = states, _states(config)
        if states != before:
            end = time.monotonic() + _END_S
        elif time.monotonic() > end:
            raise TimeoutError(f"{sum(state != 'delivered' for _, state in states)} studies are not delivered")


def _states(config: Path) -> list[tuple[int, str]]:
    with closing(sqlite3.connect(config.parent / "spool" / "index.sqlite", timeout=60)) as index:
        return index.execute("SELECT id, state FROM studies ORDER BY id").fetchall()


def _outcome(spool: Path, orthanc: Orthanc, films: Sequence[Sequence[Path]], archive: bool) -> dict[str, Any]:
    """Compare what was sent with what is in the spool, and in Orthanc."""
    from pydicom import dcmread

    headers = [dcmread(film, stop_before_pixels=True) for study in films for film in study]
    with closing(sqlite3.connect(spool / "index.sqlite")) as index:
        objects = dict(index.execute("SELECT sop_instance_uid, sha256 FROM objects").fetchall())
        states = Counter(row[0] for row in index.execute("SELECT state FROM studies"))
        revisions = index.execute("SELECT max(revision) FROM studies").fetchone()[0]
    stored = {uid for uid, sha256 in objects.items() if (spool / "objects" / sha256[:2] / f"{sha256}.dcm").exists()}
    studies = {str(ds.StudyInstanceUID) for ds in headers}
    reports, arrivals = Counter(orthanc.studies().values()), orthanc.arrivals()
    return {
        "acknowledged_and_lost": len({str(ds.SOPInstanceUID) for ds in headers} - stored),
        "reports_arrived": arrivals.total(),
        "studies_without_report": len(studies - set(reports)),
        "studies_with_several_reports": sum(count > 1 for count in reports.values()),
        f"reports_sent_{'again' if archive else 'twice'}": sum(count > 1 for count in arrivals.values()),
        "unknown_reports": len(set(reports) - studies),
        "parts_left": len(list((spool / "incoming").iterdir())),
        "states": dict(states),
        "latest_revision": revisions,
    }
