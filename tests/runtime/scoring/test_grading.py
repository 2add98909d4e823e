"""Logits to grades: the three heads, the bridge rule, abstention, and networks that give no numbers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.tiny import listed, manifest
from spinescore.runtime.manifest import Manifest
from spinescore.runtime.scoring.grading import grade_discs, probabilities

GRADER = Manifest.from_dict(listed(manifest())).grader
LOGIT = st.floats(-30, 30)
SEEN = np.ones(1, bool)


def disc(*corners):
    return np.array([corners], np.float64)


@given(logits=st.lists(LOGIT, min_size=8, max_size=8), threshold=st.floats(0, 1), least=st.floats(0, 1))
def test_a_bridge_is_always_shared(logits, threshold, least):
    p = probabilities({"corners": np.array([logits])}, "corners4")
    upper, lower = grade_discs(p, SEEN, replace(GRADER, bridge_threshold=threshold, abstain_below=least))[0]
    bridge = p[0, :, 3].mean() >= threshold
    for corner, own in ((upper, p[0, 0]), (lower, p[0, 1])):
        assert sum(corner.probabilities) == pytest.approx(1)
        decided = 3 if bridge else int(own[:3].argmax())
        certainty = p[0, :, 3].mean() if bridge else own[decided]
        assert (corner.grade, corner.status) == ((decided, "scored") if certainty >= least else (None, "abstained"))
    assert (upper.grade == 3) == (lower.grade == 3)


def test_bridge_rule_by_hand():
    p = disc([0.0, 0.0, 0.3, 0.7], [0.5, 0.1, 0.1, 0.3])
    assert [corner.grade for corner in grade_discs(p, SEEN, GRADER)[0]] == [3, 3]
    p = disc([0.0, 0.0, 0.31, 0.69], [0.5, 0.1, 0.1, 0.3])
    assert [corner.grade for corner in grade_discs(p, SEEN, GRADER)[0]] == [2, 0]
    tie = disc([0.4, 0.4, 0.1, 0.1], [0.1, 0.4, 0.4, 0.1])
    assert [corner.grade for corner in grade_discs(tie, SEEN, GRADER)[0]] == [0, 1]


def test_layout_of_the_heads():
    peak = 20.0
    corners4 = np.zeros((6, 8))
    corners4[1, 2], corners4[1, 4 + 1] = peak, peak
    p = probabilities({"corners": corners4}, "corners4")
    assert p.shape == (6, 2, 4)
    assert p[1].argmax(axis=1).tolist() == [2, 1]
    corner4 = np.zeros((12, 4))
    corner4[2, 2], corner4[3, 1] = peak, peak  # disc 1: its upper, then its lower corner
    assert np.allclose(probabilities({"corners": corner4}, "corner4")[1], p[1])
    bridge, grades = np.zeros((6, 2)), np.zeros((12, 3))
    bridge[0], grades[2, 2], grades[3, 1] = (-peak, peak), peak, peak
    both = probabilities({"bridge": bridge, "grades": grades}, "bridge+grades")
    assert np.allclose(both.sum(axis=2), 1)
    assert both[0].argmax(axis=1).tolist() == [3, 3]
    assert np.allclose(both[1, :, 3], 0.5)
    assert both[1, :, :3].argmax(axis=1).tolist() == [2, 1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_make_the_disc_unreadable_and_no_other(bad):
    logits = np.zeros((2, 8), np.float16)
    logits[0, 5] = bad
    p = probabilities({"corners": logits}, "corners4")
    broken, fine = grade_discs(p, np.ones(2, bool), GRADER)
    assert [(corner.grade, corner.status) for corner in broken] == [(None, "unreadable")] * 2
    assert broken[0].probabilities is not None
    assert broken[1].probabilities is None
    assert [corner.status for corner in fine] == ["scored", "scored"]


def test_what_was_not_seen_is_unreadable_whatever_the_network_says():
    corners = grade_discs(disc([0, 0, 0, 1.0], [0, 0, 0, 1.0]), np.zeros(1, bool), GRADER)[0]
    assert [(corner.grade, corner.status) for corner in corners] == [(None, "unreadable")] * 2
