"""Where this package keeps what it made on this machine, as a log and a warning name it."""

from __future__ import annotations

from typing import Any

from spinescore.kernels.build import CACHE_VARIABLE, user_cache

__all__ = ["cache_place", "cache_values"]


def cache_place() -> str | None:
    """The folder of `user_cache`; None for a user without a home."""
    try:
        return str(user_cache())
    except OSError:
        return None


def cache_values() -> dict[str, Any]:
    """The values of a warning that the folder cannot be used: the folder, and the variable that names another."""
    return {"folder": cache_place(), "variable": CACHE_VARIABLE}
