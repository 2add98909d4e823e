"""The running service as the routes of HTTP see it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.configuration.config import Config
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.places import Places
from spinescore.runtime.appliance.web.access import Access
from spinescore.runtime.appliance.web.consoles import Consoles

__all__ = ["Site"]


@dataclass(frozen=True)
class Site:
    """A running service as its HTTP process sees it."""

    config: Config
    places: Places
    clock: Clock
    access: Access
    consoles: Consoles

    @property
    def is_alone(self) -> bool:
        """Whether it serves consoles alone: no study comes, and no result goes, on another way."""
        return self.config.node is None and not self.config.source and not self.config.destination

    @contextmanager
    def index(self) -> Iterator[Index]:
        """Open the index for this thread. Raises SpineScoreError if it cannot be used."""
        with closing(Index(self.places.index, self.places.release_reserve, make=False)) as index:
            yield index
