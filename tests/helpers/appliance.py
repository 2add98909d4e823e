"""An appliance in one process, with a clock that tests move, and a worker that scores at once with a ready report."""

from __future__ import annotations

import threading
from datetime import datetime, timezone
from functools import cache
from pathlib import Path

from helpers import golden_bundle, tiny_study
from spinescore.runtime.appliance.configuration.config import Config, Destination, Score, Source, SpoolPart, StudyTimes
from spinescore.runtime.appliance.receiving.watchedfolder import FolderSource
from spinescore.runtime.appliance.recovery import recover
from spinescore.runtime.appliance.sending.delivery import Deliverer
from spinescore.runtime.appliance.sending.sendfolder import FolderDestination
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.places import make_places
from spinescore.runtime.appliance.store.spool import Spool
from spinescore.runtime.appliance.work.consolequeue import ConsoleQueue
from spinescore.runtime.appliance.work.dispatch import Dispatcher
from spinescore.runtime.appliance.work.scorequeue import ScoreQueue
from spinescore.runtime.appliance.work.workerprocess import do_console, do_job
from spinescore.runtime.scorer import Scorer

OUT = "out"
_SERVED = """\
[spool]
path = "spool"
reserve_gb = 0.001

[score]
bundle = "{bundle}"
device = "cpu"

[study]
quiet_s = 1.0
quiet_complete_s = 0.2

{more}
[[source]]
name = "inbox"
kind = "folder"
path = "inbox"
settle_s = 0.1
poll_s = 0.1
remove = true

[[destination]]
name = "out"
kind = "folder"
path = "out"
"""


class FakeClock:
    """Seconds that only `pass_s` moves."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def now(self) -> float:
        return self.now_s

    def date(self) -> datetime:
        return datetime(2026, 1, 5, 10, 0, tzinfo=timezone.utc)

    def pass_s(self, seconds: float) -> None:
        self.now_s += seconds


@cache
def open_scorer(folder: Path) -> Scorer:
    return Scorer.open(folder, "cpu", build="no")


def write_bundle(folder: Path) -> Path:
    return golden_bundle.write_golden_bundle(folder, half="none")


class InlineWorker:
    """A worker in this process. `act` replaces what it does with a job, and returns its messages."""

    def __init__(self, score) -> None:
        self.score, self.said, self.jobs, self.starts, self.killed = score, [], [], 0, 0
        self.memory, self.end, self.silent, self.cancelled = 0, None, False, []

    def open(self) -> None:
        self.starts, self.end, self.silent, self.memory = self.starts + 1, None, False, 0
        self.said.append({"ready": True})

    def give(self, job) -> None:
        self.jobs.append(job)
        self.said += self.act(job)

    def give_console(self, job) -> None:
        self.jobs.append(job)
        self.said += self.act_for_console(job)

    def act_for_console(self, job):
        said = []
        if not do_console(job, self.score, lambda **message: said.append(message), threading.Event()):
            self.end = "exit status 1"
        return said

    def cancel(self, key) -> None:
        self.cancelled.append(key)

    def act(self, job):
        said = []
        if not do_job(job, self.score, lambda **message: said.append(message)):
            self.end = "exit status 1"
        return said

    def messages(self, wait_s=0.0):
        said, self.said = self.said, []
        return said if self.silent else [*said, {"beat": "idle"}]

    def ended(self):
        return self.end

    def memory_bytes(self) -> int:
        return self.memory

    def kill(self) -> None:
        self.killed += 1


def config_of(root: Path, bundle: Path, **changes) -> Config:
    """A configuration in `root`: the source `inbox`, the destination `out`, and short times."""
    for name in ("inbox", OUT):
        (root / name).mkdir(parents=True, exist_ok=True)
    settings = {
        "spool": SpoolPart(str(root / "spool"), reserve_gb=0.001),
        "score": Score(str(bundle)),
        "study": StudyTimes(quiet_s=10.0, quiet_complete_s=2.0, hold_s=100.0),
        "source": (Source("inbox", "folder", str(root / "inbox"), settle_s=1.0, remove=True),),
        "destination": (Destination(OUT, "folder", str(root / OUT)),),
    }
    return Config(**{**settings, **changes})


def write_served(root: Path, bundle: Path, more: str = "") -> Path:
    """The configuration of a service with processes; its folders `inbox` and `out` are in `root`, `more` are tables."""
    for name in ("inbox", OUT):
        (root / name).mkdir(exist_ok=True)
    (root / "appliance.toml").write_text(_SERVED.format(bundle=bundle, more=more), encoding="utf-8")
    return root / "appliance.toml"


class Appliance:
    """All parts of a service but its processes; `run` moves the clock until nothing is left to do."""

    def __init__(self, config: Config, score, clock: FakeClock | None = None) -> None:
        self.config, self.clock = config, clock or FakeClock()
        self.root = Path(config.spool.path).parent
        self.places = make_places(Path(config.spool.path), int(config.spool.reserve_gb * (1 << 30)))
        self.index = Index(self.places.index, self.places.release_reserve)
        recover(self.places, self.index, self.clock)
        self.spool = Spool(self.places, self.index, self.clock, config.spool.max_object_mb << 20)
        self.sources = [FolderSource(source, self.spool, self.clock) for source in config.source]
        self.queue = ScoreQueue(config, self.places, self.index, self.clock, "bundle")
        self.worker = InlineWorker(score)
        self.answers: list[dict] = []  # for the web process
        consoles = ConsoleQueue(self.answers.append)
        parts = (self.queue, self.worker, self.index, self.places, self.clock, config.score, consoles)
        self.dispatcher = Dispatcher(*parts)
        folders = [one for one in config.destination if one.kind == "folder"]
        self.destinations = [FolderDestination(one.name, Path(one.path)) for one in folders]
        self.deliverers = [Deliverer(self.index, self.clock, self.places, one) for one in self.destinations]
        for deliverer, destination in zip(self.deliverers, self.destinations, strict=True):
            deliverer.recover()
            destination.clear()

    def receive(self, *files: Path, source: str = "test"):
        with self.spool.association(source) as association:
            return [self.spool.receive([path.read_bytes()], association) for path in files]

    def step(self) -> None:
        for source in self.sources:
            source.poll()
        self.dispatcher.step()
        for deliverer in self.deliverers:
            while deliverer.step():
                pass

    def run(self, seconds: int = 30) -> None:
        for _ in range(seconds):
            self.step()
            self.clock.pass_s(1.0)

    def states(self) -> dict[str, str]:
        return {row["uid"]: row["state"] for row in self.index.rows("SELECT uid, state FROM studies")}

    def study(self, uid: str = "1.2.3.4"):
        return self.index.one("SELECT * FROM studies WHERE uid = ?", uid)

    def delivered(self, uid: str = "1.2.3.4") -> dict[str, list[str]]:
        """The names of the delivered files of each revision."""
        folders = sorted((self.root / OUT / uid).glob("*"))
        return {folder.name: sorted(path.name for path in folder.iterdir()) for folder in folders}

    def close(self) -> None:
        self.index.close()


def tiny_files(folder: Path, uid: str = "1.2.3.4", regions=("cervical", "lumbar")) -> list[Path]:
    return [tiny_study.write_study(folder, uid, regions) / f"{region}.dcm" for region in regions]
