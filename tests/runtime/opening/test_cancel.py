"""Processes that work for a scorer: they end with it, and with an opening that is cancelled."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.golden_bundle import write_golden_bundle
from helpers.scoring import CERVICAL
from spinescore.runtime import Cancelled, Scorer
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.caller import Caller
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.machine import child, processes
from spinescore.runtime.opening import background, checking, openscorer
from spinescore.runtime.opening.background import Build
from spinescore.runtime.opening.checking import Check
from spinescore.runtime.opening.inuse import EngineInUse
from spinescore.runtime.opening.openscorer import Opening
from spinescore.runtime.opening.request import Request
from spinescore.runtime.opening.session import Session
from spinescore.runtime.scoring.studyscorer import StudyScorer
from spinescore.runtime.scoring.views import Views

LONG_S = 60
CHECK = Check("openvino 2026.4.1", ("int8",))
SAYS_AND_SLEEPS = "import json, time; print(json.dumps({'say': 'begun'}), flush=True); time.sleep(600)"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return Bundle.open(write_golden_bundle(tmp_path_factory.mktemp("golden") / "b", "none"))


@pytest.fixture
def checked(whole, monkeypatch, tmp_path):
    """A bundle whose engines are to be checked, by a process that does nothing."""
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(openscorer, "find_check", lambda bundle, request, may_run: (CHECK, ()))
    monkeypatch.setattr(child, "worker_command", lambda module, request: [sys.executable, "-c", SAYS_AND_SLEEPS])
    monkeypatch.setattr(background, "_END_S", 0.05)
    return whole


@pytest.fixture
def started(monkeypatch):
    """The processes that were started meanwhile."""
    found, popen = [], child.subprocess.Popen

    def start(*args, **options):
        found.append(popen(*args, **options))
        return found[-1]

    monkeypatch.setattr(child.subprocess, "Popen", start)
    return found


def builders():
    return [thread for thread in threading.enumerate() if thread.name == "spinescore-child"]


def test_a_cancel_ends_the_process_that_the_opening_waits_for(checked, started):
    cancel = threading.Event()

    def progress(said):
        if said == "begun":
            cancel.set()

    with pytest.raises(Cancelled, match="before this step: the engines that another process works on"):
        Scorer.open(checked.folder, "cpu", build="now", progress=progress, cancel=cancel)
    (process,) = started
    assert process.returncode is not None
    assert not builders()
    assert checking._tries(checked, CHECK) == (1, "")  # it is tried again


@pytest.mark.parametrize("wait", [True, False])
def test_close_ends_a_check_and_who_waits_for_it(checked, started, wait):
    scorer = Scorer.open(checked.folder, "cpu")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(scorer.wait_for_check)
        assert scorer.is_checking
        scorer.close(wait=wait)
        assert waiting.result(LONG_S) == ()
    scorer.close()
    assert started[0].returncode is not None
    assert not builders()
    assert checking._tries(checked, CHECK) == (1, "")


def test_progress_may_close_a_scorer(checked, started):
    done = threading.Event()
    opened = []

    def progress(said):
        if said == "begun":
            while not opened:
                time.sleep(0.001)
            opened[0].close()
            done.set()

    opened.append(Scorer.open(checked.folder, "cpu", progress=progress))
    assert done.wait(LONG_S)
    assert started[0].returncode is not None


def test_a_study_that_is_cancelled_leaves_the_new_engine_to_the_next_one(whole, monkeypatch, tmp_path):
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "cache"))
    answer = json.dumps({"accepted": True, "reason": "", "judged": True})
    monkeypatch.setattr(child, "worker_command", lambda module, request: [sys.executable, "-c", f"print({answer!r})"])
    caller = Caller(None, threading.Event())
    build = Build(whole, CHECK, Request("cpu", caller=caller))
    assert build.wait() == ()
    first = StudyScorer(whole, HostDevice(1))
    engine = EngineInUse(Opening(first, (), build), whole)
    caller.cancel.set()
    for _ in range(2):
        with pytest.raises(Cancelled):
            engine.renew()
    assert engine.scorer is first
    caller.cancel = None
    assert engine.renew()
    assert engine.scorer is not first
    assert (engine.renew(), engine.warnings) == (False, ())
    engine.close()


def test_steps_whose_timing_was_cancelled_are_timed_for_the_next_study(whole, monkeypatch):
    """A study takes the new engine, and is cancelled while that engine's steps are timed."""
    cancel, warm_up = threading.Event(), Views.warm_up
    timed = []

    def cancelled_once(views, budget):
        if not timed:
            cancel.set()
        timed.append(views)
        warm_up(views, budget)

    engine = EngineInUse(Opening(StudyScorer(whole, HostDevice(1))), whole, Request("cpu"))
    session = Session(engine, 1e6)
    engine.scorer.test()
    monkeypatch.setattr(Views, "warm_up", cancelled_once)
    study = [CERVICAL.radiograph]
    with pytest.raises(Cancelled):
        session.score(study, None, session.budget(study, None, False, cancel, False, None), False)
    assert not engine.scorer.steps_timed
    for _ in range(2):
        session.score(study, None, session.budget(study, None, False, None, False, None), False)
        assert engine.scorer.steps_timed
    assert timed == [engine.scorer.views] * 2  # once without success
    session.turns.close()


PARENT = """
import os
from pathlib import Path
from spinescore.runtime import files
from spinescore.runtime.machine import child, processes
def main(request):
    say = child.answering()
    draft = Path(os.environ["SPINESCORE_TEST_FOLDER"]) / ".report.tmp"
    draft.touch()
    files._unfinished.add(draft)
    child.worker_command = lambda *_: [processes.interpreter(), "-c", "import time; time.sleep(600)"]
    sleeper = child.Child("")
    sleeper.start({})
    say(pid=sleeper.pid)
    while True:
        sleeper.ended(1)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signal 0 ends a process there")
def test_a_process_that_ends_with_its_parent_leaves_neither_children_nor_half_files(tmp_path, monkeypatch):
    (tmp_path / "parent_of_one.py").write_text(PARENT, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("SPINESCORE_TEST_FOLDER", str(tmp_path))
    parent = child.Child("parent_of_one")
    parent.start({})
    grandchild = parent.messages(LONG_S)[0]["pid"]
    assert (tmp_path / ".report.tmp").exists()
    os.kill(grandchild, 0)
    parent.kill(grace_s=LONG_S)
    with pytest.raises(ProcessLookupError):
        os.kill(grandchild, 0)
    assert not (tmp_path / ".report.tmp").exists()


def test_a_child_that_has_ended_is_not_counted(monkeypatch):
    monkeypatch.setattr(child, "worker_command", lambda *_: [sys.executable, "-c", "import time; time.sleep(600)"])
    sleeper = child.Child("")
    sleeper.start({})
    assert len(processes._children) == 1
    sleeper.kill()
    assert not processes._children
