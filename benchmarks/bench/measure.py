"""The parts of a measurement of one bundle, one after the other, and the conditions meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinescore.benchmarks.bench import starts
from spinescore.benchmarks.bench.energy import energy, open_meter
from spinescore.benchmarks.bench.images import images
from spinescore.benchmarks.bench.load import load
from spinescore.benchmarks.bench.rounds import steady, studies
from spinescore.benchmarks.harness.environment import Watch, warnings_of

if TYPE_CHECKING:
    from spinescore.benchmarks.harness.subject import Subject
    from spinescore.benchmarks.peers import Peer
    from spinescore.runtime.phantom.labelled import PhantomStudy
    from spinescore.runtime.scorer import Scorer
    from spinescore.runtime.scoring.report import StudyReport

__all__ = ["PARTS", "Plan", "measure"]

PARTS = ("steady", "studies", "starts", "memory", "images", "load", "energy")


@dataclass(frozen=True)
class Plan:
    """The parts of a measurement, and how often each runs.

    `seconds` limits the rounds of steady state and of images, and the different studies. A load takes half of it,
    energy a quarter. `studies` different studies are drawn if the user names none.
    """

    parts: tuple[str, ...]
    runs: int
    warm_up: int
    seconds: float
    starts: int
    image_runs: int
    megapixels: tuple[float, ...]
    most_concurrent: int
    peers: tuple[str, ...]
    studies: int = 20


def measure(
    subject: Subject,
    plan: Plan,
    cores: int,
    scratch: Path,
    say: Callable[[str], None],
    different: Sequence[PhantomStudy] = (),
) -> dict[str, Any]:
    """Measure one bundle and return its figures; a part that was not asked for is None.

    The studies `different` are scored once each; those of the user have no points.
    """
    watch = Watch()
    parts: dict[str, Any] = dict.fromkeys(PARTS)
    warnings: list[str] = []
    with subject.open() as scorer:
        subject, report = _scored(subject, scorer, say)
        if "starts" in plan.parts:
            say(f"{plan.starts} cold starts, {plan.starts} warm ones")
            parts["starts"] = starts.starts(subject, plan.starts)
            if not starts.is_compiled():
                warnings.append(
                    "Python keeps no compiled modules of this package (PYTHONDONTWRITEBYTECODE is set, or its folder "
                    "cannot be written), and every start compiled them. Install it (pip install .) and measure again."
                )
        if "memory" in plan.parts:
            say(f"memory, in {plan.starts} processes that score and as many with the networks alone")
            localizer = report.bundle.localizer
            parts["memory"] = starts.memory(subject, report.device.kind, scorer.choice, plan.starts, localizer)
        if "steady" in plan.parts:
            parts["steady"] = _steady(subject, scorer, report, plan, say)
        if "studies" in plan.parts and different:
            say(f"{len(different)} different studies, within {plan.seconds:g} s")
            source = "phantoms" if different[0].points else "own"
            parts["studies"] = studies(subject, scorer, different, source, plan.seconds)
        if "images" in plan.parts:
            say(f"images of {', '.join(f'{size:g}' for size in plan.megapixels)} megapixels")
            parts["images"] = images(subject, scorer, plan.megapixels, scratch, plan.image_runs, plan.seconds)
        if "energy" in plan.parts:
            parts["energy"] = _energy(subject, scorer, plan.seconds / 4, say)
    if "load" in plan.parts:
        say(f"1 to {plan.most_concurrent} studies at once")
        chosen = {**subject.options, "localizer": report.bundle.localizer}  # a plan may have chosen it
        loaded = replace(subject, options=chosen)
        parts["load"] = load(loaded, plan.most_concurrent, plan.seconds / 2, subject.options.get("threads") or cores)
    conditions = watch.conditions(cores)
    spread = parts["steady"]["spread_of_networks"] if parts["steady"] else None
    warnings += warnings_of(conditions, spread, cores)
    return {**_facts(subject, scorer, report), **parts, "conditions": conditions, "warnings": warnings}


def _scored(subject: Subject, scorer: Scorer, say: Callable[[str], None]) -> tuple[Subject, StudyReport]:
    """Score the first study. If the networks find no spine in it, as random ones do not, give its true points."""
    report = subject.work(scorer)()
    if all(region.status == "scored" for region in report.regions.values()) or not subject.study.points:
        return subject, report
    say("these networks find no spine in the phantom: its true points are given in place of theirs")
    given = replace(subject, give_points=True)
    return given, given.work(scorer)()


def _facts(subject: Subject, scorer: Scorer, report: StudyReport) -> dict[str, Any]:
    bundle = vars(report.bundle)
    return {
        "bundle": {name: bundle[name] for name in ("name", "version", "sha256", "localizer")},
        "files": {name: entry.sha256 for name, entry in scorer.bundle.manifest.files.items()},
        "device": vars(report.device),
        "options": subject.options,
        "regions": {name: region.status for name, region in report.regions.items()},
        "given_points": subject.give_points,
        "scorer_warnings": list(report.warnings),
    }


def _steady(
    subject: Subject, scorer: Scorer, report: StudyReport, plan: Plan, say: Callable[[str], None]
) -> dict[str, Any]:
    peers: Sequence[Peer] = ()
    own = None
    if plan.peers:
        from spinescore.benchmarks.peers import open_peers, own_agreement, reference_report

        files, points, threads = subject.study.files, subject.points, subject.options.get("threads")
        reference = reference_report(scorer.bundle, files, points, threads)
        own = own_agreement(report, reference)
        kind = report.device.kind
        peers = open_peers(plan.peers, kind, scorer.bundle, reference, files, points, threads, say)
    say(f"{plan.warm_up} rounds of warm-up, then up to {plan.runs} within {plan.seconds:g} s")
    timed = steady(subject, scorer, peers, plan.warm_up, plan.runs, plan.seconds)
    return {**timed, "agreement": None if own is None else vars(own)}


def _energy(subject: Subject, scorer: Scorer, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    meter, reason = open_meter()
    if meter is None:
        return {"joules_per_study": None, "reason": reason}
    say("energy")
    return energy(meter, subject.work(scorer), seconds)
