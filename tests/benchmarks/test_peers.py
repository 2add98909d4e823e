"""The plain pipeline gives this package's grades, and a pipeline that gives others is not timed."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import tiny, tiny_study
from spinescore.benchmarks.peers import PEERS, open_peers, trial
from spinescore.benchmarks.peers.means import onnxruntime_plain
from spinescore.benchmarks.peers.plain import PlainPipeline, Unsuited
from spinescore.runtime import Scorer, load_study
from spinescore.runtime.bundle import Bundle


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return sorted(tiny_study.write_study(tmp_path_factory.mktemp("study")).iterdir())


@pytest.fixture
def bundle(tmp_path):
    return Bundle.open(tiny.write_bundle(tmp_path / "bundle"))


def report_of(bundle, files, given=None):
    with Scorer.open(bundle.folder, "cpu", threads=1) as scorer:
        return scorer.score(load_study(*files), keypoints=given)


def quiet(text: str) -> None:
    """Nothing is printed."""


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("changes", [{}, {"localizer.passes": 2}, {"localizer.input.fit": "letterbox"}])
def test_the_plain_pipeline_gives_the_same_probabilities(tmp_path, files, changes, single):
    bundle = Bundle.open(tiny.write_bundle(tmp_path / "bundle", **changes))
    localize, grade, framework = onnxruntime_plain(bundle, 1)
    report = report_of(bundle, files)
    answer = PlainPipeline(bundle, localize, grade, single).score(files, None)
    same, reason = trial.agreement(report, answer, bundle, framework.split()[-1])
    assert reason is None
    assert (same.corners, same.other_grades) == (24, 0)


def test_given_points_move_the_crops(bundle, files):
    """A disc whose points are given elsewhere is cut there, as by this package."""
    report = report_of(bundle, files)
    discs = report.regions["cervical"].discs
    given = {"cervical": {"C2/C3": ([float(v) for v in discs[2].centre_px], [float(v) for v in discs[2].anterior_px])}}
    localize, grade, _ = onnxruntime_plain(bundle, 1)
    pipeline = PlainPipeline(bundle, localize, grade, False)
    free, moved = pipeline.score(files, None), pipeline.score(files, given)
    assert np.abs(moved[0] - free[2]).max() < 1e-3
    assert np.abs(moved[0] - free[0]).max() > 0.1


def test_other_answers_are_not_timed(bundle, files, monkeypatch):
    def wrong(bundle, threads):
        localize, grade, framework = onnxruntime_plain(bundle, threads)
        return localize, (lambda images: grade(images)[::-1]), framework

    monkeypatch.setattr(trial, "PEERS", {"wrong": ("Wrong", wrong, False)})
    (peer,) = open_peers(["wrong"], "cpu", bundle, report_of(bundle, files), files, None, 1, quiet)
    assert not peer.same_answers
    assert "grades differ" in peer.reason
    assert peer.facts()["agreement"]["other_grades"] > 0


def test_this_package_is_held_against_its_own_reference(bundle, files):
    report = trial.reference_report(bundle, files, None, 1)
    assert trial.own_agreement(report, report) == trial.Agreement(24, 0, 0.0)
    one_region = trial.reference_report(bundle, files[:1], None, 1)
    assert trial.own_agreement(one_region, report) is None
    answer = np.full((12, 2, 4), 0.25)
    assert "nothing to compare" in trial.agreement(one_region, answer, bundle, "fp32")[1]


def test_all_see_the_localizer_that_scores(tmp_path, files):
    whole = Bundle.open(tiny.write_bundle(tmp_path / "bundle", alternatives={"narrow": 12.0}))
    bundle = whole.with_localizer("narrow")
    reference = trial.reference_report(bundle, files, None, 1)
    assert reference.bundle.localizer == "narrow"
    (peer,) = open_peers(["onnxruntime"], "cpu", bundle, reference, files, None, 1, quiet)
    assert peer.same_answers
    (other,) = open_peers(["onnxruntime"], "cpu", whole, reference, files, None, 1, quiet)
    assert not other.same_answers


def test_a_peer_that_is_missing_or_fails_says_so(bundle, files, monkeypatch):
    def missing(bundle, threads):
        raise ModuleNotFoundError("No module named 'nothing'", name="nothing")

    def failing(bundle, threads):
        raise RuntimeError("no such device\nand more")

    monkeypatch.setattr(trial, "PEERS", {"a": ("A", missing, False), "b": ("B", failing, False)})
    first, second = open_peers(["a", "b"], "cpu", bundle, report_of(bundle, files), files, None, 1, quiet)
    assert "spinescore[peers]" in first.reason
    assert second.reason == "it failed: RuntimeError no such device"


def test_peers_are_not_timed_beside_a_gpu(bundle, files):
    (peer,) = open_peers(["onnxruntime"], "cuda", bundle, report_of(bundle, files), files, None, 1, quiet)
    assert "benchmarks.gpu" in peer.reason


def test_a_bundle_that_the_plain_pipeline_is_not_written_for(tmp_path, files):
    bundle = Bundle.open(tiny.write_bundle(tmp_path / "bundle", **{"grader.head": "corner4"}))
    with pytest.raises(Unsuited, match="one grader of both corners"):
        PlainPipeline(bundle, lambda images: images, lambda images: images, False)


def test_a_study_of_one_region_is_not_what_it_wants(bundle, files):
    localize, grade, _ = onnxruntime_plain(bundle, 1)
    with pytest.raises(Unsuited, match="each region"):
        PlainPipeline(bundle, localize, grade, False).score(files[:1], None)


def test_torch_and_what_compiles_come_last():
    assert list(PEERS)[-1] == "torch-compile"
    assert {"torch-eager-single", "torch-eager", "onnxruntime", "openvino", "openvino-fp32"} < set(PEERS)
