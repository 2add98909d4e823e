"""Each figure of agreement against published figures, scikit-learn, or a formula written out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from helpers.agreement_cases import KOO_TABLE_1, drawn_readings
from spinescore.benchmarks.agreement import measures
from spinescore.benchmarks.agreement.figures import Figures, bootstrap
from spinescore.benchmarks.agreement.pairs import pair_up

# Peak expiratory flow of 17 people by two meters, in l/min: the example of Bland and Altman 1986.
LARGE = np.array([494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427], float)
MINI = np.array([512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451], float)

# Value, low and high of ICC(1), ICC(A,1) and ICC(C,1) as pingouin 0.7.0 gives them.
PINGOUIN = (
    (
        ([9, 6, 8, 7, 10, 6], [2, 1, 4, 1, 5, 2]),  # the first two judges of Shrout and Fleiss 1979: a large shift
        (-0.4964157706, 0.1256544503, 0.7453416149),
        ((-0.89357304, 0.40266139), (-0.02365322, 0.59985148), (-0.02090875, 0.95998308)),
    ),
    (
        ([48, 58, 1, 58, 34, 37, 46, 20, 71, 3, 20, 27], [55, 59, 0, 44, 19, 23, 36, 44, 63, 14, 35, 21]),
        (0.8264173565, 0.825114577, 0.8129123716),
        ((0.52013402, 0.94607131), (0.49449681, 0.94655131), (0.47223768, 0.94229786)),
    ),
)


@pytest.fixture(scope="module")
def graded() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    pairs = pair_up(*drawn_readings(30))
    return pairs.reference, pairs.predicted, pairs.probabilities


def test_published_tables_of_koo() -> None:
    """Table 2's means, and what follows from Table 1."""
    figures = measures.grade_figures(KOO_TABLE_1)
    assert figures["accuracy"].mean() == pytest.approx(0.91604, abs=5e-6)
    assert figures["sensitivity"].mean() == pytest.approx(0.80288, abs=5e-6)
    assert figures["specificity"].mean() == pytest.approx(0.94244, abs=5e-6)
    assert measures.accuracy(KOO_TABLE_1) == pytest.approx(0.8321, abs=5e-5)
    assert measures.quadratic_kappa(KOO_TABLE_1) == pytest.approx(0.9004, abs=5e-5)


def test_grade_figures_by_hand() -> None:
    """Grade 2 of Koo's table, counted out: 700 hits of 1096 examples, 925 predictions, 9326 corners."""
    figures = measures.grade_figures(KOO_TABLE_1)
    assert figures["sensitivity"][2] == pytest.approx(700 / 1096)
    assert figures["ppv"][2] == pytest.approx(700 / 925)
    assert figures["specificity"][2] == pytest.approx((9326 - 1096 - 225) / (9326 - 1096))
    assert figures["accuracy"][2] == pytest.approx((9326 - 396 - 225) / 9326)
    assert figures["f1"][2] == pytest.approx(2 * (700 / 1096) * (700 / 925) / (700 / 1096 + 700 / 925))


@pytest.fixture(scope="module")
def metrics():
    """Return scikit-learn's measures, which only the process that compares with them loads."""
    from sklearn import metrics

    return metrics


def test_figures_are_those_of_scikit_learn(graded, metrics) -> None:
    reference, predicted, _ = graded
    confusion = measures.confusion_matrix(reference, predicted)
    assert (confusion == metrics.confusion_matrix(reference, predicted)).all()
    figures = measures.grade_figures(confusion)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(reference, predicted)
    for name, expected in (("ppv", precision), ("sensitivity", recall), ("f1", f1)):
        np.testing.assert_allclose(figures[name], expected)
    specificity = [metrics.recall_score(reference != grade, predicted != grade) for grade in range(4)]
    np.testing.assert_allclose(figures["specificity"], specificity)
    kappa = metrics.cohen_kappa_score(reference, predicted, weights="quadratic")
    assert measures.quadratic_kappa(confusion) == pytest.approx(kappa)
    assert measures.accuracy(confusion) == pytest.approx(metrics.accuracy_score(reference, predicted))


@pytest.mark.parametrize("grade", range(4))
def test_roc_is_that_of_scikit_learn(graded, metrics, grade: int) -> None:
    """With ties, and under weights of which some are 0."""
    reference, _, probabilities = graded
    positive, score = reference == grade, probabilities[:, grade]
    assert len(np.unique(score)) < len(score)
    ranking = measures.Ranking(positive, score)
    false, true = ranking.curve()
    expected = metrics.roc_curve(positive, score, drop_intermediate=False)
    np.testing.assert_allclose(false, expected[0], atol=1e-12)
    np.testing.assert_allclose(true, expected[1], atol=1e-12)
    np.testing.assert_array_equal(ranking.thresholds, expected[2][1:])
    assert ranking.auc() == pytest.approx(metrics.roc_auc_score(positive, score))
    weights = np.random.default_rng(grade).integers(0, 4, len(score))
    assert ranking.auc(weights) == pytest.approx(metrics.roc_auc_score(positive, score, sample_weight=weights))


def test_auc_is_the_share_of_ordered_pairs() -> None:
    positive, score = np.array([True, False, True, False, False]), np.array([0.8, 0.8, 0.4, 0.3, 0.9])
    wins = [(p > q) + (p == q) / 2 for p in score[positive] for q in score[~positive]]
    assert measures.Ranking(positive, score).auc() == pytest.approx(np.mean(wins))


@pytest.mark.parametrize(("sides", "values", "bounds"), PINGOUIN)
def test_icc_and_intervals_are_those_of_pingouin(sides, values, bounds) -> None:
    x, y = (np.array(side, float) for side in sides)
    assert list(measures.icc(x, y).values()) == pytest.approx(values)
    assert list(measures.icc_intervals(x, y).values()) == pytest.approx([pytest.approx(b, abs=1e-8) for b in bounds])


def test_icc_from_a_table_of_variance_by_hand() -> None:
    """Sums of squares about cell means, as a textbook's two-way analysis of variance has them."""
    table = np.stack([LARGE, MINI])
    grand, n = table.mean(), len(LARGE)
    rows = sum(2 * (column.mean() - grand) ** 2 for column in table.T)
    sides = sum(n * (side.mean() - grand) ** 2 for side in table)
    total = sum((value - grand) ** 2 for value in table.ravel())
    msr, msc, mse = rows / (n - 1), sides, (total - rows - sides) / (n - 1)
    msw = (total - rows) / n
    found = measures.icc(LARGE, MINI)
    assert found["one_way"] == pytest.approx((msr - msw) / (msr + msw))
    assert found["two_way_absolute"] == pytest.approx((msr - mse) / (msr + mse + 2 * (msc - mse) / n))
    assert found["two_way_consistency"] == pytest.approx((msr - mse) / (msr + mse))


def test_a_shift_counts_for_agreement_not_for_consistency() -> None:
    x = np.arange(10.0)
    found = measures.icc(x + 3, x)
    assert found["two_way_consistency"] == pytest.approx(1)
    assert found["two_way_absolute"] < 0.7
    bounds = measures.icc_intervals(x + 3, x)
    assert math.isnan(bounds["two_way_consistency"][0])  # no residual variance: no F


def test_limits_of_agreement_of_bland_and_altman() -> None:
    """Their paper: mean difference -2.1 l/min, SD 38.8."""
    found = measures.bland_altman(LARGE, MINI)
    assert found["bias"] == pytest.approx(-2.1, abs=0.05)
    assert found["sd"] == pytest.approx(38.8, abs=0.05)
    assert found["upper"] - found["lower"] == pytest.approx(2 * 1.96 * found["sd"])
    assert found["upper"] + found["lower"] == pytest.approx(2 * found["bias"])


def test_smallest_detectable_change_by_hand() -> None:
    """Differences 1, -1, 3, 1: SD sqrt(8 / 3)."""
    x, y = np.array([2.0, 3, 9, 4]), np.array([1.0, 4, 6, 3])
    sd = math.sqrt(8 / 3)
    assert measures.sdc_of_change(x, y) == pytest.approx(1.96 * sd / math.sqrt(2))
    assert measures.sdc_of_change(x, y, readings=2) == pytest.approx(1.96 * sd / 2)
    assert measures.sdc_of_status(x, y) == pytest.approx(1.96 * sd)


def test_undefined_figures_are_nan_and_warn_of_nothing() -> None:
    only = np.zeros((4, 4), int)
    only[1, 1] = 5
    figures = measures.grade_figures(only)
    assert [math.isnan(value) for value in figures["sensitivity"]] == [True, False, True, True]
    assert [math.isnan(value) for value in figures["specificity"]] == [False, True, False, False]
    assert math.isnan(measures.quadratic_kappa(only))
    assert math.isnan(measures.Ranking(np.array([True]), np.array([0.5])).auc())
    for few in (np.array([]), np.array([3.0])):
        assert all(map(math.isnan, measures.icc(few, few).values()))
        assert math.isnan(measures.sdc_of_status(few, few))
        assert np.isnan([value for bounds in measures.icc_intervals(few, few).values() for value in bounds]).all()


def test_weights_stand_for_repetition() -> None:
    """A patient who counts twice is as good as two patients with the same grades; one who counts 0 is not there."""
    predicted, reference = drawn_readings(6)
    figures = Figures(pair_up(predicted, reference))
    found = figures(np.array([2, 0, 1]))
    for study in ("study-02", "study-03"):
        del predicted.corners[study], reference.corners[study]
    for study, twin in (("study-00", "twin-0"), ("study-01", "twin-1")):
        predicted.corners[twin], reference.corners[twin] = predicted.corners[study], reference.corners[study]
        reference.describe(twin, "twin", reference.dates[study])
    assert Figures(pair_up(predicted, reference))() == pytest.approx(found, nan_ok=True)


def test_bootstrap_draws_whole_patients() -> None:
    """Copies of a study under the same patient add no information: the intervals stay as wide."""
    predicted, reference = drawn_readings(8)
    reference.dates.clear()
    reference.patients.update({study: study for study in reference.corners})
    once = bootstrap(Figures(pair_up(predicted, reference)), 60, 3)
    for study in list(reference.corners):
        copy = f"{study}-copy"
        predicted.corners[copy], reference.corners[copy] = predicted.corners[study], reference.corners[study]
        reference.describe(copy, study, None)
    figures = Figures(pair_up(predicted, reference))
    assert figures.pairs.clusters == 8
    twice = bootstrap(figures, 60, 3)
    reference.patients.clear()
    apart = bootstrap(Figures(pair_up(predicted, reference)), 60, 3)
    for name in ("accuracy", "kappa_quadratic", "mean.sensitivity", "roc.mean_auc", "bland_altman.bias"):
        low, high = once[name] or (0, 0)
        assert twice[name] == pytest.approx((low, high)), name
        assert (apart[name] or (0, 9))[1] - (apart[name] or (0, 9))[0] < high - low, name


def test_bootstrap_interval_of_a_mean_is_that_of_theory() -> None:
    """Bias of 40 studies, each its own cluster: mean -+ 1.96 SD / sqrt(n), within the noise of 800 draws."""
    predicted, reference = drawn_readings(40)
    reference.patients.clear()
    figures = Figures(pair_up(predicted, reference))
    point = figures()
    low, high = bootstrap(figures, 800, 0)["bland_altman.bias"] or (0, 0)
    half = 1.96 * point["bland_altman.sd"] / math.sqrt(40)
    bias = point["bland_altman.bias"]
    assert (low, high) == pytest.approx((bias - half, bias + half), abs=0.2 * half)


@pytest.mark.parametrize("n", [7, 10, 20])
def test_figures_of_equal_values_are_no_ratio_of_rounding_errors(n: int) -> None:
    """The mean of equal decimal fractions is not exactly one of them, so that their computed variance is not 0."""
    for predicted, reference in ((28 / 3, 28 / 3), (3.3, 1.1), (36 / 11, 60 / 11)):
        sides = np.full(n, predicted), np.full(n, reference)
        assert math.isnan(measures.icc(*sides)["two_way_consistency"])
        assert measures.bland_altman(*sides)["sd"] == measures.sdc_of_status(*sides) == 0
