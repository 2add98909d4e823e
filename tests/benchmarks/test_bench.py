"""`spinescore bench` end to end on tiny networks and a tiny study: the record, its schema, text, plots, bad input."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from helpers import tiny, tiny_study
from spinescore.benchmarks.bench import verb
from spinescore.benchmarks.bench.alone import engine_calls
from spinescore.benchmarks.bench.document import head, latency_schema
from spinescore.benchmarks.bench.measure import PARTS, Plan
from spinescore.benchmarks.bench.plots import plots
from spinescore.benchmarks.bench.render import markdown
from spinescore.benchmarks.harness.record import record_schema, to_json
from spinescore.benchmarks.harness.subject import FULL_SIZE, Subject
from spinescore.benchmarks.peers import PEERS
from spinescore.runtime import cli
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.phantom import labelled
from spinescore.runtime.phantom.labelled import PhantomStudy
from spinescore.runtime.study import LEVELS

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
STAGES = {"read", "localize", "crop", "grade", "total"}


@pytest.fixture
def study(tmp_path, monkeypatch):
    files = sorted(tiny_study.write_study(tmp_path / "study").iterdir())
    images = [{"rows": tiny.HEIGHT, "columns": tiny.WIDTH} for _ in files]
    found = PhantomStudy(files, {}, {"transfer_syntax": "uncompressed", "images": images})
    monkeypatch.setattr(labelled, "write_labelled_study", lambda scratch: found)
    monkeypatch.setattr("spinescore.benchmarks.harness.timing.SETTLE_S", 0.0)
    monkeypatch.setattr("spinescore.benchmarks.bench.starts.SETTLE_S", 0.0)
    return found


def true_points():
    drawn = {region: tiny.draw(region, tiny_study.GRADES).points.tolist() for region in ("cervical", "lumbar")}
    return {region: dict(zip(LEVELS[region], drawn[region], strict=True)) for region in drawn}


@pytest.fixture
def plan():
    return Plan(("steady",), 1, 0, 1.0, 1, 1, (1.0,), 1, ())


def test_every_part_of_a_study(study, tmp_path, capsys):
    bundle, out = tiny.write_bundle(tmp_path / "bundle"), tmp_path / "out" / "latency.json"
    options = "--device cpu --threads 1 --runs 3 --warmup 1 --seconds 60 --starts 1 --image-runs 1 --megapixels 0.02"
    more = ["--concurrent", "2", "--peers", "onnxruntime", "openvino-fp32", "--out", str(out), "--report"]
    parts = ["--parts", "steady", "starts", "memory", "images", "energy"]  # a load takes as long as it is told to
    arguments = ["bench", "--bundle", str(bundle), *options.split(), *parts, *more, str(tmp_path / "report")]
    assert cli.main(arguments) == 0
    record = json.loads(out.read_text(encoding="utf-8"))
    jsonschema.validate(record, latency_schema())
    jsonschema.validate(record, record_schema())
    assert len(record["study"]["files"]) == 2
    (result,) = record["results"]
    assert result["regions"] == {"cervical": "scored", "lumbar": "scored"}
    assert result["options"]["threads"] == 1
    steady = result["steady"]
    assert (steady["rounds"], steady["warm_up_rounds"], steady["whole"]["n"]) == (3, 1, 3)
    assert set(steady["stages"]) == STAGES
    ratio = steady["whole"]["p50"] / steady["networks"]["p50"]
    assert steady["ratio_of_medians"] == pytest.approx(ratio, rel=0.01)
    assert steady["agreement"]["other_grades"] == 0
    for peer in steady["peers"]:
        assert (peer["reason"], peer["agreement"]["other_grades"], peer["whole"]["n"]) == (None, 0, 3)
    cold, warm = result["starts"]["cold"], result["starts"]["warm"]
    assert cold["to_first_score"]["n"] == warm["open"]["n"] == 1
    assert "command" not in cold  # the command takes no number of threads
    assert result["load"] is None
    syntaxes = [image["transfer_syntax"] for image in result["images"]]
    assert syntaxes[0] == "uncompressed"
    assert len(syntaxes) == len(set(syntaxes))
    assert {image["images"][0]["rows"] * image["images"][0]["columns"] // 1000 for image in result["images"]} <= {
        19,
        20,
    }
    printed = capsys.readouterr().out
    for words in ("whole study", "its networks alone", "ONNX Runtime, batches", "cold start", record["protocol"]):
        assert words in printed
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"latency.md", "latency.png", "stages.png"}
    assert cli.main(["bench", "show", str(out)]) == 0
    assert capsys.readouterr().out == printed


def test_the_networks_of_the_localizer_that_was_named(study, tmp_path, capsys):
    bundle = tiny.write_bundle(tmp_path / "bundle", alternatives={"narrow": 1.0})
    options = "--device cpu --threads 1 --runs 1 --warmup 0 --starts 1 --parts steady memory --json --localizer"
    assert cli.main(["bench", "--bundle", str(bundle), *options.split(), "narrow"]) == 0
    record = json.loads(capsys.readouterr().out)
    jsonschema.validate(record, latency_schema())
    (result,) = record["results"]
    assert (result["bundle"]["localizer"], result["options"]["localizer"]) == ("narrow", "narrow")
    assert result["steady"]["engine_calls"][0] == ["localizer-narrow.fp32.onnx", 2]
    assert "onnxruntime 1" in markdown(record)
    assert "1 threads, localizer narrow" in markdown(record)


def test_images_in_every_syntax_give_the_same_total(study, tmp_path):
    """The study is the same in whatever syntax it is written."""
    from spinescore.benchmarks.bench.images import write_variants
    from spinescore.runtime import Scorer, load_study

    megapixels = tiny.HEIGHT * tiny.WIDTH * 4 / 1e6
    variants = write_variants(study, megapixels, tmp_path / "variants")
    assert variants[0].facts["transfer_syntax"] == "uncompressed"
    with Scorer.open(tiny.write_bundle(tmp_path / "bundle"), "cpu", threads=1) as scorer:
        for variant in variants:
            if any(lossy in variant.facts["transfer_syntax"] for lossy in ("quality", "near", "dB", "step")):
                continue
            report = scorer.score(load_study(*variant.files))
            assert report.total.value == tiny_study.TOTAL, variant.facts


def options_for(bundle, *parts):
    return ["bench", "--bundle", *bundle, "--device", "cpu", "--threads", "1", "--runs", "1", "--warmup", "0", *parts]


def test_different_studies_of_ones_own_are_scored_once_each(study, tmp_path, capsys):
    bundle, folder = tiny.write_bundle(tmp_path / "bundle"), tmp_path / "studies"
    for name in ("a", "b", "c"):
        tiny_study.write_study(folder / name)
    (folder / "d").mkdir()
    (folder / "d" / "note.dcm").write_text("no radiograph")
    out = tmp_path / "out.json"
    command = options_for([str(bundle)], "--parts", "studies", "--studies", str(folder), "--out", str(out))
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert "| different own studies, each once, ms | p50 | p90 | p99 | max | n |" in printed
    assert "Of 4 different own studies, each once, 1 could not be scored." in printed
    record = json.loads(out.read_text(encoding="utf-8"))
    jsonschema.validate(record, latency_schema())
    assert printed == markdown(record)
    found = record["results"][0]["studies"]
    assert (found["source"], found["given"], found["scored"], found["not_scored"]) == ("own", 4, 3, 1)
    assert found["whole"]["n"] == 3


def test_without_ones_own_phantoms_are_drawn_after_the_repeated_one(tmp_path):
    studies = labelled.write_labelled_studies(tmp_path, 2)
    seeds = [study.facts["phantom_seed"] for study in studies]
    assert len(set(seeds)) == 2
    assert min(seeds) > labelled._FIRST_SEED
    assert all(study.points.keys() == {"cervical", "lumbar"} for study in studies)


def test_different_studies_end_with_the_time(study, tmp_path):
    from spinescore.benchmarks.bench.studies import studies

    subject = Subject(str(tiny.write_bundle(tmp_path / "bundle")), "cpu", {"threads": 1}, study)
    with subject.open() as scorer:
        found = studies(subject, scorer, [study] * 5, "own", 1e-9)
    assert (found["given"], found["scored"]) == (5, 1)


def test_a_bundle_is_printed_and_kept_before_the_next_one_is_opened(study, tmp_path, capsys):
    bundle, out = tiny.write_bundle(tmp_path / "bundle"), tmp_path / "out.json"
    status = cli.main(options_for([str(bundle), str(tmp_path / "none")], "--parts", "steady", "--out", str(out)))
    assert status == 4
    assert "| steady state, ms |" in capsys.readouterr().out
    assert len(json.loads(out.read_text(encoding="utf-8"))["results"]) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], 'pip install "spinescore[export]"'),
        (["--bundle", "phantom-reference", "--studies", "nowhere"], "--studies nowhere is not there"),
        (["--bundle", "phantom-reference", "--study-count", "0"], "--study-count must be at least 1"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_measured(monkeypatch, capsys, options, said):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "onnx" else real(name, *a))
    monkeypatch.setattr(labelled, "write_labelled_study", lambda scratch: pytest.fail("a study was drawn"))
    assert cli.main(["bench", *options]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.out == ""


@pytest.mark.parametrize(
    ("changes", "calls"),
    [
        ({}, [("localizer.fp32.onnx", 2), ("grader-corners.fp32.onnx", 12)]),
        ({"localizer.passes": 2}, [("localizer.fp32.onnx", 2)] * 2 + [("grader-corners.fp32.onnx", 12)]),
        (
            {"localizer.passes": 2, "test_time": ([1.0, 1.5], True, True)},
            [("localizer.fp32.onnx", 2)] * 8 + [("grader-corners.fp32.onnx", 12)],
        ),
        ({"grader.head": "corner4"}, [("localizer.fp32.onnx", 2), ("grader-corners.fp32.onnx", 24)]),
        (
            {"heads": "separate", "grader.head": "bridge+grades"},
            [
                ("localizer-cervical.fp32.onnx", 1),
                ("localizer-lumbar.fp32.onnx", 1),
                ("grader-bridge.fp32.onnx", 12),
                ("grader-grades.fp32.onnx", 24),
            ],
        ),
    ],
)
def test_the_networks_alone_run_as_often_as_in_a_study(tmp_path, changes, calls):
    bundle = Bundle.open(tiny.write_bundle(tmp_path / "bundle", **changes))
    found = engine_calls(bundle)
    assert [(files["fp32"], batch) for files, batch, _ in found] == calls
    averages = "test_time" in changes
    assert (
        [size.height for _, _, size in found[:-1]] == [256, 256, 384, 384] * 2 if averages else [256] * len(found[:-1])
    )


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
