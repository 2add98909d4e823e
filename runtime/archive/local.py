"""Processes on this machine that score studies side by side, and the study that ends or holds up its process.

A process that ends, or is silent for too long, is replaced. Each study that it had begun is then scored alone in a
process. If that one ends too, the study is the reason, and gets a code in the place of rows. Silence counts only while
this process listens: if it was stopped itself, its workers may have been stopped, too.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from spinescore.runtime.archive.layout import ArchiveError, Shard
from spinescore.runtime.archive.scoring import Request
from spinescore.runtime.archive.studylists import Entry
from spinescore.runtime.documents import document_of
from spinescore.runtime.machine.processes import ending, without_interrupts, worker_command

__all__ = ["Crew", "Outcome", "Task"]

_OUTSTANDING = 3  # studies of one process: one is scored, one is read, one waits in its pipe
_BEGUN = 2  # of these, the ones that can be the reason why the process ends
_MOST_FAILED_STARTS = 2
_LEAST_OPEN_S = 600.0  # of silence while a scorer is opened, however short the limit of a study is
_TICK_S = 0.5
_EXIT_S = 2.0  # that a process may take to end by itself
_KILLED_S = 10.0  # that a killed process may take to end; it takes longer if a disk or a share does not answer

Message = dict[str, Any]


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


@dataclass(eq=False)
class _Member:
    """One process with the studies that it has, the first of which it scores."""

    process: subprocess.Popen[bytes]
    ready: bool = False
    alone: bool = False  # it has one study, and gets no other until that is done
    tasks: deque[tuple[int, Task]] = field(default_factory=deque)
    heard_s: float = 0.0  # by the crew's clock
    lines: queue.SimpleQueue[bytes] = field(default_factory=queue.SimpleQueue)  # to write to it; empty at the end


class Crew:
    """`count` processes. Iterate over `outcomes`, then close it.

    `opened` gets the facts of each process when its scorer is open, `progress` its messages before that.
    """

    def __init__(
        self,
        request: Request,
        count: int,
        timeout_s: float,
        opened: Callable[[Message], None],
        progress: Callable[[str], None],
        noted: Callable[..., None],
    ) -> None:
        self.threads = request.threads
        self.steady_s: list[float] = []  # when results came while every process had work
        self._request, self._timeout_s = json.dumps(document_of(request)), timeout_s
        self._opened, self._progress, self._noted = opened, progress, noted
        self._said: queue.Queue[tuple[_Member, Message | None]] = queue.Queue()
        self._suspects: deque[Task] = deque()
        self._returned: deque[Task] = deque()  # that a process had, and had not begun, when it ended
        self._sent = self._failed_starts = 0
        self._clock_s = 0.0  # that were spent listening
        self._members: list[_Member] = []
        self.resize(count, request)

    def resize(self, count: int, request: Request) -> None:
        """Have `count` processes, of which new ones get this request. None of them has a study now."""
        self._request = json.dumps(document_of(request))
        while len(self._members) > count:
            _end(self._members.pop())
        while len(self._members) < count:
            self._members.append(self._start())

    def close(self) -> None:
        """End all processes at once."""
        while self._members:
            _end(self._members.pop())

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

    def _start(self) -> _Member:
        command = worker_command("spinescore.runtime.archive.workerprocess", self._request)
        flags = getattr(subprocess, "CREATE_NO_WINDOW", 0)
        pipe = subprocess.PIPE
        with without_interrupts():
            member = _Member(subprocess.Popen(command, stdin=pipe, stdout=pipe, creationflags=flags))
        member.heard_s = self._clock_s
        for work, arguments in ((_hear, (member, self._said)), (_tell, (member,))):
            threading.Thread(target=work, args=arguments, name="spinescore-worker", daemon=True).start()
        return member

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
        line = json.dumps({"task": self._sent, "entry": asdict(task.entry), "out": task.out}) + "\n"
        member.lines.put(line.encode())

    def _listen(self) -> Iterator[Outcome]:
        """Wait for a moment, and yield what is done."""
        began_s = time.monotonic()
        member: _Member | None = None
        message: Message | None = None
        with suppress(queue.Empty):
            member, message = self._said.get(timeout=_TICK_S)
        self._clock_s += min(time.monotonic() - began_s, 2 * _TICK_S)
        if member is not None and member in self._members:
            member.heard_s = self._clock_s
            yield from self._ended(member, "worker-crashed") if message is None else self._heard(member, message)
        for busy in [one for one in self._members if one.tasks or not one.ready]:
            limit_s = self._timeout_s if busy.ready else max(self._timeout_s, _LEAST_OPEN_S)
            if self._clock_s - busy.heard_s > limit_s:
                yield from self._ended(busy, "worker-timeout", f"silent for {limit_s:g} s")

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

    def _ended(self, member: _Member, code: str, how: str = "") -> Iterator[Outcome]:
        """Replace a process that ended, or that is ended here because it is silent."""
        if not how:
            with suppress(subprocess.TimeoutExpired):
                how = ending(member.process.wait(_EXIT_S))  # its pipe ends a moment before the process does
        _end(member)
        how = how or "it closed its output"
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
        self._members[self._members.index(member)] = self._start()
        if member.alone:
            yield Outcome(tasks[0], [], code, how)
            return
        self._suspects.extend(tasks[:_BEGUN])
        self._returned.extend(tasks[_BEGUN:])


def _hear(member: _Member, said: queue.Queue[tuple[_Member, Message | None]]) -> None:
    """Put the messages of a process into a queue, and None when it has ended."""
    assert member.process.stdout is not None
    with member.process.stdout as lines, suppress(ValueError, OSError):  # a line may be cut off by the process's end
        for line in lines:
            said.put((member, json.loads(line)))
    said.put((member, None))


def _tell(member: _Member) -> None:
    """Write lines to a process until an empty one; a process that is stopped and reads nothing holds up no other."""
    assert member.process.stdin is not None
    with suppress(OSError), member.process.stdin as pipe:  # it has ended, which the other thread says
        while line := member.lines.get():
            pipe.write(line)
            pipe.flush()


def _end(member: _Member) -> None:
    """End a process at once. One that waits for a disk in the kernel ends later, or never; it is left to itself."""
    member.process.kill()
    member.lines.put(b"")
    with suppress(subprocess.TimeoutExpired):
        member.process.wait(_KILLED_S)
