"""Options and records of latency: what is refused, texts and plots, and the schema of records."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from helpers import tiny, tiny_study
from spinescore.benchmarks.bench import verb
from spinescore.benchmarks.bench.document import head, latency_schema
from spinescore.benchmarks.bench.measure import PARTS, Plan
from spinescore.benchmarks.bench.plots import plots
from spinescore.benchmarks.bench.render import markdown
from spinescore.benchmarks.harness.record import to_json
from spinescore.benchmarks.harness.subject import FULL_SIZE, Subject
from spinescore.benchmarks.peers import PEERS
from spinescore.runtime import cli
from spinescore.runtime.study import LEVELS

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def true_points():
    drawn = {region: tiny.draw(region, tiny_study.GRADES).points.tolist() for region in ("cervical", "lumbar")}
    return {region: dict(zip(LEVELS[region], drawn[region], strict=True)) for region in drawn}


@pytest.fixture
def plan():
    return Plan(("steady",), 1, 0, 1.0, 1, 1, (1.0,), 1, ())


def test_names_that_the_options_know_are_those_that_there_are():
    assert verb._PARTS == PARTS
    assert tuple(PEERS) == verb._PEERS
    assert verb._BUNDLES[1] == FULL_SIZE


@pytest.mark.parametrize(
    "options",
    [
        ["--runs", "0"],
        ["--warmup", "-1"],
        ["--seconds", "nan"],
        ["--seconds", "0"],
        ["--megapixels", "0"],
        ["--megapixels", "1e9"],
        ["--threads", "0"],
        ["--concurrent", "0"],
        ["--report", __file__],
    ],
)
def test_what_cannot_be_measured(options, capsys):
    assert cli.main(["bench", "--bundle", "nowhere", *options]) == 2
    assert options[0] in capsys.readouterr().err


def test_a_bundle_that_is_not_there(study, capsys):
    assert cli.main(["bench", "--bundle", "nowhere", "--parts", "steady"]) == 4
    assert "nowhere" in capsys.readouterr().err


def test_a_process_that_ends_too_early_says_why(study):
    from spinescore.benchmarks.bench.starts import starts
    from spinescore.runtime.errors import EngineError

    options = {"engine": None, "precision": None, "require_acceptance": True, "threads": None}
    with pytest.raises(EngineError, match=r"status 1: .*nowhere"):
        starts(Subject("nowhere", "cpu", options, study), 1)


def test_the_command_is_timed_with_the_same_options_and_points(study, tmp_path):
    from spinescore.benchmarks.bench.starts import starts
    from spinescore.runtime.errors import EngineError

    folder = tiny.write_bundle(tmp_path / "b", alternatives={"narrow": 1.0}, **{"localizer.min_confidence": 1.0})
    options = {"engine": "onnxruntime", "precision": "fp32", "localizer": "narrow", "require_acceptance": False}
    subject = Subject(str(folder), "cpu", options, replace(study, points=true_points()), give_points=True)
    assert starts(subject, 1)["cold"]["command"]["n"] == 1
    with pytest.raises(EngineError, match=r"`spinescore score` ended with status 3: rejected \(low-confidence\)"):
        starts(replace(subject, give_points=False), 1)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[]", "something else"),
        (b'{"schema": "spinescore.latency/1", "results": []}', "spinescore.latency/1"),
        (b'{"schema": "spinescore.latency/2", "results": [{}]}', "damaged"),
        (None, "cannot be read"),
    ],
)
def test_records_that_are_none(tmp_path, capsys, content, said):
    path = tmp_path / "record.json"
    if content is not None:
        path.write_bytes(content)
    for action in (["show", str(path)], ["compare", str(path), str(path)]):
        assert cli.main(["bench", *action]) == 2
        assert said in capsys.readouterr().err


def figures(*values):
    return {"n": len(values), "p50": values[0], "p90": 2.0, "p99": 3.0, "max": 4.0, "samples_ms": list(values)}


def test_text_and_plots_of_a_load_and_of_a_peer_that_is_not_timed(study, plan):
    peer = {"name": "torch-eager", "title": "PyTorch", "framework": None, "agreement": None, "reason": "it failed"}
    rate = {"offered_per_s": 1.0, "achieved_per_s": 0.9, "latency": figures(100.0, 300.0)}
    steady = {
        "warm_up_rounds": 0,
        "rounds": 2,
        "engine_calls": [],
        "whole": figures(50.0, 51.0),
        "networks": figures(40.0, 41.0),
        "stages": {"read": figures(5.0), "total": figures(50.0)},
        "ratio_of_medians": 1.25,
        "own_ms": 10.0,
        "spread_of_networks": 0.1,
        "agreement": {"corners": 24, "other_grades": 1, "max_probability_difference": 0.01},
        "peers": [{**peer, "first_runs_s": None, "whole": None, "times_ours": None}],
    }
    result = {
        "bundle": {"name": "tiny", "version": "1", "sha256": "0" * 64},
        "files": {},
        "device": {"kind": "cpu", "name": "CPU", "engine": "none", "precision": "fp32"},
        "options": {"engine": None, "precision": None, "require_acceptance": True, "threads": 2},
        "regions": {},
        "given_points": False,
        "scorer_warnings": [],
        **dict.fromkeys(PARTS),
        "steady": steady,
        "load": [{"concurrent": 1, "threads_each": 2, "most_per_s": 1.1, "open_loop": [rate]}],
        "conditions": {"load_average": [0.1, None], "busy_elsewhere": None, "stolen": None, "seconds": 1.0},
        "warnings": ["The machine was loaded."],
    }
    record = {**head(study, plan), "results": [result]}
    jsonschema.validate(record, latency_schema())
    assert json.loads(to_json(record)) == record
    assert '"samples_ms": [50.0, 51.0]' in to_json(record)
    shown = markdown(record)
    for words in (
        "PyTorch: not timed, it failed.",
        "1 of 24 grades",
        "**The machine was loaded.**",
        "2 threads",
        "1.00 offered",
    ):
        assert words in shown
    drawn = plots(record)
    assert set(drawn) == {"latency.png", "stages.png", "load.png"}
    assert all(data.startswith(b"\x89PNG") for data in drawn.values())
    assert plots(record) == drawn


def test_networks_that_find_no_spine_are_given_the_points(study, plan, tmp_path):
    """Random networks find none; here the localizer's confidence is always too low."""
    from spinescore.benchmarks.bench.measure import measure

    folder = tiny.write_bundle(tmp_path / "bundle", **{"localizer.min_confidence": 1.0})
    options = {"engine": None, "precision": None, "require_acceptance": True, "threads": 1}
    subject = Subject(str(folder), "cpu", options, replace(study, points=true_points()))
    said = []
    found = measure(subject, plan, 2, tmp_path, said.append)
    assert found["given_points"]
    assert set(found["regions"].values()) == {"scored"}
    assert "no spine" in said[0]


@pytest.mark.parametrize("compiled", [True, False])
def test_starts_that_compiled_the_package_are_warned_of(study, plan, tmp_path, monkeypatch, compiled):
    from spinescore.benchmarks.bench import starts
    from spinescore.benchmarks.bench.measure import measure

    monkeypatch.setattr(starts.importlib.util, "cache_from_source", lambda path: path if compiled else f"{path}.none")
    monkeypatch.setattr(starts, "starts", lambda subject, times: {})
    options = {"engine": None, "precision": None, "require_acceptance": True, "threads": 1}
    subject = Subject(str(tiny.write_bundle(tmp_path / "bundle")), "cpu", options, study)
    found = measure(subject, replace(plan, parts=("starts",)), 2, tmp_path, lambda line: None)
    assert any("every start compiled them" in warning for warning in found["warnings"]) is not compiled


def test_load_of_one_and_of_two_at_once(study, tmp_path):
    from spinescore.benchmarks.bench.load import load

    options = {"engine": None, "precision": None, "require_acceptance": True, "threads": None}
    subject = Subject(str(tiny.write_bundle(tmp_path / "bundle")), "cpu", options, study)
    found = load(subject, 2, 0.2, 2)
    schema = latency_schema()
    jsonschema.validate(found, {"$defs": schema["$defs"], "type": "array", "items": {"$ref": "#/$defs/load"}})
    assert [(step["concurrent"], step["threads_each"]) for step in found] == [(1, 2), (2, 1)]
    for step in found:
        offered = [rate["offered_per_s"] / step["most_per_s"] for rate in step["open_loop"]]
        assert offered == pytest.approx([0.3, 0.5, 0.7, 0.9], rel=1e-3)
        assert all(rate["latency"]["n"] >= 5 for rate in step["open_loop"])


@pytest.mark.parametrize("path", sorted(RESULTS.glob("latency-*.json")), ids=lambda path: path.stem)
def test_records_that_are_kept_follow_the_schema(path):
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["schema"] == "spinescore.latency/1":
        pytest.skip("of before this schema")
    jsonschema.validate(record, latency_schema())
    assert markdown(record)
