"""`spinescore plan`: find the most accurate way to run a bundle within a budget, by measuring on this machine."""

from __future__ import annotations

import argparse
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from spinescore.runtime.engines import ENGINES
from spinescore.runtime.names import DeviceName
from spinescore.runtime.verbs import OK, OVER_BUDGET, UsageError, check_out_file, say, show
from spinescore.runtime.verbs.options import BUNDLE

if TYPE_CHECKING:
    from spinescore.runtime.bundle import Bundle
    from spinescore.runtime.opening.plan import LatencyPlan, Setting
    from spinescore.runtime.opening.plansearch import AcceptedEngine, Run, Search
    from spinescore.runtime.phantom.labelled import PhantomStudy
    from spinescore.runtime.scorer import Scorer

__all__ = ["add_arguments", "run"]

_LEAST_PERCENTILE = 50.0
_WARM_UP_RUNS = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `spinescore plan`."""
    text = "budget of a study in milliseconds, from its files to the report"
    parser.add_argument("--budget-ms", type=float, required=True, metavar="N", help=text)
    text = "percentage of studies that must keep the budget (default: 99)"
    parser.add_argument("--percentile", type=float, default=99.0, metavar="P", help=text)
    text = f"bundle to plan for: a folder, or the name of a shipped bundle (default: {BUNDLE})"
    parser.add_argument("--bundle", default=BUNDLE, metavar="B", help=text)
    text = "device to run on; auto: a GPU if it can run the bundle, else the CPU (default: auto)"
    parser.add_argument("--device", default="auto", choices=get_args(DeviceName), help=text)
    text = "number of studies to time for each candidate's percentile (default: 200)"
    parser.add_argument("--runs", type=int, default=200, metavar="N", help=text)
    text = "file for the plan (default: a file beside the bundle's acceptance records)"
    parser.add_argument("--out", type=Path, metavar="F", help=text)
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, choose, write and print a plan. Returns the exit status, 5 if no way keeps the budget."""
    from spinescore.kernels.signing import key_fault
    from spinescore.runtime.bundle import Bundle
    from spinescore.runtime.devices import device_kind
    from spinescore.runtime.errors import BundleError
    from spinescore.runtime.opening import plansearch
    from spinescore.runtime.opening.plan import this_machine
    from spinescore.runtime.phantom.labelled import write_labelled_study

    _check(arguments)
    bundle, kind = Bundle.open(arguments.bundle), device_kind(arguments.device)
    machine = this_machine(kind)
    if kind == "cpu":
        _check_engines(bundle)
    pairs = _pairs(bundle, kind, machine["hardware"])
    say(f"{len(pairs)} ways to run bundle {bundle.manifest.name} on {machine['processor']}")
    with tempfile.TemporaryDirectory(prefix="spinescore-") as scratch:
        study = write_labelled_study(Path(scratch))
        with _Rig(bundle, kind, study) as rig:
            result = plansearch.search(pairs, arguments.budget_ms, arguments.percentile, arguments.runs, rig.measure)
    untried = _untried(bundle, kind, [setting for _, setting in pairs])
    if result.choice is None:
        show(_table(result, arguments.percentile, bundle))
        show("\n".join([plansearch.shortfall(result, arguments.budget_ms, arguments.percentile), *untried]))
        return OVER_BUDGET
    plan = _plan(arguments, bundle, machine, result, study)
    try:
        path = plan.write(bundle, arguments.out)
    except OSError as error:
        raise BundleError(f"The plan cannot be written ({error}); name another file with --out.") from error
    show(plan.to_json() if arguments.json else _table(result, arguments.percentile, bundle))
    for line in filter(None, (*result.left_out, *untried, key_fault())):
        say(line)
    say(f"{plan.chosen.setting}: {plan.chosen.tail_ms:.1f} ms. Written: {path}")
    return OK


def _check_engines(bundle: Bundle) -> None:
    """Run the gate on this CPU's engines if none was accepted yet, as scoring does."""
    from spinescore.runtime.opening.background import Build
    from spinescore.runtime.opening.checking import find_check
    from spinescore.runtime.opening.request import Request

    check, warnings = find_check(bundle, Request("cpu"))
    if check is not None:
        say(f"{check.framework} ({' or '.join(check.precisions)}) is checked on this CPU first, which is done once")
        with Build(bundle, check, Request("cpu", progress=say)) as running:
            warnings = running.wait()
    for warning in warnings:
        say(warning)


def _pairs(bundle: Bundle, kind: str, hardware: str) -> list[tuple[AcceptedEngine, Setting]]:
    """Return all ways to measure: with the bundle's own localizer first, then with its alternatives in order."""
    from spinescore.runtime.acceptance import find_records
    from spinescore.runtime.machine.processor import core_count
    from spinescore.runtime.opening import plansearch

    return [
        (engine, setting)
        for name in bundle.manifest.localizer.names
        for engine in plansearch.engines(find_records(bundle.with_localizer(name), kind, hardware).accepted, kind)
        for setting in plansearch.settings(engine, bundle.manifest, kind, core_count(), name)
    ]


class _Rig:
    """Scores one phantom study with one setting after the other; the scorer of the latest setting stays open.

    The study's headers state region and facing, and its points are given. So networks with random weights are measured
    like networks that find a spine; the localizer runs all the same.
    """

    def __init__(self, bundle: Bundle, kind: str, study: PhantomStudy) -> None:
        self._bundle, self._kind, self._study = bundle, kind, study
        self._key: tuple[object, ...] = ()
        self._scorer: Scorer | None = None

    def __enter__(self) -> _Rig:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def measure(self, setting: Setting, runs: int) -> Run:
        """Time `runs` studies from files to report, after a few that do not count. Raises `EngineError`."""
        from spinescore.runtime.reading.studies import load_study

        scorer = self._open(setting)
        times_ms = []
        for number in range(_WARM_UP_RUNS + runs):
            report = scorer.score(load_study(*self._study.files), keypoints=self._study.points)
            if number >= _WARM_UP_RUNS:
                times_ms.append(report.timings_ms.total or 0.0)
        say(f"{setting}: median {sorted(times_ms)[len(times_ms) // 2]:.1f} ms of {runs} studies")
        return report.device.engine, times_ms

    def _open(self, setting: Setting) -> Scorer:
        from spinescore.runtime.scorer import Scorer

        key = (setting.engine, setting.precision, setting.threads, setting.localizer)
        if self._scorer is None or key != self._key:
            self._close()
            names: dict[str, Any] = {"engine": setting.engine, "precision": setting.precision}  # as in records
            self._scorer = Scorer.open(
                self._bundle.folder,
                cast(DeviceName, self._kind),
                **names,
                threads=setting.threads,
                localizer=setting.localizer,
                build="no",
                plan=None,
            )
            self._key = key
        self._scorer.give(setting.effort)
        return self._scorer

    def _close(self) -> None:
        if self._scorer is not None:
            self._scorer.close()
            self._scorer = None


def _check(arguments: argparse.Namespace) -> None:
    from spinescore.runtime.opening.plansearch import least_runs
    from spinescore.runtime.scoring.budget import checked_ms

    check_out_file(arguments.out)
    try:
        checked_ms(arguments.budget_ms, "--budget-ms")
    except ValueError as error:
        raise UsageError(str(error)) from error
    if not _LEAST_PERCENTILE <= arguments.percentile < 100:
        raise UsageError(f"--percentile is {_LEAST_PERCENTILE:g} or more and below 100, got {arguments.percentile:g}")
    least = least_runs(arguments.percentile)
    if arguments.runs < least:
        raise UsageError(f"--runs must be {least} or more for the {arguments.percentile:g}th percentile")


def _untried(bundle: Bundle, kind: str, settings: list[Setting]) -> list[str]:
    """Return messages about engines that could run here but were not measured: the gate has not accepted them."""
    from spinescore.runtime.acceptance import verify_command
    from spinescore.runtime.engines.choice import choices_on

    tried = {(setting.engine, setting.precision, setting.localizer) for setting in settings}
    missing = []
    for name in bundle.manifest.localizer.names:
        networks = bundle.with_localizer(name).manifest.networks
        choices = choices_on(kind, networks, bundle.folder)
        missing += [
            f"{choice} (localizer {name})" if name else str(choice)
            for choice in choices
            if (choice.engine, choice.precision, name) not in tried
        ]
    lines = []
    if missing:
        lines.append(f"Not accepted here, and so not measured: {', '.join(missing)}. {verify_command(bundle, kind)}")
    return lines + _not_installed(kind)


def _not_installed(kind: str) -> list[str]:
    """Return messages about engines of a CPU that are not installed: on most CPUs they are faster."""
    rows = [row for row in ENGINES.values() if kind == "cpu" and kind in row.precisions]
    return [
        f'{framework.title} is not installed; on most CPUs it is faster: pip install "spinescore[{framework.extra}]"'
        for row in rows
        for name, framework in row.frameworks.items()
        if framework.extra and find_spec(name) is None
    ]


def _plan(
    arguments: argparse.Namespace, bundle: Bundle, machine: dict[str, str], result: Search, study: PhantomStudy
) -> LatencyPlan:
    from spinescore.runtime.acceptance import utc_now
    from spinescore.runtime.opening.plan import LatencyPlan

    assert result.choice is not None
    sizes = " and ".join(f"{image['rows']} x {image['columns']}" for image in study.facts["images"])
    return LatencyPlan(
        bundle={"name": bundle.manifest.name, "sha256": bundle.sha256},
        machine=machine,
        budget_ms=arguments.budget_ms,
        percentile=arguments.percentile,
        studies=f"phantom {study.facts['phantom_seed']}, {study.facts['transfer_syntax']}, {sizes}, its points given",
        candidates=result.candidates,
        choice=result.choice,
        date=utc_now(),
    )


def _table(result: Search, percentile: float, bundle: Bundle) -> str:
    """Return the candidates as a table, the most accurate first."""
    from spinescore.runtime.opening.plansearch import accuracy
    from spinescore.runtime.text import table
    from spinescore.runtime.verbs.summary import alternatives

    chosen = None if result.choice is None else result.candidates[result.choice]
    localizers = bundle.manifest.localizer.names
    rows = [
        [
            str(one.setting),
            f"{one.grade_flips} of {one.corners}" if one.corners else "reference",  # of its own localizer
            f"{one.median_shift_px:.3f}",
            f"{one.p50_ms:.1f}",
            "" if one.tail_ms is None else f"{one.tail_ms:.1f}",
            "chosen" if one is chosen else "",
        ]
        for one in sorted(result.candidates, key=lambda one: (accuracy(one, localizers), one.p50_ms))
    ]
    header = ["way", "flips", "shift px", "p50 ms", f"p{percentile:g} ms", ""]
    beside = [f"Localizer {text}" for text in alternatives(bundle.manifest)]
    return "\n".join([table(rows, header), *([""] if beside else []), *beside])
