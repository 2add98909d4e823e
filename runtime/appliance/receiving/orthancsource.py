"""Orthanc as a source: its list of changes is followed with a cursor that is kept in the index.

Only the changes `NewInstance` count. There is one for each instance that Orthanc stored, while `StableStudy` comes a
minute late, may come several times, and does not name the new instances. The cursor moves in the transaction that
notes the instance, so that a service that ends at any line goes on where it was.

The cursor is a trail: the last changes that were seen. If one of them has changed, the server has another database,
or an older copy. Then the source goes on after the newest change that is still the same, or else begins anew. That
doubles nothing, as the spool knows objects by their content.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.configuration.config import Source
from spinescore.runtime.appliance.fault import LATER, Denied, Fault, Refused
from spinescore.runtime.appliance.store.index import IndexFull
from spinescore.runtime.appliance.store.spool import Association, Spool
from spinescore.runtime.appliance.webclient import WebClient
from spinescore.runtime.reading.sopclasses import SOP_CLASSES

__all__ = ["Cursor", "OrthancSource"]

_PAGE = 50  # changes that are asked for at once
_TRAIL = 64
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 60.0
_MOST_FAILURES = 4  # to get one instance, before the others go on without it
_ASIDE_S = 900.0
_MOST_ASIDE = 500  # instances that are set aside; with more of them the source waits for a person
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}")


@dataclass(frozen=True)
class _Change:
    seq: int
    kind: str
    resource: str
    digest: str


@dataclass(frozen=True)
class Cursor:
    """The changes that were seen last, as numbers with digests, and instances that could not be read."""

    trail: tuple[tuple[int, str], ...] = ()
    aside: tuple[str, ...] = ()

    @property
    def seq(self) -> int:
        return self.trail[-1][0] if self.trail else 0

    def after(self, change: _Change) -> Cursor:
        return replace(self, trail=(*self.trail, (change.seq, change.digest))[-_TRAIL:])

    def to_json(self) -> str:
        return json.dumps({"trail": self.trail, "aside": self.aside})

    @classmethod
    def from_json(cls, text: str) -> Cursor:
        document = json.loads(text)
        return cls(tuple((seq, digest) for seq, digest in document["trail"]), tuple(document["aside"]))


class OrthancSource:
    """Takes in the radiographs that one Orthanc received. Use it in one thread, with a `Spool` of that thread."""

    def __init__(self, source: Source, spool: Spool, clock: Clock, *, beat: Callable[[], None] = lambda: None) -> None:
        """`beat` is called for each change, as a look may take long."""
        self._source, self._spool, self._clock, self._client = source, spool, clock, WebClient(source.web)
        self._beat = beat
        self._classes = {uid for uid, kind in SOP_CLASSES.items() if kind.name in source.classes}
        self._fact = f"cursor of {source.name}"
        self._faults: list[Fault] = []
        self._waiting = 0
        self._failures, self._next_s = 0, clock.now()  # since the last answer
        self._failed: tuple[str, int] = ("", 0)  # an instance, and how often it could not be read in a row
        self._aside_s = clock.now()

    def look(self) -> tuple[int, list[Fault]]:
        """Take in new instances; return whether more of them wait, as 1 or 0, and the faults."""
        self._faults = []
        if self._clock.now() < self._next_s:
            return self._waiting, []
        self._waiting = 0
        try:
            self._waiting = int(self._follow())
            self._failures = 0
        except Denied as error:
            self._fail(Fault("credential-refused", f"the source {self._source.name}: {error}"))
        except ConnectionError as error:
            self._fail(Fault("source-unreachable", f"the source {self._source.name}: {error}"))
        except Refused as error:  # there is no room
            self._fail(error.fault)
            self._waiting = 1
        except IndexFull as error:
            self._fail(Fault(error.code, str(error)))
            self._waiting = 1
        return self._waiting, self._faults

    def _fail(self, fault: Fault) -> None:
        """Tell a fault and leave the server alone for a while, longer and longer."""
        self._faults.append(fault)
        self._next_s = self._clock.now() + min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(self._failures, 10))
        self._failures += 1

    def _follow(self) -> bool:
        """Take in one page of changes. Return whether there are more."""
        cursor = self._cursor()
        changes, last, is_done = self._changes(f"since={cursor.seq}&limit={_PAGE}")
        if cursor.aside and self._clock.now() >= self._aside_s:
            cursor = self._try_aside(cursor)
        if changes or last < cursor.seq:
            verified = self._verified(cursor, last)
            if verified != cursor:
                cursor = verified
                changes, last, is_done = self._changes(f"since={cursor.seq}&limit={_PAGE}")
        if not changes:
            return False
        with self._spool.association(self._source.name) as association:
            for change in changes:
                cursor = self._pass(change, cursor, association)
            self._keep_alone(cursor)
        return not is_done

    def _pass(self, change: _Change, cursor: Cursor, association: Association) -> Cursor:
        """Take in the instance of a change; return the cursor after it, which is kept if an object was stored."""
        self._beat()
        after = cursor.after(change)
        if change.kind != "NewInstance" or not _ID.fullmatch(change.resource):
            return after
        try:
            self._take(change.resource, after, association)
        except ConnectionError as error:  # of this instance: the server has just given its list
            count = self._failed[1] + 1 if self._failed[0] == change.resource else 1
            self._failed = (change.resource, count)
            if count < _MOST_FAILURES:
                self._keep_alone(cursor)
                raise
            if len(cursor.aside) >= _MOST_ASIDE:
                self._keep_alone(cursor)
                text = f"{_MOST_ASIDE} instances cannot be read ({error}); repair them there, or delete them"
                raise ConnectionError(text) from None
            return self._put_aside(after, change.resource, str(error))
        return after

    def _take(self, instance: str, after: Cursor, association: Association) -> None:
        """Take in an instance if it is a radiograph, and keep the cursor with it."""
        answer = self._client.ask("GET", f"/instances/{instance}/metadata/SopClassUid")
        if answer.status == 200 and answer.content.strip().decode("ascii", "replace") not in self._classes:
            return
        if answer.status not in (200, 404):  # 404: the instance was deleted, or Orthanc did not note its class
            raise ConnectionError(f"an instance was answered with the HTTP status {answer.status}")
        with self._client.file(f"/instances/{instance}/file") as content:
            if content is None:
                return
            try:
                self._spool.receive(content, association, along=lambda: self._keep(after))
            except Refused as error:
                if error.fault.code in LATER:
                    raise
                self._faults.append(error.fault)

    def _put_aside(self, cursor: Cursor, instance: str, reason: str) -> Cursor:
        text = (
            f"the instance {instance} of the source {self._source.name} cannot be read ({reason}); repair it or delete "
            f"it there, it is tried again every {_ASIDE_S / 60:g} minutes"
        )
        self._faults.append(Fault("file-unreadable", text))
        self._aside_s = self._clock.now() + _ASIDE_S
        return replace(cursor, aside=tuple(dict.fromkeys((*cursor.aside, instance))))

    def _try_aside(self, cursor: Cursor) -> Cursor:
        """Try the instances again that could not be read; return the cursor without those that could."""
        self._aside_s = self._clock.now() + _ASIDE_S
        for instance in cursor.aside:
            self._beat()
            after = replace(cursor, aside=tuple(one for one in cursor.aside if one != instance))
            try:
                with self._spool.association(self._source.name) as association:
                    self._take(instance, after, association)
            except ConnectionError as error:
                self._put_aside(cursor, instance, str(error))
                continue
            cursor = after
        self._keep_alone(cursor)
        return cursor

    def _changes(self, query: str) -> tuple[list[_Change], int, bool]:
        """Return the changes of a query, the number of the last one, and whether they are all."""
        answer = self._client.ask("GET", f"/changes?{query}")
        document = answer.document()
        try:
            if answer.status != 200:
                raise ValueError
            changes = [_change(one) for one in document["Changes"]]
            numbers = [change.seq for change in changes]
            if sorted(set(numbers)) != numbers:
                raise ValueError
            return changes, int(document["Last"]), bool(document["Done"])
        except (KeyError, TypeError, ValueError, OverflowError):
            text = f"it answered with the HTTP status {answer.status} and no list of changes; correct the url"
            raise ConnectionError(text) from None

    def _verified(self, cursor: Cursor, last: int) -> Cursor:
        """Return the cursor; an earlier one if the changes that it remembers are not those of the server."""
        if not cursor.trail:
            return cursor
        changes, _, _ = self._changes(f"since={cursor.trail[0][0] - 1}&limit={len(cursor.trail)}")
        there = {one.seq: one.digest for one in changes}
        is_other = any(there.get(seq, digest) != digest for seq, digest in cursor.trail)
        if not is_other and last >= cursor.seq:  # missing ones were deleted
            return cursor
        same = [place for place, (seq, digest) in enumerate(cursor.trail, 1) if there.get(seq) == digest]
        return replace(cursor, trail=cursor.trail[: same[-1]] if same else ())

    def _cursor(self) -> Cursor:
        text = self._spool.index.fact(self._fact)
        if text is not None:
            return Cursor.from_json(text)
        cursor = Cursor()
        if not self._source.history:
            changes, last, _ = self._changes("last")
            cursor = Cursor(tuple((change.seq, change.digest) for change in changes) or ((last, ""),))
        self._keep_alone(cursor)
        return cursor

    def _keep(self, cursor: Cursor) -> None:
        self._spool.index.keep(self._fact, cursor.to_json())

    def _keep_alone(self, cursor: Cursor) -> None:
        if self._spool.index.fact(self._fact) != cursor.to_json():
            with self._spool.index.transaction():
                self._keep(cursor)


def _change(document: Any) -> _Change:
    """Return a change of Orthanc's list. Raises if it is none."""
    seq, kind, resource = document["Seq"], document["ChangeType"], document["ID"]
    if type(seq) is not int or seq < 1:
        raise ValueError
    text = f"{kind} {resource} {document['Date']}"
    return _Change(seq, str(kind), str(resource), hashlib.sha256(text.encode()).hexdigest()[:12])
