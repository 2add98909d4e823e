"""Encapsulated pixel data: the items in which a file holds a codestream (PS3.5 A.4)."""

from __future__ import annotations

from spinescore.runtime.reading.decoding.codestreams import begins_codestream
from spinescore.runtime.reading.pixelformat import corrupt

__all__ = ["codestream_in", "holds_codestream"]

_ITEM = b"\xfe\xff\x00\xe0"
_MAX_FRAGMENTS, _MAX_OFFSETS_BYTES = 1 << 16, 1 << 12


def holds_codestream(data: bytes) -> bool:
    """Return whether pixel data begin with an item, or with a codestream that is in no item."""
    return data[:4] == _ITEM or begins_codestream(data)


def codestream_in(data: bytes, source: str) -> bytes:
    """Return the codestream of the one image: all fragments joined, whatever the offset table states.

    The offset table is the first item, but some devices leave it out. Pixels that are in no item are returned
    unchanged. Raises InputRejected: corrupt-pixels.
    """
    if begins_codestream(data[:8]):
        return data
    at, fragments = 0, []
    while data[at : at + 4] == _ITEM:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        fragments.append(slice(at + 8, at + 8 + length))
        at += 8 + length
        if len(fragments) > _MAX_FRAGMENTS:
            raise corrupt(source, f"has its compressed image in more than {_MAX_FRAGMENTS} fragments")
    if not fragments or at > len(data):
        raise corrupt(source, "has compressed pixels that cannot be taken apart")
    if len(fragments) > 1 and not begins_codestream(data[fragments[0].start : fragments[0].start + 8]):
        offsets = fragments.pop(0)
        if (size := offsets.stop - offsets.start) > _MAX_OFFSETS_BYTES:
            raise corrupt(source, f"has {size} bytes of offsets for the one image that it holds")
    return b"".join(data[fragment] for fragment in fragments)
