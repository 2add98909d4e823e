"""Processes that score studies side by side, and the study that ends or holds up its process.

A process that ends, or is silent for too long, is replaced. Each study that it had begun is then scored alone in a
process. If that one ends too, the study is the reason, and gets a code in the place of rows. Silence counts only while
this process listens: if it was stopped itself, its workers may have been stopped, too.

The processes are of this machine, or actors of Ray (`rayway`) with the same verbs.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from spinescore.runtime.archive.layout import ArchiveError, Shard
from spinescore.runtime.archive.scoring import Request
from spinescore.runtime.archive.studylists import Entry
from spinescore.runtime.documents import document_of
from spinescore.runtime.machine.child import Child, Message

__all__ = ["Crew", "Outcome", "Process", "Start", "Task"]

_OUTSTANDING = 3  # studies of one process: one is scored, one is read, one waits in its pipe
_BEGUN = 2  # of these, the ones that can be the reason why the process ends
_MOST_FAILED_STARTS = 2
_LEAST_OPEN_S = 600.0  # of silence while a scorer is opened, however short the limit of a study is
_TICK_S = 0.5
_KILLED_S = 10.0  # that a killed process may take to end; it takes longer if a disk or a share does not answer


@dataclass(frozen=True)
class Task:
    """A study to score, and the folder for its results."""

    shard: Shard
    entry: Entry
    out: str | None = None


@dataclass(frozen=True)
class Outcome:
    """The rows of a study as JSON has them; or the code of the reason why its process ended, and how it did."""

    task: Task
    rows: list[dict[str, Any]]
    code: str | None = None
    message: str | None = None


class Process(Protocol):
    """The verbs of a `Child` that holds a scorer (`workerprocess`)."""

    def send(self, message: Message, /) -> None: ...
    def messages(self) -> list[Message]: ...
    def ended(self) -> str | None: ...
    def kill(self, grace_s: float = 0.0, most_s: float | None = None) -> None: ...


Start = Callable[[Message, Callable[[], None]], Process]  # a request, and the call when there is something to hear


def _start_child(request: Message, on_message: Callable[[], None]) -> Process:
    child = Child("spinescore.runtime.archive.workerprocess", on_message=on_message)
    child.start(request)
    return child


@dataclass(eq=False)
class _Member:
    """One process with the studies that it has, the first of which it scores."""

    process: Process
    heard_s: float  # by the crew's clock
    ready: bool = False
    alone: bool = False  # it has one study, and gets no other until that is done
    tasks: deque[tuple[int, Task]] = field(default_factory=deque)


class Crew:
    """`count` processes. Iterate over `outcomes`, then close it.

    `opened` gets the facts of each process when its scorer is open, `progress` its messages before that. A scorer may
    take `open_s` to open, and a study `timeout_s`.
    """

    def __init__(
        self,
        request: Request,
        count: int,
        timeout_s: float,
        opened: Callable[[Message], None],
        progress: Callable[[str], None],
        noted: Callable[..., None],
        start: Start = _start_child,
        open_s: float | None = None,
    ) -> None:
        self.threads = request.threads
        self.steady_s: list[float] = []  # when results came while every process had work
        self._timeout_s, self._open_s = timeout_s, max(timeout_s, open_s or _LEAST_OPEN_S)
        self._opened, self._progress, self._noted, self._start = opened, progress, noted, start
        self._woken = threading.Event()
        self._suspects: deque[Task] = deque()
        self._returned: deque[Task] = deque()  # that a process had, and had not begun, when it ended
        self._sent = self._failed_starts = 0
        self._clock_s = 0.0  # that were spent listening
        self._members: list[_Member] = []
        self.resize(count, request)

    def resize(self, count: int, request: Request) -> None:
        """Have `count` processes, of which new ones get this request. None of them has a study now."""
        self._request = document_of(request)
        while len(self._members) > count:
            self._members.pop().process.kill(most_s=_KILLED_S)
        while len(self._members) < count:
            self._members.append(self._new_member())

    def close(self) -> None:
        while self._members:
            self._members.pop().process.kill(most_s=_KILLED_S)

    def wait_until_open(self) -> None:
        """Wait until every scorer is open. Raises ArchiveError if one cannot be opened."""
        while not all(member.ready for member in self._members):
            for _ in self._listen():
                pass

    def outcomes(self, tasks: Iterator[Task]) -> Iterator[Outcome]:
        """Score studies and yield the outcome of each, in the order in which they are done.

        Raises ArchiveError if a scorer cannot be opened.
        """
        more = True
        while True:
            more = self._feed(tasks, more)
            if not more and not self._suspects and not self._returned and not any(one.tasks for one in self._members):
                return
            for outcome in self._listen():
                if more:
                    self.steady_s.append(time.monotonic())
                yield outcome

    def _new_member(self) -> _Member:
        return _Member(self._start(self._request, self._woken.set), self._clock_s)

    def _feed(self, tasks: Iterator[Task], more: bool) -> bool:
        """Give studies to the processes that have room; return whether there may be more."""
        for member in self._members:
            if not member.ready or member.alone:
                continue
            if self._suspects:
                if not member.tasks:
                    member.alone = True
                    self._send(member, self._suspects.popleft())
                continue  # the next process that is free takes it
            while len(member.tasks) < _OUTSTANDING:
                task = self._returned.popleft() if self._returned else next(tasks, None) if more else None
                if task is None:
                    return False
                self._send(member, task)
        return more

    def _send(self, member: _Member, task: Task) -> None:
        if not member.tasks:
            member.heard_s = self._clock_s
        self._sent += 1
        member.tasks.append((self._sent, task))
        member.process.send({"task": self._sent, "entry": document_of(task.entry), "out": task.out})

    def _listen(self) -> Iterator[Outcome]:
        began_s = time.monotonic()
        self._woken.wait(_TICK_S)
        self._woken.clear()
        self._clock_s += min(time.monotonic() - began_s, 2 * _TICK_S)
        for member in list(self._members):
            how = member.process.ended()  # before its last messages are heard
            for message in member.process.messages():
                member.heard_s = self._clock_s
                yield from self._heard(member, message)
            limit_s = self._timeout_s if member.ready else self._open_s
            if how is not None:
                yield from self._ended(member, "worker-crashed", how)
            elif (member.tasks or not member.ready) and self._clock_s - member.heard_s > limit_s:
                yield from self._ended(member, "worker-timeout", f"silent for {limit_s:g} s")

    def _heard(self, member: _Member, message: Message) -> Iterator[Outcome]:
        if "progress" in message:
            self._progress(message["progress"])
        elif "refused" in message:
            raise ArchiveError(message["refused"])
        elif "ready" in message:
            member.ready, self._failed_starts = True, 0
            self._opened(message["ready"])
        else:
            number, task = member.tasks.popleft()
            assert number == message["task"]
            member.alone = False
            yield Outcome(task, message["rows"], message=message["unwritten"])

    def _ended(self, member: _Member, code: str, how: str) -> Iterator[Outcome]:
        """Replace a process that ended, or that is ended here because it is silent."""
        member.process.kill(most_s=_KILLED_S)
        tasks = [task for _, task in member.tasks]
        self._noted("worker ended", how=how, alone=member.alone, studies=len(tasks))
        if not member.ready:
            self._failed_starts += 1
            if self._failed_starts > _MOST_FAILED_STARTS:
                raise ArchiveError(
                    f"the processes that score end while they open the bundle ({how}); score one study with spinescore "
                    "score, which says why"
                )
            self._progress(f"a process that scores ended while it opened the bundle ({how}), and is started again")
        self._members[self._members.index(member)] = self._new_member()
        if member.alone:
            yield Outcome(tasks[0], [], code, how)
            return
        self._suspects.extend(tasks[:_BEGUN])
        self._returned.extend(tasks[_BEGUN:])
