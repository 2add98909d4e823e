"""A program that ends a source of Orthanc before each of its lines, starts it again, and looks at the outcome.

    python -m helpers.appliance_orthanc_crashes FOLDER STEP

The lines are those of following the list of changes and of the spool, in the order in which they are run. With STEP 1
every line is an end, with 2 every second one. It prints one JSON object: the number of ends, and what was wrong after
which one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

from helpers.appliance import FakeClock, tiny_files
from helpers.appliance_crashes import ENDED, forked
from helpers.orthanc_double import OrthancDouble
from spinescore.runtime.appliance.configuration.config import Source
from spinescore.runtime.appliance.configuration.endpoints import Web
from spinescore.runtime.appliance.receiving import orthancsource
from spinescore.runtime.appliance.recovery import recover
from spinescore.runtime.appliance.store import spool
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.places import make_places

TRACED = {str(Path(str(module.__file__))) for module in (orthancsource, spool)}
CT = "1.2.840.10008.5.1.4.1.1.2"


def end_before(number: int) -> None:
    """End this process, without any cleaning up, before it runs the line with this number."""
    left = number

    def local(frame, event, argument):
        nonlocal left
        if event == "line":
            left -= 1
            if left == 0:
                os._exit(ENDED)
        return local

    sys.settrace(lambda frame, event, argument: local if frame.f_code.co_filename in TRACED else None)


def follow(root: Path, url: str, number: int) -> int:
    """Start, look until nothing waits, and return 0; with `number` end before that line."""
    clock = FakeClock(1000.0)
    places = make_places(root / "spool", 0)
    index = Index(places.index, places.release_reserve)
    recover(places, index, clock)
    taking = spool.Spool(places, index, clock, 1 << 24)
    taking.close_associations("pacs")
    source = orthancsource.OrthancSource(Source("pacs", "orthanc", web=Web(url)), taking, clock)
    if number:
        end_before(number)
    waiting = 1
    while waiting:
        waiting, faults = source.look()
        assert not faults, faults
    sys.settrace(None)
    return 0


def outcome(root: Path, double: OrthancDouble, wanted: set[str]) -> list[str]:
    """What is wrong after all is done."""
    places, faults = make_places(root / "spool", 0), []
    index = Index(places.index)
    if {path.stem for path in places.objects.glob("*/*")} != wanted:
        faults.append("the objects on the disk are not those of Orthanc")
    if {row["sha256"] for row in index.rows("SELECT sha256 FROM objects")} != wanted:
        faults.append("the objects in the index are not those of Orthanc")
    if [path.name for path in places.incoming.iterdir()] or list(places.quarantine.iterdir()):
        faults.append("a part is left, or an object is in quarantine")
    studies = [tuple(row) for row in index.rows("SELECT uid, revision, state FROM studies")]
    if studies != [("1.2.3.4", 1, "collecting")]:
        faults.append(f"the studies are {studies}")
    if index.rows("SELECT 1 FROM associations WHERE closed_s IS NULL"):
        faults.append("an association is open")
    if orthancsource.Cursor.from_json(index.fact("cursor of pacs")).seq != double.last:
        faults.append("the cursor is not at the end of the list")
    index.close()
    return faults


def main(folder: Path, step: int) -> None:
    files = tiny_files(folder / "study")
    os.umask(0o077)
    wrong: dict[int, object] = {}
    number, ends, status = 0, 0, ENDED
    with OrthancDouble() as double:
        other = folder / "other.dcm"
        other.write_bytes(files[0].read_bytes() + b"other")
        for path, sop_class in ((files[0], None), (other, CT), (files[1], None)):
            double.store(path, sop_class)
        double.settle()
        wanted = {hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        while status == ENDED:
            number += step
            root = folder / f"crash-{number}"
            root.mkdir()
            status = forked(lambda: follow(root, double.url, number))  # noqa: B023  # it ends within this turn
            ends += status == ENDED
            again = forked(lambda: follow(root, double.url, 0))  # noqa: B023
            faults = outcome(root, double, wanted)
            if again or status not in (0, ENDED) or faults:
                wrong[number] = [status, again, faults]
            shutil.rmtree(root)
    print(json.dumps({"ends": ends, "wrong": wrong}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
