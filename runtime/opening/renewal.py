"""Processes that build or check engines for a scorer, and the engine that takes the place of another one."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Generic, Protocol, TypeVar

from spinescore.runtime.bundle import Bundle
from spinescore.runtime.errors import Cancelled, SpineScoreError
from spinescore.runtime.logs import OPENING
from spinescore.runtime.machine.processes import ending, worker_command
from spinescore.runtime.opening.caller import Caller
from spinescore.runtime.opening.checking import Check

__all__ = ["Build", "Renewal"]

_END_S = 2.0  # that a process which was told to end may take
_LONGEST_REASON = 2000
_LOOK_S = 0.05  # between two looks at a process that is waited for

Say = Callable[[str], None]
S = TypeVar("S")


class Job(Protocol):
    """The work of a `Build`, a dataclass: `Plan` or `checking.Check`."""

    @property
    def sentence(self) -> str: ...
    def begin(self, bundle: Bundle) -> None: ...
    def failed(self, bundle: Bundle, reason: str) -> str: ...
    def not_taken(self, error: Exception) -> str: ...


class Renewal(Generic[S]):
    """What a scorer knows of engines that were, or are being, built for it.

    For one thread at a time, but for `is_checking` and `wait`.
    """

    def __init__(
        self, warnings: tuple[str, ...] = (), build: Build | None = None, reopen: Callable[[], S] | None = None
    ) -> None:
        self._warnings, self._build, self._reopen = warnings, build, reopen

    @property
    def warnings(self) -> tuple[str, ...]:
        """For every report."""
        return (*self._warnings, *([] if self._build is None else [self._build.sentence]))

    def taken(self) -> S | None:
        """The scorer on the engine that was accepted meanwhile; once."""
        if self._build is None or self._reopen is None or not self._build.finished:
            return None
        with self._build as build:
            warnings = build.wait()
        new = None
        try:
            new = None if warnings else self._reopen()
        except Cancelled:  # the next study takes it
            raise
        except SpineScoreError as error:
            warnings = (build.job.not_taken(error),)
        self._build, self._warnings = None, warnings
        return new

    @property
    def is_checking(self) -> bool:
        """Whether a CPU's engines are being checked, or were and are not taken yet."""
        build = self._build
        return build is not None and isinstance(build.job, Check)

    def wait(self) -> tuple[str, ...]:
        """Wait for what is going on, and return the warnings that come of it; the next `taken` gives the engine."""
        build = self._build
        return () if build is None else build.wait()

    def close(self) -> None:
        """End a build that is going on."""
        if self._build is not None:
            self._build.close()
            self._build = None


class Build:
    """One process that builds and accepts engines. Close it, or use it as a context manager."""

    def __init__(self, bundle: Bundle, job: Job, progress: Say | None = None, aside: bool | None = None) -> None:
        """`progress` gets lines of text, in another thread. `aside` is of a check: studies are scored meanwhile."""
        self.job, self._bundle, self._progress = job, bundle, progress
        self._answer: dict[str, Any] = {}
        self._given_up = False
        self._process: subprocess.Popen[str] | None = None
        self._listener = threading.Thread(target=self._listen, name="spinescore-build", daemon=True)
        wanted = {} if aside is None else {"aside": aside}
        request = json.dumps({"bundle": str(bundle.folder.absolute()), **wanted, **asdict(job)})  # type: ignore[call-overload]
        OPENING.debug("begun, in a process of its own: %s", job.sentence)
        try:
            job.begin(bundle)
            self._process = subprocess.Popen(
                _command(request),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            self._answer = {"accepted": False, "reason": f"No process can be started ({error.strerror})."}
        self._listener.start()

    @property
    def finished(self) -> bool:
        return not self._listener.is_alive()

    @property
    def judged(self) -> bool:
        """Whether it ended with acceptance records, of engines that were accepted or not."""
        return self._answer.get("judged") is True

    @property
    def sentence(self) -> str:
        """One sentence for the reports: which engines are being built or checked."""
        return self.job.sentence

    def wait(self, caller: Caller | None = None) -> tuple[str, ...]:
        """Until it is over; returns no warning where engines were accepted, else one, which it also leaves on disk.

        Nor is there one if it was closed before it was over. Raises `Cancelled` if the caller gives up.
        """
        while self._listener.is_alive():
            if caller is not None:
                caller.go_on("the engines that another process works on")
            self._listener.join(_LOOK_S)  # and not for good, which Ctrl-C would not end on Windows
        if self._answer.get("accepted") is True:
            OPENING.debug("an engine was accepted")
            return ()
        if self._given_up and not self._answer:
            return ()
        reason = str(self._answer.get("reason") or f"The builder ended with {self._ending()}.")[:_LONGEST_REASON]
        OPENING.debug("no engine was accepted: %s", reason)
        return (self.job.failed(self._bundle, reason),)

    def close(self) -> None:
        """End the process where it still runs. Twice is no error."""
        process, self._process = self._process, None
        if process is None:
            return
        self._given_up = True
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._listener is not threading.current_thread():  # where `progress` closes a scorer
            self._listener.join(_END_S)  # and no longer: it may be in `progress`, which waits for this very thread

    def __enter__(self) -> Build:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self) -> None:
        process = self._process
        if process is None or process.stdout is None:
            return
        with process.stdout:
            for line in process.stdout:
                with suppress(Exception):  # a line that is none, and what the caller's function raises
                    message = json.loads(line)
                    if "accepted" in message:
                        self._answer = dict(message)
                    elif self._progress is not None:
                        self._progress(str(message["say"]))

    def _ending(self) -> str:
        process = self._process
        return ending(process.wait() if process is not None else 0)


def _command(request: str) -> list[str]:
    return worker_command("spinescore.runtime.opening.buildworker", request)
