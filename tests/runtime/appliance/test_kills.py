"""Processes that are killed: nothing is lost, nothing is doubled, and no process is left."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.appliance import tiny_files, write_served

pytestmark = pytest.mark.slow

STUDIES = [f"1.2.{number}" for number in range(1, 21)]


def serve(config: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "spinescore.runtime.cli", "serve", "--config", str(config), *options]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, encoding="utf-8")


def children_of(process: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def revisions(root: Path) -> dict[str, list[str]]:
    return {uid: sorted(path.name for path in (root / "out" / uid).iterdir()) for uid in STUDIES}


def test_processes_killed_at_random_lose_and_double_nothing(memory_folder, bundle):
    """All at once, or one of them, at seeded times; then the service is started once more until it is idle."""
    chance = random.Random(20260105)
    config = write_served(memory_folder, bundle)
    for uid in STUDIES:
        tiny_files(memory_folder / "inbox" / uid, uid)
    for turn in range(6):
        with serve(config) as service:
            time.sleep(chance.uniform(0.5, 2.5))
            children = children_of(service.pid)
            if turn < len(children):  # the worker once, as a study is parked after the second time
                os.kill(children[turn], signal.SIGKILL)
                time.sleep(chance.uniform(0.2, 1.0))
            os.killpg(service.pid, signal.SIGKILL)
    with serve(config, "--until-idle") as service:
        _, said = service.communicate(timeout=300)
    assert service.returncode == 0, said
    assert set(map(tuple, revisions(memory_folder).values())) == {("revision-1",)}
    for uid in STUDIES:
        folder = memory_folder / "out" / uid / "revision-1"
        assert sorted(path.name for path in folder.iterdir()) == ["report.json", "set.json", "sr.dcm"]
        for file in json.loads((folder / "set.json").read_text())["files"]:
            assert hashlib.sha256((folder / file["name"]).read_bytes()).hexdigest() == file["sha256"]
    assert not [path for path in (memory_folder / "inbox").rglob("*") if path.is_file()]
    assert list((memory_folder / "spool" / "incoming").iterdir()) == []
    assert len(list((memory_folder / "spool" / "results").iterdir())) == len(STUDIES)


def test_no_process_outlives_the_supervisor(memory_folder, bundle):
    with serve(write_served(memory_folder, bundle)) as service:
        deadline = time.monotonic() + 60
        while len(children := children_of(service.pid)) < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        service.kill()
    assert len(children) == 4
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [child for child in children if Path(f"/proc/{child}").exists()]


def test_a_service_ends_when_it_is_told_to(memory_folder, bundle):
    with serve(write_served(memory_folder, bundle)) as service:
        assert "serving" in service.stderr.readline()
        service.terminate()
        assert service.wait(60) == 0
