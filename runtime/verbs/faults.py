"""Messages and exit statuses for errors. An error in one study or one output does not stop the others."""

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

# Words of the loader, the C++ standard library, thread pools and OpenCV when there is no memory left.
_NO_MEMORY = (
    "failed to map segment",
    "cannot allocate memory",
    "bad_alloc",
    "bad allocation",
    "start new thread",
    "insufficient memory",
)

# Advice for each error of the operating system.
_ADVICE = {
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM),
        "close what holds it open, let this user write there, or choose another place",
    ),
    **dict.fromkeys((errno.ENOSPC, errno.EFBIG), "free space there, or choose another place"),
    **dict.fromkeys((errno.EROFS, errno.EIO, errno.ENAMETOOLONG, errno.ELOOP), "choose another place"),
    **dict.fromkeys(
        (errno.EEXIST, errno.EISDIR, errno.ENOTDIR), "move what is in its place away, or choose another place"
    ),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "let this program open more files (ulimit -n)"),
}
if hasattr(errno, "EDQUOT"):
    _ADVICE[errno.EDQUOT] = _ADVICE[errno.ENOSPC]


def _lacks_memory(error: BaseException) -> bool:
    """Return whether memory ran out; each library says so in its own way."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, (ImportError, OSError, RuntimeError)) and any(
        words in str(error).lower() for words in _NO_MEMORY
    )


def _is_full(error: OSError) -> bool:
    """Return whether there is no space left; the system reports that without a file name."""
    return error.errno is not None and _ADVICE.get(error.errno) == _ADVICE[errno.ENOSPC]


def unexpected(error: BaseException) -> str:
    """Return the message for a fault of this program; print its traceback if SPINESCORE_DEBUG is set."""
    if os.environ.get(_DEBUG):
        for line in "".join(traceback.format_exception(type(error), error, error.__traceback__)).splitlines():
            say(line)
    return f"unexpected {type(error).__name__}: {error} (set {_DEBUG}=1 to see where, and report it)"


def told(error: Exception) -> tuple[int, str]:
    """Return the exit status for an error, and the message."""
    if isinstance(error, InputRejected):
        return NOTHING_SCORED, f"{error.code}: {error}"
    if isinstance(error, BudgetExceeded):
        return OVER_BUDGET, str(error)
    if isinstance(error, SpineScoreError):
        return REFUSED, f"{error.code}: {error}"
    if isinstance(error, OSError) and error.errno in _ADVICE and (error.filename is not None or _is_full(error)):
        place = error.filename2 or error.filename or "the disk"
        return REFUSED, f"{place}: {error.strerror}; {_ADVICE[error.errno]}"
    if _lacks_memory(error):
        return (
            REFUSED,
            f"there is not enough memory ({brief(error)}); allow more (ulimit -v), or give smaller images",
        )
    return FAULT, unexpected(error)
