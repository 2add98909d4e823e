"""An archive whose run is killed again and again: every study once, and the bytes of an undisturbed run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import archive, tiny
from spinescore.runtime.archive.layout import Places

pytest.importorskip("pyarrow", reason="tables are Parquet files")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc"),
]

STUDIES, KILLS, PATIENCE_S = 90, 10, 120


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    archive.write_archive(folder / "small", STUDIES)
    archive.write_archive(folder / "large", 30, small=False)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return tiny.write_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


def start(source: Path, tables: Path, bundle: Path, *more: str) -> subprocess.Popen:
    words = ["archive", str(source), "--out", str(tables), "--bundle", str(bundle), "--device", "cpu", "--build", "no"]
    options = ["--workers", "2", "--threads", "1", "--shard-studies", "3", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "spinescore.runtime.cli", *words, *options],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, "SPINESCORE_TEST_MARK": str(tables)},
    )  # fmt: skip


def processes(tables: Path) -> list[int]:
    """The processes that were started for these tables and still run."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if f"SPINESCORE_TEST_MARK={tables}".encode() in environment.split(b"\0") and state != "Z":
            found.append(int(folder.name))
    return found


def wait_for(condition, what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def wait_for_more(places: Places, process: subprocess.Popen) -> None:
    before = len(places.written())
    wait_for(lambda: len(places.written()) > before or process.poll() is not None, "no shard came")


@pytest.fixture(scope="module")
def undisturbed(source, bundle, tmp_path_factory):
    tables = tmp_path_factory.mktemp("whole") / "tables"
    process = start(source, tables, bundle)
    assert process.communicate(timeout=PATIENCE_S)[1] is not None
    assert process.returncode == 0
    return tables


def test_a_run_that_is_killed_ten_times_gives_the_same_tables(source, bundle, undisturbed, tmp_path):
    tables = tmp_path / "tables"
    places = Places(tables)
    for kill in range(KILLS):
        process = start(source, tables, bundle)
        wait_for_more(places, process)
        time.sleep(0.03 * kill)
        process.kill()
        process.communicate()
        wait_for(lambda: not processes(tables), "processes are left")
    last = start(source, tables, bundle)
    last.communicate(timeout=PATIENCE_S)
    assert last.returncode == 0
    assert archive.digest(tables) == archive.digest(undisturbed)
    heads = [row for row in archive.rows(tables) if row["row"] in ("study", "not-scored")]
    assert len(heads) == len({row["study_instance_uid"] for row in heads}) == STUDIES
    assert not list(tables.glob(".*"))


def test_a_worker_that_is_killed_changes_nothing(source, bundle, undisturbed, tmp_path):
    tables = tmp_path / "tables"
    process = start(source, tables, bundle)
    places = Places(tables)
    for count in (1, 8):
        wait_for(lambda count=count: len(places.written()) >= count, "no shard came")
        victims = [pid for pid in processes(tables) if pid != process.pid]
        os.kill(victims[0], signal.SIGKILL)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert archive.digest(tables) == archive.digest(undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_cleanly(source, bundle, undisturbed, tmp_path, number):
    tables = tmp_path / "tables"
    process, places = start(source, tables, bundle), Places(tables)
    wait_for(lambda: len(places.written()) >= 2, "no shard came")
    process.send_signal(number)
    said = process.communicate(timeout=PATIENCE_S)[1].decode()
    assert process.returncode == 130
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert not processes(tables)
    assert not list(tables.glob(".*"))
    whole = archive.digest(undisturbed)
    assert all(whole[name] == digest for name, digest in archive.digest(tables).items())
