"""Pictures that the score is not defined on, or whose header names another part, beside others and alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from helpers.scoring import CERVICAL, LUMBAR, OTHER_GRADES, assert_found, checked
from helpers.tiny import draw, write_bundle
from spinescore.runtime import Scorer
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.reading.quality import finding

OTHER = draw("cervical", OTHER_GRADES)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    folder = write_bundle(tmp_path_factory.mktemp("second") / "b")
    with Scorer(Bundle.open(folder), HostDevice(1)) as found:
        yield found


def second(code, name="second.dcm", **tags):
    found = finding(code, name, "its header says so")
    return replace(OTHER.radiograph, source=name, findings=(found,), **tags)


@pytest.mark.parametrize("code", ["other-body-part", "not-neutral"])
@pytest.mark.parametrize("tags", [{}, {"region": None}])
def test_it_is_not_scored_beside_a_plain_one(scorer, code, tags):
    first = replace(CERVICAL.radiograph, source="first.dcm")
    for study in ([first, second(code, **tags)], [second(code, **tags), first]):
        report = checked(scorer.score([*study, LUMBAR.radiograph]))
        assert_found(report.regions["cervical"], CERVICAL)
        assert report.regions["cervical"].radiograph.source == "first.dcm"
        assert code not in {found.code for found in report.findings}
        assert any(warning.startswith("second.dcm was not scored") for warning in report.warnings)


@pytest.mark.parametrize("code", ["other-body-part", "not-neutral"])
def test_alone_it_is_scored_with_a_finding(scorer, code):
    report = checked(scorer.score([second(code), LUMBAR.radiograph]))
    assert_found(report.regions["cervical"], OTHER)
    assert [(found.code, found.region) for found in report.findings if found.code == code] == [(code, "cervical")]
    strict = checked(scorer.score([second(code), LUMBAR.radiograph], strict=True))
    assert strict.regions["cervical"].reject.code == code


def test_of_two_the_better_evidence_wins_as_before(scorer):
    report = checked(scorer.score([second("not-neutral", "a.dcm"), second("other-body-part", "b.dcm")]))
    assert report.regions["cervical"].status == "scored"
    assert any("Several cervical radiographs" in warning for warning in report.warnings)
