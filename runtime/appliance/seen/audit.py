"""The audit log: `audit/<year>-<month>.jsonl` in the spool, one JSON object a line, each with the hash of the last one.

`n` counts the records, `at` is the date, `event` says what happened, and `previous` is the SHA-256 of the line before,
also across the files of two months. Lines are appended and never changed. A record is written within a transaction of
the index, whose lock lets one process write at a time, and is on the disk before that transaction ends. The
transaction also keeps the head: number, hash, file and end of the last record.

A process may be killed between its record and the end of the transaction, or in the middle of the line. Then the file
is longer than the head says. The next writer ends the line, and writes a record `repaired` before its own: `torn` has
hash and length of each line that is no record, and `not_committed` the numbers of records whose event did not happen.
If the file is shorter than the head says, the record `altered` says so, and the gap in the numbers stays.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import socket
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from spinescore.runtime import durable
from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.store.index import Index, IndexFull
from spinescore.runtime.appliance.store.places import FULL
from spinescore.runtime.documents import document_sha256
from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.fields import OPTIONAL
from spinescore.runtime.machine.packages import software_version

__all__ = ["FIRST", "FOLDER", "Audit", "AuditNotWritten", "Head", "files_of", "note", "operator", "read_head",
           "record_of", "start", "stop"]  # fmt: skip

FOLDER = "audit"
FIRST = "0" * 64  # the hash before the first record
_SYSLOG, _PRIORITY = "/dev/log", 10 * 8 + 6  # authpriv, informational (RFC 3164)
_FILE = re.compile(r"\d{4}-\d\d\.jsonl")
_HEAD, _SETTINGS = "audit_head", "audit_settings"
_CHANGEABLE = ("configuration", "bundle")


@dataclass(frozen=True)
class Audit:
    """How the audit log is written. Without `patient_ids` it has the SHA-256 of each UID in the place of the UID."""

    patient_ids: Annotated[bool, OPTIONAL] = False
    syslog: Annotated[bool, OPTIONAL] = False  # a copy of each record goes to /dev/log


class AuditNotWritten(IndexFull):
    """The audit log cannot be written, so that nothing may happen that belongs in it."""

    code = "audit-not-written"


@dataclass(frozen=True)
class Head:
    """The last record of a log: its number, the hash of its line, its file, and the length of the file up to there."""

    n: int = 0
    sha256: str = FIRST
    file: str = ""
    end: int = 0


def note(index: Index, clock: Clock, event: str, **fields: object) -> None:
    """Append a record within a transaction of the index; it is on the disk when this returns.

    A field whose name ends with `_uid` is hashed unless the settings allow it. Raises AuditNotWritten, or `OSError`
    for a full disk, which the transaction turns into IndexFull.
    """
    settings = Audit(**json.loads(index.fact(_SETTINGS) or "{}"))
    fields = {name: value for name, value in fields.items() if value not in (None, "")}
    if not settings.patient_ids:
        fields = dict(_hashed(name, value) for name, value in fields.items())
    folder = index.folder / FOLDER
    try:
        durable.make_folder(folder)
        log = _Log(folder, read_head(index) or _last_head(folder), clock.date())
        is_lost = log.head.n > 0 and index.fact(_HEAD) is None
        fault = log.mend()
        if fault is not None:
            index.note_fault(clock.date(), fault)
        if is_lost:
            log.add("head-lost", {})
        log.add(event, fields)
        log.write()
    except OSError as error:
        if error.errno in FULL:
            raise
        text = f"the audit log in {folder} cannot be written ({error.strerror}); make it writable"
        raise AuditNotWritten(text) from error
    index.keep(_HEAD, json.dumps(asdict(log.head)))
    if settings.syslog:
        for line in log.lines:
            _send_to_syslog(line)


def _send_to_syslog(line: str) -> None:
    """Send the system's log a copy, and never wait as `logging`'s handler does: the record itself is in the log."""
    if sys.platform != "win32":
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.setblocking(False)
            connection.sendto(f"<{_PRIORITY}>spinescore-audit: {line}".encode(), _SYSLOG)


def start(index: Index, clock: Clock, settings: Audit, config: Mapping[str, Any], bundle: Mapping[str, str]) -> None:
    """Keep the settings, and note the start of the service and what changed since its last start.

    `bundle` has the bundle's name, version and sha256. Raises SpineScoreError if the log cannot be written.
    """
    now = {"configuration": document_sha256(config), "bundle": bundle["sha256"]}
    try:
        with index.transaction():
            index.keep(_SETTINGS, json.dumps(asdict(settings)))
            note(index, clock, "service-started", version=software_version(), python=platform.python_version(),
                 sqlite=sqlite3.sqlite_version, bundle=f"{bundle['name']} {bundle['version']}",
                 configuration_sha256=now["configuration"], bundle_sha256=now["bundle"])  # fmt: skip
            for name in _CHANGEABLE:
                before = index.fact(f"audit_{name}")
                if before not in (None, now[name]):
                    note(index, clock, f"{name}-changed", before_sha256=before, sha256=now[name])
                index.keep(f"audit_{name}", now[name])
    except IndexFull as error:
        raise SpineScoreError(f"the service cannot start: {error}") from error


def stop(index: Index, clock: Clock) -> None:
    with suppress(IndexFull), index.transaction():
        note(index, clock, "service-stopped")


def operator() -> str:
    """Return the name of the user of this process; with sudo also that of the user before."""
    if sys.platform == "win32":
        return ""
    import pwd

    number = os.getuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        name = f"user {number}"
    before = os.environ.get("SUDO_USER")
    return f"{name} (sudo by {before})" if before and number == 0 else name


def read_head(index: Index) -> Head | None:
    """Return the head that the index keeps; None if it keeps none."""
    kept = index.fact(_HEAD)
    return None if kept is None else Head(**json.loads(kept))


def files_of(folder: Path) -> list[Path]:
    """Return the files of a log, the oldest first. Raises `OSError` if its folder cannot be read."""
    files = folder.iterdir() if folder.exists() else ()  # `glob` takes a folder that it may not read for empty
    return sorted(path for path in files if _FILE.fullmatch(path.name))


def record_of(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line; None if it is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):  # of JSON, or of UTF-8
        return None
    fits = isinstance(record, dict) and isinstance(record.get("n"), int) and isinstance(record.get("previous"), str)
    return record if fits else None


class _Log:
    """The files behind a head, and the lines to append to them."""

    def __init__(self, folder: Path, head: Head, date: datetime) -> None:
        self.head, self.lines = head, list[str]()
        self._folder, self._date = folder, date
        self._begun: str | None = None  # the file whose last line has no end

    def add(self, event: str, fields: Mapping[str, object]) -> None:
        """Add a record to the lines, and move the head to it."""
        record = {"n": self.head.n + 1, "at": self._date.isoformat(timespec="milliseconds"), "event": event, **fields,
                  "previous": self.head.sha256}  # fmt: skip
        line = json.dumps(record, separators=(",", ":"))
        file = max(self.head.file, f"{self._date:%Y-%m}.jsonl")  # a date that went back opens no earlier file
        end = (self.head.end if file == self.head.file else 0) + len(line) + 1
        self.head = Head(self.head.n + 1, hashlib.sha256(line.encode()).hexdigest(), file, end)
        self.lines.append(line)

    def mend(self) -> Fault | None:
        """Add a record if the files do not end with the head. Return a fault if the log was altered."""
        lengths = {path: path.stat().st_size for path in files_of(self._folder) if path.name >= self.head.file}
        length = lengths.get(self._folder / self.head.file, 0)
        if length < self.head.end:
            return self._note_loss(length)
        left = {path: self.head.end if path.name == self.head.file else 0 for path in lengths}
        torn: list[dict[str, object]] = []
        whole: list[int] = []
        for path, begin in left.items():
            if lengths[path] > begin:
                self._take_over(path, begin, torn, whole)
        if torn or whole:
            self.add("repaired", {"torn": torn, "not_committed": whole})
        return None

    def _note_loss(self, length: int) -> Fault:
        file, end = self.head.file, self.head.end
        path = self._folder / file
        if length and not path.read_bytes().endswith(b"\n"):
            self._begun, length = file, length + 1
        self.head = Head(self.head.n, self.head.sha256, file, length)
        self.add("altered", {"file": file, "bytes": length, "expected_bytes": end})
        return Fault("audit-altered", f"the audit log {path} is shorter than it was; call spinescore audit verify")

    def _take_over(self, path: Path, begin: int, torn: list[dict[str, object]], whole: list[int]) -> None:
        """Move the head behind the lines that an earlier writer left without ending its transaction."""
        with path.open("rb") as file:
            file.seek(begin)
            text = file.read()
        if text and not text.endswith(b"\n"):
            self._begun = path.name
            text += b"\n"
        number, sha256 = self.head.n, self.head.sha256
        for line in text.split(b"\n")[:-1]:
            digest, record = hashlib.sha256(line).hexdigest(), record_of(line)
            if record is not None and (record["n"], record["previous"]) == (number + 1, sha256):
                number, sha256 = number + 1, digest
                whole.append(number)
            else:
                torn.append({"sha256": digest, "bytes": len(line)})
        self.head = Head(number, sha256, path.name, begin + len(text))

    def write(self) -> None:
        if self._begun is not None:
            _append(self._folder / self._begun, b"\n")
        _append(self._folder / self.head.file, "".join(f"{line}\n" for line in self.lines).encode())


def _append(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        is_new = os.fstat(descriptor).st_size == 0
        owner = path.parent.stat()
        if is_new and sys.platform != "win32" and os.geteuid() == 0:  # a command of root must not lock out the service
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        durable.sync(path.parent)


def _last_head(folder: Path) -> Head:
    """Return the head of files that the index does not know, as after the index was moved away."""
    for path in reversed(files_of(folder)):
        end = len(text := path.read_bytes())
        for line in reversed(text.split(b"\n")):
            if (record := record_of(line)) is not None and end < len(text):
                return Head(record["n"], hashlib.sha256(line).hexdigest(), path.name, end + 1)
            end -= len(line) + 1
    return Head()


def _hashed(name: str, value: object) -> tuple[str, object]:
    if not name.endswith("_uid"):
        return name, value
    return f"{name}_sha256", hashlib.sha256(str(value).encode()).hexdigest()
