"""A program that ends an appliance before each of its steps on the disk, starts it again, and looks at the outcome.

    python -m helpers.appliance_crashes FOLDER BUNDLE REPORT

A step is an fsync, a rename, a removal, or a commit of the index. It prints one JSON object: the number of steps, and
what was wrong after which one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from helpers.appliance import OUT, Appliance, FakeClock, config_of, tiny_files
from spinescore.runtime.appliance.seen.audit import read_head
from spinescore.runtime.appliance.seen.auditcheck import Flaw, check
from spinescore.runtime.appliance.store import index
from spinescore.runtime.scoring.report import StudyReport

ENDED = 9
TURN = "turn"
FILES = ["report.json", "set.json", "sr.dcm"]


def end_before(number: int) -> None:
    """End this process, without any cleaning up, before the step with this number."""
    left = number

    def counted(step):
        def counting(*arguments, **more):
            nonlocal left
            left -= 1
            if left == 0:
                os._exit(ENDED)
            return step(*arguments, **more)

        return counting

    os.fsync, os.replace, os.unlink = counted(os.fsync), counted(os.replace), counted(os.unlink)
    index.commit = counted(index.commit)


def outcome(appliance: Appliance) -> list[str]:
    """Return a sentence for each fault that is left after all work is done."""
    faults = []
    places, out = appliance.places, appliance.root / OUT
    if appliance.delivered() != {"revision-1": FILES}:
        faults.append(f"delivered: {appliance.delivered()}, states {appliance.states()}")
    if [path.name for path in places.incoming.iterdir()] or list((out / ".spinescore-parts").glob("*")):
        faults.append("a part is left")
    if len(list(places.objects.glob("*/*"))) != 2 or list(places.quarantine.iterdir()):
        faults.append("the objects are not the two that were sent")
    if list((appliance.root / "inbox").iterdir()):
        faults.append("a file is left in the source")
    rows = appliance.index.rows("SELECT file, sha256, state FROM deliveries")
    if sorted(row["file"] for row in rows) != FILES or {row["state"] for row in rows} != {"sent"}:
        faults.append(f"deliveries: {[tuple(row) for row in rows]}")
    for row in rows:
        path = out / "1.2.3.4" / "revision-1" / row["file"]
        if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() != row["sha256"]:
            faults.append(f"{row['file']} is not what was to be sent")
    if appliance.index.one("SELECT count(*) FROM results")[0] != 1 or len(list(places.results.iterdir())) != 1:
        faults.append("there is not one set of results")
    flaw = check(places.root, read_head(appliance.index))
    if isinstance(flaw, Flaw):
        faults.append(f"the audit log: {flaw}")
    return faults


def forked(work) -> int:
    """Do something in a process of its own; return its exit status."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(work() or 0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def try_each_step(folder: Path, prepare: Callable[[Path], object], run: Callable[[Path, int], int]) -> None:
    """End `run(root, number)` before each step in turn, and start `run(root, 0)` after it; print what was wrong.

    `prepare` makes `root` for each turn; it is always `folder / TURN`.
    """
    wrong, number, status, root = {}, 0, ENDED, folder / TURN
    while status == ENDED:
        number += 1
        prepare(root)
        status = forked(lambda: run(root, number))  # noqa: B023  # it ends within this turn
        again = forked(lambda: run(root, 0))
        if again or status not in (0, ENDED):
            wrong[number] = [status, again]
        shutil.rmtree(root)
    print(json.dumps({"steps": number - 1, "wrong": wrong}))


def main(folder: Path, bundle: Path, report: Path) -> None:
    ready = StudyReport.from_json(report.read_text(encoding="utf-8"))
    files = tiny_files(folder / "study")
    os.umask(0o077)

    def run(root: Path, number: int) -> int:
        if number:
            end_before(number)
        appliance = Appliance(config_of(root, bundle), lambda study: ready, FakeClock(1000.0 if number else 1100.0))
        appliance.run(20)
        return 0 if number else look(appliance)

    def look(appliance: Appliance) -> int:
        faults = outcome(appliance)
        for fault in faults:
            print(fault, file=sys.stderr)
        return 2 * bool(faults)

    def prepare(root: Path) -> None:
        (root / "inbox").mkdir(parents=True)
        for path in files:
            shutil.copy(path, root / "inbox")

    try_each_step(folder, prepare, run)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
