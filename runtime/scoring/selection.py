"""Choose each region's radiograph and orientation, by the header or else by evidence: its heatmaps' mean peaks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from spinescore.runtime.errors import InputRejected
from spinescore.runtime.manifest import Localizer
from spinescore.runtime.notices import as_notice, notice
from spinescore.runtime.reading.orientation import to_upright
from spinescore.runtime.reading.quality import as_reject, picture_findings
from spinescore.runtime.reading.vetting import vet
from spinescore.runtime.scoring.geometry import facing_of
from spinescore.runtime.scoring.intake import GivenPoints
from spinescore.runtime.scoring.standing import FACINGS, MARGIN, contradiction, is_sure, look_at_turns
from spinescore.runtime.study import REGIONS, Facing, Finding, Radiograph, Region, Reject, Study, Turn

__all__ = ["Chosen", "Evidence", "Selection", "faced", "facing_from_points", "other_region", "select"]

# (radiograph, turn, whether it cannot be scored without the answer) -> mean peaks in [0, 1] (facing, region)
Evidence = Callable[[Radiograph, Turn, bool], NDArray[np.float64]]
Asked = Callable[[Radiograph, bool], "Seen"]

# A radiograph with one of these findings is taken only if the region has no other one.
SECOND_CHOICE = ("other-body-part", "not-neutral")


@dataclass(frozen=True)
class Chosen:
    """The radiograph that shows a region, the turn that brings it upright, and the side to which the patient looks."""

    radiograph: Radiograph
    facing: Facing
    turn_deg: Turn = 0


@dataclass(frozen=True)
class Seen:
    """The localizer's mean peaks (facing, region) in a radiograph, at the turn with the highest ones."""

    turn_deg: Turn
    peaks: NDArray[np.float64]


@dataclass
class Selection:
    """The radiographs to score, the reasons why others are not scored, and warnings for the user."""

    chosen: dict[Region, Chosen] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)  # warnings on the chosen radiographs

    def follow(self, stands: Mapping[Region, Chosen]) -> None:
        """Add the findings on orientations that were not stated, and renew `inverted`, which depends on the turn."""
        for region, chosen in stands.items():
            image, was = chosen.radiograph, self.chosen[region]
            turned = chosen.turn_deg != (image.turn_deg or 0)
            facing = image.facing or (was.facing if was.turn_deg == chosen.turn_deg else None)
            if turned or (chosen != was and facing not in (None, chosen.facing)):
                self.findings.append(contradiction(image, (chosen.turn_deg, chosen.facing), region))
            if turned:
                self.findings = [one for one in self.findings if (one.code, one.region) != ("inverted", region)]
                again = picture_findings(replace(image, turn_deg=chosen.turn_deg))
                self.findings += [replace(one, region=region) for one in again if one.code == "inverted"]


def select(
    study: Study, localizer: Localizer, given: GivenPoints, evidence: Evidence, strict: bool = False
) -> Selection:
    """Choose a radiograph for each region. `evidence` is called only for facts that the header does not state.

    If `evidence` raises `InputRejected`, a radiograph that cannot be scored without it is rejected. With `strict`, a
    radiograph with a finding is rejected with the finding's code.
    """
    selection = Selection(rejects=list(study.rejects), warnings=list(study.warnings))
    answers: dict[int, Seen] = {}

    def asked(radiograph: Radiograph, needed: bool) -> Seen:
        if id(radiograph) not in answers:
            answers[id(radiograph)] = _at_its_best(radiograph, evidence, needed, localizer.min_confidence)
        return answers[id(radiograph)]

    candidates: dict[Region, list[Radiograph]] = {region: [] for region in REGIONS}
    findings: dict[int, tuple[Finding, ...]] = {}
    for radiograph in study.radiographs:
        outcome: Reject | Region | None = vet(radiograph)
        if outcome is None:
            findings[id(radiograph)] = (*radiograph.findings, *picture_findings(radiograph))
            outcome = _refused(radiograph, findings[id(radiograph)], "reject")
        outcome = outcome or radiograph.region or _region(radiograph, localizer, asked)
        if strict and not isinstance(outcome, Reject):
            outcome = _refused(replace(radiograph, region=outcome), findings[id(radiograph)], "warning") or outcome
        if isinstance(outcome, Reject):
            selection.rejects.append(outcome)
        else:
            candidates[outcome].append(radiograph)
    for region in (region for region in REGIONS if candidates[region]):
        first = _first_choice(candidates[region], region, findings, selection.warnings)
        best = _best(first, region, asked, selection.warnings)
        if given.get(region) and len(candidates[region]) > 1:
            text = f"The given {region} points were assigned to {_name(best)}."
            selection.warnings.append(notice("points-assigned", text, region, best.source, scored=_name(best)))
        try:
            chosen = _oriented(best, region, given, asked, selection.warnings)
        except InputRejected as error:
            selection.rejects.append(Reject(error.code, str(error), best.source, region))
            continue
        selection.chosen[region] = chosen
        selection.warnings.extend(as_notice(warning).at(region, best.source) for warning in best.warnings)
        selection.findings.extend(replace(one, region=region) for one in findings[id(best)])
    for region in (region for region in REGIONS if given.get(region) and region not in selection.chosen):
        text = f"The {region} points given were not used, because no {region} radiograph could be scored; check that "
        selection.warnings.append(notice("points-unused", f"{text}they are of this study.", region))
    return selection


def _refused(radiograph: Radiograph, findings: tuple[Finding, ...], severity: str) -> Reject | None:
    """Return the reject for the first finding of that severity, if there is one."""
    return next((as_reject(one, radiograph.region) for one in findings if one.severity == severity), None)


def other_region(region: Region, evidence: NDArray[np.float64], localizer: Localizer) -> Region | None:
    """Return the other region if the evidence (.., region) is clearly higher for it, else None."""
    if not localizer.tells_regions:
        return None
    own, other = REGIONS.index(region), 1 - REGIONS.index(region)
    means = evidence.reshape(-1, len(REGIONS)).max(axis=0)
    clear = means[other] >= localizer.min_confidence and means[other] >= means[own] + MARGIN
    return REGIONS[other] if clear else None


def _at_its_best(radiograph: Radiograph, evidence: Evidence, needed: bool, min_confidence: float) -> Seen:
    """Return the peaks at the header's turn (upright without one), or if `needed` at the turn that is clearly best."""
    stated: Turn = radiograph.turn_deg or 0
    seen = {stated: evidence(radiograph, stated, needed)}
    if not needed or is_sure(float(seen[stated].max()), min_confidence):
        return Seen(stated, seen[stated])
    look_at_turns(seen, stated, lambda turn_deg: evidence(radiograph, turn_deg, False), min_confidence)
    best = max(seen, key=lambda turn: float(seen[turn].max()))
    clear = seen[best].max() >= max(min_confidence, seen[stated].max() + MARGIN)
    return Seen(best, seen[best]) if clear else Seen(stated, seen[stated])


def _region(radiograph: Radiograph, localizer: Localizer, asked: Asked) -> Region | Reject:
    name, text = radiograph.source or "The radiograph", ""
    if not localizer.tells_regions:
        text = (
            "does not state its region, and this bundle's localizer answers for both with the same heatmaps, so the "
            "picture cannot tell; name the region (on the command line with --region)."
        )
        return Reject("wrong-region", f"{name} {text}", radiograph.source)
    try:
        cervical, lumbar = (float(mean) for mean in asked(radiograph, True).peaks.max(axis=0))
    except InputRejected as error:
        return Reject(error.code, str(error), radiograph.source)
    if max(cervical, lumbar) < localizer.min_confidence:
        text = f"shows neither the cervical nor the lumbar spine (mean peaks {cervical:.2f} and {lumbar:.2f}, "
        text += f"{localizer.min_confidence:.2f} needed)."
    elif abs(cervical - lumbar) < MARGIN:
        text = f"could show either region (mean peaks cervical {cervical:.2f}, lumbar {lumbar:.2f}); name it "
        text += "(on the command line with --region)."
    if text:
        return Reject("wrong-region", f"{name} {text}", radiograph.source)
    return "cervical" if cervical > lumbar else "lumbar"


def _first_choice(
    candidates: list[Radiograph], region: Region, findings: Mapping[int, tuple[Finding, ...]], warnings: list[str]
) -> list[Radiograph]:
    """Return the candidates without those of second choice, unless all are of second choice."""
    reasons = {
        id(radiograph): {one.code: one.message for one in findings[id(radiograph)] if one.code in SECOND_CHOICE}
        for radiograph in candidates
    }
    first = [radiograph for radiograph in candidates if not reasons[id(radiograph)]]
    for radiograph in candidates if first else ():
        if why := reasons[id(radiograph)]:
            text = f"{_name(radiograph)} was not scored, because another radiograph suits better."
            text = f"{text} {next(iter(why.values()))}"
            warnings.append(notice("second-choice", text, region, radiograph.source, reasons=list(why)))
    return first or candidates


def _best(candidates: list[Radiograph], region: Region, asked: Asked, warnings: list[str]) -> Radiograph:
    if len(candidates) == 1:
        return candidates[0]
    try:
        means = [float(asked(one, False).peaks[:, REGIONS.index(region)].max()) for one in candidates]
    except InputRejected:
        means = [0.0]
        text = f"There was no time to compare the {region} radiographs; the first was taken."
        warnings.append(notice("not-compared", text, region))
    best = candidates[means.index(max(means))]
    scored, others = _name(best), [_name(radiograph) for radiograph in candidates if radiograph is not best]
    text = f"Several {region} radiographs: {scored} was scored, not {', '.join(others)}."
    warnings.append(notice("several-radiographs", text, region, best.source, scored=scored, others=others))
    return best


def _oriented(radiograph: Radiograph, region: Region, given: GivenPoints, asked: Asked, warnings: list[str]) -> Chosen:
    """Return the radiograph with the facing of the reader's points, else the header's, else that of the evidence."""
    if points := given.get(region):
        chosen = faced(radiograph, points)
        if (text := facing_from_points(chosen, _name(radiograph))) is not None:
            facings = {"header": radiograph.facing, "points": chosen.facing}
            warnings.append(notice("facing-from-points", text, region, radiograph.source, **facings))
        return chosen
    if radiograph.facing is None:
        return _as_seen(radiograph, region, asked(radiograph, True))
    stated = Chosen(radiograph, radiograph.facing, radiograph.turn_deg or 0)
    by_program = radiograph.facing_from == "program" or (
        radiograph.header is None and radiograph.facing_from == "header"
    )
    if radiograph.turn_deg is None and not by_program:  # a program that states a facing has upright pictures
        with suppress(InputRejected):
            seen = asked(radiograph, True)
            return stated if seen.turn_deg == stated.turn_deg else _as_seen(radiograph, region, seen)
    return stated


def faced(radiograph: Radiograph, points: Mapping[int, NDArray[np.float32]]) -> Chosen:
    """Return the radiograph with its stated turn, and the facing of a reader's points (disc -> (2, 2))."""
    turn_deg: Turn = radiograph.turn_deg or 0
    upright = to_upright(np.array(list(points.values()), np.float64), turn_deg)
    return Chosen(radiograph, facing_of(upright[:, 0], upright[:, 1]), turn_deg)


def facing_from_points(chosen: Chosen, name: str) -> str | None:
    """Return the warning that a reader's points contradict the facing that a radiograph states, or None."""
    stated = chosen.radiograph.facing
    if stated in (None, chosen.facing):
        return None
    both = f"{name} states that the patient faces {stated}, the points given say {chosen.facing}"
    return f"{both}; the points were followed."


def _as_seen(radiograph: Radiograph, region: Region, seen: Seen) -> Chosen:
    return Chosen(radiograph, FACINGS[int(seen.peaks[:, REGIONS.index(region)].argmax())], seen.turn_deg)


def _name(radiograph: Radiograph) -> str:
    return radiograph.source or radiograph.sop_instance_uid or "a radiograph without a name"
