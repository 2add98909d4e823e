"""The service's loops take as many steps of SQLite with many finished studies as with few."""

from __future__ import annotations

import pytest

from helpers.appliance import tiny_files
from spinescore.runtime.appliance.recovery import clean
from spinescore.runtime.appliance.seen.status import oldest_waiting_s, parked_by_code, status
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.supervisor import _is_idle
from spinescore.runtime.appliance.web.health import families, metrics_text

pytest.importorskip("prometheus_client")

STUDIES = """
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
    INSERT INTO studies SELECT i, '1.9.' || i, 1, 'delivered', NULL, NULL, printf('%064x', i), 0, 0, 1.0, 900.0, 'then'
    FROM n
"""
OBJECTS = """
    INSERT INTO objects SELECT printf('%064x', 2 * id + view), uid || '.' || view, '1.2', uid, NULL, 1, NULL, id, 1,
    1.0, 'then', 1 FROM studies, (SELECT 0 AS view UNION ALL SELECT 1) WHERE uid LIKE '1.9.%'
"""
OTHERS = """
    INSERT INTO objects SELECT printf('a%063x', id), uid || '.8', '1.2', uid, NULL, 1, 'not-radiograph', NULL, 1, 900.0,
    'then', 1 FROM studies WHERE uid LIKE '1.9.%'
"""
RESULTS = """
    INSERT INTO results SELECT input_key, id, 1, 1, NULL, NULL, 1.0, 'then', 1 FROM studies WHERE uid LIKE '1.9.%'
"""
DELIVERIES = """
    INSERT INTO deliveries SELECT NULL, input_key, file, 'sr', '', uid || file, 'out', 'sent', 0, 1, 1.0, 1.0, NULL,
    NULL, 900.0 FROM studies, (SELECT 'sr.dcm' AS file UNION ALL SELECT 'set.json') WHERE uid LIKE '1.9.%'
"""


def add_finished(index: Index, count: int) -> None:
    index._connection.execute("PRAGMA synchronous = OFF")
    with index.transaction():
        for statement in (STUDIES.format(count=count), OBJECTS, OTHERS, RESULTS, DELIVERIES):
            index.change(statement)


def steps_of(index: Index, work) -> int:
    """The steps of SQLite's machine that a piece of work takes."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    index._connection.set_progress_handler(step, 1)
    try:
        work()
    finally:
        index._connection.set_progress_handler(None, 1)
    return count


def steps_with(make, folder, count: int) -> dict[str, int]:
    """The steps of each part of the loops, with so many finished studies, and one that arrives, is scored and sent."""
    one = make()
    add_finished(one.index, count)
    config, places, index, clock = one.queue._config, one.places, one.index, one.clock

    def receive() -> None:
        one.receive(*tiny_files(folder, "1.2.3"))

    def deliver() -> None:
        while one.deliverers[0].step():
            pass

    def late() -> None:
        one.receive(*tiny_files(folder / "late", "1.9.7"))

    def metrics() -> None:
        metrics_text(families(config, places, index, clock))

    clock.pass_s(1.0)
    steps = {"receive": steps_of(index, receive)}
    clock.pass_s(20.0)
    steps["advance"] = steps_of(index, one.queue.advance)
    steps["take, score and plan"] = steps_of(index, lambda: [one.dispatcher.step() for _ in range(3)])
    steps["deliver"] = steps_of(index, deliver)
    assert one.states()["1.2.3"] == "delivered"
    steps["status"] = steps_of(index, lambda: status(places, index, clock))
    steps["metrics"] = steps_of(index, metrics)
    steps["waiting"] = steps_of(index, lambda: (oldest_waiting_s(index, clock), parked_by_code(index), _is_idle(index)))
    steps["clean"] = steps_of(index, lambda: clean(places, index, clock, config.spool))
    steps["late image"] = steps_of(index, late)
    return steps


def compare(make, folder, few: int, many: int) -> None:
    first = steps_with(make, folder / "few", few)
    (folder / "spool").rename(folder / "spool-of-few")
    (folder / "out").rename(folder / "out-of-few")
    assert sum(first.values()) > 500  # they were counted
    second = steps_with(make, folder / "many", many)
    grown = {name: (steps, second[name]) for name, steps in first.items() if second[name] > 1.2 * steps + 20}
    assert grown == {}


def test_no_loop_looks_at_all_finished_studies(make, tmp_path):
    compare(make, tmp_path, 100, 3000)


@pytest.mark.slow
def test_three_hundred_thousand_studies_slow_nothing_down(make, tmp_path):
    compare(make, tmp_path, 100, 300_000)
