"""The folder in which this package keeps its files on this machine, as logs and warnings name it."""

from __future__ import annotations

from typing import Any

from spinescore.kernels.cache import CACHE_VARIABLE, user_cache

__all__ = ["cache_place", "cache_values"]


def cache_place() -> str | None:
    """Return the folder of `user_cache`; None for a user without a home."""
    try:
        return str(user_cache())
    except OSError:
        return None


def cache_values() -> dict[str, Any]:
    """Return the values of a warning that the folder cannot be used: it, and the variable that names another one."""
    return {"folder": cache_place(), "variable": CACHE_VARIABLE}
