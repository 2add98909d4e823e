"""How the service is, over HTTP: whether it lives and is ready, its state and version, and metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import get_args

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from spinescore.runtime.appliance.clock import Clock
from spinescore.runtime.appliance.configuration.config import Config
from spinescore.runtime.appliance.fault import Refusal
from spinescore.runtime.appliance.seen.ready import Alive, read_alive, reasons_against, why_not_ready
from spinescore.runtime.appliance.seen.status import oldest_waiting_s, parked_by_code, status, studies_by_state
from spinescore.runtime.appliance.store.counts import counters, histogram
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.places import Places
from spinescore.runtime.appliance.store.quarantine import quarantine_bytes
from spinescore.runtime.appliance.store.reviews import VERDICTS
from spinescore.runtime.appliance.web.access import CLIENT
from spinescore.runtime.appliance.web.site import Shared, Site
from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.machine.packages import software_version

__all__ = ["families", "health_routes", "metrics_routes", "metrics_text"]

_FAULTS = ("worker-crashed", "worker-timeout", "worker-memory")
_RESULTS = ("sent", "later", "refused", "expired", "cancelled", "committed", "not-kept", "dismissed")
_PROCESSES = ("receive", "send", "web")

Values = Mapping[tuple[str, ...], float]


class _Given(Collector):
    """A collector of families that are there already."""

    def __init__(self, given: Iterable[Metric]) -> None:
        self._given = list(given)

    def collect(self) -> Iterable[Metric]:
        return self._given


def metrics_text(given: Iterable[Metric]) -> bytes:
    """Return metrics as Prometheus' text. The global registry of prometheus_client has no part in it."""
    registry = CollectorRegistry()
    registry.register(_Given(given))
    return generate_latest(registry)


def families(config: Config, places: Places, index: Index, clock: Clock) -> Iterator[Metric]:
    alive, now = read_alive(places), clock.now()
    ready = not reasons_against(places, index, alive, now)
    yield _gauge("ready", "Whether the service is ready", {(): float(ready)})
    yield from _of_processes(alive, now)
    yield _gauge("studies", "Studies by state", _keyed(studies_by_state(index)), "state")
    yield _gauge("parked", "Studies that wait for a person, by code", _keyed(parked_by_code(index)), "code")
    oldest_s = oldest_waiting_s(index, clock)
    yield _gauge("queue_oldest_seconds", "Since the last image of the oldest unfinished study", {(): oldest_s or 0.0})
    yield _gauge("spool_free_bytes", "Free space on the spool's disk", {(): float(places.free_bytes())})
    yield _gauge("spool_reserve_bytes", "Space there that is never filled", {(): float(places.reserve_bytes)})
    yield _gauge("quarantine_bytes", "Size of the objects in quarantine", {(): float(quarantine_bytes(places))})
    yield from _counted(config, index)


def _of_processes(alive: Alive | None, now: float) -> Iterator[Metric]:
    labels = (software_version(), alive.bundle if alive else "", str(alive.worker.get("engine", "")) if alive else "")
    yield _gauge("build_info", "Version, bundle and engine that score", {labels: 1.0}, "version", "bundle", "engine")
    silent = dict(alive.silent_s) if alive else {}
    since_s = max(0.0, now - alive.at_s) if alive else 0.0
    seconds = {name: silent_s + since_s for name, silent_s in silent.items() if silent_s is not None}
    yield _gauge("process_silent_seconds", "Since a process gave a sign of life", _keyed(seconds), "process")


def _counted(config: Config, index: Index) -> Iterator[Metric]:
    names = [destination.name for destination in config.destination]

    results = [(name, result) for name in names for result in _RESULTS]
    counted: tuple[tuple[str, str, tuple[str, ...], Iterable[tuple[str, ...]]], ...] = (
        ("received_instances", "Objects that were taken in, without those that were here already", (), [()]),
        ("not_radiographs", "Objects that were taken in and are no input of scoring", ("code",), ()),
        ("quarantined_instances", "Objects with the SOP Instance UID of another one", (), [()]),
        ("quarantine_removed", "Objects that were removed from quarantine, beyond its limits", (), [()]),
        ("rejected", "Connections, associations and objects of DICOM peers that were refused", ("reason",),
         [(kind,) for kind in get_args(Refusal)]),
        ("deliveries", "Attempts to deliver a file, and confirmations", ("destination", "result"), results),
        ("reviews", "Verdicts of readers on results", ("verdict",), [(name,) for name in VERDICTS]),
        ("worker_restarts", "Ends of the worker", ("reason",), [(code,) for code in _FAULTS]),
        ("process_restarts", "Ends of other processes", ("process",), [(name,) for name in _PROCESSES]),
    )  # fmt: skip
    for name, text, labels, expected in counted:
        family = CounterMetricFamily(f"spinescore_{name}", text, labels=labels)
        for values, value in counters(index, name, expected).items():
            family.add_metric(values, value)
        yield family
    yield _histogram(index, "scoring_seconds", "Scoring of a study, from its start to its results", [()])
    for name, text in (("delivered", "sent"), ("committed", "confirmed by the archive")):
        yield _histogram(index, f"received_to_{name}_seconds", f"From a study's last image until a file was {text}",
                         [(name,) for name in names], "destination")  # fmt: skip


def _keyed(values: Mapping[str, float]) -> Values:
    return {(name,): float(value) for name, value in values.items()}


def _gauge(name: str, text: str, values: Values, *labels: str) -> Metric:
    family = GaugeMetricFamily(f"spinescore_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _histogram(index: Index, name: str, text: str, expected: Iterable[tuple[str, ...]], *labels: str) -> Metric:
    family = HistogramMetricFamily(f"spinescore_{name}", text, labels=labels)
    for key, (buckets, total) in histogram(index, name, expected).items():
        shown = [("+Inf" if limit == float("inf") else repr(limit), count) for limit, count in buckets]
        family.add_metric(key, shown, total)
    return family


def metrics_routes(site: Site) -> list[Route]:
    def read() -> bytes:
        with site.index() as index:
            return metrics_text(families(site.config, site.places, index, site.clock))

    shared = Shared(read)

    async def metrics(request: Request) -> Response:
        return Response(await shared.get(), media_type=CONTENT_TYPE_LATEST)

    return [Route("/metrics", metrics)]


def health_routes(site: Site) -> list[Route]:
    def why_not() -> list[str]:
        try:
            with site.index() as index:
                return why_not_ready(site.places, index, site.clock)
        except SpineScoreError as error:  # of the index
            return [str(error)]

    def state() -> JSONResponse:
        with site.index() as index:
            return JSONResponse(status(site.places, index, site.clock))

    reasons, shown = Shared(why_not), Shared(state)

    async def live(request: Request) -> JSONResponse:
        return JSONResponse({"live": True})

    async def ready(request: Request) -> JSONResponse:
        against = await reasons.get()
        return JSONResponse({"ready": False, "reasons": against}, 503) if against else JSONResponse({"ready": True})

    async def show(request: Request) -> JSONResponse:
        return await shown.get()

    async def version(request: Request) -> JSONResponse:
        client = request.scope.get(CLIENT)
        reader = None if client is None else client.name
        return JSONResponse({"name": "spinescore", "version": software_version(), "reader": reader})

    return [
        *(Route(f"{prefix}/health/live", live) for prefix in ("", "/v2")),
        *(Route(f"{prefix}/health/ready", ready) for prefix in ("", "/v2")),
        Route("/v1/status", show),
        Route("/v1/version", version),
    ]
