"""The measurement of an archive: every split is run, tables are alike, trials find nothing, records are whole."""

import json
import os
import subprocess
import sys

import pytest

from helpers import tiny
from spinescore.benchmarks import archive, archivetrials
from spinescore.benchmarks.harness import processes

pytest.importorskip("pyarrow", reason="tables are Parquet files")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes and their memory are found in /proc")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return tiny.write_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


def record_of(tmp_path, capsys, *words: str) -> tuple[int, dict]:
    """The exit status and the record of the command with these words."""
    status = archive.main([*words, "--out", str(tmp_path / "record.json")])
    record = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert record == json.loads(capsys.readouterr().out)
    assert record["schema"] == archive.SCHEMA
    return status, record


@pytest.mark.slow
def test_a_few_studies_give_a_whole_record(tmp_path, capsys):
    status, record = record_of(tmp_path, capsys, "--count", "4", "--seconds", "0.2", "--scale", "0.1")
    assert status in (0, 1)  # the rates of a few small studies are no figures
    assert record["tables_alike"] is True
    splits = set(record["networks"])
    assert set(record["archive"]) == {*splits, "chosen"}
    kinds = {f"{kind} {split}" for kind in ("archive", "run", "networks") for split in splits}
    assert set(record["core_ms"]) == {"loop", *kinds}
    rates = (*record["archive"].values(), *record["networks"].values(), record["loop"], *record["core_ms"].values())
    assert all(rate > 0 for rate in rates)
    assert all(sizes["most"] > 0 for sizes in record["memory_mib"].values())


@pytest.mark.slow
def test_a_run_that_is_killed_loses_nothing(tmp_path, capsys, bundle):
    status, record = record_of(tmp_path, capsys, "--kills", "3", "--count", "56", "--bundle", str(bundle))
    trial = record["kills"]
    assert status == 0
    assert trial["kills"] == {"run": 1, "worker": 1, "all": 1}
    assert (trial["studies"], trial["shards"], trial["tables_alike"]) == (56, 7, True)
    assert {name: trial[name] for name in archivetrials.MUST_BE_NONE} == dict.fromkeys(archivetrials.MUST_BE_NONE, 0)


@pytest.mark.slow
def test_the_memory_of_each_process_is_watched(tmp_path, capsys, bundle):
    status, record = record_of(tmp_path, capsys, "--flat", "6", "--bundle", str(bundle))
    trial = record["flat"]
    assert status == (0 if trial["flat"] else 1)  # so few studies are no figure
    assert trial["studies"] == 6
    assert [one["process"] for one in trial["each_process"]] == ["run", "worker", "worker"]
    for one in trial["each_process"]:
        assert 0 < one["median_of_first_100_mib"] <= one["most_mib"]
        assert len(one["mib_over_the_run"]) == 11
    assert 0 < trial["all_processes_mib"]["most"] <= trial["all_processes_mib"]["bound"]


def test_growing_memory_is_not_flat(tmp_path, monkeypatch):
    steady, growing = [300 << 20] * 250, [(200 + number) << 20 for number in range(250)]
    answers = [
        {"open_bytes": 300 << 20, "peak_bytes": 350 << 20},
        {
            "studies": 250,
            "most": 900 << 20,
            "processes": [archivetrials.over_time(one) for one in (steady, growing)] * 2,
        },
    ]
    answers[1]["processes"].pop()
    monkeypatch.setattr(archivetrials, "write_studies", lambda *_: None)
    monkeypatch.setattr(archivetrials, "answer", lambda command: answers.pop(0))
    trial = archivetrials.watch_memory(tmp_path, "bundle", 250)
    assert trial["most_growth_mib"] == 150.0
    assert trial["flat"] is False


def test_a_child_and_its_child_are_found_with_their_time():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline().strip() == b"1"
        below = processes.descendants()
        assert child.pid in below
        (grandchild,) = processes.descendants(child.pid)
        assert grandchild in below
        assert os.getpid() not in below
        assert processes.processes_with("print(1, flush=True); input()") == [child.pid, grandchild]
    finally:
        child.communicate(b"\n")
    assert processes.processor_s(os.getpid()) > 0
    assert processes.processor_s(child.pid) == 0
