"""What the routes of the HTTP service work with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.config import Config
from spinescore.runtime.appliance.index import Index
from spinescore.runtime.appliance.places import Places

__all__ = ["Site"]


@dataclass(frozen=True)
class Site:
    """A running service as its HTTP process sees it: `say` tells the supervisor, `pipe` is where it hears from it."""

    config: Config
    places: Places
    clock: Clock
    say: Callable[..., None]
    pipe: int

    @contextmanager
    def index(self) -> Iterator[Index]:
        """Open the index for this thread. Raises SpineScoreError if it cannot be used."""
        with closing(Index(self.places.index, self.places.release_reserve, make=False)) as index:
            yield index
