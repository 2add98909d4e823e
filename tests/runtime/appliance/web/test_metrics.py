"""Metrics of an index without processes: they can be read, count each event once, and never decrease."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families

from helpers.appliance import OUT, tiny_files
from spinescore.runtime.appliance.configuration.config import SpoolPart
from spinescore.runtime.appliance.recovery import clean, recover
from spinescore.runtime.appliance.seen.ready import Alive, write_alive
from spinescore.runtime.appliance.seen.status import deliver_again
from spinescore.runtime.appliance.sending.delivery import Outcome
from spinescore.runtime.appliance.store.counts import BUCKETS_S, Tally, add, counters, histogram, observe
from spinescore.runtime.appliance.web.health import families, metrics_text

Key = tuple[str, frozenset]


def metrics(appliance) -> dict[Key, float]:
    text = metrics_text(families(appliance.config, appliance.places, appliance.index, appliance.clock)).decode()
    return {(one.name, frozenset(one.labels.items())): one.value for one in samples(text)}


def samples(text: str) -> Iterator:
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.type in ("gauge", "counter", "histogram")
        yield from family.samples


def value(found: dict[Key, float], name: str, **labels: str) -> float:
    return found[f"spinescore_{name}", frozenset(labels.items())]


def only_grow(before: dict[Key, float], after: dict[Key, float]) -> bool:
    counted = [key for key in before if key[0].endswith(("_total", "_bucket", "_count", "_sum"))]
    assert counted
    return all(after[key] >= before[key] for key in counted)


def test_a_new_spool_has_all_metrics_with_zeros(make):
    found = metrics(make())
    assert value(found, "ready") == 0
    assert value(found, "received_instances_total") == 0
    assert value(found, "deliveries_total", destination=OUT, result="refused") == 0
    assert value(found, "worker_restarts_total", reason="worker-timeout") == 0
    assert value(found, "scoring_seconds_bucket", le="+Inf") == 0
    assert value(found, "received_to_delivered_seconds_count", destination=OUT) == 0
    assert value(found, "studies", state="parked") == 0
    assert value(found, "spool_free_bytes") > value(found, "spool_reserve_bytes")


def test_a_study_is_counted_once_on_its_way(make, files):
    appliance = make()
    write_alive(appliance.places, Alive(1000.0, {"web": 0.5}, {"state": "ready", "engine": "e"}, "0123456789ab", None))
    appliance.receive(*files)
    appliance.receive(*files)
    assert value(metrics(appliance), "ready") == 1
    appliance.clock.pass_s(7.0)
    found = metrics(appliance)
    assert value(found, "queue_oldest_seconds") == 7.0
    assert value(found, "process_silent_seconds", process="web") == 7.5
    appliance.run()
    found = metrics(appliance)
    assert value(found, "received_instances_total") == 2
    assert value(found, "studies", state="delivered") == 1
    assert value(found, "scoring_seconds_count") == 1
    assert value(found, "deliveries_total", destination=OUT, result="sent") == 3
    assert value(found, "received_to_delivered_seconds_count", destination=OUT) == 3
    assert value(found, "received_to_delivered_seconds_bucket", destination=OUT, le="5.0") == 0
    assert value(found, "received_to_delivered_seconds_bucket", destination=OUT, le="10.0") == 3
    assert value(found, "received_to_delivered_seconds_sum", destination=OUT) == 27.0  # each of them after 9 s


def test_counters_outlive_a_restart_and_what_is_removed(make, files):
    appliance = make()
    appliance.receive(*files)
    appliance.worker.act = lambda job: []
    appliance.step()
    appliance.run(5)
    appliance.worker.end = "SIGKILL"
    del appliance.worker.act
    appliance.run(60)
    before = metrics(appliance)
    assert value(before, "worker_restarts_total", reason="worker-crashed") == 1
    assert value(before, "studies", state="delivered") == 1
    appliance.clock.pass_s(40 * 86400.0)
    clean(appliance.places, appliance.index, appliance.clock, SpoolPart("x"))
    assert not list(appliance.places.results.iterdir())
    recover(appliance.places, appliance.index, appliance.clock)
    again = make(clock=appliance.clock)
    after = metrics(again)
    assert only_grow(before, after)
    assert value(after, "scoring_seconds_count") == 1


def test_what_a_person_has_delivered_again_is_no_latency(make, files):
    appliance = make()
    appliance.receive(*files)
    appliance.run()
    appliance.clock.pass_s(3600.0)
    for path in (appliance.root / OUT / "1.2.3.4" / "revision-1").iterdir():
        path.unlink()
    deliver_again(appliance.index, appliance.clock, 1)
    appliance.run()
    found = metrics(appliance)
    assert value(found, "deliveries_total", destination=OUT, result="sent") == 6
    assert value(found, "received_to_delivered_seconds_count", destination=OUT) == 3


def test_failed_deliveries_and_parked_studies_are_counted(make, tmp_path):
    appliance = make()
    outcomes = iter([Outcome("later", "no network"), Outcome("refused", "too large")])
    appliance.destinations[0].send = lambda parcel: next(outcomes, Outcome("refused", "no"))
    appliance.receive(*tiny_files(tmp_path / "a", "1.2.5"))
    appliance.run(60)
    found = metrics(appliance)
    assert value(found, "deliveries_total", destination=OUT, result="later") == 1
    assert value(found, "deliveries_total", destination=OUT, result="refused") == 3
    assert value(found, "parked", code="delivery-refused") == 1
    assert value(found, "received_to_delivered_seconds_count", destination=OUT) == 0


def test_refusals_are_written_together_and_not_lost_on_a_full_disk(make, monkeypatch):
    appliance = make()
    tally = Tally(appliance.index, appliance.clock, "rejected")
    tally.add({"title": 1})
    tally.add({"title": 1, "tls": 1})  # not written yet
    appliance.clock.pass_s(6.0)
    with monkeypatch.context() as patch:
        patch.setattr("spinescore.runtime.appliance.store.index.commit", full_disk)
        tally.add({})
    appliance.clock.pass_s(6.0)
    tally.add({})
    found = metrics(appliance)
    assert value(found, "rejected_total", reason="title") == 2
    assert value(found, "rejected_total", reason="tls") == 1
    assert value(found, "rejected_total", reason="limits") == 0


def full_disk(connection) -> None:
    raise sqlite3.OperationalError("database or disk is full")


def test_an_event_that_is_undone_is_not_counted(make):
    index = make().index
    try:
        with index.transaction():
            add(index, "x", "a")
            raise KeyError
    except KeyError:
        pass
    assert counters(index, "x", [("b",)]) == {("b",): 0.0}


def test_buckets_of_another_version_stay_in_the_histogram(make):
    index = make().index
    with index.transaction():
        observe(index, "scoring_seconds", 0.3)
        observe(index, "scoring_seconds", 1e9)
        add(index, "scoring_seconds_bucket", "0.75")
    buckets, total = histogram(index, "scoring_seconds")[()]
    assert total == 0.3 + 1e9
    assert [limit for limit, _ in buckets] == sorted({*BUCKETS_S["scoring_seconds"], 0.75})
    assert dict(buckets)[0.5] == 1
    assert dict(buckets)[0.75] == 2
    assert buckets[-1][1] == 3
