"""How the faults of one study, or of one output, are told: each costs its own part, and the others go on."""

from __future__ import annotations

import errno
import os
import traceback

from spinescore.runtime.errors import BudgetExceeded, InputRejected, SpineScoreError
from spinescore.runtime.text import brief
from spinescore.runtime.verbs import FAULT, NOTHING_SCORED, OVER_BUDGET, REFUSED
from spinescore.runtime.verbs.streams import say

__all__ = ["told", "unexpected"]

_DEBUG = "SPINESCORE_DEBUG"

# How the loader, the standard library of C++, thread pools and OpenCV say that there is no memory left.
_NO_MEMORY = (
    "failed to map segment",
    "cannot allocate memory",
    "bad_alloc",
    "bad allocation",
    "start new thread",
    "insufficient memory",
)

# What the system refuses, and what to do about it.
_ADVICE = {
    **dict.fromkeys((errno.EACCES, errno.EPERM), "close what holds it open, or choose another place"),
    **dict.fromkeys((errno.ENOSPC, errno.EFBIG), "free space there, or choose another place"),
    **dict.fromkeys((errno.EROFS, errno.EIO, errno.ENAMETOOLONG, errno.ELOOP), "choose another place"),
    **dict.fromkeys((errno.EISDIR, errno.ENOTDIR), "move what is in its place away, or choose another place"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "let this program open more files (ulimit -n)"),
}
if hasattr(errno, "EDQUOT"):
    _ADVICE[errno.EDQUOT] = _ADVICE[errno.ENOSPC]


def _lacks_memory(error: BaseException) -> bool:
    """Whether memory ran out, which each library says in its own way."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, (ImportError, OSError, RuntimeError)) and any(
        words in str(error).lower() for words in _NO_MEMORY
    )


def _is_full(error: OSError) -> bool:
    """Whether there is no space left, which the system says without naming a file."""
    return error.errno is not None and _ADVICE.get(error.errno) == _ADVICE[errno.ENOSPC]


def unexpected(error: BaseException) -> str:
    """Return the message on a fault of this program; say its traceback if that was asked for."""
    if os.environ.get(_DEBUG):
        for line in "".join(traceback.format_exception(type(error), error, error.__traceback__)).splitlines():
            say(line)
    return f"unexpected {type(error).__name__}: {error} (set {_DEBUG}=1 to see where, and report it)"


def told(error: Exception) -> tuple[int, str]:
    """The exit status that belongs to an error, and what to say of it."""
    if isinstance(error, InputRejected):
        return NOTHING_SCORED, f"{error.code}: {error}"
    if isinstance(error, BudgetExceeded):
        return OVER_BUDGET, str(error)
    if isinstance(error, SpineScoreError):
        return REFUSED, f"{error.code}: {error}"
    if isinstance(error, OSError) and error.errno in _ADVICE and (error.filename is not None or _is_full(error)):
        where = error.filename2 or error.filename or "the disk"
        return REFUSED, f"{where}: {error.strerror}; {_ADVICE[error.errno]}"
    if _lacks_memory(error):
        return (
            REFUSED,
            f"there is not enough memory ({brief(error)}); allow more (ulimit -v), or give smaller images",
        )
    return FAULT, unexpected(error)
