"""A small archive of tiny studies, and ways to score it without the processes of a crew."""

from __future__ import annotations

import hashlib
import random
import shutil
from pathlib import Path

import pydicom

from helpers import dicom_files, tiny_study
from spinescore.runtime.archive.layout import Places
from spinescore.runtime.archive.local import Outcome
from spinescore.runtime.archive.manifest import make_manifest
from spinescore.runtime.archive.run import score_archive
from spinescore.runtime.archive.scoring import Request, read_entry, rows_of_entry
from spinescore.runtime.archive.workerprocess import ready_facts
from spinescore.runtime.followup.archivefiles import read_rows, table_files

UID = "1.2.840.99"


def write_archive(folder: Path, count: int, small: bool = True) -> list[str]:
    """Write `count` studies of one tiny picture each, with two in each folder; return their UIDs in order.

    A `small` picture is too small to be scored, which is quick; other studies have both regions of `tiny_study`.
    """
    uids = [f"{UID}.{1000 + number}" for number in range(count)]
    if not small:
        template = tiny_study.write_study(folder / ".template")
    for number, uid in enumerate(uids):
        place = folder / f"{number // 2:03}"
        place.mkdir(parents=True, exist_ok=True)
        for region in ("lumbar",) if small else ("cervical", "lumbar"):
            if small:
                pixels = dicom_files.picture(rows=16, columns=16)
                ds = dicom_files.radiograph_dataset(pixels)
            else:
                ds = pydicom.dcmread(template / f"{region}.dcm")
            ds.StudyInstanceUID, ds.SOPInstanceUID = uid, f"{uid}.{len(region)}"
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
            ds.PatientID, ds.StudyDate = f"patient {number % 3}", f"2020{1 + number % 12:02}05"
            dicom_files.write(ds, place / f"{number}-{region}.dcm")
    if not small:
        shutil.rmtree(template)
    return uids


def request_of(source: Path, bundle: Path | str, **changes) -> Request:
    """A request for the CPU's own engine."""
    options = {
        "device": "cpu", "engine": None, "precision": None, "localizer": None, "max_imputed": 3, "unaccepted": False,
        "build": "no", "threads": None, "strict": False, "identifiers": False, "base": str(source),
    }  # fmt: skip
    return Request(bundle=str(bundle), **{**options, **changes})


class Inline:
    """Scores in this process, in a shuffled order if there is a seed; `code` may give a code in place of rows."""

    def __init__(self, scorer, seed: int | None = None, code=lambda entry: None, most: int | None = None) -> None:
        self.scorer, self.seed, self.code, self.most = scorer, seed, code, most
        self.scored: list[str | None] = []

    def facts(self):
        return {}

    def outcomes(self, tasks, total, opened, request):
        request = opened(ready_facts(self.scorer))
        tasks = list(tasks)[: self.most]
        if self.seed is not None:
            random.Random(self.seed).shuffle(tasks)
        for task in tasks:
            if (code := self.code(task.entry)) is not None:
                yield Outcome(task, [], code, "SIGKILL")
                continue
            self.scored.append(task.entry.study)
            study = read_entry(task.entry, request.base)
            rows, unwritten = rows_of_entry(task.entry, study, self.scorer, request, task.out)
            yield Outcome(task, rows, message=unwritten)


def run(tables: Path, source: Path, way, shard_studies: int = 4, since=None, **options) -> Places:
    """List the studies of a folder, score them and write their tables."""
    places, said = Places(tables), []
    kinds = {name: options.pop(name) for name in ("part", "retry") if name in options}
    make_manifest(places, "folder", str(source), shard_studies, said.append, since)
    request = request_of(source, "bundle", **options)
    score_archive(places, request, way, said.append, **kinds)
    return places


def rows(tables: Path) -> list[dict]:
    """The rows of all tables."""
    return [row for path in table_files(tables) for row in read_rows(path)]


def digest(tables: Path) -> dict[str, str]:
    """The hash of each file of tables, and of the document about all."""
    files = [*table_files(tables), tables / "archive.json", tables / "columns.csv"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
