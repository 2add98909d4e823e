"""The wishes of a user who opens a scorer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from spinescore.runtime.arguments import shown
from spinescore.runtime.caller import Caller
from spinescore.runtime.devices import DEVICES, KINDS, LARGEST_IMAGE_PX
from spinescore.runtime.engines import ENGINES, PRECISIONS
from spinescore.runtime.engines.choice import EngineChoice, engines_on
from spinescore.runtime.names import BuildMode
from spinescore.runtime.scoring.budget import Effort
from spinescore.runtime.scoring.msasss import DEFAULT_MAX_IMPUTED
from spinescore.runtime.study import Finding

__all__ = ["BUILDS", "Request"]

BUILDS: tuple[BuildMode, ...] = get_args(BuildMode)


@dataclass(frozen=True)
class Request:
    """How a bundle is to be opened: the arguments of `Scorer.open`, and below them what a plan adds.

    None leaves a choice to the acceptance records. Raises `TypeError` for a name that is no text, `ValueError` for an
    unknown one.
    """

    device: str
    engine: str | None = None
    precision: str | None = None
    require_acceptance: bool = True
    threads: int | None = None
    localizer: str | None = None
    plan: str | Path | None = None
    build: str = "auto"
    largest_image_px: int = LARGEST_IMAGE_PX
    max_imputed_per_region: int = DEFAULT_MAX_IMPUTED
    progress: Callable[[str], None] | None = None  # also gets what another process says later
    caller: Caller = field(default_factory=Caller, compare=False, repr=False)

    effort: Effort | None = None
    framework: str | None = None  # that the plan was made with
    warnings: tuple[str, ...] = ()  # for every report
    findings: tuple[Finding, ...] = ()  # for every report: engines that failed their self-test

    def __post_init__(self) -> None:
        for what, name, names in (
            ("device", self.device, DEVICES),
            ("engine", self.engine, (None, *ENGINES)),
            ("precision", self.precision, (None, *PRECISIONS)),
            ("build", self.build, BUILDS),
        ):
            if name is not None and not isinstance(name, str):
                raise TypeError(f"{what} must be one of {', '.join(filter(None, names))}, got {shown(name)}")
            if name not in names:
                raise ValueError(f"there is no {what} {name!r}; choose one of {', '.join(filter(None, names))}")

    @property
    def names_nothing(self) -> bool:
        """Whether the user left engine and precision to the records."""
        return self.engine is None and self.precision is None

    @property
    def leaves_all_to_a_plan(self) -> bool:
        """Whether the user chose nothing that a plan chooses."""
        return self.names_nothing and self.require_acceptance and (self.threads, self.localizer) == (None, None)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of device to try, in order; `auto` leaves out a device on which what was named cannot run."""
        if self.device != "auto":
            return (self.device,)
        kinds = tuple(kind for kind in KINDS if self.engine is None or self.engine in engines_on(kind))
        on_gpu = {precision for row in ENGINES.values() for precision in row.precisions.get("cuda", ())}
        return kinds if self.precision is None or self.precision in on_gpu else ("cpu",)

    def allows(self, choice: EngineChoice) -> bool:
        """Whether the choice is of the engine and the precision that the user named, if any."""
        return self.engine in (None, choice.engine) and self.precision in (None, choice.precision)
