"""The process that builds or checks engines, as a scorer sees it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from spinescore.runtime.bundle import Bundle
from spinescore.runtime.caller import Caller
from spinescore.runtime.documents import document_of
from spinescore.runtime.logs import OPENING
from spinescore.runtime.machine.child import Child
from spinescore.runtime.opening.building import BuildJob
from spinescore.runtime.opening.checking import Check
from spinescore.runtime.opening.request import Request

__all__ = ["Build", "Job"]

_END_S = 2.0  # that a process may take after it is told to end
_LONGEST_REASON = 2000
_LOOK_S = 0.05  # between two looks at a process that is waited for

Job = BuildJob | Check


class Build:
    """One process that builds and accepts engines. Close it, or use it as a context manager."""

    def __init__(self, bundle: Bundle, job: Job, request: Request, aside: bool = False) -> None:
        """Start the process. The request's `progress` gets its lines of text, in another thread.

        With `aside` a check leaves the cores to studies that are scored meanwhile. `then` is how to open the engine
        that is accepted.
        """
        self.job, self.then = job, job.then(request)
        self._bundle, self._progress = bundle, request.progress
        self._answer: dict[str, Any] = {}
        self._given_up = False
        self._child = Child("spinescore.runtime.opening.builder", on_message=self._hear, is_quiet=True)
        task = {"bundle": str(bundle.folder.absolute()), "aside": aside, "job": document_of(job)}
        OPENING.debug("begun, in a process of its own: %s", job.sentence)
        try:
            job.begin(bundle)
            self._child.start(task)
        except OSError as error:
            self._answer = {"accepted": False, "reason": f"No process can be started ({error.strerror})."}

    @property
    def finished(self) -> bool:
        return self._child.ended() is not None

    @property
    def judged(self) -> bool:
        """Whether it left acceptance records, of engines that were accepted or not."""
        return self._answer.get("judged") is True

    def wait(self, caller: Caller | None = None) -> tuple[str, ...]:
        """Wait for the end; return a warning if no engine was accepted, and keep it on disk.

        There is no warning if the process was closed before its end. Raises `Cancelled` if the caller gives up.
        """
        while (
            end := self._child.ended(_LOOK_S)
        ) is None:  # not without end: Ctrl-C would not interrupt that on Windows
            if caller is not None:
                caller.go_on("the engines that another process works on")
        if self._answer.get("accepted") is True:
            OPENING.debug("an engine was accepted")
            return ()
        if self._given_up and not self._answer:
            return ()
        reason = str(self._answer.get("reason") or f"The builder ended with {end}.")[:_LONGEST_REASON]
        OPENING.debug("no engine was accepted: %s", reason)
        return (self.job.failed(self._bundle, reason),)

    def close(self) -> None:
        """End the process if it still runs. Closing twice is no error."""
        self._given_up = True
        self._child.kill(_END_S)

    def __enter__(self) -> Build:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hear(self) -> None:
        for message in self._child.messages():
            with suppress(Exception):  # a line that is no message, or an error of the caller's function
                if "accepted" in message:
                    self._answer = dict(message)
                elif self._progress is not None:
                    self._progress(str(message["say"]))
