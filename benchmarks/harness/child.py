"""Child processes of measurements: run to their end, or read line by line as they answer in JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from spinescore.runtime.errors import EngineError

__all__ = ["SPINESCORE", "Child", "answer", "end_session", "ended_together", "run_child", "session", "this_module"]

SPINESCORE = (sys.executable, "-m", "spinescore.runtime.cli")
_END_S = 30.0


def this_module(name: str, *words: str) -> list[str]:
    """Return the command of a module of this package, for a child process."""
    return [sys.executable, "-m", f"spinescore.benchmarks.{name}", *words]


def run_child(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> str:
    """Run a process to its end and return its standard output.

    Raises `EngineError`, with the last line of standard error, if it fails or takes longer than `timeout_s`.
    """
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, errors="replace", timeout=timeout_s
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{_name(command)} took longer than {timeout_s:.0f} s") from error
    if done.returncode:
        raise _failure(command, done.returncode, done.stderr)
    return done.stdout


@contextmanager
def session(command: Sequence[str], **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process in a session of its own until the block ends, then end it with all that it started."""
    settings = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **settings}
    with subprocess.Popen(command, start_new_session=True, **settings) as process:
        try:
            yield process
        finally:
            end_session(process)


def end_session(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a session (SIGTERM), and kill what is left of the session."""
    if sys.platform == "win32":  # it has no sessions of this kind
        process.kill()
        process.wait()
        return
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_S)
    with suppress(ProcessLookupError):  # none is left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    end = time.monotonic() + _END_S
    while _lives(process.pid) and time.monotonic() < end:
        time.sleep(0.02)


def _lives(session_id: int) -> bool:
    """Return whether a process of a session runs, as Linux tells it; one that has ended waits there for its parent."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[3]) == session_id and fields[0] not in "ZX":
                return True
    return False


@contextmanager
def ended_together(processes: Sequence[subprocess.Popen[Any]]) -> Iterator[None]:
    """Kill processes at the end of the block, as far as they still run."""
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def answer(command: Sequence[str], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> Any:
    """Run a process and return the JSON value in the last line of its standard output."""
    return json.loads(run_child(command, cwd=cwd, env=env).splitlines()[-1])


class Child:
    """A process that writes JSON, one value a line; iterating gives the values until it ends.

    It is killed if it writes nothing for `silent_s` seconds (`hung` is then true). Leaving the context waits for it, or
    kills it if an error was raised.
    """

    def __init__(self, command: Sequence[str], silent_s: float) -> None:
        self._command, self._silent_s, self.hung = command, silent_s, False
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # a pipe that nobody reads would fill up
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._errors, text=True)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._errors, self._process:
            if kind is not None:
                self._process.kill()
            self._wait()

    def __iter__(self) -> Iterator[Any]:
        assert self._process.stdout is not None  # it is a pipe
        while line := self._watched(self._process.stdout.readline):
            yield json.loads(line)
        self._wait()

    @property
    def status(self) -> int | None:
        """The exit status, or None while the process runs."""
        return self._process.poll()

    def errors(self) -> str:
        """Return the process's standard error so far."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")

    def failure(self) -> EngineError:
        """Return the error that says how the process ended."""
        return _failure(self._command, self._process.wait(), self.errors())

    def _wait(self) -> None:
        self._watched(self._process.wait)

    def _watched(self, call: Any) -> Any:
        def end() -> None:
            self.hung = True
            self._process.kill()

        timer = threading.Timer(self._silent_s, end)
        timer.daemon = True
        timer.start()
        try:
            return call()
        finally:
            timer.cancel()


def _failure(command: Sequence[str], status: int, errors: str) -> EngineError:
    last = (errors.strip().splitlines() or ["nothing was written to standard error"])[-1]
    return EngineError(f"{_name(command)} ended with status {status}: {last}")


def _name(command: Sequence[str]) -> str:
    """Return the program, the module, or `spinescore` with its verb."""
    if tuple(command[:3]) == SPINESCORE:
        return f"`spinescore {command[3]}`"
    return f"`{command[2] if command[1:2] == ['-m'] else Path(command[0]).name}`"
