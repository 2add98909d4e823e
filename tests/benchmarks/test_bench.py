"""`spinescore bench` end to end on tiny networks and a tiny study: the record, its schema, text, plots, bad input."""

from __future__ import annotations

import json

import jsonschema
import pytest

from helpers import tiny, tiny_study
from spinescore.benchmarks.bench.alone import engine_calls
from spinescore.benchmarks.bench.document import latency_schema
from spinescore.benchmarks.bench.render import markdown
from spinescore.benchmarks.harness.record import record_schema
from spinescore.benchmarks.harness.subject import Subject
from spinescore.runtime import cli
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.phantom import labelled

STAGES = {"read", "localize", "crop", "grade", "total"}


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
    from spinescore.benchmarks.bench.rounds import studies

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
        (["--bundle", "phantom-reference", "--studies", "nowhere"], "there is no file or folder nowhere"),
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
