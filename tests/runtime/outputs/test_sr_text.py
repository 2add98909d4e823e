"""A structured report as text: each score, or the reason in its place."""

from __future__ import annotations

import pytest

from helpers import tiny_study
from helpers.appliance import open_scorer, write_bundle
from spinescore.runtime import load_study, write_results
from spinescore.runtime.outputs.srtext import report_text


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    with open_scorer(write_bundle(tmp_path_factory.mktemp("tiny") / "bundle")) as opened:
        yield opened


def test_a_region_without_a_radiograph_says_so(scorer, tmp_path):
    study = load_study(tiny_study.write_study(tmp_path / "study", "1.2.3", ("lumbar",)))
    write_results(study, scorer.score(study), tmp_path, formats=("sr",))
    lines = [line.split(maxsplit=1) for line in report_text(tmp_path / "sr.dcm").splitlines()]
    scores = {words[0]: words[1] for words in lines if len(words) == 2}
    assert scores["cervical"] == "no radiograph"
    assert scores["mSASSS"] == "incomplete, no total"
    assert scores["L1-superior"].endswith("of 3")
    assert "C3-superior" not in scores
