"""The queue of the worker: which study is scored next, and what the index keeps of its results or its failure."""

from __future__ import annotations

import json
import shutil
import sqlite3

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.configuration.config import Config, Destination
from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.seen import audit
from spinescore.runtime.appliance.store.counts import observe
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.places import Places
from spinescore.runtime.appliance.store.resultset import SET, Document, Job, JobObject, ResultSet, read_results
from spinescore.runtime.appliance.store.reviews import corrections_left, corrections_of
from spinescore.runtime.appliance.store.studies import advance, change_state, input_key, park, settle
from spinescore.runtime.appliance.store.summaries import keep_summary, read_summary
from spinescore.runtime.documents import document_of, read
from spinescore.runtime.files import file_sha256
from spinescore.runtime.outputs.formats import FORMATS

__all__ = ["ScoreQueue"]

_MOST_ATTEMPTS = 2

File = tuple[str, str, str, "str | None", "Fault | None"]  # name, kind, hash, SOP Instance UID, why it was not made


class ScoreQueue:
    """Hands out one study at a time. `bundle_sha256` is the hash of the bundle that scores."""

    def __init__(self, config: Config, places: Places, index: Index, clock: Clock, bundle_sha256: str) -> None:
        self._config, self._places, self._index, self._clock = config, places, index, clock
        self._bundle_sha256 = bundle_sha256

    def advance(self) -> None:
        advance(self._index, self._clock, self._config.study)

    def take(self) -> tuple[Job, bool] | None:
        """Return the next due study as a job, which is `scoring` then, and whether its results are there already.

        Returns None if none is due. Studies whose scoring was interrupted by the end of the service come last, so that
        a study that ends the service does not hold up the others.
        """
        while True:
            row = self._index.one(
                "SELECT * FROM studies WHERE state = 'due' ORDER BY interruptions, attempts, changed_s, id LIMIT 1"
            )
            if row is None:
                return None
            job = self._job(row)
            with self._index.transaction():
                taken = self._index.change(
                    "UPDATE studies SET state = 'scoring', input_key = ?, changed_s = ? WHERE id = ? AND "
                    "state = 'due' AND revision = ? AND last_s = ?",
                    job.input_key, self._clock.now(), row["id"], row["revision"], row["last_s"],
                )  # fmt: skip
            if taken:  # or else an object arrived meanwhile
                return job, self._has_results(job.input_key)

    def _has_results(self, key: str) -> bool:
        """Return whether results are there. Those that no index has were sent nowhere: damaged ones are made again."""
        folder = self._places.results / key
        if self._index.one("SELECT 1 FROM results WHERE input_key = ?", key) is not None:
            return True
        if not folder.exists():
            return False
        try:
            read_results(folder)
            return True
        except (OSError, ValueError):
            shutil.rmtree(folder)
            return False

    def _job(self, study: sqlite3.Row) -> Job:
        objects = self._index.rows(
            "SELECT sha256, sop_instance_uid FROM objects WHERE study = ? ORDER BY sop_instance_uid", study["id"]
        )
        formats = self._config.formats
        settings = {"strict": self._config.score.strict, "formats": list(formats)}
        corrections = corrections_of(self._index, study["id"], study["revision"])
        left = corrections_left(self._index, study["id"], study["revision"])
        settings |= {"corrections": document_of(corrections)} if corrections else {}
        settings |= {"left": document_of(left)} if left else {}
        key = input_key(self._bundle_sha256, settings, [(one["sop_instance_uid"], one["sha256"]) for one in objects])
        before, folder = self._predecessor(study["id"], key)
        return Job(
            study["id"], study["uid"], study["revision"], key,
            tuple(JobObject(one["sha256"], str(self._places.object(one["sha256"]))) for one in objects),
            formats, before, folder, str(self._places.results), str(self._places.incoming),
            corrections, left, self._seen(study) if corrections else None,
        )  # fmt: skip

    def _seen(self, study: sqlite3.Row) -> str | None:
        row = self._index.one(
            "SELECT r.input_key FROM reviews v JOIN results r ON r.study = v.study AND r.revision = v.base WHERE "
            "v.study = ? AND v.revision = ? AND v.correction IS NOT NULL", study["id"], study["revision"],
        )  # fmt: skip
        return None if row is None else str(self._places.results / row["input_key"] / FORMATS["json"].file)

    def _predecessor(self, study: int, key: str) -> tuple[Document | None, str | None]:
        """Return the newest earlier structured report of a study that was sent, or may have been, and its folder."""
        row = self._index.one(
            "SELECT r.input_key, r.document FROM results r WHERE r.study = ? AND r.input_key != ? AND "
            "r.document IS NOT NULL AND EXISTS (SELECT 1 FROM deliveries d WHERE "
            "d.input_key = r.input_key AND d.kind = 'sr' AND (d.state IN "
            "('sending', 'sent', 'committing', 'committed') OR d.unclear = 1)) ORDER BY r.revision DESC LIMIT 1",
            study, key,
        )  # fmt: skip
        if row is None:
            return None, None
        return read(Document, json.loads(row["document"])), str(self._places.results / row["input_key"])

    def finished(self, job: Job, engine: str = "", *, scoring_s: float | None = None) -> None:
        """Keep the results of a job, whose folder is there, and plan their deliveries.

        `engine` made them, in `scoring_s` seconds if that was now.
        """
        now, at = self._clock.now(), self._clock.date().isoformat(timespec="seconds")
        folder = self._places.results / job.input_key
        is_new = self._index.one("SELECT 1 FROM results WHERE input_key = ?", job.input_key) is None
        results = read_results(folder) if is_new else None
        summary = read_summary(folder) if is_new else {}
        with self._index.transaction():
            if results is not None:
                document = None if results.document is None else json.dumps(document_of(results.document))
                self._index.insert("results", input_key=job.input_key, study=job.study, revision=results.revision,
                                   scored=int(results.scored), code=results.code, document=document, made_s=now,
                                   made_at=at)  # fmt: skip
                keep_summary(self._index, job.input_key, summary)
                if scoring_s is not None:
                    observe(self._index, "scoring_seconds", scoring_s)
                reports = [file.sha256 for file in results.files if file.kind == "json"]
                audit.note(self._index, self._clock, "scored", study=job.study, revision=results.revision,
                           input_key=job.input_key, report_sha256=reports[0] if reports else None, engine=engine,
                           code=results.code)  # fmt: skip
            row = self._index.one("SELECT state, input_key FROM studies WHERE id = ?", job.study)
            if row["state"] != "scoring" or row["input_key"] != job.input_key:
                return  # a later image arrived meanwhile: this revision is kept and not delivered
            fault = None if self._config.score.shadow else self._plan(job, results, now)
            if fault is None:
                settle(self._index, self._clock, job.study)
            else:
                park(self._index, self._clock, job.study, fault)

    def _plan(self, job: Job, results: ResultSet | None, now: float) -> Fault | None:
        """Plan the deliveries of new results; those of earlier results that were cancelled are planned again.

        Returns why the study was not scored if a destination wants to know, and no file can tell any of them.
        """
        state = "held" if self._is_held(job) else "waiting"
        if results is None:
            self._index.change("UPDATE deliveries SET state = ?, next_s = ?, changed_s = ? WHERE "
                               "input_key = ? AND state = 'cancelled'", state, now, now, job.input_key)  # fmt: skip
            return None
        planned = 0
        for destination in self._config.destination:
            if not results.scored and "not-scored" not in destination.gets:
                continue
            for file in _files_for(results, destination):
                self._deliver(job, destination, file, now, state)
                planned += 1
            if destination.kind == "folder":
                sha256 = file_sha256(self._places.results / job.input_key / SET)
                self._deliver(job, destination, (SET, "set", sha256, None, None), now, state)
        is_asked_for = any("not-scored" in destination.gets for destination in self._config.destination)
        if not planned and not results.scored and is_asked_for and results.code is not None:
            return Fault(results.code, results.message or results.code)
        return None

    def _is_held(self, job: Job) -> bool:
        """Return whether results wait for a reader: they are delivered after a verdict on them."""
        if not self._config.score.hold_for_review:
            return False
        query = "SELECT 1 FROM reviews WHERE study = ? AND revision = ?"
        return self._index.one(query, job.study, job.revision) is None

    def _deliver(self, job: Job, destination: Destination, file: File, now: float, state: str) -> None:
        name, kind, sha256, uid, fault = file
        sent = uid is not None and self._index.one(
            "SELECT 1 FROM deliveries WHERE destination = ? AND sop_instance_uid = ? AND attempts > 0",
            destination.name, uid,
        )  # fmt: skip
        self._index.insert(
            "deliveries", input_key=job.input_key, file=name, kind=kind, sha256=sha256, sop_instance_uid=uid,
            destination=destination.name, state=state if fault is None else "parked",
            unclear=int(bool(sent)), attempts=0, first_s=now, next_s=now, changed_s=now, code=fault and fault.code,
            message=fault and fault.message,
        )  # fmt: skip

    def failed(self, job: Job, fault: Fault, *, again: bool) -> None:
        """Note that a job failed. With `again` it is tried once more before the study is parked."""
        with self._index.transaction():
            row = self._index.one("SELECT state, input_key, attempts FROM studies WHERE id = ?", job.study)
            if row["state"] != "scoring" or row["input_key"] != job.input_key:
                return
            if again and row["attempts"] + 1 < _MOST_ATTEMPTS:
                self._index.change(
                    "UPDATE studies SET state = 'due', attempts = attempts + 1, changed_s = ? WHERE id = ?",
                    self._clock.now(), job.study,
                )  # fmt: skip
                self._index.note_fault(self._clock.date(), fault, job.study)
            else:
                park(self._index, self._clock, job.study, fault)

    def give_back(self, job: Job) -> None:
        """Make a job's study due again, without counting that as an attempt."""
        with self._index.transaction():
            row = self._index.one("SELECT state, input_key FROM studies WHERE id = ?", job.study)
            if row["state"] == "scoring" and row["input_key"] == job.input_key:
                change_state(self._index, self._clock, job.study, "due")


def _files_for(results: ResultSet, destination: Destination) -> list[File]:
    """Return the files that a destination gets; a format that could not be made is parked from the start."""
    kinds = destination.gets
    files: list[File] = [
        (file.name, file.kind, file.sha256, file.sop_instance_uid, None)
        for file in results.files
        if file.kind in kinds and (file.sop_instance_uid or destination.kind == "folder")
    ]
    files += [
        (kind, kind, "", None, Fault("output", message)) for kind, message in results.not_made.items() if kind in kinds
    ]
    return files
