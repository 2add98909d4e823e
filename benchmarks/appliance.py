"""Measures the appliance: a service on the loopback interface, a modality that sends to it, and an archive.

    python -m spinescore.benchmarks.appliance [--latency N] [--received N] [--studies N] [--idle S] [--out F]
    python -m spinescore.benchmarks.appliance --kills N [--kill-archive] [--out F]

A part with 0 is left out. `latency`: studies of two uncompressed radiographs of full size are sent one after the other,
each in one association; the time runs from the association's release to the arrival of the structured report at the
archive, and `above_scoring` is that time less the report's own. A study is due when its association ends.
`receiving`: objects of full size are sent in one association, each acknowledged after it is on the disk. `steady`: many
small studies; memory, descriptors and threads of every process of the service after each tenth of them. Its spool is in
memory if there is room: a small study makes about 70 syncs, which take the time on a disk and no memory. Objects are
removed soon after their delivery. `idle`: the processor time of all processes while nothing is sent. The modality and
the archive are pynetdicom's, in this process, and share the machine's cores with the service. `kills`, alone: see
`appliancekills`. Needs the extra `appliance`.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from spinescore.benchmarks.appliancekills import MUST_BE_NONE, try_kills
from spinescore.benchmarks.harness.appliance import processes_of, write_config
from spinescore.benchmarks.harness.archive import Archive
from spinescore.benchmarks.harness.child import SPINESCORE, session
from spinescore.benchmarks.harness.environment import memory_bytes, mib
from spinescore.benchmarks.harness.ports import free_port, listens, wait_until
from spinescore.benchmarks.harness.processes import processor_s
from spinescore.benchmarks.harness.record import Command
from spinescore.benchmarks.harness.studies import UIDS, save_under, write_studies

__all__ = ["main"]

SCHEMA = "spinescore.appliance/1"
_WAIT_S = 300.0
_REST_S = 10.0  # in which the service closes its association with the archive
_LOOKS = 10
_MEMORY, _MEMORY_BYTES = Path("/dev/shm"), 2 << 30


class _Service:
    """A running service in a folder, with an archive."""

    def __init__(self, folder: Path, archive: Archive, port: int, process: subprocess.Popen[bytes]) -> None:
        self.folder, self.archive, self._port, self._process = folder, archive, port, process

    def send(self, files: Sequence[Path]) -> tuple[float, float]:
        """Send files in one association; return the seconds of the sending, and the time of its end."""
        from pydicom import dcmread
        from pynetdicom import AE

        objects = [dcmread(path) for path in files]
        entity = AE("MODALITY")
        for ds in objects:
            if all(context.abstract_syntax != ds.SOPClassUID for context in entity.requested_contexts):
                entity.add_requested_context(ds.SOPClassUID, ds.file_meta.TransferSyntaxUID)
        association = entity.associate("127.0.0.1", self._port, ae_title="SPINESCORE")
        started = time.perf_counter()
        statuses = [association.send_c_store(ds).Status for ds in objects]
        seconds = time.perf_counter() - started
        association.release()
        if any(statuses):
            raise RuntimeError(f"the service answered with {statuses}")
        return seconds, time.perf_counter()

    def processes(self) -> dict[str, int]:
        """Return the process ids of the service by role."""
        return {"supervisor": self._process.pid, **processes_of(self._process.pid)}

    def figures(self) -> dict[str, dict[str, float]]:
        """Return resident MiB, descriptors and threads of each process."""
        return {role: _process_figures(pid) for role, pid in self.processes().items()}

    def processor_s(self) -> float:
        """Return the processor time of all processes of the service, in seconds."""
        return sum(map(processor_s, self.processes().values()))


@contextmanager
def _service(
    scratch: Path, name: str, bundle: str, *, quiet_s: float = 0.0, spool: Path | None = None, objects_h: float = 24.0
) -> Iterator[_Service]:
    """Run a service until the block ends; it has opened its bundle when the block begins."""
    folder = scratch / name
    folder.mkdir()
    archive, port = Archive(), free_port()
    config = write_config(folder, port, archive.port, bundle, quiet_s=quiet_s, quiet_complete_s=quiet_s,
                          spool=spool or "spool", objects_h=objects_h)  # fmt: skip
    words = [*SPINESCORE, "serve", "--config", str(config)]
    with closing(archive), session(words) as process:
        service = _Service(folder, archive, port, process)
        [first] = write_studies(folder / "first", 1, seed=77)
        wait_until(lambda: listens(port), "the service listening", _WAIT_S)
        service.send(sorted(first.glob("*.dcm")))
        if not quiet_s:
            archive.wait_for(1, _WAIT_S)  # the bundle is open, and its engine was chosen
        yield service


def _latency(service: _Service, count: int) -> dict[str, Any]:
    """Return the seconds from the last association's end to the report at the archive, and those of the scoring."""
    import json

    from pydicom import dcmread

    total_s, above_s = [], []
    for number in range(count):
        [study] = write_studies(service.folder / f"latency-{number}", 1, seed=5000 + number)
        uid = f"{UIDS}.78.{number}"
        for index, film in enumerate(sorted(study.glob("*.dcm"))):
            save_under(uid, index, dcmread(film), film)
        before = len(service.archive.arrived_s)
        _, ended_s = service.send(sorted(study.glob("*.dcm")))
        service.archive.wait_for(before + 1, _WAIT_S)
        total_s.append(service.archive.arrived_s[uid] - ended_s)
        reports = (service.folder / "spool" / "results").glob("*/report.json")
        newest = max(reports, key=lambda path: path.stat().st_mtime)
        report = json.loads(newest.read_text(encoding="utf-8"))
        above_s.append(total_s[-1] - report["timings_ms"]["total"] / 1e3)
    return {
        "studies": count,
        "received_to_delivered_s": _spread(total_s),
        "above_scoring_s": _spread(above_s),
    }


def _receiving(service: _Service, count: int) -> dict[str, Any]:
    from pydicom import dcmread

    [study] = write_studies(service.folder / "received", 1, seed=6000)
    ds = dcmread(sorted(study.glob("*.dcm"))[-1])
    files = [study / f"copy-{number}.dcm" for number in range(count)]
    for number, path in enumerate(files):
        save_under(f"{UIDS}.79.{number}", 1, ds, path)
    sizes = sum(path.stat().st_size for path in files)
    seconds, _ = service.send(files)
    return {"objects": count, "megabytes": round(sizes / 1e6), "megabytes_per_s": round(sizes / 1e6 / seconds, 1)}


def _steady(service: _Service, count: int) -> dict[str, Any]:
    """Return the figures of every process after each tenth of the studies."""
    before = len(service.archive.arrived_s)
    folders = write_studies(service.folder / "steady", count + 1, seed=7000)[1:]
    looks = []
    for number, folder in enumerate(folders, 1):
        service.send(sorted(folder.glob("*.dcm")))
        if number % max(1, count // _LOOKS) == 0:
            service.archive.wait_for(before + number, _WAIT_S)
            looks.append({"studies": number, **service.figures()})
    return {"studies": count, "delivered": len(service.archive.arrived_s) - before, "after": looks}


def _idle(service: _Service, seconds: float) -> dict[str, Any]:
    time.sleep(_REST_S)
    before = service.processor_s()
    time.sleep(seconds)
    return {"seconds": seconds, "core_percent": round(100 * (service.processor_s() - before) / seconds, 2)}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 1 if the trial by killing lost or doubled something."""
    command = Command("appliance", SCHEMA, __doc__)
    add = command.options.add_argument
    add("--latency", type=int, default=20, metavar="N", help="studies of full size whose way is timed (20)")
    add("--received", type=int, default=40, metavar="N", help="objects of full size in one association (40)")
    add("--studies", type=int, default=1000, metavar="N", help="small studies in a row (1000)")
    add("--idle", type=float, default=60.0, metavar="S", help="seconds in which nothing is sent (60)")
    add("--bundle", default="phantom-reference", metavar="B", help="bundle (phantom-reference)")
    add("--kills", type=int, metavar="N", help="only the trial by killing, with N small studies")
    add("--kill-archive", action="store_true", help="with --kills: kill the archive, too")
    arguments = command.start(argv)
    if arguments.kills:
        with tempfile.TemporaryDirectory(prefix="spinescore-kills-") as name:
            outcome = try_kills(Path(name), arguments.bundle, arguments.kills, archive=arguments.kill_archive)
        command.publish({"kills": outcome})
        return int(any(outcome.get(name) for name in MUST_BE_NONE))
    with tempfile.TemporaryDirectory(prefix="spinescore-appliance-") as name:
        command.publish(_measure(Path(name), arguments))
    return 0


def _measure(scratch: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    if arguments.latency or arguments.idle:
        with _service(scratch, "scoring", arguments.bundle) as service:
            if arguments.latency:
                figures["latency"] = _latency(service, arguments.latency)
            if arguments.idle:
                figures["idle"] = _idle(service, arguments.idle)
    if arguments.studies:
        with (
            _memory_folder() as spool,
            _service(scratch, "steady", arguments.bundle, spool=spool, objects_h=0.0) as service,
        ):
            figures["steady"] = _steady(service, arguments.studies)
    if arguments.received:
        with _service(scratch, "receiving", arguments.bundle, quiet_s=3600.0) as service:
            figures["receiving"] = _receiving(service, arguments.received)
    return figures


@contextmanager
def _memory_folder() -> Iterator[Path | None]:
    """Yield a folder in memory; None if there is no room for one."""
    if not _MEMORY.is_dir() or shutil.disk_usage(_MEMORY).free < _MEMORY_BYTES:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="spinescore-appliance-", dir=_MEMORY) as name:
        yield Path(name)


def _process_figures(pid: int) -> dict[str, float]:
    folder = Path(f"/proc/{pid}")
    return {
        "resident_mib": mib(memory_bytes(folder / "status")["resident_bytes"] or 0),
        "descriptors": len(list((folder / "fd").iterdir())),
        "threads": len(list((folder / "task").iterdir())),
    }


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    return {"p50": round(median(seconds), 3), "min": round(min(seconds), 3), "max": round(max(seconds), 3)}


if __name__ == "__main__":
    raise SystemExit(main())
