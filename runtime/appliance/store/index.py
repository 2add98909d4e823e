"""The index: one SQLite file with every object, study, result and delivery, and therefore the queue.

It has a rollback journal: WAL files of SQLite before 3.51.3 can be damaged if two connections write and checkpoint at
once. A commit is on the disk when it returns (`synchronous=FULL`). Each process, and each thread, has its own `Index`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from spinescore.runtime.appliance.fault import Fault
from spinescore.runtime.appliance.store.places import FULL
from spinescore.runtime.errors import SpineScoreError

__all__ = ["Index", "IndexFull", "IndexUnwritable", "commit", "damage"]

_VERSION = 104  # the hundreds change if the version before could not read the index; the rest counts additions
_UNFINISHED = 1_000_000  # is added while the index has work that an earlier version would lose: it refuses the sum
_STRICT_SINCE = (3, 37, 0)
_BUSY_MS = 5000
_LARGEST_JOURNAL = 16 << 20  # bytes that are left after a transaction; without a limit it keeps its largest size
_FULL = "database or disk is full"
_MOST_FAULTS = 1000
_MOST_CHANGES = 1000

_TABLES = {
    "facts": "name TEXT PRIMARY KEY, value TEXT NOT NULL",
    "associations": """id INTEGER PRIMARY KEY, source TEXT NOT NULL, last_s REAL NOT NULL, closed_s REAL""",
    "studies": """id INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE, revision INTEGER NOT NULL, state TEXT NOT NULL,
        code TEXT, message TEXT, input_key TEXT, attempts INTEGER NOT NULL, interruptions INTEGER NOT NULL,
        last_s REAL NOT NULL, changed_s REAL NOT NULL, received_at TEXT NOT NULL""",
    "objects": """sha256 TEXT PRIMARY KEY, sop_instance_uid TEXT NOT NULL UNIQUE, sop_class_uid TEXT NOT NULL,
        study_uid TEXT NOT NULL, region TEXT, bytes INTEGER NOT NULL, code TEXT, study INTEGER REFERENCES studies,
        association INTEGER, received_s REAL NOT NULL, received_at TEXT NOT NULL, removed INTEGER NOT NULL DEFAULT 0""",
    "quarantine": "sha256 TEXT PRIMARY KEY, sop_instance_uid TEXT NOT NULL, received_at TEXT NOT NULL, received_s REAL",
    "results": """input_key TEXT PRIMARY KEY, study INTEGER NOT NULL REFERENCES studies, revision INTEGER NOT NULL,
        scored INTEGER NOT NULL, code TEXT, document TEXT, made_s REAL NOT NULL, made_at TEXT NOT NULL,
        removed INTEGER NOT NULL DEFAULT 0""",
    "deliveries": """id INTEGER PRIMARY KEY, input_key TEXT NOT NULL REFERENCES results, file TEXT NOT NULL,
        kind TEXT NOT NULL, sha256 TEXT NOT NULL, sop_instance_uid TEXT, destination TEXT NOT NULL,
        state TEXT NOT NULL, unclear INTEGER NOT NULL, attempts INTEGER NOT NULL, first_s REAL NOT NULL,
        next_s REAL NOT NULL, code TEXT, message TEXT, changed_s REAL NOT NULL,
        UNIQUE (input_key, file, destination)""",
    "commitments": "transaction_uid TEXT PRIMARY KEY, destination TEXT NOT NULL, asked_s REAL NOT NULL",
    "counts": "name TEXT NOT NULL, labels TEXT NOT NULL, value REAL NOT NULL, PRIMARY KEY (name, labels)",
    "past_objects": "instance BLOB PRIMARY KEY, content BLOB NOT NULL",
    "past_studies": "study BLOB PRIMARY KEY, revision INTEGER NOT NULL",
    "tallies": "kind TEXT NOT NULL, state TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (kind, state)",
    "faults": """id INTEGER PRIMARY KEY, at TEXT NOT NULL, code TEXT NOT NULL, message TEXT NOT NULL, study INTEGER""",
    "summaries": """input_key TEXT PRIMARY KEY REFERENCES results, study_date TEXT, patient_key TEXT, total TEXT,
        findings TEXT NOT NULL""",
    "reviews": """id INTEGER PRIMARY KEY, study INTEGER NOT NULL REFERENCES studies, revision INTEGER NOT NULL,
        base INTEGER NOT NULL, verdict TEXT NOT NULL, reader TEXT NOT NULL, at TEXT NOT NULL, comment TEXT,
        correction TEXT""",
    "changes": "id INTEGER PRIMARY KEY, study INTEGER NOT NULL, state TEXT NOT NULL, revision INTEGER NOT NULL",
}
_ADDED = {"quarantine": "received_s REAL"}  # columns that a table of an earlier version lacks
_INDICES = {
    "objects_study": "objects (study)",
    "objects_here": "objects (study) WHERE removed = 0",
    "objects_other": "objects (removed, received_s) WHERE study IS NULL",
    "studies_changed": "studies (state, changed_s)",
    "results_study": "results (study)",
    "results_here": "results (made_s) WHERE removed = 0",
    "deliveries_state": "deliveries (destination, state, next_s)",
    "deliveries_instance": "deliveries (sop_instance_uid)",
    "summaries_patient": "summaries (patient_key)",
    "reviews_study": "reviews (study)",
}
_KINDS = {"studies": "''", "deliveries": "{row}.destination"}  # what `tallies` counts by state: all, or of each
_NEW_CHANGE = "INSERT INTO changes (study, state, revision)"
# Each change of a study gets a number in the order of the commits, whichever process and statement changes it.
_TRIGGERS = {
    "study_begins": f"AFTER INSERT ON studies BEGIN {_NEW_CHANGE} VALUES (new.id, new.state, new.revision); END",
    "study_changes": f"""AFTER UPDATE OF state, revision ON studies
        WHEN old.state IS NOT new.state OR old.revision IS NOT new.revision
        BEGIN {_NEW_CHANGE} VALUES (new.id, new.state, new.revision); END""",
    "study_accepted": f"""AFTER INSERT ON reviews WHEN new.correction IS NULL
        BEGIN {_NEW_CHANGE} SELECT id, state, revision FROM studies WHERE id = new.study; END""",
    "changes_end": f"""AFTER INSERT ON changes
        BEGIN DELETE FROM changes WHERE id <= new.id - {_MOST_CHANGES}; END""",
}


class IndexFull(Exception):
    """The disk has no room for a commit, or for its record in the audit log; nothing was changed."""

    code = "no-space"  # of the fault that this is


class IndexUnwritable(IndexFull):
    """The index cannot be written for another reason, which the message gives; nothing was changed."""

    code = "spool-unwritable"


def damage(path: Path, error: sqlite3.Error) -> str:
    """Return the sentence for a person that the index is damaged, or cannot be read now."""
    if isinstance(error, sqlite3.OperationalError):
        return f"the index {path} cannot be read ({error}); look at its disk and its permissions, and try again"
    return (
        f"the index {path} cannot be used ({error}); end the service, and move the index away to have all objects of "
        "the spool indexed and scored again"
    )


def commit(connection: sqlite3.Connection) -> None:
    """End a transaction: when this returns, its changes are on the disk."""
    connection.execute("COMMIT")


class Index:
    """A connection to the index. Use it in the thread that made it, and close it."""

    def __init__(self, path: Path, on_full: Callable[[], object] = lambda: None, *, make: bool = True) -> None:
        """Open the index at `path`; with `make` a missing one is made.

        `on_full` is called if the disk has no room for a commit, to free some. Raises SpineScoreError.
        """
        if not make and not path.exists():
            raise SpineScoreError(f"there is no index at {path}; start the service with spinescore serve, or correct "
                                  "the spool's path")  # fmt: skip
        self._path, self._on_full = path, on_full
        try:
            self._connection = sqlite3.connect(path, timeout=_BUSY_MS / 1000, isolation_level=None)
        except sqlite3.Error as error:
            raise SpineScoreError(damage(path, error)) from error
        self._connection.row_factory = sqlite3.Row
        try:
            self._set_up()
        except (sqlite3.DatabaseError, IndexFull) as error:
            self._connection.close()
            raise SpineScoreError(str(error) if isinstance(error, IndexFull) else damage(path, error)) from error
        except BaseException:
            self._connection.close()
            raise

    def _set_up(self) -> None:
        for pragma in ("synchronous = FULL", "foreign_keys = ON", f"busy_timeout = {_BUSY_MS}",
                       f"journal_size_limit = {_LARGEST_JOURNAL}"):  # fmt: skip
            self._connection.execute(f"PRAGMA {pragma}")
        marks, version = divmod(self.one("PRAGMA user_version")[0], _UNFINISHED)
        later = f"the index {self._path} was made by a later version of spinescore (format {version})"
        if version // 100 > _VERSION // 100:
            raise SpineScoreError(f"{later}; start that version")
        if marks and version > _VERSION:
            raise SpineScoreError(f"{later}, and has corrections of readers that this version would lose; start that "
                                  "version, and go back when they are scored, and none is parked")  # fmt: skip
        if version >= _VERSION:
            return
        self._connection.execute("PRAGMA journal_mode = PERSIST")
        strict = " STRICT" if sqlite3.sqlite_version_info >= _STRICT_SINCE else ""
        with self.transaction():
            for name, columns in _TABLES.items():
                self._connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns}){strict}")
            for name, column in _ADDED.items():
                if column.split()[0] not in {row["name"] for row in self.rows(f"PRAGMA table_info({name})")}:
                    self._connection.execute(f"ALTER TABLE {name} ADD COLUMN {column}")
            for name, columns in _INDICES.items():
                self._connection.execute(f"CREATE INDEX IF NOT EXISTS {name} ON {columns}")
            for table, kind in _KINDS.items():
                self._tally(table, kind)
            for name, body in _TRIGGERS.items():
                self._connection.execute(f"CREATE TRIGGER IF NOT EXISTS {name} {body}")
            self._connection.execute(f"PRAGMA user_version = {_VERSION + _UNFINISHED * marks}")

    def _tally(self, table: str, kind: str) -> None:
        """Have `tallies` count the rows of a table by kind and state, by triggers: to count them takes too long."""
        kinds = {row: f"'{table}:' || {kind.format(row=row)}" for row in ("new", "old", table)}
        self._connection.execute(f"DELETE FROM tallies WHERE kind LIKE '{table}:%'")
        self._connection.execute(
            f"INSERT INTO tallies SELECT {kinds[table]}, state, count(*) FROM {table} GROUP BY 1, 2"
        )
        more = (f"INSERT INTO tallies VALUES ({kinds['new']}, new.state, 1) "
                "ON CONFLICT (kind, state) DO UPDATE SET n = n + 1;")  # fmt: skip
        less = f"UPDATE tallies SET n = n - 1 WHERE kind = {kinds['old']} AND state = old.state;"
        for event, actions in (("INSERT", more), ("DELETE", less), ("UPDATE OF state", less + more)):
            name = f"{table}_{event.partition(' ')[0].lower()}"
            text = f"CREATE TRIGGER IF NOT EXISTS {name} AFTER {event} ON {table} BEGIN {actions} END"
            self._connection.execute(text)

    @property
    def folder(self) -> Path:
        return self._path.parent

    def close(self) -> None:
        self._connection.close()

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        return self._connection.execute(query, values).fetchall()

    def one(self, query: str, *values: Any) -> Any:
        """Return the first row of a query; None if there is none."""
        return self._connection.execute(query, values).fetchone()

    def change(self, statement: str, *values: Any) -> int:
        """Do a statement within a transaction; return the number of rows that it changed."""
        assert self._connection.in_transaction, "changes belong into a transaction"
        return self._connection.execute(statement, values).rowcount

    def insert(self, table: str, **values: Any) -> int:
        """Insert a row within a transaction; return its number."""
        assert self._connection.in_transaction, "changes belong into a transaction"
        marks = ", ".join("?" * len(values))
        statement = f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})"
        return self._connection.execute(statement, tuple(values.values())).lastrowid or 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do all changes of the block, or none.

        Raises IndexFull if the disk has no room for them, and IndexUnwritable if the disk cannot be written.
        """
        try:
            self._connection.execute("PRAGMA journal_mode = PERSIST")  # belongs to the connection, not to the file
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            commit(self._connection)
        except BaseException as error:
            with suppress(sqlite3.Error):  # a full disk may have rolled it back already
                self._connection.execute("ROLLBACK")
            if _is_full(error):
                self._on_full()
                raise IndexFull(f"the disk of the spool {self.folder} is full; free space there") from error
            if isinstance(error, sqlite3.OperationalError):
                text = f"the index {self._path} cannot be written ({error})"
                raise IndexUnwritable(f"{text}; look at its disk, and mount it so that it can be written") from error
            raise

    def check_writable(self) -> None:
        """Raise `sqlite3.Error` if no transaction can begin: the file is read-only, or locked for too long."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute("ROLLBACK")

    @property
    def is_unfinished(self) -> bool:
        """Whether earlier versions are kept from the index."""
        return bool(self.one("PRAGMA user_version")[0] >= _UNFINISHED)

    def mark_unfinished(self, unfinished: bool) -> None:
        """Keep earlier versions from the index, or let them in again, within a transaction."""
        version = self.one("PRAGMA user_version")[0] % _UNFINISHED
        self.change(f"PRAGMA user_version = {version + _UNFINISHED * unfinished}")

    def fact(self, name: str) -> str | None:
        """Return a fact that was kept; None if there is none."""
        row = self.one("SELECT value FROM facts WHERE name = ?", name)
        return None if row is None else str(row["value"])

    def keep(self, name: str, value: str) -> None:
        self.change("INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                    name, value)  # fmt: skip

    def note_fault(self, date: datetime, fault: Fault, study: int | None = None) -> None:
        """Keep a fault for `spinescore status`, within a transaction; the oldest ones are dropped."""
        at = date.isoformat(timespec="seconds")
        number = self.insert("faults", at=at, code=fault.code, message=fault.message, study=study)
        self.change("DELETE FROM faults WHERE id <= ?", number - _MOST_FAULTS)


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError):  # of the audit log
        return error.errno in FULL
    return isinstance(error, sqlite3.OperationalError) and _FULL in str(error)
