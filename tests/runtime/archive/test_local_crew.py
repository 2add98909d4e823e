"""The processes that score: studies that end or hold up their process, bundles that do not open, how many there are.

A short script stands for the process, and does what a study's first file says.
"""

import itertools
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from helpers import archive
from spinescore.runtime.archive import crews, local
from spinescore.runtime.archive.crews import Crews, splits
from spinescore.runtime.archive.layout import ArchiveError, Shard
from spinescore.runtime.archive.local import Crew, Task
from spinescore.runtime.archive.studylists import Entry
from spinescore.runtime.machine import child

SCRIPT = """
import json, os, signal, sys, time
request = json.loads(sys.argv[1])
def say(**message): print(json.dumps(message), flush=True)
say(progress="opening")
if request["bundle"] == "bad": say(refused="no such bundle"); sys.exit(1)
if request["bundle"] == "dies": os.kill(os.getpid(), signal.SIGKILL)
if request["bundle"] == "hangs": time.sleep(60)
facts = {"device": request["device"], "engine": "e", "precision": "p", "name": "n", "memory_bytes": 100 << 20}
say(ready={**facts, "threads": request["threads"], "pid": os.getpid()})
for line in sys.stdin.buffer:
    task = json.loads(line)
    word = task["entry"]["files"][0]
    if word == "crash": os.kill(os.getpid(), signal.SIGKILL)
    if word == "exit": sys.exit(3)
    if word == "hang": time.sleep(60)
    if word == "stop": os.kill(os.getpid(), signal.SIGSTOP)
    if word == "gone": say(refused="the archive is gone"); sys.exit(1)
    if word.startswith("once:") and not os.path.exists(word[5:]):
        open(word[5:], "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    say(task=task["task"], rows=[{"pid": os.getpid()}], unwritten="full" if word == "unwritten" else None)
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the script ends itself by a signal")


@pytest.fixture(autouse=True)
def script(monkeypatch):
    monkeypatch.setattr(child, "worker_command", lambda module, request: [sys.executable, "-c", SCRIPT, request])
    monkeypatch.setattr(local, "_TICK_S", 0.05)


def tasks(*words):
    return [Task(Shard(0, 0), Entry(number, str(number), tuple(word.split(" ")))) for number, word in enumerate(words)]


class Heard:
    """A crew, and all that it said."""

    def __init__(self, count=2, bundle="b", timeout_s=60.0):
        self.opened, self.notes, self.lines = [], [], []
        request = archive.request_of("base", bundle)
        self.crew = Crew(request, count, timeout_s, self.opened.append, self.lines.append, self.note)

    def note(self, event, **facts):
        self.notes.append(facts)

    def outcomes(self, *words):
        try:
            self.crew.wait_until_open()
            return list(self.crew.outcomes(iter(tasks(*words))))
        finally:
            self.crew.close()


def test_every_study_is_scored_once_by_all_processes():
    outcomes = Heard(2).outcomes(*["good"] * 30)
    assert sorted(outcome.task.entry.number for outcome in outcomes) == list(range(30))
    assert len({outcome.rows[0]["pid"] for outcome in outcomes}) == 2


@pytest.mark.parametrize("count", [1, 3])
def test_studies_that_end_their_process_are_isolated(count):
    words = ["good", "crash", "good", "good", "exit", "crash", *["good"] * 9, "crash"]
    heard = Heard(count)
    outcomes = heard.outcomes(*words)
    assert sorted(outcome.task.entry.number for outcome in outcomes) == list(range(len(words)))
    assert codes(outcomes) == ["worker-crashed" if word in ("crash", "exit") else None for word in words]
    assert {outcome.message for outcome in outcomes if outcome.code} == {"SIGKILL", "exit status 3"}
    assert [note["alone"] for note in heard.notes].count(True) == 4


def codes(outcomes):
    return [outcome.code for outcome in sorted(outcomes, key=lambda outcome: outcome.task.entry.number)]


@pytest.mark.parametrize("word", ["hang", "stop"])
def test_a_study_that_holds_up_its_process_is_ended(word):
    outcomes = Heard(2, timeout_s=0.5).outcomes("good", word, "good", "good", "good")
    assert codes(outcomes) == [None, "worker-timeout", None, None, None]
    assert {outcome.message for outcome in outcomes} == {None, "silent for 0.5 s"}


def test_a_process_that_reads_nothing_holds_up_no_other():
    many = f"good {'path' * 100_000}"  # more than a pipe holds
    assert codes(Heard(2, timeout_s=0.5).outcomes("stop", *[many] * 5)) == ["worker-timeout", *[None] * 5]


def test_a_process_that_cannot_be_ended_is_left_behind(monkeypatch):
    monkeypatch.setattr(local, "_KILLED_S", 0.1)
    kill, left = subprocess.Popen.kill, []
    monkeypatch.setattr(subprocess.Popen, "kill", lambda process: left.append(process))
    outcomes = Heard(1, timeout_s=0.5).outcomes("hang")
    for process in left:
        kill(process)
        process.wait()
    assert codes(outcomes) == ["worker-timeout"]


def test_no_silence_counts_while_this_process_is_stopped(monkeypatch):
    seconds = itertools.count(0, 1000)
    monkeypatch.setattr(local, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))
    assert codes(Heard(2).outcomes(*["good"] * 10)) == [None] * 10


def test_a_study_that_ended_its_process_once_is_scored(tmp_path):
    outcomes = Heard(1).outcomes("good", f"once:{tmp_path / 'mark'}", "good")
    assert codes(outcomes) == [None] * 3


def test_a_message_about_results_is_passed_on():
    (outcome,) = Heard(1).outcomes("unwritten")
    assert (outcome.code, outcome.message) == (None, "full")


@pytest.mark.parametrize(("bundle", "message"), [("bad", "no such bundle"), ("dies", "while they open the bundle")])
def test_a_bundle_that_does_not_open_ends_the_run(bundle, message):
    with pytest.raises(ArchiveError, match=message):
        Heard(2, bundle).outcomes("good")


def test_a_scorer_that_is_not_open_in_time_ends_the_run(monkeypatch):
    monkeypatch.setattr(local, "_LEAST_OPEN_S", 0.6)
    heard = Heard(1, "hangs", timeout_s=0.1)
    with pytest.raises(ArchiveError, match=r"while they open the bundle \(silent for 0.6 s\)"):
        heard.outcomes("good")
    assert [line for line in heard.lines if "silent for 0.6 s" in line and "is started again" in line]


def test_an_archive_that_is_gone_ends_the_run():
    with pytest.raises(ArchiveError, match="the archive is gone"):
        Heard(2).outcomes("good", "gone", "good")


def test_closing_ends_the_processes():
    heard = Heard(2)
    heard.crew.wait_until_open()
    processes = [member.process._process for member in heard.crew._members]
    heard.crew.close()
    assert all(process.returncode is not None for process in processes)


# ---- how many processes


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr(crews, "core_count", lambda: 4)


def score_all(count, workers=None, threads=None, device="cpu", largest=1 << 20):
    """Score `count` studies; returns the way, what it said, and the request of each scorer that was opened."""
    said, opened = [], []
    way = Crews(workers, threads, 60.0, largest, said.append, lambda *_, **__: None)
    request = archive.request_of("base", "b", device=device)

    def note(facts):
        opened.append(facts)
        return replace(request, engine=facts["engine"], precision=facts["precision"])

    outcomes = list(way.outcomes(iter(tasks(*["good"] * count)), count, note, request))
    assert sorted(outcome.task.entry.number for outcome in outcomes) == list(range(count))
    return way, said, opened


def test_splits_share_the_cores(four_cores, monkeypatch):
    assert splits(None, None) == [(4, 1), (2, 2), (1, 4)]
    assert splits(2, None) == [(2, 2)]
    assert splits(None, 2) == [(2, 2)]
    assert splits(3, 4) == [(3, 4)]
    monkeypatch.setattr(crews, "core_count", lambda: 1)
    assert splits(None, None) == [(1, 1)]


def test_few_studies_are_scored_without_a_measurement(four_cores):
    way, said, opened = score_all(20)
    assert way.facts() == {"processes": 4, "threads": 1, "studies_a_second": {}}
    assert len(opened) == 4
    assert not [line for line in said if "studies a second" in line]


def test_the_first_of_many_studies_measure_the_splits(four_cores, monkeypatch):
    monkeypatch.setattr(crews, "_WORTH_MEASURING", 150)
    way, said, opened = score_all(150)
    rates = way.facts()["studies_a_second"]
    assert rates.keys() == {"4 x 1", "2 x 2", "1 x 4"}
    best = max(rates, key=rates.get)
    assert (way.facts()["processes"], way.facts()["threads"]) == tuple(map(int, best.split(" x ")))
    assert {facts["threads"] for facts in opened} == {1, 2, 4}
    assert any("studies a second" in line for line in said)


def test_a_split_that_was_asked_for_is_not_measured(four_cores, monkeypatch):
    monkeypatch.setattr(crews, "_WORTH_MEASURING", 1)
    way, _, opened = score_all(20, workers=3)
    assert (way.facts()["processes"], way.facts()["threads"]) == (3, 1)
    assert len(opened) == 3


def test_the_memory_limits_the_processes(four_cores, monkeypatch):
    monkeypatch.setattr(crews, "memory_bytes", lambda: (512 + 260) << 20)
    way, said, _ = score_all(20)
    assert (way.facts()["processes"], way.facts()["threads"]) == (2, 2)
    assert "processes that score: at most 2, because of the memory" in said


def test_a_gpu_has_one_process(four_cores):
    way, _, opened = score_all(5, device="cuda")
    assert (way.facts()["processes"], len(opened)) == (1, 1)


def test_the_first_scorers_engine_is_that_of_all(four_cores, monkeypatch):
    requests = []

    class Noted(Crew):
        def __init__(self, request, *rest):
            requests.append(request)
            super().__init__(request, *rest)

        def resize(self, count, request):
            requests.append(request)
            super().resize(count, request)

    monkeypatch.setattr(crews, "Crew", Noted)
    monkeypatch.setattr(crews, "_WORTH_MEASURING", 100)
    score_all(100)
    engines = [request.engine for request in requests]
    assert engines[0] is None
    assert set(itertools.dropwhile(lambda engine: engine is None, engines)) == {"e"}
