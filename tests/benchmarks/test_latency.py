"""The latency benchmark's bookkeeping, on tiny networks and a tiny study. Nothing here judges a time."""

from __future__ import annotations

import json

import pytest
import tiny
import tiny_study

from spinescore.benchmarks import latency
from spinescore.runtime import cli
from spinescore.runtime.bundle import Bundle

STAGES = {"read", "localize", "crop", "grade", "total"}


@pytest.fixture
def study(tmp_path, monkeypatch) -> latency.PhantomStudy:
    files = sorted(tiny_study.write_study(tmp_path / "study").iterdir())
    found = latency.PhantomStudy(files, {}, {"phantom_seed": None})
    monkeypatch.setattr(latency, "draw_study", lambda scratch: found)
    return found


def test_figures_of_a_study(study, tmp_path, capsys):
    bundle, out = tiny.write_bundle(tmp_path / "bundle"), tmp_path / "out" / "latency.json"
    options = ["bench", "--bundle", str(bundle), "--runs", "3", "--warmup", "1", "--out", str(out)]
    assert cli.main(options) == 0
    document = json.loads(out.read_text(encoding="utf-8"))
    (result,) = document["results"]
    assert document["schema"] == "spinescore.latency/1"
    assert document["hardware"]["cores"] >= 1
    assert result["regions"] == {"cervical": "scored", "lumbar": "scored"}
    assert (result["rounds"], result["warm_up_rounds"]) == (3, 1)
    assert set(result["stages_ms"]) == STAGES
    for figures in (result["whole_ms"], result["networks_ms"], *result["stages_ms"].values()):
        assert 0 <= figures["p50"] <= figures["p90"] <= figures["p99"] <= figures["max"]
    ratio = result["whole_ms"]["p50"] / result["networks_ms"]["p50"]
    assert result["ratio_of_medians"] == pytest.approx(ratio, rel=0.01)
    printed = capsys.readouterr().out
    assert "networks alone" in printed
    assert document["protocol"] in printed


def test_json_alone_on_standard_output(study, tmp_path, capsys):
    bundle = tiny.write_bundle(tmp_path / "bundle")
    assert latency.main(["--bundle", str(bundle), "--runs", "1", "--warmup", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["rounds"] == 1


@pytest.mark.parametrize(
    ("changes", "calls"),
    [
        ({}, [("localizer.fp32.onnx", 2), ("grader-corners.fp32.onnx", 12)]),
        ({"localizer.passes": 2}, [("localizer.fp32.onnx", 2)] * 2 + [("grader-corners.fp32.onnx", 12)]),
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
def test_the_networks_alone_run_as_often_as_in_a_study(study, tmp_path, monkeypatch, changes, calls):
    """Counted against the pipeline itself: the same files with the same batches."""
    from spinescore.runtime import Scorer, load_study
    from spinescore.runtime.engines.onnxruntime import OnnxRuntimeEngine

    folder = tiny.write_bundle(tmp_path / "bundle", **changes)
    bundle = Bundle.open(folder)
    assert [(files["fp32"], batch) for files, batch in latency._plan(bundle)] == calls
    ran: list[tuple[str, int]] = []
    run = OnnxRuntimeEngine.run
    monkeypatch.setattr(
        OnnxRuntimeEngine,
        "run",
        lambda self, inputs, outputs: (ran.append((self.name, len(inputs))), run(self, inputs, outputs))[1],
    )
    with Scorer.open(folder) as scorer:
        ran.clear()
        scorer.score(load_study(*study.files))
    assert ran == calls


@pytest.mark.parametrize("options", [["--runs", "0"], ["--warmup", "-1"]])
def test_rounds_that_cannot_be(options, capsys):
    assert cli.main(["bench", "--bundle", "nowhere", *options]) == 2


def test_a_bundle_that_is_not_there(study, capsys):
    assert cli.main(["bench", "--bundle", "nowhere"]) == 4
    assert "nowhere" in capsys.readouterr().err


def test_the_phantom_study_states_region_and_facing(tmp_path):
    from spinescore.runtime import load_study

    found = latency.draw_study(tmp_path)
    radiographs = load_study(*found.files).radiographs
    assert [(image.region, image.facing is not None) for image in radiographs] == [("cervical", True), ("lumbar", True)]
    assert {region: len(levels) for region, levels in found.points.items()} == {"cervical": 6, "lumbar": 6}
