"""Both views of a study side by side on the CPU."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from helpers import tiny
from helpers.tiny_study import write_study
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.errors import EngineError
from spinescore.runtime.machine import processor
from spinescore.runtime.reading.studies import load_study
from spinescore.runtime.scorer import Scorer


class Recorder:
    """An engine that notes which rows each thread ran; at `stop` rows or fewer it fails."""

    rows = 1

    def __init__(self, fails_on: int | None = None):
        self.calls: list[tuple[int, str]] = []
        self._fails_on = fails_on

    def run(self, inputs, outputs):
        self.calls.append((len(inputs), threading.current_thread().name))
        if self._fails_on in inputs[:, 0]:
            raise EngineError("the network failed")
        outputs[...] = inputs * 2


@pytest.mark.parametrize(("threads", "calls"), [(1, [5]), (2, [2, 3]), (4, [2, 3])])
def test_a_batch_is_halved_where_there_are_two_threads(threads, calls):
    device, engine = HostDevice(threads), Recorder()
    inputs = np.arange(15.0).reshape(5, 3)
    outputs = np.zeros_like(inputs)
    device.run(engine, inputs, outputs)
    np.testing.assert_array_equal(outputs, inputs * 2)
    assert sorted(count for count, _ in engine.calls) == calls
    assert len({name for _, name in engine.calls}) == len(calls)


def test_one_image_is_not_halved():
    device, engine = HostDevice(2), Recorder()
    inputs = np.ones((1, 3))
    device.run(engine, inputs, np.zeros_like(inputs))
    assert [count for count, _ in engine.calls] == [1]


def test_one_view_is_not_halved_if_its_network_has_a_fixed_batch():
    """An INT8 network may be compiled for the six crops of a view."""
    engine, device = Recorder(), HostDevice(2)
    engine.rows = 6
    for count, expected in ((6, [6]), (12, [6, 6])):
        inputs, engine.calls = np.ones((count, 3)), []
        device.run(engine, inputs, np.zeros_like(inputs))
        assert [rows for rows, _ in engine.calls] == expected


@pytest.mark.parametrize("failing", [0, 3])
def test_what_fails_on_either_side_is_raised_and_the_device_goes_on(failing):
    device = HostDevice(2)
    inputs = np.arange(4.0)[:, None]
    with pytest.raises(EngineError, match="the network failed"):
        device.run(Recorder(fails_on=failing), inputs, np.zeros_like(inputs))
    outputs = np.zeros_like(inputs)
    device.run(Recorder(), inputs, outputs)
    np.testing.assert_array_equal(outputs, inputs * 2)


def test_views_run_in_threads_of_their_own_and_one_view_in_the_callers():
    device = HostDevice(2)
    seen: list[tuple[slice, str]] = []
    together = threading.Barrier(2, timeout=20)

    def steps(views):
        seen.append((views, threading.current_thread().name))
        if len(range(*views.indices(2))) == 1 and not alone:
            together.wait()  # passes only where both are under way at the same time

    alone = False
    replay = device.capture(steps)
    assert not seen
    replay(slice(0, 2))
    assert {(views.start, views.stop) for views, _ in seen} == {(0, 1), (1, 2)}
    assert len({name for _, name in seen}) == 2
    alone, seen[:] = True, []
    replay(slice(1, 2))
    assert seen == [(slice(1, 2), threading.current_thread().name)]


def test_stages_last_until_both_views_are_through():
    device = HostDevice(2)
    first_done = threading.Event()

    def steps(views):
        device.mark("start")
        if views.start == 1:
            assert first_done.wait(20)
        device.mark("localize")
        if views.start == 0:
            first_done.set()

    device.capture(steps)(slice(0, 2))
    marks = device.marks_ms()
    assert list(marks) == ["start", "localize"]
    assert marks["start"] == 0 < marks["localize"]


def test_reports_do_not_depend_on_the_threads(tmp_path):
    bundle = Bundle.open(tiny.write_bundle(tmp_path / "bundle"))
    study = load_study(write_study(tmp_path / "study"))
    reports = []
    for threads in (1, 2, 3):
        with Scorer(bundle, HostDevice(threads)) as scorer:
            document = scorer.score(study).to_dict()
        document.pop("timings_ms")
        reports.append(document)
    assert reports[0] == reports[1] == reports[2]


def test_cores_that_share_silicon_count_once(monkeypatch, tmp_path):
    for number, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        (tmp_path / str(number)).write_text(siblings)
    monkeypatch.setattr(processor, "_SIBLINGS", f"{tmp_path}/{{}}")
    monkeypatch.setattr(processor.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    assert processor.core_count() == 2
    monkeypatch.setattr(processor, "_SIBLINGS", f"{tmp_path}/missing-{{}}")
    assert processor.core_count() == 4
