"""The trial by killing: studies are sent to an appliance whose processes are killed, and each must arrive once.

The modality is dcmtk's `dcmsend` (pynetdicom's `storescu` if dcmtk is missing), a process for each radiograph. It sends
a radiograph again until it is acknowledged, and never after that, so that an acknowledged one that got lost stays lost.
The archive is pynetdicom's, answers questions (C-FIND), and counts all that arrives. While the studies are sent, each
process of the service, its supervisor, or all of them are killed in turn (SIGKILL), at random times, once for ten
studies. Then the service works without being killed until it is idle. A study that was parked because its worker was
killed twice is retried by hand, and counted.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from spinescore.benchmarks.harness.appliance import processes_of, write_config
from spinescore.benchmarks.harness.archive import Archive
from spinescore.benchmarks.harness.child import SPINESCORE, run_child
from spinescore.benchmarks.harness.ports import free_port, listens, wait_until
from spinescore.benchmarks.manystudies import write_studies

__all__ = ["MUST_BE_NONE", "try_kills"]

MUST_BE_NONE = ("acknowledged_and_lost", "studies_without_report", "studies_with_several_reports", "reports_sent_twice",
                "unknown_reports", "parts_left")  # fmt: skip

_SEED = 20261129
_STUDIES_A_KILL = 10
_DELAY_S = 1.5  # a kill falls at most so long after its study is sent
_END_S = 600.0
_VICTIMS = ("receive", "all", "work", "supervisor", "send", "web")


def try_kills(folder: Path, bundle: str, count: int) -> dict[str, Any]:
    """Return the outcome of `count` studies; the counts of `MUST_BE_NONE` are zero if nothing went wrong.

    Raises `TimeoutError` if the service does not become idle.
    """
    archive = Archive()
    port = free_port()
    config = write_config(folder, port, archive, bundle, quiet_s=120.0, quiet_complete_s=0.0)
    films = [_with_regions(study) for study in write_studies(folder / "studies", count + 1)[1:]]
    chance = random.Random(_SEED)
    killed_at = set(chance.sample(range(count), count // _STUDIES_A_KILL))
    started_s = time.monotonic()
    with closing(_Service(config, port, chance)) as service:
        tries = 0
        for number, study in enumerate(films):
            if number in killed_at:
                service.kill_soon()
            tries += sum(_send(film, port) for film in study)
        kills = service.kills
    parked = _finish(config)
    seconds = time.monotonic() - started_s
    archive.close()
    return {
        "studies": count,
        "kills": dict(kills),
        "transfers_not_acknowledged": tries - 2 * count,
        "retried_by_hand": parked,
        "seconds": round(seconds, 1),
        **_outcome(folder / "spool", archive, films),
        "audit": run_child([*SPINESCORE, "audit", "verify", "--config", str(config)]).strip().partition(": ")[2],
    }


def _with_regions(study: Path) -> list[Path]:
    """Have the headers of a study state its regions, so that it is complete with its second radiograph."""
    from pydicom import dcmread

    films = sorted(study.glob("*.dcm"))
    for film in films:
        ds = dcmread(film)
        ds.BodyPartExamined = {"cervical": "CSPINE", "lumbar": "LSPINE"}[film.stem]
        ds.save_as(film)
    return films


def _send(film: Path, port: int) -> int:
    """Send a radiograph until it is acknowledged; return the number of tries."""
    words = ["-aet", "MODALITY", "-aec", "SPINESCORE", "127.0.0.1", str(port), str(film)]
    dcmsend = shutil.which("dcmsend")
    command = [sys.executable, "-m", "pynetdicom", "storescu", "-cx", *words]
    if dcmsend is not None:
        command = [dcmsend, "-v", "-to", "5", "-ta", "30", "-td", "60", *words]
    end = time.monotonic() + _END_S
    tries = 0
    while time.monotonic() < end:
        tries += 1
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if ended.returncode == 0 and (dcmsend is None or "with status SUCCESS" in ended.stdout + ended.stderr):
            return tries
        time.sleep(0.2)
    raise TimeoutError("a radiograph was not acknowledged within 10 minutes")


class _Service:
    """A service in a process group of its own that is started again whenever it ends, and its killer."""

    def __init__(self, config: Path, port: int, chance: random.Random) -> None:
        self._command = [*SPINESCORE, "serve", "--config", str(config)]
        self._chance = chance
        self.kills: Counter[str] = Counter()
        self._ends = threading.Event()
        self._process = self._start()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()
        self._killers: list[threading.Timer] = []
        wait_until(lambda: listens(port), "the service listening")

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, stderr=subprocess.DEVNULL, start_new_session=True)

    def _keep(self) -> None:
        while not self._ends.wait(0.05):
            if self._process.poll() is not None:
                self._process = self._start()

    def kill_soon(self) -> None:
        """Kill the process whose turn it is, or all, at a random time in the next moments."""
        victim = _VICTIMS[len(self._killers) % len(_VICTIMS)]
        killer = threading.Timer(self._chance.uniform(0, _DELAY_S), self._kill, (victim,))
        killer.start()
        self._killers.append(killer)

    def _kill(self, victim: str) -> None:
        if sys.platform == "win32":  # where the appliance does not run
            raise NotImplementedError
        supervisor = self._process.pid
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
        self._process.terminate()
        self._process.wait()


def _finish(config: Path) -> int:
    """Let the service work until it is idle; return the number of studies that were retried by hand."""
    retried = 0
    for _ in range(3):
        run_child([*SPINESCORE, "serve", "--config", str(config), "--until-idle"], timeout_s=_END_S)
        with closing(sqlite3.connect(config.parent / "spool" / "index.sqlite")) as index:
            parked = [row[0] for row in index.execute("SELECT id FROM studies WHERE state = 'parked'")]
        if not parked:
            break
        for number in parked:
            run_child([*SPINESCORE, "study", "retry", str(number), "--config", str(config)])
        retried += len(parked)
    return retried


def _outcome(spool: Path, archive: Archive, films: Sequence[Sequence[Path]]) -> dict[str, Any]:
    """Compare what was sent with what is in the spool, and at the archive."""
    from pydicom import dcmread

    headers = [dcmread(film, stop_before_pixels=True) for study in films for film in study]
    with closing(sqlite3.connect(spool / "index.sqlite")) as index:
        objects = dict(index.execute("SELECT sop_instance_uid, sha256 FROM objects").fetchall())
        states = Counter(row[0] for row in index.execute("SELECT state FROM studies"))
        revisions = index.execute("SELECT max(revision) FROM studies").fetchone()[0]
    stored = {uid for uid, sha256 in objects.items() if (spool / "objects" / sha256[:2] / f"{sha256}.dcm").exists()}
    studies = {str(ds.StudyInstanceUID) for ds in headers}
    reports = Counter(archive.study_of.values())
    return {
        "acknowledged_and_lost": len({str(ds.SOPInstanceUID) for ds in headers} - stored),
        "studies_without_report": len(studies - set(reports)),
        "studies_with_several_reports": sum(count > 1 for count in reports.values()),
        "reports_sent_twice": sum(count > 1 for count in archive.arrivals.values()),
        "unknown_reports": len(set(reports) - studies),
        "parts_left": len(list((spool / "incoming").iterdir())),
        "states": dict(states),
        "latest_revision": revisions,
    }
