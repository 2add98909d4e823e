"""The parts that measurements share: the head of a record, child processes, and phantoms with their truth."""

from __future__ import annotations

import json
import sys

import jsonschema
import pytest

from spinescore.benchmarks.harness.child import Child, answer, run_child
from spinescore.benchmarks.harness.environment import memory_bytes, versions
from spinescore.benchmarks.harness.record import Command, head, record_schema
from spinescore.benchmarks.harness.subject import read_phantom
from spinescore.benchmarks.harness.timing import percentiles
from spinescore.runtime.errors import EngineError
from spinescore.runtime.phantom.labelled import keypoints_json
from spinescore.runtime.verbs.keypoints import read_keypoints


def python(code):
    return [sys.executable, "-c", code]


def test_a_record_is_printed_and_written_with_the_head_that_all_share(tmp_path, capsys):
    command = Command("example", "spinescore.example/1", "Measures   an\nexample.")
    command.options.add_argument("--count", type=int)
    arguments = command.start(["--count", "3", "--out", str(tmp_path / "record.json")])
    assert arguments.count == 3
    record = command.publish({"figure": 1.5})
    jsonschema.validate(record, record_schema())
    assert record == json.loads((tmp_path / "record.json").read_text()) == json.loads(capsys.readouterr().out)
    assert (record["protocol"], record["figure"]) == ("Measures an example.", 1.5)
    assert record["command"] == "python -m spinescore.benchmarks.example --count 3 --out PATH"
    assert record["versions"]["numpy"] == versions()["numpy"]
    command.publish({"figure": 2.5}, "a table")
    assert capsys.readouterr().out == "a table\n"
    assert json.loads((tmp_path / "record.json").read_text())["figure"] == 2.5


def test_the_head_names_no_file_of_a_patient(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Doe").mkdir()
    (tmp_path / "Doe.dcm").touch()
    words = ["bench", "Doe", "Doe.dcm", "a/Doe", r"C:\Doe", "--parts", "studies"]
    assert head("spinescore.example/1", "", words)["command"] == "bench PATH PATH PATH PATH --parts studies"


def test_percentiles_of_a_series():
    assert percentiles([1.0, 2.0, 3.0]) == {"p50": 2.0, "p90": 2.8, "p99": 2.98}
    assert percentiles([]) == {}


def test_a_child_that_answers_or_fails(tmp_path):
    assert answer(python("print('first'); print('[1, 2]')")) == [1, 2]
    assert run_child(python("import os; print(os.getcwd())"), cwd=tmp_path).strip() == str(tmp_path)
    with pytest.raises(EngineError, match=r"ended with status 3: the reason"):
        run_child(python("import sys; print('more\\nthe reason', file=sys.stderr); sys.exit(3)"))
    with pytest.raises(EngineError, match="took longer than 1 s"):
        run_child(python("import time; time.sleep(60)"), timeout_s=1)


def test_a_childs_lines_come_as_it_writes_them():
    with Child(
        python("import sys; print('{\"a\": 1}', flush=True); sys.stdin.read(); print(2); sys.exit(4)"), 60
    ) as child:
        values = iter(child)
        assert next(values) == {"a": 1}
        assert list(values) == [2]
    assert (child.status, child.hung) == (4, False)


def test_a_silent_child_is_killed():
    with Child(python("import sys, time; print(1, flush=True); sys.stderr.write('why'); time.sleep(60)"), 2) as child:
        assert list(child) == [1]
        assert child.hung
        assert str(child.failure()).endswith("why")


def test_a_phantom_outlives_its_files():
    study, truth = read_phantom(1_000_003)
    assert [radiograph.source for radiograph in study.radiographs] == ["cervical.dcm", "lumbar.dcm"]
    assert study.study_instance_uid == truth["study"]["study_instance_uid"]
    assert all(radiograph.pixels.any() for radiograph in study.radiographs)


def test_points_of_a_phantom_are_keypoints_of_the_command(tmp_path):
    points = {"cervical": {"C2/C3": ([1.0, 2.0], [3.0, 4.0])}}
    (tmp_path / "points.json").write_text(keypoints_json(points), encoding="utf-8")
    assert read_keypoints(tmp_path / "points.json")


def test_memory_is_that_of_this_process():
    memory = memory_bytes()
    assert memory["resident_bytes"] is None or 0 < memory["resident_bytes"] <= memory["peak_bytes"]
