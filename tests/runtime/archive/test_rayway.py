"""Actors of Ray: a double of Ray that loses actors, and a run with Ray itself if it is installed."""

import importlib
import os
import subprocess
import sys
import threading
import types
from dataclasses import asdict
from importlib.util import find_spec

import pytest

from helpers import archive, tiny
from spinescore.runtime.archive import local
from spinescore.runtime.archive.layout import ArchiveError, Shard
from spinescore.runtime.archive.local import Task
from spinescore.runtime.archive.studylists import Entry
from spinescore.runtime.documents import read

MODULE = "spinescore.runtime.archive.rayway"


class RayError(Exception):
    pass


class GetTimeoutError(RayError):
    pass


class Remote:
    def __init__(self, function):
        self.remote = function


class Actor:
    """Scores a study when its result is asked for; one whose first file is `crash` or `hang` is the actor's last."""

    def __init__(self, ray, request):
        self.ray, self.request, self.killed = ray, request, threading.Event()
        self.facts = Remote(lambda: lambda: self.ray.facts)
        self.score = Remote(lambda entry, out: lambda: self.rows(asdict(read(Entry, entry))))

    def rows(self, entry):
        self.ray.tries.append(entry["number"])
        if entry["files"][0] == "hang":
            self.killed.wait()
        if entry["files"][0] in ("crash", "hang"):
            raise RayError("lost")
        if entry["files"][0] == "gone":
            error = RayError("a long traceback")
            error.cause = ArchiveError("the archive is gone")
            raise error
        return [{"row": "study"}], None


class Ray(types.ModuleType):
    """The calls of Ray that are used."""

    __version__ = "double"

    def __init__(self):
        super().__init__("ray")
        self.facts, self.tries, self.options, self.up = {"ready": {"device": "cpu"}}, [], None, False
        self.exceptions = types.SimpleNamespace(RayError=RayError, GetTimeoutError=GetTimeoutError)

    def init(self, **options):
        self.options, self.up = options, True

    def shutdown(self):
        self.up = False

    def cluster_resources(self):
        return {"CPU": 3.0}

    def remote(self, **options):
        assert options["max_restarts"] == 0
        return lambda cls: Remote(lambda request: Actor(self, request))

    def get(self, reference, timeout=None):
        return reference()

    def kill(self, actor):
        actor.killed.set()


@pytest.fixture
def ray(monkeypatch):
    double = Ray()
    monkeypatch.setitem(sys.modules, "ray", double)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    yield double
    sys.modules.pop(MODULE, None)


def score(words, **options):
    rayway = importlib.import_module(MODULE)
    notes = []
    settings = {"workers": None, "threads": None, "timeout_s": 60.0, "address": None, **options}
    way = rayway.RayWay(**settings, noted=lambda event, **facts: notes.append(facts))
    request = archive.request_of("base", "bundle")
    tasks = [Task(Shard(0, 0), Entry(number, str(number), (word,))) for number, word in enumerate(words)]
    outcomes = list(way.outcomes(iter(tasks), len(tasks), lambda facts: request, request))
    return way, {outcome.task.entry.number: outcome for outcome in outcomes}, len(outcomes), notes


def test_lost_actors_are_replaced_until_the_study_is_found(ray):
    words = ["good"] * 30
    words[5] = words[21] = words[29] = "crash"
    way, outcomes, count, notes = score(words)
    assert (count, sorted(outcomes)) == (30, list(range(30)))
    assert {number for number, outcome in outcomes.items() if outcome.code} == {5, 21, 29}
    assert {outcome.code for outcome in outcomes.values()} == {None, "worker-crashed"}
    assert ray.tries.count(29) >= 2
    assert [note["alone"] for note in notes].count(True) == 3
    assert (way.facts()["actors"], ray.up) == (3, False)


def test_a_single_study_is_tried_twice(ray):
    _, outcomes, _, _ = score(["crash"])
    assert (ray.tries, outcomes[0].code) == ([0, 0], "worker-crashed")


def test_an_actor_that_takes_too_long_is_ended(ray, monkeypatch):
    monkeypatch.setattr(local, "_TICK_S", 0.05)
    _, outcomes, _, _ = score(["hang"], timeout_s=0.1)
    assert outcomes[0].code == "worker-timeout"


def test_the_cluster_is_that_of_the_address(ray):
    score(["good"], address="ray://head:10001")
    assert ray.options["address"] == "ray://head:10001"
    assert "num_cpus" not in ray.options
    score(["good"], workers=2, threads=4)
    assert ray.options["num_cpus"] >= 8


def test_a_bundle_that_does_not_open_ends_the_run(ray):
    ray.facts = {"refused": "no such bundle"}
    with pytest.raises(ArchiveError, match="no such bundle"):
        score(["good"])
    assert not ray.up


def test_an_archive_that_is_gone_ends_the_run(ray):
    with pytest.raises(ArchiveError, match=r"^the archive is gone$"):
        score(["good", "gone"])
    assert not ray.up


def test_an_actor_that_is_not_open_in_time_ends_the_run(ray, monkeypatch):
    def get(reference, timeout):
        raise GetTimeoutError

    monkeypatch.setattr(ray, "get", get)
    with pytest.raises(ArchiveError, match="opened no bundle for 3600 s"):
        score(["good"])
    assert not ray.up


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    with pytest.raises(ArchiveError, match=r"spinescore\[archive-ray\]"):
        importlib.import_module(MODULE)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
@pytest.mark.skipif(find_spec("pyarrow") is None, reason="tables are Parquet files")
def test_ray_gives_the_same_tables_as_processes(tmp_path):
    source, bundle = tmp_path / "source", tiny.write_bundle(tmp_path / "bundle")
    archive.write_archive(source / "small", 20)
    archive.write_archive(source / "large", 6, small=False)
    for engine in ("local", "ray"):
        words = ["archive", str(source), "--out", str(tmp_path / engine), "--bundle", str(bundle), "--device", "cpu"]
        options = ["--build", "no", "--shard-studies", "4", "--workers", "2", "--threads", "1", "--engine", engine]
        command = [sys.executable, "-m", "spinescore.runtime.cli", *words, *options]
        done = subprocess.run(command, capture_output=True, env={**os.environ, "RAY_TMPDIR": "/tmp"}, timeout=300)
        assert done.returncode == 0, done.stderr.decode()
    assert archive.digest(tmp_path / "ray") == archive.digest(tmp_path / "local")
