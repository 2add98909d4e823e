"""The spool: received objects on the disk, each stored once under its content's hash, and in the index."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Literal

from spinescore.runtime import durable
from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.fault import Fault, Refused
from spinescore.runtime.appliance.seen import audit
from spinescore.runtime.appliance.store.counts import add
from spinescore.runtime.appliance.store.index import Index, IndexFull
from spinescore.runtime.appliance.store.objects import Identity, read_identity
from spinescore.runtime.appliance.store.past import FINISHED, past_content
from spinescore.runtime.appliance.store.places import FULL, UNWRITABLE, Places, new_part
from spinescore.runtime.appliance.store.quarantine import note_quarantined
from spinescore.runtime.appliance.store.studies import note_object
from spinescore.runtime.files import file_sha256

__all__ = ["Association", "Received", "Spool"]

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Received:
    """The outcome of receiving an object; in each case the sender need not keep it.

    `stored` is new. `known` was here already. `quarantined` has the SOP Instance UID of another object: it is kept
    apart and not scored. `study` is the study's number, None if the object is no input of scoring.
    """

    status: Literal["stored", "known", "quarantined"]
    sha256: str
    study: int | None
    fault: Fault | None = None


@dataclass
class Association:
    """One delivery of objects by a source. While it is open its studies wait, as more may come."""

    source: str
    peer: str | None = None  # its AE title, for the audit log
    number: int | None = None  # its row, made with its first object


class Spool:
    """Takes objects in. Each process, and each thread, of a source has its own `Spool` and `Index`."""

    def __init__(self, places: Places, index: Index, clock: Clock, max_object_bytes: int) -> None:
        self.places, self.index, self._clock, self._max_bytes = places, index, clock, max_object_bytes
        self._late: SimpleQueue[Association] = SimpleQueue()  # whose end could not be noted

    @contextmanager
    def association(self, source: str) -> Iterator[Association]:
        """Hold the studies of all objects that are received with this association until the block ends."""
        self.end_late(self._late)
        association = Association(source)
        try:
            yield association
        finally:
            self._late.put(association)
            self.end_late(self._late)

    def end_late(self, late: SimpleQueue[Association]) -> None:
        """Note ends that could not be noted in time, as the disk was full. Raises `IndexFull` if it still is."""
        while not late.empty():
            association = late.get()
            try:
                self.end(association)
            except BaseException:
                late.put(association)
                raise

    def end(self, association: Association) -> None:
        if association.number is not None:
            with self.index.transaction():
                self.index.change("UPDATE associations SET closed_s = ? WHERE id = ?", self._clock.now(),
                                  association.number)  # fmt: skip

    def close_associations(self, source: str) -> None:
        """Close the associations that an earlier process of this source left open."""
        with self.index.transaction():
            self.index.change("UPDATE associations SET closed_s = ? WHERE source = ? AND closed_s IS NULL",
                              self._clock.now(), source)  # fmt: skip

    def receive(
        self,
        content: Iterable[Buffer],
        association: Association | None = None,
        *,
        along: Callable[[], object] | None = None,
    ) -> Received:
        """Take in one object, a whole DICOM file in parts, and return when it cannot be lost any more.

        `along` is called in the transaction that notes a new object, for what is to be kept together with it.

        Acknowledge the object after this call, never before. Raises Refused with a fault (`no-space`, `too-large`,
        `not-dicom`, `no-uid`, `spool-unwritable`), and then nothing of the object is left here; so, too, for any other
        exception.
        """
        if not self.places.has_room():
            raise self._no_space()
        part = new_part(self.places.incoming, ".part")
        try:
            sha256, size = self._write(part, content)
            return self._keep(part, sha256, size, read_identity(part), association, along)
        except OSError as error:
            if error.errno in FULL:
                raise self._no_space() from None
            if error.errno in UNWRITABLE:
                text = f"the spool {self.places.root} cannot be written ({error.strerror})"
                raise Refused(Fault("spool-unwritable", f"{text}; correct that, and send the object again")) from None
            raise
        except IndexFull as error:
            raise Refused(Fault(error.code, str(error))) from None
        finally:
            part.unlink(missing_ok=True)

    def _no_space(self) -> Refused:
        text = f"the spool {self.places.root} has less free space than its reserve; free space there, and send it again"
        return Refused(Fault("no-space", text))

    def _write(self, part: Path, content: Iterable[Buffer]) -> tuple[str, int]:
        """Write an object to the disk; return the hash and the size of its content."""
        digest, size = hashlib.sha256(), 0
        with part.open("xb") as file:
            for piece in content:
                size += len(piece)
                if size > self._max_bytes:
                    limit = f"the limit of {self._max_bytes >> 20} MiB (spool.max_object_mb)"
                    raise Refused(Fault("too-large", f"the object is larger than {limit}; export it again"))
                if not self.places.has_room(len(piece)):
                    raise self._no_space()
                digest.update(piece)
                file.write(piece)
        durable.sync(part)
        return digest.hexdigest(), size

    def _keep(
        self,
        part: Path,
        sha256: str,
        size: int,
        identity: Identity,
        association: Association | None,
        along: Callable[[], object] | None,
    ) -> Received:
        if self._namesake(identity, sha256):
            return self._quarantine(part, sha256, identity, association)
        row = self.index.one("SELECT study FROM objects WHERE sha256 = ?", sha256)
        if row is not None and (not self._is_needed(row["study"]) or self._is_whole(sha256)):
            return Received("known", sha256, row["study"])
        if row is None and past_content(self.index, identity.sop_instance_uid, sha256) and not self._is_open(identity):
            return Received("known", sha256, None)
        target, number, study = self.places.object(sha256), None, None
        durable.make_folder(target.parent)
        try:
            # The file gets its place while the index is locked: no other process that has the same object, or removes
            # old ones, is between the file and its row then.
            with self.index.transaction():
                is_other = self._namesake(identity, sha256)  # another process received it meanwhile
                if not is_other:
                    durable.move(part, target)
                    number = self._note_association(association)
                    study = note_object(self.index, self._clock, identity, sha256, size, number)
                    self._audit("received", association, identity, sha256, bytes=size, study=study, code=identity.code)
                    if along is not None:
                        along()
        except BaseException:
            self._take_back(target, "objects WHERE sha256 = ? AND removed = 0", sha256)
            raise
        if is_other:
            return self._quarantine(part, sha256, identity, association)
        if association is not None:
            association.number = number
        return Received("stored", sha256, study)

    def _take_back(self, target: Path, row: str, sha256: str) -> None:
        """Remove a file without its row. If the index cannot be locked, the next start of the service indexes it."""
        with suppress(IndexFull), self.index.transaction():
            if self.index.one(f"SELECT 1 FROM {row}", sha256) is None:
                target.unlink(missing_ok=True)

    def _namesake(self, identity: Identity, sha256: str) -> bool:
        """Return whether an object with the same SOP Instance UID and other content is here."""
        query = "SELECT 1 FROM objects WHERE sop_instance_uid = ? AND sha256 != ?"
        if self.index.one(query, identity.sop_instance_uid, sha256) is not None:
            return True
        return past_content(self.index, identity.sop_instance_uid, sha256) is False

    def _is_whole(self, sha256: str) -> bool:
        """Return whether an object's file is here and as it was: one that is gone or damaged is replaced."""
        path = self.places.object(sha256)
        return path.is_file() and file_sha256(path) == sha256

    def _is_needed(self, study: int | None) -> bool:
        """Return whether a study is not finished, so that the files of its objects are needed."""
        query = f"SELECT 1 FROM studies WHERE id = ? AND state NOT IN {FINISHED}"
        return study is not None and self.index.one(query, study) is not None

    def _is_open(self, identity: Identity) -> bool:
        """Return whether the object's study is here again, with a late image, and not finished."""
        row = self.index.one("SELECT id FROM studies WHERE uid = ?", identity.study_uid)
        return row is not None and self._is_needed(row["id"])

    def _note_association(self, association: Association | None) -> int | None:
        if association is None:
            return None
        now = self._clock.now()
        if association.number is None:
            return self.index.insert("associations", source=association.source, last_s=now)
        self.index.change("UPDATE associations SET last_s = ? WHERE id = ?", now, association.number)
        return association.number

    def _audit(
        self, event: str, association: Association | None, identity: Identity, sha256: str, **more: object
    ) -> None:
        source, peer = (None, None) if association is None else (association.source, association.peer)
        audit.note(self.index, self._clock, event, sha256=sha256, sop_instance_uid=identity.sop_instance_uid,
                   study_instance_uid=identity.study_uid, source=source, peer=peer, **more)  # fmt: skip

    def _quarantine(self, file: Path, sha256: str, identity: Identity, association: Association | None) -> Received:
        """Keep an object apart whose SOP Instance UID stands for other content.

        The file gets its place while the index is locked, as old ones are removed there.
        """
        text = (
            f"an object has the SOP Instance UID of another one and other content; it is kept in quarantine/ as "
            f"{sha256}.dcm and not scored: compare the two, and correct the one that is wrong at its source"
        )
        fault = Fault("quarantined", text)
        target = self.places.quarantined(sha256)
        try:
            with self.index.transaction():
                durable.move(file, target)
                if note_quarantined(self.index, self._clock, sha256, identity.sop_instance_uid):
                    add(self.index, "quarantined_instances")
                    self.index.note_fault(self._clock.date(), fault)
                    self._audit("quarantined", association, identity, sha256)
        except BaseException:
            self._take_back(target, "quarantine WHERE sha256 = ?", sha256)
            raise
        return Received("quarantined", sha256, None, fault)
