"""The radiographs of a study on a device: uploaded, localized for evidence, scored by the pipeline."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spinescore.kernels.decode import DISCS, VIEW
from spinescore.kernels.warp import ROI
from spinescore.runtime.acceptance import verify_command
from spinescore.runtime.acceptance.selftest import SelfTest
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices import Device
from spinescore.runtime.errors import DeviceError, InputRejected, SelfTestError
from spinescore.runtime.scoring.budget import Boundary, Budget
from spinescore.runtime.scoring.estimates import Durations
from spinescore.runtime.scoring.grading import probabilities
from spinescore.runtime.scoring.inputs import source_of, view_of, whole_of
from spinescore.runtime.scoring.intake import GivenPoints
from spinescore.runtime.scoring.judgement import RegionResult, judge
from spinescore.runtime.scoring.launches import Effort, Launches, alternatives
from spinescore.runtime.scoring.networks import VIEWS
from spinescore.runtime.scoring.pipeline import Pipeline, full_effort
from spinescore.runtime.scoring.scoredquality import LEAST_COUNTED, miscounted
from spinescore.runtime.scoring.selection import Chosen, Evidence, other_region
from spinescore.runtime.scoring.standing import (
    FACINGS,
    MARGIN,
    STATED_MARGIN,
    by_points,
    is_doubtful,
    look_at_turns,
    rather,
    stands,
)
from spinescore.runtime.study import REGIONS, Radiograph, Region, Turn

__all__ = ["Views"]

_WARM_UP_SHAPE = (1200, 960)  # of the synthetic picture with which steps are timed at opening


class Views:
    """A bundle's pipeline on a device, which it owns, with its steps' likely times. For one thread at a time."""

    def __init__(
        self,
        bundle: Bundle,
        device: Device[Any],
        effort: Effort | None = None,
        before: Callable[[str], None] | None = None,
    ) -> None:
        """Load the networks. `before` gets a line of text before each; if anything raises, the device is closed."""
        self._bundle, self._manifest, self.device = bundle, bundle.manifest, device
        localizer = bundle.manifest.localizer
        self.durations = Durations(localizer.averaging.cost)
        self._full = full_effort(localizer)
        self.give(effort or self._full)
        try:
            with ThreadPoolExecutor(1, "spinescore-golden") as pool:  # while networks are loaded
                reading = pool.submit(SelfTest.of, bundle)
                self.pipeline = Pipeline(bundle, device, self.efforts[0], before)
            self._self_test = reading.result()
        except BaseException:
            device.close()
            raise

    def give(self, effort: Effort) -> None:
        """Score with this effort from now on if there is time, else with one of its alternatives."""
        inputs = (self._manifest.localizer.input, self._manifest.grader.input)
        self.efforts = alternatives(effort, any(size.antialias > 1 for size in inputs))

    @property
    def testable(self) -> bool:
        """Whether the bundle has golden inputs, with which the engine can be tested."""
        return self._self_test is not None

    def self_test(self, boundary: Boundary | None = None) -> None:
        """Run the networks on golden inputs as in a study, which also warms them up.

        Raises `SelfTestError` if an output is beyond the bundle's tolerances, `EngineError` if a network fails, and
        what `boundary` raises.
        """
        if self._self_test is None:
            faults: list[str] = []
            _, took_ms = self.pipeline.run_networks(boundary=boundary)
        else:
            faults, took_ms = self._self_test.run(self.pipeline, boundary)
        self.durations.assume(took_ms["localizer"], took_ms["grader"])
        if faults:
            engine = f"{self.pipeline.framework} {self.pipeline.precision}"
            raise SelfTestError(
                f"Engine {engine} computes wrongly in this process: on golden inputs of bundle "
                f"{self._manifest.name} its self-test found {'; '.join(faults)}. It gave out no grades. Judge it anew "
                f"with {verify_command(self._bundle, self.device.kind)}, or use another engine."
            )

    def close(self) -> None:
        """Free the device and the buffers. Closing twice is no error; nothing else may be called afterwards."""
        self.device.close()
        self.__dict__.pop("pipeline", None)

    def warm_up(self, budget: Budget) -> None:
        """Prepare every effort, and time the steps with a synthetic picture with given points."""
        for effort in self.efforts:
            budget.go_on()
            self.pipeline.prepare(effort)
        picture = np.arange(_WARM_UP_SHAPE[1], dtype=np.uint16) + np.zeros(_WARM_UP_SHAPE, np.uint16)
        synthetic = Chosen(Radiograph(picture, np.linspace(0, 1, 2**12, dtype=np.float32)), "left")
        pairs = {disc: np.array([[x, 150 + 150 * disc] for x in (480, 400)], np.float32) for disc in range(DISCS)}
        chosen, given = dict.fromkeys(REGIONS, synthetic), dict.fromkeys(REGIONS, pairs)
        full = self.efforts[0]
        try:
            for effort in dict.fromkeys((full, replace(full, test_time=False), self.efforts[-1])):
                self._launch(chosen, given, budget, (effort,))
                self.durations.learn(budget.took)
                budget.took.clear()
            self._asked(budget, synthetic.radiograph, 0)
        except DeviceError:  # the scorer was opened for smaller pictures
            return

    def score(self, chosen: dict[Region, Chosen], given: GivenPoints, budget: Budget) -> dict[Region, RegionResult]:
        """Return the regions' results; their times are in `budget.stages_ms`."""
        if not chosen:
            return {}
        results = self._launch(chosen, given, budget, self.efforts)
        self._recheck_doubtful(chosen, given, results, budget)
        self._check_levels(results, budget)
        return results

    def within(self, budget: Budget, count: int) -> Evidence:
        """Return the function that gives the evidence of one of `count` radiographs within a budget.

        It raises `InputRejected` (`no-time`) if there is no time. Needed evidence may use the time of all but the least
        effort; other evidence may not use the time of antialiasing.
        """
        antialiased = [effort for effort in self.efforts if effort.antialias == self.efforts[0].antialias]

        def evidence(radiograph: Radiograph, turn_deg: Turn, needed: bool) -> NDArray[np.float64]:
            budget.go_on()
            how = self.pipeline.localizers, self.efforts if needed else antialiased, min(count, VIEWS)
            if not budget.allows_evidence(*how, needed=needed):
                raise InputRejected("no-time", _no_time(radiograph, budget, budget.needs_ms(*how)))
            return self._asked(budget, radiograph, turn_deg)

        return evidence

    def _asked(self, budget: Budget, radiograph: Radiograph, turn_deg: Turn) -> NDArray[np.float64]:
        return budget.ask(self.pipeline.localizers, partial(self.evidence, radiograph, turn_deg))

    def evidence(self, radiograph: Radiograph, turn_deg: Turn = 0) -> NDArray[np.float64]:
        """Return mean peaks (facing, region) of a radiograph, turned by `turn_deg` clockwise, as it is and mirrored."""
        return self.pipeline.evidence(*self._flips(radiograph, turn_deg))

    def _flips(self, radiograph: Radiograph, turn_deg: Turn) -> tuple[NDArray[np.void], NDArray[np.void]]:
        """Upload a radiograph; return the ROIs and `VIEW` records that show it as it is and mirrored."""
        self.device.upload(0, source_of(radiograph, self._manifest))
        parameters = np.zeros(VIEWS, VIEW)
        parameters["faces_right"] = [facing == "right" for facing in FACINGS]
        flips = (Chosen(radiograph, facing, turn_deg) for facing in FACINGS)
        return np.array([whole_of(0, flip, self._manifest.localizer) for flip in flips], ROI), parameters

    def _launch(
        self, chosen: Mapping[Region, Chosen], given: GivenPoints, budget: Budget, efforts: Sequence[Effort]
    ) -> dict[Region, RegionResult]:
        """Upload the radiographs, run the first of the efforts that there is time for, and judge the regions."""
        whole, parameters = np.zeros(VIEWS, ROI), np.zeros(VIEWS, VIEW)
        whole["source"] = -1
        regions = {region: view for view, region in enumerate(REGIONS) if region in chosen}
        budget.begin("upload")
        for region, view in regions.items():
            self.device.upload(view, source_of(chosen[region].radiograph, self._manifest))
            whole[view] = whole_of(view, chosen[region], self._manifest.localizer)
            parameters[view] = view_of(view, chosen[region], given.get(region, {}))
        first, last = min(regions.values()), max(regions.values())
        budget.done("upload")
        effort = budget.choose(efforts, last + 1 - first, self._full)
        launches = Launches(effort, last + 1 - first)
        budget.go_on(launches.plainest)  # before steps are captured, which takes time
        outputs = self.pipeline.score(slice(first, last + 1), whole, parameters, effort, budget.boundary(launches))
        budget.launched(launches, outputs.durations_ms)
        p = probabilities(outputs.logits, self._manifest.grader.head).reshape(len(outputs.points), -1, 2, 4)
        points = {region: (outputs.points[view - first], p[view - first]) for region, view in regions.items()}
        return {
            region: judge(region, chosen[region], *points[region], self._manifest, given.get(region, {}).keys())
            for region in regions
        }

    def _recheck_doubtful(
        self, chosen: Mapping[Region, Chosen], given: GivenPoints, results: dict[Region, RegionResult], budget: Budget
    ) -> None:
        """Check doubtful results: reject those that show the other region, score those in another orientation again."""
        localizer, turned = self._manifest.localizer, dict(chosen)
        for region, result in results.items():
            if not is_doubtful(result, localizer.min_confidence):
                continue
            if (shown := by_points(result)) is not None:
                turned[region] = Chosen(chosen[region].radiograph, shown[1], shown[0])
                continue
            own = chosen[region].turn_deg, chosen[region].facing
            seen: dict[Turn, NDArray[np.float64]] = {}
            look = partial(self._if_time, budget, chosen[region].radiograph)
            look_at_turns(seen, own[0], look, localizer.min_confidence)
            other = other_region(region, np.array(list(seen.values())), localizer) if seen else None
            margin = MARGIN if chosen[region].radiograph.facing_from == "header" else STATED_MARGIN
            if other is not None and result.reject is not None and result.reject.code == "low-confidence":
                results[region] = result.rather(other)
            elif seen and (better := rather(seen, region, own, localizer.min_confidence, margin)) is not None:
                turned[region] = Chosen(chosen[region].radiograph, better[1], better[0])
            else:
                results[region] = replace(result, stands_as_seen=stands(seen, region, own))
        changed = [region for region in turned if turned[region] != chosen[region]]
        again = self._launch(turned, given, budget, self.efforts) if changed else {}
        for region in changed:
            results[region] = replace(again[region], stands_as_seen=True)

    def _if_time(self, budget: Budget, radiograph: Radiograph, turn_deg: Turn) -> NDArray[np.float64]:
        """Return the evidence at a turn; raise `InputRejected` if there is no time for it."""
        if not budget.allows_evidence(self.pipeline.localizers, self.efforts, 0):
            raise InputRejected("no-time", "there is no time to look at another turn")
        budget.go_on()
        return self._asked(budget, radiograph, turn_deg)

    def _check_levels(self, results: dict[Region, RegionResult], budget: Budget) -> None:
        """Check whether the localizer finds a reader's discs one level away."""
        for region, result in results.items():
            enough = result.reject is None and len(result.given) >= LEAST_COUNTED
            if enough and budget.allows_evidence(self.pipeline.localizers, self.efforts, 0):
                budget.go_on()
                whole, parameters = self._flips(result.chosen.radiograph, result.chosen.turn_deg)
                points = budget.ask(self.pipeline.localizers, partial(self.pipeline.look, whole, parameters))
                seen = points[REGIONS.index(region), FACINGS.index(result.chosen.facing)]
                finding = miscounted(result, seen, self._manifest.localizer.min_confidence)
                if finding is not None:
                    results[region] = replace(result, findings=(*result.findings, finding))


def _no_time(radiograph: Radiograph, budget: Budget, needed_ms: float) -> str:
    """Return the message of `no-time`: what the radiograph does not state, and what to do."""
    texts = {"region": "its region", "facing": "to which side the patient looks (facing)"}
    missing = [name for name in texts if getattr(radiograph, name) is None] or list(texts)
    name = radiograph.source or f"The {f'{radiograph.region} ' if radiograph.region else ''}radiograph"
    return (
        f"{name} does not state {', or '.join(texts[name] for name in missing)}, and the budget of {budget.ms or 0:g} "
        f"ms left no time to ask the picture. State it: {' and '.join(f'{name}=' for name in missing)} of "
        f"radiograph_from_array, {' and '.join(f'--{name}' for name in missing)} on the command line, or the header; "
        f"or give a budget of about {math.ceil(round(needed_ms, 3))} ms."
    )
