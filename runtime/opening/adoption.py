"""Files of another machine in or beside a bundle, which do not count here until the operator trusts them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spinescore.kernels.signing import sign
from spinescore.runtime.acceptance import AcceptanceRecord, records_of
from spinescore.runtime.acceptance.keeping import counts, kept
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.bundle.networkcheck import TooCostly, check_networks
from spinescore.runtime.engines.places import engine_paths, is_own
from spinescore.runtime.engines.sidecar import Sidecar
from spinescore.runtime.errors import BundleError, EngineError
from spinescore.runtime.opening.plan import LatencyPlan

__all__ = ["Foreign", "foreign"]


@dataclass(frozen=True)
class Foreign:
    """A network, record, plan or engine that does not count here. `text` describes it, or why it cannot be trusted."""

    path: Path
    text: str
    signed_as: str = ""
    sha256: str = ""

    @property
    def sound(self) -> bool:
        return bool(self.signed_as)

    def trust(self) -> bool:
        """Sign it, so that it counts as if it had been made here; return whether the signature could be kept."""
        return sign(self.signed_as, self.sha256)


def foreign(bundle: Bundle) -> list[Foreign]:
    """Return everything that lies with the bundle and does not count on this machine."""
    return [*_networks(bundle), *_engines(bundle), *_records(bundle), *_plans(bundle)]


def _networks(bundle: Bundle) -> Iterator[Foreign]:
    """Yield the bundle's networks, if they take too much or cannot be judged; trust covers them all."""
    if bundle.networks_count:
        return
    try:
        check_networks(bundle.folder, bundle.manifest)
    except BundleError as error:
        cause = error.__cause__
        trusted = (bundle.networks_signed_as, bundle.sha256) if isinstance(cause, TooCostly) else ("", "")
        text = f"a network that may take all memory or time of this computer: {cause}" if trusted[0] else str(error)
        yield Foreign(bundle.folder, text, *trusted)


def _engines(bundle: Bundle) -> Iterator[Foreign]:
    for path in engine_paths(bundle.folder):
        try:
            sidecar = Sidecar.read(path)
            if is_own(bundle.folder, path, sidecar):
                continue
            sidecar.check_files(path, bundle.folder / Path(sidecar.onnx).name)
        except EngineError as error:
            yield Foreign(path, str(error))
            continue
        code = ", brings code that will run on this computer" if sidecar.version_compatible else ""
        place = sidecar.gpu or f"compute capability {', '.join(sidecar.compute_capabilities)}"
        text = (
            f"engine of {sidecar.onnx} by {sidecar.flavour} {sidecar.version}, {sidecar.precision}, for {place}{code}"
        )
        yield Foreign(path, text, sidecar.signed_as, sidecar.digest())


def _records(bundle: Bundle) -> Iterator[Foreign]:
    for path in records_of(bundle):
        try:
            record = AcceptanceRecord.read(path)
        except EngineError as error:
            yield Foreign(path, str(error))
            continue
        if record.bundle["sha256"] != bundle.sha256 or counts(bundle, path, record):
            continue
        judged = "accepted" if record.passed else record.refusal
        text = f"{record.framework} {record.precision} {judged} on {record.device['hardware']}, {record.date[:10]}"
        yield Foreign(path, f"acceptance record: {text}", record.signed_as, record.digest())


def _plans(bundle: Bundle) -> Iterator[Foreign]:
    for path in kept(bundle, "plan-*.json"):
        try:
            plan = LatencyPlan.read(path)
        except EngineError as error:
            yield Foreign(path, str(error))
            continue
        if plan.bundle["sha256"] != bundle.sha256 or counts(bundle, path, plan):
            continue
        text = f"plan for {plan.budget_ms:g} ms on {plan.machine['processor']}: {plan.chosen.setting}, {plan.date[:10]}"
        yield Foreign(path, text, plan.signed_as, plan.digest())
