"""Reports of other programs: with any content, each is refused with a reason or counted without a fault."""

import copy
import json

from hypothesis import example, given
from hypothesis import strategies as st

from helpers.made_reports import NORMAL, changed, made_report
from spinescore.runtime.followup import compare, read_cohort, tables_of
from spinescore.runtime.followup.comparisontext import comparison_summary
from spinescore.runtime.followup.reportfiles import read_reports
from spinescore.runtime.followup.tables import csv_text
from spinescore.runtime.scoring.report import StudyReport

WHOLE = made_report({"cervical": NORMAL, "lumbar": changed(NORMAL, at3=None)}, "1", "20220110")
TEXT = WHOLE.to_json(None)
ODD = st.sampled_from([
    None, True, -1, 0, 1, 4, 73, 1.5, 1e308, float("nan"), float("inf"), 10**400, "", "2", "scored", "rejected",
    "\ud800", "\N{SNOWMAN}" * 3, [], [0], [0, 1, 2, 3], [[]], {}, {"code": 1}, {"mean": 1, "sd": None, "interval": [0]},
])  # fmt: skip


def places(node, path=()):
    """The path to every value of a document."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


PLACES = sorted(set(places(json.loads(TEXT))), key=str)


@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), ODD | st.just("delete")), min_size=1, max_size=3))
@example(changes=[(("study", "study_date"), "2022\N{SUPERSCRIPT TWO}101")])
@example(changes=[(("study", "study_date"), "00000000")])
@example(changes=[(("regions", "lumbar", "status"), "rejected")])
def test_a_report_with_odd_values_is_refused_or_counted(changes, tmp_path_factory):
    document = json.loads(TEXT)
    for path, value in changes:
        put(document, path, value)
    folder = tmp_path_factory.mktemp("odd")
    (folder / "odd.json").write_text(json.dumps(document), encoding="utf-8")
    ((_, found),) = read_reports(folder / "odd.json")
    if isinstance(found, ValueError):
        assert str(found)
        return
    assert isinstance(found, StudyReport)
    if found.study.patient_key == WHOLE.study.patient_key:
        comparison_summary(compare(found, WHOLE)).encode()
        compare(WHOLE, found).to_json().encode()
    for name, rows in tables_of(read_cohort(folder)).items():
        csv_text(name, rows).encode()


def put(node, path, value):
    """Set or delete the value at a path. A path that an earlier change removed is left alone."""
    *parents, last = path
    try:
        for key in parents:
            node = node[key]
        if value == "delete":
            del node[last]
        else:
            node[last] = copy.deepcopy(value)
    except (IndexError, KeyError, TypeError):
        pass
