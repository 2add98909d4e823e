"""A scorer's life with several threads: which calls wait, which fail, and that nothing is left behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from helpers.golden_bundle import write_golden_bundle
from helpers.scoring import CERVICAL, LUMBAR, blank
from spinescore.runtime import Cancelled, DeviceError, Scorer
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.engines.onnxruntime import OnnxRuntimeEngine
from spinescore.runtime.machine import processes
from spinescore.runtime.scoring.budget import STAGES, Effort

STUDY = (CERVICAL.radiograph, LUMBAR.radiograph)
LONG_S = 60  # that no test waits for, unless it fails


class Gate(HostDevice):
    """A host device whose networks wait while `open` is not set; `reached` is set by the first that does."""

    def __init__(self):
        super().__init__(2)
        self.open, self.reached, self.closed = threading.Event(), threading.Event(), threading.Event()
        self.open.set()

    def run(self, engine, inputs, outputs):
        if not self.open.is_set():
            self.reached.set()
            assert self.open.wait(LONG_S)
        super().run(engine, inputs, outputs)

    def close(self):
        super().close()
        self.closed.set()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return Bundle.open(write_golden_bundle(tmp_path_factory.mktemp("golden") / "b", "none"))


@pytest.fixture(autouse=True)
def no_other_scorer(monkeypatch):
    """Scorers of other tests, which may be open still, are not counted."""
    monkeypatch.setattr(processes, "_users", 0)


@pytest.fixture(autouse=True)
def nothing_is_left():
    """No test leaves a thread of a scorer."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(LONG_S)
        assert not thread.is_alive(), thread.name


@pytest.fixture
def gate(bundle):
    """A scorer that is closed at the end, and its device."""
    device = Gate()
    scorer = Scorer(bundle, device)
    yield scorer, device
    device.open.set()
    scorer.close()


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as threads:
        yield threads


def held(scorer, device, pool, **options):
    """A study that is being scored until `device.open` is set."""
    device.reached.clear()
    device.open.clear()
    scored = pool.submit(scorer.score, STUDY, **options)
    assert device.reached.wait(LONG_S)
    return scored


def test_progress_names_the_steps_of_an_opening(bundle):
    lines = []
    with Scorer.open(bundle.folder, "cpu", progress=lines.append, budget_ms=1e6) as scorer:
        count = len(lines)
        scorer.score(STUDY)
        scorer.self_test()
    assert lines.pop(0) == f"opening: the files of bundle {bundle.folder} are checked"
    assert lines.pop(0) == "opening: bundle tiny on cpu, its own engine"
    networks = ("grader-corners.fp32.onnx", "localizer.fp32.onnx")
    assert sorted(lines[:-2]) == [f"opening: loading network {name} (fp32)" for name in networks]
    assert lines[-2].startswith("opening: self-test of onnxruntime ")
    assert lines[-1] == "opening: the steps are timed, for the budget"
    assert len(lines) == count - 2


@pytest.mark.parametrize(
    "line", ["", "the files", "bundle", "loading network g", "loading network l", "self-test", "the steps are"]
)
def test_an_opening_that_is_cancelled_leaves_nothing(bundle, monkeypatch, line):
    """`line` is the beginning of the one at which it is cancelled; empty: before the call."""
    cancel, closed, loaded = threading.Event(), [], []
    close, load = HostDevice.close, OnnxRuntimeEngine.__init__
    monkeypatch.setattr(HostDevice, "close", lambda self: (closed.append(self), close(self)))
    monkeypatch.setattr(OnnxRuntimeEngine, "__init__", lambda self, *args: (loaded.append(self), load(self, *args))[1])
    if not line:
        cancel.set()

    def progress(said):
        if said.startswith(f"opening: {line}"):
            cancel.set()

    with pytest.raises(Cancelled, match=r"^Given up, because .* before this step: |Scoring was cancelled"):
        Scorer.open(bundle.folder, "cpu", progress=progress, cancel=cancel, budget_ms=1e6, threads=2)
    assert bool(closed) is (line not in ("", "the files"))
    assert bool(loaded) is (line not in ("", "the files", "bundle"))
    assert [engine._session for engine in loaded] == [None] * len(loaded)
    assert processes._users == 0


def test_what_progress_raises_ends_the_opening(bundle):
    def fail(line):
        if "self-test" in line:
            raise LookupError(line)

    with pytest.raises(LookupError, match="self-test of onnxruntime"):
        Scorer.open(bundle.folder, "cpu", progress=fail)
    assert processes._users == 0


def test_cancel_is_the_openings_alone(bundle):
    cancel = threading.Event()
    with Scorer.open(bundle.folder, "cpu", cancel=cancel) as scorer:
        cancel.set()
        scorer.self_test()
        assert scorer.score(STUDY).total.status == "complete"


def test_on_stage_is_told_each_stage_once_in_the_thread_that_scores(gate):
    scorer, _ = gate
    told = []

    def on_stage(*stage):
        told.append((*stage, threading.get_ident()))

    scorer.score(STUDY, on_stage=on_stage)
    everything = [(name, number, 6, threading.get_ident()) for number, name in enumerate(STAGES, 1)]
    assert told == everything
    for call in (scorer.try_score, scorer.crops):
        told.clear()
        call(CERVICAL.radiograph, on_stage=on_stage)
        assert told == everything
    told.clear()
    untagged = replace(CERVICAL.radiograph, region=None, facing=None)
    scorer.score([untagged], on_stage=on_stage)  # evidence is a part of select
    assert told == everything
    told.clear()
    scorer.score(blank(view="other"), on_stage=on_stage)
    assert told == [everything[0], everything[-1]]


def test_the_stages_are_those_of_the_reports_timings_and_of_what_was_done(gate):
    scorer, _ = gate
    stages = set(STAGES)
    assert {"localize", "crop", "grade"} <= stages & set(scorer.score(STUDY).to_dict()["timings_ms"])
    cancel = threading.Event()
    with pytest.raises(Cancelled, match="after select, upload, localize"):
        scorer.score(STUDY, cancel=cancel, on_stage=lambda stage, *_: cancel.set() if stage == "crop" else None)


@pytest.mark.parametrize("stage", STAGES)
def test_what_on_stage_raises_ends_the_call_and_leaves_the_scorer_usable(gate, stage):
    scorer, _ = gate
    first = scorer.score(STUDY)

    def fail(name, number, count):
        if name == stage:
            raise LookupError(name)

    with pytest.raises(LookupError, match=stage):
        scorer.score(STUDY, on_stage=fail)
    assert replace(scorer.try_score(STUDY), timings_ms=None) == replace(first, timings_ms=None)


@pytest.mark.parametrize("stage", STAGES)
def test_a_cancel_takes_effect_within_one_stage(gate, stage):
    scorer, _ = gate
    cancel, told = threading.Event(), []

    def on_stage(name, number, count):
        told.append(name)
        if name == stage:
            cancel.set()

    if stage == STAGES[-1]:  # the report is what is left
        assert scorer.score(STUDY, cancel=cancel, on_stage=on_stage).total.status == "complete"
        return
    with pytest.raises(Cancelled):
        scorer.score(STUDY, cancel=cancel, on_stage=on_stage)
    assert told[-1] == stage
    assert scorer.score(STUDY).total.status == "complete"


def test_a_cancel_before_the_call_or_while_it_waits_for_another_study(gate, pool):
    scorer, device = gate
    cancel = threading.Event()
    cancel.set()
    for call in (scorer.score, scorer.try_score, scorer.crops):
        with pytest.raises(Cancelled, match="after nothing was done"):
            call(STUDY, cancel=cancel)
    first = held(scorer, device, pool)
    with pytest.raises(Cancelled):
        scorer.score(STUDY, cancel=cancel)
    cancel = threading.Event()
    waiting = [pool.submit(call, STUDY, cancel=cancel) for call in (scorer.score, scorer.crops)]
    cancel.set()
    for one in waiting:
        assert isinstance(one.exception(LONG_S), Cancelled)
    assert not first.done()
    device.open.set()
    assert first.result(LONG_S).total.status == "complete"


def test_callbacks_may_call_what_does_not_wait(gate):
    scorer, device = gate
    found = []

    def on_stage(stage, number, count):
        if stage == "localize":
            for call in (lambda: scorer.score(STUDY), lambda: scorer.crops(STUDY), scorer.self_test, scorer.close):
                with pytest.raises(RuntimeError, match="called from a callback of its own study"):
                    call()
            found.extend((scorer.try_score(STUDY), scorer.is_checking, scorer.choice))
            scorer.close(wait=False)

    assert scorer.score(STUDY, on_stage=on_stage).total.status == "complete"
    assert found == [None, False, None]
    assert device.closed.wait(LONG_S)


@pytest.mark.parametrize("wait", [True, False])
def test_close_while_a_study_is_scored(gate, pool, wait):
    scorer, device = gate
    scored = held(scorer, device, pool)
    waiting = pool.submit(scorer.score, STUDY)
    closing = pool.submit(scorer.close, wait=wait)
    if not wait:
        closing.result(LONG_S)
        with pytest.raises(DeviceError, match="closed"):
            scorer.try_score(STUDY)
    assert not device.closed.is_set()
    assert not scored.done()
    device.open.set()
    assert scored.result(LONG_S).total.status == "complete"
    closing.result(LONG_S)
    scorer.close()  # waits for what the other one began
    assert device.closed.is_set()
    assert wait or isinstance(waiting.exception(LONG_S), DeviceError)
    waiting.exception(LONG_S)


def test_after_close_every_call_says_so_and_networks_are_gone(gate):
    scorer, _ = gate
    engines = scorer._views.pipeline.engines
    scorer.close()
    scorer.close()
    scorer.close(wait=False)
    for call in (
        lambda: scorer.score(STUDY),
        lambda: scorer.try_score(STUDY),
        lambda: scorer.crops(STUDY),
        lambda: scorer.give(Effort(1)),
        scorer.self_test,
    ):
        with pytest.raises(DeviceError, match="This scorer is closed; open another one"):
            call()
    assert [engine._session for engine in engines] == [None] * len(engines)
    assert (scorer.choice, scorer.is_checking, scorer.wait_for_check()) == (None, False, ())
    assert scorer.bundle.manifest.name == "tiny"


def test_every_method_from_every_thread_until_it_is_closed(bundle, pool):
    device = Gate()
    scorer = Scorer(bundle, device)
    scorer._session.repeat_tests(2, None)
    first = replace(scorer.score(STUDY), timings_ms=None)
    right, enough = [], threading.Event()

    def work(number):
        while True:
            for call in (scorer.score, scorer.try_score) if number % 2 else (scorer.crops, scorer.score):
                found = call(STUDY)
                if found is not None:
                    right.append(replace(getattr(found, "report", found), timings_ms=None) == first)
            scorer.self_test()
            scorer.give(Effort(1))
            if len(right) > 10:
                enough.set()

    working = [pool.submit(work, number) for number in range(7)]
    assert enough.wait(LONG_S)
    with ThreadPoolExecutor(3) as closers:
        for one in [closers.submit(scorer.close, wait=wait) for wait in (True, False, True)]:
            one.result(LONG_S)
    for one in working:
        assert isinstance(one.exception(LONG_S), DeviceError)
    assert device.closed.is_set()
    assert all(right)


def test_a_scorer_that_nobody_keeps_frees_its_device_and_ends_its_thread(bundle):
    device = Gate()
    scorer = Scorer(bundle, device)
    scorer._session.repeat_tests(None, 60.0)
    thread = scorer._session._repeats._thread
    del scorer
    gc.collect()
    assert device.closed.wait(LONG_S)
    thread.join(LONG_S)
    assert not thread.is_alive()


FORKED = """
import os, sys
from spinescore.runtime import DeviceError, Scorer
with Scorer.open(sys.argv[1], "cpu", threads=2) as scorer:
    child = os.fork()
    if not child:
        try:
            scorer.try_score({})
        except DeviceError as error:
            scorer.close()
            os._exit(7 if "forked" in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    scorer.score({})
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
def test_a_forked_process_is_told_to_open_its_own(bundle):
    command = [sys.executable, "-W", "ignore", "-c", FORKED, str(bundle.folder)]
    assert subprocess.run(command, timeout=LONG_S, check=False).returncode == 0


def test_the_last_scorer_ends_what_all_share(bundle, monkeypatch):
    ended = []
    monkeypatch.setattr(processes, "_enders", [lambda: ended.append(processes._users)])
    first, second = Scorer(bundle, HostDevice(1)), Scorer(bundle, HostDevice(1))
    first.close()
    first.close()
    assert not ended
    second.close()
    assert ended == [0]
