"""An appliance that follows an Orthanc, and studies of its own for it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from pydicom import FileDataset, dcmread

from helpers import appliance
from helpers.orthanc_double import OrthancDouble
from spinescore.runtime.appliance.configuration.config import Source, SpoolPart
from spinescore.runtime.appliance.configuration.endpoints import Web
from spinescore.runtime.appliance.receiving.orthancsource import Cursor, OrthancSource


class Followed:
    """An appliance whose source is an Orthanc."""

    def __init__(self, make, orthanc: OrthancDouble, spool: SpoolPart | None = None, **settings) -> None:
        changes = {} if spool is None else {"spool": spool}
        self.one = make(source=(), **changes)
        self.orthanc, self.clock, self.index = orthanc, self.one.clock, self.one.index
        self.table = Source("pacs", "orthanc", web=Web(orthanc.url), **settings)
        self.start()

    def start(self) -> None:
        self.source = OrthancSource(self.table, self.one.spool, self.clock)
        self.one.sources = [self]

    def poll(self) -> None:
        self.source.look()

    def look(self, seconds: float = 1.0) -> list[str]:
        """Look until nothing waits; return the codes of the faults."""
        self.clock.pass_s(seconds)
        codes, waiting = [], 1
        while waiting:
            waiting, faults = self.source.look()
            codes += [fault.code for fault in faults]
            self.messages = [fault.message for fault in faults]
            if faults:
                break
        return codes

    def objects(self) -> int:
        return self.index.one("SELECT count(*) AS n FROM objects")["n"]

    def cursor(self) -> Cursor:
        return Cursor.from_json(self.index.fact("cursor of pacs"))

    def fetched(self) -> int:
        """The files that were asked for since the last call."""
        count = sum(path.endswith("/file") for path in self.orthanc.asked)
        self.orthanc.asked.clear()
        return count


@cache
def drawn() -> list[FileDataset]:
    with TemporaryDirectory() as folder:
        return [dcmread(path) for path in appliance.tiny_files(Path(folder))]


def study(folder: Path, number: int) -> list[Path]:
    """Write the files of a study of its own."""
    paths = [folder / f"{number}-{place}.dcm" for place in (0, 1)]
    for place, (ds, path) in enumerate(zip(drawn(), paths, strict=True)):
        ds.StudyInstanceUID = f"1.2.3.{number}"
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}.{place}"
        ds.save_as(path)
    return paths
