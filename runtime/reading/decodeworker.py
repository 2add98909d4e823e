"""A worker process that decodes compressed pixels for its parent, and the messages between the two.

Each message is one JSON object, led by its length; the codestream and the pixels lie in memory that both map. The
process needs numpy and the decoder alone, so this module imports little else; `decodepool` is the parent's side.
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

__all__ = ["DecoderFailed", "main", "mapped", "receive", "send"]

_MEMORY_BYTES, _MEMORY_PER_PIXEL = 768 << 20, 16  # what a decoder may take, where the system can limit it
_MAX_REQUEST = 1 << 16
_PREPARE_S = 60.0  # the parent waits less


class DecoderFailed(Exception):
    """The decoder says that it cannot decode. The message is what it raised, in one line."""


def mapped(file: int, name: str, size: int) -> mmap.mmap:
    """Shared memory: an open file's where files can be inherited without a name, else (Windows) a named mapping."""
    if sys.platform == "win32":
        return mmap.mmap(-1, size, tagname=name)
    return mmap.mmap(file, size)


def send(stream: BinaryIO, message: dict[str, Any]) -> None:
    """Write one message. Raises OSError where nobody reads."""
    body = json.dumps(message).encode()
    stream.write(struct.pack("<I", len(body)) + body)
    stream.flush()


def receive(stream: BinaryIO, limit: int) -> Any:
    """The next message, or None at the end. Raises ValueError for what is none."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    (length,) = struct.unpack("<I", head)
    if length > limit:
        raise ValueError(f"a message of {length} bytes")
    return json.loads(stream.read(length))


def main(file: str) -> None:
    """A worker: answers until its standard input ends. A decoder that prints does not disturb the answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    _crash_silently()
    answers = os.fdopen(os.dup(1), "wb")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    from spinescore.runtime.reading import decoders

    send(answers, {})
    memory, name = None, ""
    while (request := receive(sys.stdin.buffer, _MAX_REQUEST)) is not None:
        faulthandler.dump_traceback_later(_PREPARE_S, exit=True, file=silence)
        with suppress(Exception):  # the decoder itself will say what is missing
            decoders.prepare(request["decoder"], request["syntax"])
        send(answers, {})  # from here on the time is limited
        # also ends a worker that hangs when nobody is left to end it
        faulthandler.dump_traceback_later(request["timeout_s"] + 1.0, exit=True, file=silence)
        if memory is None or name != request["arena"]:
            memory, name = mapped(int(file), request["arena"], request["bytes"]), request["arena"]
        answer = _answer_to(request, memory)
        faulthandler.cancel_dump_traceback_later()
        send(answers, answer)


def _answer_to(request: dict[str, Any], memory: mmap.mmap) -> dict[str, str]:
    from spinescore.runtime.reading import decoders, pixels
    from spinescore.runtime.reading.dicomfile import brief

    try:
        declared = pixels.PixelFormat(**request["declared"])
        _limit_memory(declared.rows * declared.columns)
        payload = memory[request["start"] : request["end"]]
        found = decoders.run_decoder(request["decoder"], payload, request["syntax"], declared)
        memory[: found.nbytes] = np.ascontiguousarray(found).view(np.uint8).data  # never beyond what was declared
        return {"dtype": found.dtype.str}
    except DecoderFailed as fault:
        return {"error": str(fault)}
    except Exception as fault:
        return {"error": brief(fault)}


def _crash_silently() -> None:
    """Without the window in which Windows says that a program has stopped, and holds it until somebody closes that."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.SetErrorMode(msvcrt.SEM_FAILCRITICALERRORS | msvcrt.SEM_NOGPFAULTERRORBOX)


def _limit_memory(pixels: int) -> None:
    if sys.platform == "win32":
        return
    import resource

    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    wanted = _MEMORY_BYTES + _MEMORY_PER_PIXEL * pixels
    if hard == resource.RLIM_INFINITY or wanted <= hard:
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
