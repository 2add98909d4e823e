"""Compressed pixels are decoded in worker processes: a decoder that crashes, hangs or eats memory ends its worker only.

A worker (`decodeworker.main`) is started at the first compressed image and kept warm until the last scorer of this
process is closed, or until the interpreter ends; the next image starts another one. Images that are read at the same
time have one each. A worker that decodes while the last scorer is closed is the reader's, and kept. The memory that is
shared with a worker has no name to be left behind, and its answers are checked as if a stranger had written them.

Decoding is done in this process instead
- where the environment variable SPINESCORE_DECODE_IN_PROCESS is set (to anything but 0), for applications that have a
  sandbox of their own;
- in a frozen application that did not call `spinescore.runtime.freeze_support`, and in one that embeds Python and
  names no Python interpreter (`sys.executable`, or what `multiprocessing.set_executable` set): starting either would
  run the application a second time;
- where no worker can be started.
Then there is no time limit, and a decoder's crash ends the process.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.logs import READING
from spinescore.runtime.machine.processes import can_start, end_unused, ending, worker_command
from spinescore.runtime.reading.decodeworker import DecoderFailed, mapped, receive, send
from spinescore.runtime.reading.memory import pixel_array

if TYPE_CHECKING:
    from spinescore.runtime.reading.pixels import PixelFormat

__all__ = [
    "IN_PROCESS_VARIABLE",
    "TIMEOUT_VARIABLE",
    "DecoderLost",
    "decode",
    "in_process",
    "stop",
    "time_limit_s",
]

IN_PROCESS_VARIABLE = "SPINESCORE_DECODE_IN_PROCESS"
TIMEOUT_VARIABLE = "SPINESCORE_DECODE_TIMEOUT_S"
DEFAULT_TIMEOUT_S = 5.0

_START_S = 30.0  # to start a worker, and to load a decoder, on a slow machine
_MAX_WORKERS = max(2, min(4, os.cpu_count() or 1))  # as many as files are read at once
_KEPT_BYTES = 64 << 20  # shared memory beyond this is given back after each image
_MAX_ANSWER = 4096
_PAGE = 4096
_DTYPES = ("|u1", "|i1", "<u2", "<i2", ">u2", ">i2")
_WORKER = "spinescore.runtime.reading.decodeworker"


class DecoderLost(Exception):
    """The decoder crashed or did not finish in time. The message is the predicate of a sentence about the image."""


def time_limit_s() -> float:
    """Seconds that an image may take: SPINESCORE_DECODE_TIMEOUT_S where it is a positive number, else 5."""
    try:
        stated = float(os.environ.get(TIMEOUT_VARIABLE, ""))
    except ValueError:
        return DEFAULT_TIMEOUT_S
    return stated if 0 < stated < float("inf") else DEFAULT_TIMEOUT_S


def in_process() -> bool:
    """Whether images are decoded in this process, see above."""
    wanted = os.environ.get(IN_PROCESS_VARIABLE, "") not in ("", "0")
    return wanted or not can_start() or _Pool.of_this_process().broken


def decode(
    name: str, payload: bytes, syntax: str, declared: PixelFormat, timeout_s: float | None = None
) -> NDArray[np.integer]:
    """Pixels (rows x columns, at most 16 bits) of `payload`, decoded in a worker within `timeout_s`.

    Raises DecoderLost for a crash and a time-out, DecoderFailed for what the decoder itself reports.
    """
    from spinescore.runtime.reading import decoders  # it builds on this module

    if not in_process():
        try:
            return _Pool.of_this_process().decode(name, payload, syntax, declared, timeout_s or time_limit_s())
        except OSError:  # no process is to be had
            _Pool.of_this_process().broken = True
            READING.debug("no worker process is to be had: images are decoded in this process from here on")
    return decoders.run_decoder(name, payload, syntax, declared)


def stop() -> None:
    """End the workers of this process; the next image starts new ones."""
    _Pool.of_this_process().stop()


class _Pool:
    """The idle workers of one process. After a fork the child has an empty pool of its own."""

    _pools: ClassVar[dict[int, _Pool]] = {}  # by process

    def __init__(self) -> None:
        self.broken = False
        self._idle: list[_Worker] = []
        self._slots = threading.BoundedSemaphore(_MAX_WORKERS)

    @classmethod
    def of_this_process(cls) -> _Pool:
        return cls._pools.get(os.getpid()) or cls._pools.setdefault(os.getpid(), cls())

    def decode(
        self, name: str, payload: bytes, syntax: str, declared: PixelFormat, timeout_s: float
    ) -> NDArray[np.integer]:
        with self._slots:
            worker = self._worker()
            try:
                pixels = worker.decode(name, payload, syntax, declared, timeout_s)
            except DecoderFailed:
                self._idle.append(worker)
                raise
            except BaseException:
                worker.end()
                raise
            self._idle.append(worker)
            return pixels

    def _worker(self) -> _Worker:
        while True:
            try:
                worker = self._idle.pop()
            except IndexError:
                return _Worker()
            if worker.is_alive():
                return worker
            worker.end()

    def stop(self) -> None:
        with suppress(IndexError):  # several threads may take from it
            while True:
                self._idle.pop().end()


class _Worker:
    """One process and the memory that is shared with it. Raises OSError where either cannot be had."""

    def __init__(self) -> None:
        self._arena = _Arena()
        try:
            self._process = subprocess.Popen(
                _command(str(self._arena.file)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=self._arena.inherited,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},  # numpy's, not needed here
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError:
            self._arena.close()
            raise
        self._input, self._output = cast(BinaryIO, self._process.stdin), cast(BinaryIO, self._process.stdout)
        try:
            self._answer(_START_S)
        except (DecoderLost, DecoderFailed) as fault:
            self.end()
            raise OSError(f"a worker process does not start: it {fault}") from None

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def decode(
        self, name: str, payload: bytes, syntax: str, declared: PixelFormat, timeout_s: float
    ) -> NDArray[np.integer]:
        shape = declared.rows, declared.columns
        start = -(-shape[0] * shape[1] * 2 // _PAGE) * _PAGE
        try:
            memory = self._arena.at_least(start + len(payload))
        except OSError as fault:
            raise DecoderLost(f"need more memory than there is ({fault.strerror})") from None
        memory[start : start + len(payload)] = payload
        request = {"decoder": name, "syntax": syntax, "declared": asdict(declared), "timeout_s": timeout_s}
        request |= {"arena": self._arena.name, "bytes": len(memory), "start": start, "end": start + len(payload)}
        self._answer(_START_S, request)  # once the decoder is loaded
        answer = self._answer(timeout_s)
        if answer.get("dtype") not in _DTYPES:
            raise DecoderLost("made the decoder give an answer that is none")
        flat = np.frombuffer(memory, dtype=answer["dtype"], count=shape[0] * shape[1])
        pixels: NDArray[np.integer] = pixel_array(shape, flat.dtype)
        pixels[...] = flat.reshape(shape)
        del flat
        self._arena.give_back()
        return pixels

    def _answer(self, timeout_s: float, request: dict[str, Any] | None = None) -> dict[str, Any]:
        late = threading.Event()

        def end() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(timeout_s, end)
        timer.daemon = True
        timer.start()
        try:
            if request is not None:
                send(self._input, request)
            answer = receive(self._output, _MAX_ANSWER)
        except (OSError, ValueError):
            answer = None
        finally:
            timer.cancel()
        if late.is_set():
            raise DecoderLost(f"were not decoded within {timeout_s:g} s")
        if not isinstance(answer, dict):
            self._process.kill()
            raise DecoderLost(f"made the decoder crash ({ending(self._process.wait())})")
        if "error" in answer:
            raise DecoderFailed(str(answer["error"]))
        return answer

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._output.close()
        with suppress(OSError):  # what it did not read any more
            self._input.close()
        self._arena.close()


def _command(file: str) -> list[str]:
    return worker_command(_WORKER, file)


class _Arena:
    """Memory shared with one worker: a file without a name, or on Windows a mapping; both go with their last user."""

    def __init__(self) -> None:
        self.name = ""
        self.file = -1
        self._memory: mmap.mmap | None = None
        if sys.platform == "win32":
            self.inherited: tuple[int, ...] = ()
            return
        if hasattr(os, "memfd_create"):  # not bound by the size of /dev/shm, which is small in containers
            self.file = os.memfd_create("spinescore-decode")
        else:
            with tempfile.TemporaryFile() as unnamed:
                self.file = os.dup(unnamed.fileno())
        self.inherited = (self.file,)

    def at_least(self, size: int) -> mmap.mmap:
        if self._memory is None or len(self._memory) < size:
            self._unmap()
            self.name = f"spinescore-{os.getpid()}-{os.urandom(8).hex()}"
            if self.file >= 0:
                os.ftruncate(self.file, size)
            self._memory = mapped(self.file, self.name, size)
        return self._memory

    def give_back(self) -> None:
        if self._memory is not None and len(self._memory) > _KEPT_BYTES:
            self._unmap()
            if self.file >= 0:
                os.ftruncate(self.file, 0)

    def _unmap(self) -> None:
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def close(self) -> None:
        self._unmap()
        if self.file >= 0:
            os.close(self.file)
            self.file = -1


end_unused(stop)
