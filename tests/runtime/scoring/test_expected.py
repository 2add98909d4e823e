"""The distribution of a total that the probabilities give, against enumeration and against what must always hold."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spinescore.runtime.scoring.expected import (
    UNKNOWN,
    corner_distribution,
    disc_distribution,
    expected_score,
    total_distribution,
    with_prior,
)

CORNER = st.lists(st.floats(1e-6, 1), min_size=4, max_size=4).map(lambda p: np.array(p) / sum(p))
CERTAIN = st.integers(0, 3).map(lambda grade: np.eye(4)[grade])
DISC = st.tuples(CORNER | CERTAIN, CORNER | CERTAIN).map(np.array)
DISCS = st.lists(DISC, min_size=1, max_size=12)
GRADES = np.arange(4)


@given(disc=DISC)
def test_a_bridge_is_always_shared(disc):
    total = disc_distribution(disc)
    assert total.sum() == pytest.approx(1)
    assert total[5] == 0  # a bridge beside a corner that is none
    assert total[6] == pytest.approx(disc[:, 3].mean())


@given(discs=DISCS)
def test_the_distribution_sums_to_one_and_its_mean_is_the_sum_of_the_discs_means(discs):
    total = total_distribution(discs)
    assert len(total) == 6 * len(discs) + 1
    assert (total >= 0).all()
    assert total.sum() == pytest.approx(1)
    score, parts = expected_score(total), [expected_score(disc_distribution(disc)) for disc in discs]
    assert score.mean == pytest.approx(sum(part.mean for part in parts), abs=1e-9)
    assert score.sd**2 == pytest.approx(sum(part.sd**2 for part in parts), abs=1e-9)


@given(discs=DISCS)
def test_discs_at_once_are_each_disc_alone(discs):
    assert np.array_equal(disc_distribution(np.array(discs)), [disc_distribution(disc) for disc in discs])


@given(discs=DISCS)
def test_the_interval_holds_95_percent_and_no_more_than_it_must(discs):
    total = total_distribution(discs)
    low, high = expected_score(total).interval
    assert 0 <= low <= high <= 6 * len(discs)
    assert total[:low].sum() <= 0.025 + 1e-9
    assert total[high + 1 :].sum() <= 0.025 + 1e-9
    assert total[: low + 1].sum() >= 0.025 - 1e-9
    assert total[high:].sum() >= 0.025 - 1e-9


@given(discs=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)) | st.just((3, 3)), min_size=1, max_size=12))
def test_certain_probabilities_give_the_total_itself(discs):
    score = expected_score(total_distribution([np.eye(4)[list(disc)] for disc in discs]))
    total = sum(map(sum, discs))
    assert (score.mean, score.sd, score.interval) == (total, 0, (total, total))


@given(discs=DISCS, index=st.integers(0, 11))
def test_a_disc_of_which_nothing_is_known_is_never_a_0(discs, index):
    index %= len(discs)
    unknown = [np.array([UNKNOWN, UNKNOWN]) if number == index else disc for number, disc in enumerate(discs)]
    others = [disc for number, disc in enumerate(discs) if number != index]
    assert expected_score(total_distribution(unknown)).mean == pytest.approx(
        expected_score(total_distribution(others)).mean + 3
    )


def test_against_enumeration():
    discs = [
        np.array([[0.7, 0.1, 0.1, 0.1], [0.2, 0.2, 0.3, 0.3]]),
        np.array([[0.0, 0.0, 0.0, 1.0], [0.5, 0.3, 0.2, 0.0]]),
    ]
    outcomes = []
    for upper, lower in discs:
        bridge = (upper[3] + lower[3]) / 2
        first = upper[:3] / upper[:3].sum() if upper[:3].any() else np.full(3, 1 / 3)
        second = lower[:3] / lower[:3].sum()
        apart = [(a + b, (1 - bridge) * first[a] * second[b]) for a in range(3) for b in range(3)]
        outcomes.append([*apart, (6, bridge)])
    expected = np.zeros(13)
    for (one, p), (other, q) in itertools.product(*outcomes):
        expected[one + other] += p * q
    assert np.allclose(total_distribution(discs), expected)
    score = expected_score(expected)
    assert score.mean == pytest.approx(np.arange(13) @ expected)
    assert score.sd == pytest.approx(np.sqrt(np.arange(13) ** 2 @ expected - score.mean**2))


def test_unknown_corners_by_hand():
    assert np.allclose(disc_distribution(np.array([UNKNOWN, UNKNOWN])), np.array([1, 2, 3, 2, 1, 0, 3]) / 12)
    assert expected_score(disc_distribution(np.array([UNKNOWN, UNKNOWN]))).mean == pytest.approx(2 * np.mean(GRADES))


def test_corners_that_are_not_readable_count_as_the_mean_of_the_others():
    p = np.array([[[0.9, 0.1, 0, 0], [0.5, 0.5, 0, 0]], [[np.nan] * 4, [0, 0, 0, 1]]])
    found = with_prior(p, np.array([[True, True], [False, False]]))
    assert np.allclose(found[0], p[0])
    assert np.allclose(found[1], [0.7, 0.3, 0, 0])
    assert np.allclose(with_prior(p, np.zeros((2, 2), bool)), UNKNOWN)


@pytest.mark.parametrize("grade", [0, 3])
def test_a_total_and_its_interval_rest_on_one_prior(grade):
    """A disc that cannot be read in a spine of which all else is certain adds what the total takes for it."""
    certain = np.tile(np.eye(4)[grade], (6, 2, 1))
    readable = np.ones((6, 2), bool)
    readable[2] = False
    assert expected_score(total_distribution(with_prior(certain, readable))).interval == (12 * grade, 12 * grade)


@given(disc=DISC)
def test_two_corners_add_up_to_their_disc(disc):
    grades = np.arange(4)
    mean = sum(corner_distribution(disc, side) @ grades for side in (0, 1))
    assert corner_distribution(disc, 0).sum() == pytest.approx(1)
    assert mean == pytest.approx(expected_score(disc_distribution(disc)).mean)
