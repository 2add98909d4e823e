"""Worker processes that run codecs, and the memory that this process shares with them.

A worker (`worker.main`) starts with the first compressed image. It is kept warm until the last scorer of this process
is closed, or until the interpreter ends; the next image starts another one. Images that are read at the same time have
one worker each. If the last scorer is closed during a decoding, that worker finishes and is kept.

The shared memory has no name that could be left behind. A worker's answers are checked as if they came from a stranger.
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
from typing import Any, BinaryIO, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.machine.processes import end_unused, ending, worker_command
from spinescore.runtime.reading.decoding.codecs import DecoderFailed
from spinescore.runtime.reading.decoding.worker import mapped, receive, send
from spinescore.runtime.reading.memory import pixel_array
from spinescore.runtime.reading.pixelformat import PixelFormat

__all__ = ["DecoderLost", "Pool", "stop"]

_START_S = 30.0  # to start a worker, and to load a codec, on a slow machine
_MAX_WORKERS = max(2, min(4, os.cpu_count() or 1))  # as many as files are read at once
_KEPT_BYTES = 64 << 20  # larger shared memory is given back after each image
_MAX_ANSWER = 4096
_PAGE = 4096
_DTYPES = ("|u1", "|i1", "<u2", "<i2", ">u2", ">i2")
_WORKER = "spinescore.runtime.reading.decoding.worker"


class DecoderLost(Exception):
    """The codec crashed or did not finish in time. The message is the predicate of a sentence about the pixels."""


def stop() -> None:
    """End the idle workers of this process; the next image starts new ones."""
    Pool.of_this_process().stop()


class Pool:
    """The workers of one process. After a fork the child has an empty pool of its own.

    `broken` is true once the system has refused to start a worker.
    """

    _pools: ClassVar[dict[int, Pool]] = {}  # by process id

    def __init__(self) -> None:
        self.broken = False
        self._idle: list[_Worker] = []
        self._slots = threading.BoundedSemaphore(_MAX_WORKERS)

    @classmethod
    def of_this_process(cls) -> Pool:
        """Return the pool of the running process."""
        return cls._pools.get(os.getpid()) or cls._pools.setdefault(os.getpid(), cls())

    def decode(
        self, codec: str, codestream: bytes, syntax: str, declared: PixelFormat, timeout_s: float
    ) -> NDArray[np.integer]:
        """Return the pixels (rows x columns) that a codec decodes in a worker within `timeout_s` seconds.

        Raises DecoderLost, DecoderFailed, and OSError if no worker can be started.
        """
        with self._slots:
            worker = self._worker()
            try:
                pixels = worker.decode(codec, codestream, syntax, declared, timeout_s)
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
        """End the idle workers."""
        with suppress(IndexError):  # another thread may take the last one
            while True:
                self._idle.pop().end()


class _Worker:
    """One process and the memory that it shares with this one. Raises OSError if either cannot be had."""

    def __init__(self) -> None:
        self._arena = _Arena()
        try:
            self._process = subprocess.Popen(
                _command(str(self._arena.file)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=(self._arena.file,) if self._arena.file >= 0 else (),
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},  # numpy starts no threads
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
        self, codec: str, codestream: bytes, syntax: str, declared: PixelFormat, timeout_s: float
    ) -> NDArray[np.integer]:
        shape = declared.rows, declared.columns
        start = -(-shape[0] * shape[1] * 2 // _PAGE) * _PAGE  # the pixels come first, the codestream after them
        try:
            memory = self._arena.at_least(start + len(codestream))
        except OSError as fault:
            raise DecoderLost(f"need more memory than there is ({fault.strerror})") from None
        memory[start : start + len(codestream)] = codestream
        request = {"codec": codec, "syntax": syntax, "declared": asdict(declared), "timeout_s": timeout_s}
        request |= {"arena": self._arena.name, "bytes": len(memory), "start": start, "end": start + len(codestream)}
        self._answer(_START_S, request)  # comes when the codec is loaded
        answer = self._answer(timeout_s)
        if answer.get("dtype") not in _DTYPES:
            raise DecoderLost("made the decoder give an invalid answer")
        flat = np.frombuffer(memory, dtype=answer["dtype"], count=shape[0] * shape[1])
        pixels: NDArray[np.integer] = pixel_array(shape, flat.dtype)
        pixels[...] = flat.reshape(shape)
        del flat  # a view of the shared memory would keep it from being given back
        self._arena.give_back()
        return pixels

    def _answer(self, timeout_s: float, request: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send a request, if there is one, and return the worker's next answer."""
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
        with suppress(OSError):  # a request that the worker did not read any more
            self._input.close()
        self._arena.close()


def _command(file: str) -> list[str]:
    return worker_command(_WORKER, file)


class _Arena:
    """Memory shared with one worker: a file without a name, or a mapping on Windows. It vanishes with its last user."""

    def __init__(self) -> None:
        self.name, self.file = "", -1
        self._memory: mmap.mmap | None = None
        if hasattr(os, "memfd_create"):  # not bound by the size of /dev/shm, which is small in containers
            self.file = os.memfd_create("spinescore-decode")
        elif sys.platform != "win32":
            with tempfile.TemporaryFile() as unnamed:
                self.file = os.dup(unnamed.fileno())

    def at_least(self, size: int) -> mmap.mmap:
        """Return the memory, enlarged to `size` bytes if it is smaller."""
        if self._memory is None or len(self._memory) < size:
            self._unmap()
            self.name = f"spinescore-{os.getpid()}-{os.urandom(8).hex()}"
            if self.file >= 0:
                os.ftruncate(self.file, size)
            self._memory = mapped(self.file, self.name, size)
        return self._memory

    def give_back(self) -> None:
        """Return the memory to the system if it is too large to be kept."""
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
