"""A worker process that runs codecs for its parent (`pool`), and the messages between the two.

Each message is one JSON object after its length; the codestream and the pixels lie in memory that both processes map.
This module imports little, because the process needs only numpy and the codec.
"""

from __future__ import annotations

import faulthandler
import json
import mmap
import os
import signal
import struct
import sys
from contextlib import suppress
from typing import Any, BinaryIO

import numpy as np

from spinescore.runtime.machine.crashes import crash_silently
from spinescore.runtime.reading.decoding import codecs
from spinescore.runtime.reading.pixelformat import PixelFormat
from spinescore.runtime.text import brief

__all__ = ["main", "mapped", "receive", "send"]

_MEMORY_BYTES, _MEMORY_PER_PIXEL = 768 << 20, 16  # the most that a codec may take, if the system can limit it
_MAX_REQUEST = 1 << 16
_PREPARE_S = 60.0  # the parent waits less


def mapped(file: int, name: str, size: int) -> mmap.mmap:
    """Map the shared memory: an open file that both processes hold, or on Windows a mapping of this name."""
    if sys.platform == "win32":
        return mmap.mmap(-1, size, tagname=name)
    return mmap.mmap(file, size)


def send(stream: BinaryIO, message: dict[str, Any]) -> None:
    """Write one message. Raises OSError if the other side has closed the stream."""
    body = json.dumps(message).encode()
    stream.write(struct.pack("<I", len(body)) + body)
    stream.flush()


def receive(stream: BinaryIO, limit: int) -> Any:
    """Return the next message, or None at the end of the stream. Raises ValueError for an invalid one."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    (length,) = struct.unpack("<I", head)
    if length > limit:
        raise ValueError(f"a message of {length} bytes")
    return json.loads(stream.read(length))


def main(file: str) -> None:
    """Answer requests until the standard input ends. `file` is the descriptor of the shared memory.

    Answers go to a copy of the standard output, so that a codec that prints does not disturb them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    crash_silently()
    answers = os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    send(answers, {})
    memory, name = None, ""
    while (request := receive(sys.stdin.buffer, _MAX_REQUEST)) is not None:
        faulthandler.dump_traceback_later(_PREPARE_S, exit=True, file=silence)
        with suppress(Exception):  # the codec itself will report what is missing
            codecs.is_available(request["codec"], request["syntax"])
        send(answers, {})  # the parent's time limit starts here
        # A worker that hangs must also end if its parent is gone and cannot end it.
        faulthandler.dump_traceback_later(request["timeout_s"] + 1.0, exit=True, file=silence)
        if memory is None or name != request["arena"]:
            memory, name = mapped(int(file), request["arena"], request["bytes"]), request["arena"]
        answer = _answer_to(request, memory)
        faulthandler.cancel_dump_traceback_later()
        send(answers, answer)


def _answer_to(request: dict[str, Any], memory: mmap.mmap) -> dict[str, str]:
    """Decode what is in the shared memory, write the pixels there, and return their dtype or the error."""
    try:
        declared = PixelFormat(**request["declared"])
        _limit_memory(declared.rows * declared.columns)
        codestream = memory[request["start"] : request["end"]]
        pixels = codecs.run_codec(request["codec"], codestream, request["syntax"], declared)
        memory[: pixels.nbytes] = np.ascontiguousarray(pixels).view(np.uint8).data  # `run_codec` checked their size
        return {"dtype": pixels.dtype.str}
    except codecs.DecoderFailed as fault:
        return {"error": str(fault)}
    except Exception as fault:
        return {"error": brief(fault)}


def _limit_memory(pixels: int) -> None:
    if sys.platform == "win32":
        return
    import resource

    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = _MEMORY_BYTES + _MEMORY_PER_PIXEL * pixels
    if hard == resource.RLIM_INFINITY or limit <= hard:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
