"""Threads beside the exporter's own: what has not begun is dropped after an error."""

from __future__ import annotations

from threading import Event

import pytest

from spinescore.export.sessions import workers


def test_work_that_has_not_begun_is_dropped_after_an_error():
    begun, ended = Event(), Event()
    done, later = [], []

    def first():
        begun.set()
        assert ended.wait(60)
        done.append("first")

    def refuse():
        with workers(1) as pool:
            pool.submit(first)
            later.append(pool.submit(done.append, "later"))
            later[0].add_done_callback(lambda _: ended.set())  # called when `later` is cancelled
            assert begun.wait(60)
            raise ValueError("wrong weights")

    with pytest.raises(ValueError, match="wrong weights"):
        refuse()
    assert later[0].cancelled()
    assert done == ["first"]
