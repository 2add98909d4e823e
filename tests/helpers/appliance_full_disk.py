"""A program that fills the disk of an appliance and frees it again.

    python -m helpers.appliance_full_disk DISK BUNDLE

DISK is a small file system of its own. It raises if anything is not as it should be, and prints `done`.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from helpers.appliance import Appliance, config_of, tiny_files
from spinescore.runtime.appliance.configuration.config import SpoolPart
from spinescore.runtime.appliance.fault import Refused
from spinescore.runtime.appliance.store.index import IndexFull
from spinescore.runtime.scorer import Scorer


def fill(disk: Path, left: int) -> Path:
    """Write a file that leaves so many bytes free."""
    filler = disk / "filler"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    filler.write_bytes(b"\1" * (free - left))
    return filler


def refused(appliance: Appliance, path: Path) -> str:
    try:
        appliance.receive(path)
    except Refused as error:
        return error.fault.code
    return "taken in"


def main(disk: Path, bundle: Path) -> None:
    os.umask(0o077)
    files = tiny_files(bundle.parent / "of-full-disk")
    with Scorer.open(bundle, "cpu", build="no") as scorer:
        config = config_of(disk, bundle, spool=SpoolPart(str(disk / "spool"), reserve_gb=0.0))
        appliance = Appliance(config, scorer.score)
        filler = fill(disk, left=400_000)  # half an object
        appliance.places.has_room = lambda byte_count=0: True  # only the disk itself can say that it is full
        assert refused(appliance, files[0]) == "no-space"
        assert not list(appliance.places.incoming.iterdir())
        assert not list(appliance.places.objects.glob("*/*"))
        assert appliance.states() == {}
        filler.unlink()
        appliance.receive(*files)
        filler = fill(disk, left=4096)
        for _ in range(10):
            with suppress(IndexFull):
                appliance.step()
            appliance.clock.pass_s(1.0)
        assert appliance.delivered() == {}
        assert appliance.study()["state"] in ("collecting", "due", "scoring"), appliance.states()
        filler.unlink()
        appliance.run(30)
        assert appliance.study()["state"] == "delivered", appliance.states()
        assert appliance.delivered() == {"revision-1": ["report.json", "set.json", "sr.dcm"]}
        assert not list(appliance.places.incoming.iterdir())
    print("done")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
