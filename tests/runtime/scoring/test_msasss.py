"""Totals, the missing rule and the range."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spinescore.runtime.scoring.msasss import score_region, score_study
from spinescore.runtime.study import REGIONS, SITES

GRADES = st.lists(st.sampled_from([0, 1, 2, 3, None]), min_size=12, max_size=12)
FEW = st.sampled_from([0, 1, 2, 3, 12])


@given(grades=GRADES, most=FEW)
def test_the_total_lies_within_the_range_and_is_there_only_when_few_are_missing(grades, most):
    score = score_region("cervical", grades, most)
    low, high = score.range
    assert 0 <= low <= high <= 36
    assert high - low == 3 * grades.count(None) == 3 * score.missing
    if score.total is None:
        assert score.missing > most or score.missing == 12
        assert not score.imputed
    else:
        assert score.missing <= most
        assert low <= score.total <= high
        assert set(score.imputed) == {
            site for site, grade in zip(SITES["cervical"], grades, strict=True) if grade is None
        }


@given(grades=GRADES, most=FEW)
def test_discs_add_up_to_their_region(grades, most):
    score = score_region("lumbar", grades, most)
    assert len(score.discs) == 6
    assert tuple(sum(disc.range[end] for disc in score.discs) for end in (0, 1)) == score.range
    totals = [disc.total for disc in score.discs]
    if score.total is not None:
        assert sum(totals) == pytest.approx(score.total)
    for disc, pair in zip(score.discs, zip(grades[::2], grades[1::2], strict=True), strict=True):
        assert disc.range[1] - disc.range[0] == 3 * pair.count(None)
        if disc.total is None:
            assert None in pair
            assert not score.imputed
        else:
            assert disc.range[0] <= disc.total <= disc.range[1]


@given(grades=GRADES, index=st.integers(0, 11))
def test_another_missing_corner_never_narrows_the_range(grades, index):
    fewer = [None if number == index else grade for number, grade in enumerate(grades)]
    before, after = score_region("lumbar", grades).range, score_region("lumbar", fewer).range
    assert after[0] <= before[0]
    assert after[1] >= before[1]
    whole, fewer_discs = (score_region("lumbar", found).discs[index // 2].range for found in (grades, fewer))
    assert fewer_discs[0] <= whole[0] <= whole[1] <= fewer_discs[1]


@given(cervical=GRADES, lumbar=GRADES)
def test_the_study_is_the_sum_of_its_regions(cervical, lumbar):
    regions = {"cervical": score_region("cervical", cervical), "lumbar": score_region("lumbar", lumbar)}
    study = score_study(regions)
    low, high = (regions["cervical"].range[end] + regions["lumbar"].range[end] for end in (0, 1))
    assert study.range == (low, high)
    if study.value is None:
        assert study.status == "incomplete"
        assert None in (regions["cervical"].total, regions["lumbar"].total)
    else:
        assert low <= study.value <= high
        assert study.status == ("imputed" if study.imputed_sites else "complete")
        assert bool(study.imputed_sites) == (None in cervical or None in lumbar)


def test_imputed_corners_take_the_mean_of_the_regions_scored_ones():
    score = score_region("cervical", [1, 2, None, 3, 0, 0, 0, None, 3, 3, 0, 0])
    assert score.total == pytest.approx(12 * 12 / 10)
    assert score.imputed == {"C3-inferior": pytest.approx(1.2), "C6-superior": pytest.approx(1.2)}
    assert score.range == (12, 18)
    assert [disc.range for disc in score.discs] == [(3, 3), (3, 6), (0, 0), (0, 3), (6, 6), (0, 0)]
    assert [disc.total for disc in score.discs] == [3, pytest.approx(4.2), 0, pytest.approx(1.2), 6, 0]


def test_extremes_and_one_region_alone():
    full = {region: score_region(region, [3] * 12) for region in REGIONS}
    assert (score_study(full).value, score_study(full).range, score_study(full).status) == (72, (72, 72), "complete")
    alone = score_study({"cervical": full["cervical"]})
    assert (alone.value, alone.range, alone.status) == (None, (36, 72), "incomplete")
    assert score_study({}).range == (0, 72)


@pytest.mark.parametrize("grades", [[0] * 11, [0] * 13, [4] + [0] * 11, [-1] + [0] * 11, [0.5] + [0] * 11])
def test_grades_that_cannot_be(grades):
    with pytest.raises(ValueError, match="12 grades"):
        score_region("cervical", grades)
