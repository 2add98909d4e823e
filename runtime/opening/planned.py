"""Opening a bundle by a latency plan: which plan holds here, and what it asks for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from spinescore.runtime.acceptance import find_records
from spinescore.runtime.acceptance.keeping import age, counts, kept
from spinescore.runtime.bundle import Bundle, command_name
from spinescore.runtime.devices import device_kind
from spinescore.runtime.errors import EngineError, SelfTestError, SpineScoreError
from spinescore.runtime.logs import OPENING
from spinescore.runtime.notices import notice
from spinescore.runtime.opening.candidates import finding_of, other_version
from spinescore.runtime.opening.plan import LatencyPlan, plan_command
from spinescore.runtime.opening.request import Request

__all__ = ["find_plan", "request_by_plan", "request_without_plan"]

Notes = tuple[str, ...]


def find_plan(bundle: Bundle, request: Request) -> tuple[Path, LatencyPlan | None, Notes]:
    """Return the plan to open the bundle by, with its path, or None, with warnings on plans that do not hold.

    The request's `plan` is a path, None, or `auto`: the latest plan that lies with the bundle and holds here, if the
    user chose nothing that a plan chooses. Raises `EngineError` if a plan that was named does not hold, and
    `ValueError` if the user names a plan and chooses as well.
    """
    free = request.leaves_all_to_a_plan
    if request.plan is None or (request.plan == "auto" and not free):
        return Path(), None, ()
    if not free:
        raise ValueError("a plan chooses engine, precision, threads and localizer: name them, or a plan, not both")
    if request.plan != "auto":
        path = Path(request.plan)
        return path, _named(bundle, path, request), ()
    path, plan, notes = _latest(bundle, request.device)
    if plan is None:
        OPENING.debug("no plan holds here (%d that do not)", len(notes))
    return path, plan, notes


def request_by_plan(bundle: Bundle, request: Request, path: Path, plan: LatencyPlan) -> Request:
    setting = plan.chosen.setting
    OPENING.debug("plan %s: %s, made for %g ms", path, setting, plan.budget_ms)
    return replace(
        request, device=plan.machine["kind"], engine=setting.engine, precision=setting.precision,
        threads=setting.threads, localizer=setting.localizer, effort=setting.effort, framework=plan.chosen.framework,
        warnings=_outdated(bundle, path, plan),
    )  # fmt: skip


def request_without_plan(
    bundle: Bundle, request: Request, path: Path, plan: LatencyPlan, error: SpineScoreError
) -> Request:
    """Return the request with a warning that the plan cannot be used; raise `EngineError` if the user named it."""
    refusal = f"The plan {path} cannot be used. {error} Make it again: {plan_command(plan, bundle)}"
    if request.plan != "auto":
        raise EngineError(refusal) from error
    OPENING.debug("opened without the plan. %s", refusal)
    if isinstance(error, SelfTestError):
        return replace(request, findings=(replace(finding_of(error), message=refusal),))
    return replace(request, warnings=(notice("plan-not-used", refusal),))


def _outdated(bundle: Bundle, path: Path, plan: LatencyPlan) -> Notes:
    """Return a warning on engines that were accepted here after the plan was made, if it did not measure them."""
    measured = {(one.framework, one.setting.precision, one.setting.localizer) for one in plan.candidates}
    kind, missing = plan.machine["kind"], dict[str, None]()
    for name in bundle.manifest.localizer.names:
        for record in find_records(bundle.with_localizer(name), kind, plan.machine["hardware"]).accepted:
            is_known = (record.framework, record.precision, name) in measured or other_version(record)
            if not is_known and age(record.date) > age(plan.date):
                missing[f"{record.framework} {record.precision}{f' (localizer {name})' if name else ''}"] = None
    if not missing:
        return ()
    text = f"The plan {path} is older than what is accepted now, and did not measure {', '.join(missing)}."
    return (notice("plan-outdated", f"{text} Renew it: {plan_command(plan, bundle)}"),)


def _named(bundle: Bundle, path: Path, request: Request) -> LatencyPlan:
    plan = LatencyPlan.read(path)
    fault = plan.fault(bundle)
    if fault is None and request.device not in ("auto", plan.machine["kind"]):
        fault = f"is for device {plan.machine['kind']}, not {request.device}"
    if fault is not None:
        raise EngineError(f"The plan {path} {fault}. Make it again: {plan_command(plan, bundle)}")
    return plan


def _latest(bundle: Bundle, device: str) -> tuple[Path, LatencyPlan | None, Notes]:
    """Return the latest plan that holds here, or warnings on why those that there are do not."""
    notes: list[str] = []
    holding = []
    for path in kept(bundle, f"plan-{device_kind(device)}-*.json"):
        try:
            plan = LatencyPlan.read(path)
        except EngineError as error:
            notes.append(notice("plan-not-used", f"{error} Make it again with spinescore plan, or remove it."))
            continue
        fault = plan.fault(bundle)
        if fault is None and counts(bundle, path, plan):
            holding.append((age(plan.date), path, plan))
            continue
        again = plan_command(plan, bundle)
        text = f"The plan {path} {fault}, and is not used. Make it again: {again}"
        if fault is None:
            text = (
                f"The plan {path} was not made on this machine, and is not used. Make one: {again} (or, if you trust "
                f"whoever made it: spinescore bundle trust {command_name(bundle.folder)})"
            )
        notes.append(notice("plan-not-used", text))
    if not holding:
        return Path(), None, tuple(notes)
    _, path, plan = max(holding, key=lambda one: one[0])
    return path, plan, ()
