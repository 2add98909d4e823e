"""The benchmark of change: how hiding a disc changes a report, and how changes are counted."""

from helpers.made_reports import NORMAL, changed, made_report
from spinescore.benchmarks.change import Figures, hidden

WORSE = changed(NORMAL, at0=3, at1=3, at4=2)


def report(lumbar, uid="1", day="20220110"):
    return made_report({"cervical": NORMAL, "lumbar": lumbar}, uid, day)


def test_a_hidden_disc_is_one_that_could_not_be_read():
    found, made = hidden(report(WORSE), "lumbar", "T12/L1"), report(changed(WORSE, at0=None, at1=None))
    assert (found.total.value, found.total.range) == (made.total.value, made.total.range) == (2.4, (2, 8))
    assert found.total.imputed_sites == ("T12-inferior", "L1-superior")
    assert found.regions["cervical"] == report(WORSE).regions["cervical"]
    assert all(corner.probabilities is None for corner in found.regions["lumbar"].discs[0].corners)


def test_what_is_counted_of_a_pair_by_hand():
    """Eight units at one visit, nothing before: hiding the bridge leaves 2.4 of them."""
    figures = Figures()
    figures.add(report(NORMAL), report(WORSE, "2", "20240110"), 8)
    figures.add(report(NORMAL), made_report({"cervical": None, "lumbar": NORMAL}, "2", "20240110"), 0)
    found = figures.document()
    assert (found["pairs"], found["without_change"]) == (2, 1)
    assert found["interval"]["of"] == found["interval"]["covered"] == 1
    assert found["mean_absolute_error_units"]["change_of_grades"] == 0
    assert found["hidden_disc"]["cases"] == 24
    assert found["hidden_disc"]["comparable_wrong"] == 0
    same = found["hidden_disc_of_the_same_grades"]
    assert same == {"cases": 24, "imputed_progression": 0, "comparable_progression": 0}
    figures = Figures()
    figures.add(report(WORSE), report(WORSE, "2", "20240110"), 0)
    same = figures.document()["hidden_disc_of_the_same_grades"]
    assert (same["imputed_progression"], same["comparable_progression"]) == (1, 0)  # the bridge was hidden before
