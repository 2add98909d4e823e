"""Orthanc as a source: each radiograph comes in once, whatever its server does between two looks."""

from __future__ import annotations

import pytest
from pydicom import dcmread

from helpers.orthanc_double import reply
from helpers.orthanc_followed import Followed, study

CT, SR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.34"


def test_a_study_comes_from_orthanc_and_is_delivered(followed, files):
    for path in files:
        followed.orthanc.store(path)
    followed.one.run()
    assert followed.one.states() == {"1.2.3.4": "delivered"}
    followed.orthanc.settle()
    followed.one.run()
    assert followed.one.study()["revision"] == 1
    assert followed.cursor().seq == followed.orthanc.last
    assert followed.fetched() == 2


def test_nothing_is_fetched_but_radiographs_of_the_classes(make, orthanc, files, tmp_path):
    followed = Followed(make, orthanc, classes=("DX",))
    for uid in (CT, SR, None):  # the files are CR
        orthanc.store(files[0], uid)
    orthanc.store(files[1], "1.2.840.10008.5.1.4.1.1.1.1")
    assert followed.look() == []
    assert followed.fetched() == 1
    assert followed.objects() == 1


def test_many_changes_are_read_in_pages(followed, tmp_path):
    for number in range(15):
        for path in study(tmp_path, number):
            followed.orthanc.store(path)
    assert followed.look() == []
    assert followed.objects() == 30
    assert followed.fetched() == 30
    assert len(followed.cursor().trail) == 64
    assert followed.look() == []
    assert followed.orthanc.asked == [f"/changes?since={30 * 4}&limit=50"]  # one small request if nothing is new


def test_without_history_only_later_objects_count(make, orthanc, tmp_path):
    for path in study(tmp_path, 1):
        orthanc.store(path)
    followed = Followed(make, orthanc, history=False)
    assert followed.look() == []
    assert followed.objects() == 0
    followed.start()
    for path in study(tmp_path, 2):
        orthanc.store(path)
    assert followed.look() == []
    assert followed.one.states() == {"1.2.3.2": "collecting"}
    orthanc.renew(day=2)
    for path in study(tmp_path, 3):
        orthanc.store(path)
    assert followed.look() == []
    assert followed.one.states().keys() == {"1.2.3.2", "1.2.3.3"}


def test_without_history_an_empty_orthanc_is_followed_from_its_first_object(make, orthanc, files):
    followed = Followed(make, orthanc, history=False)
    assert followed.look() == []
    orthanc.store(files[0])
    assert followed.look() == []
    assert followed.objects() == 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_new_database_is_read_from_its_beginning(followed, tmp_path, count):
    """It has fewer, as many, or more changes than the old one."""
    for number in (1, 2):
        followed.orthanc.store(study(tmp_path, number)[0])
    assert followed.look() == []
    followed.orthanc.renew(day=2)
    for number in range(2, 2 + count):  # study 2 is in both
        followed.orthanc.store(study(tmp_path, number)[0])
    if count == 2:
        assert followed.look() == []
        followed.orthanc.settle()  # a list of the same length is noticed with the next change
    assert followed.look() == []
    assert followed.one.states().keys() == {f"1.2.3.{number}" for number in range(1, 2 + count)}
    assert followed.objects() == 1 + count
    assert not list(followed.one.places.quarantine.iterdir())
    assert followed.cursor().seq == followed.orthanc.last


def test_an_older_copy_of_the_database_goes_on_where_both_agree(followed, tmp_path):
    orthanc = followed.orthanc
    for number in (1, 2, 3):
        orthanc.store(study(tmp_path, number)[0])
    assert followed.look() == []
    followed.fetched()
    orthanc.changes, orthanc.last, orthanc.day = orthanc.changes[:8], 8, 2  # study 3 is lost
    orthanc.store(study(tmp_path, 4)[0])
    orthanc.store(study(tmp_path, 5)[0])
    assert followed.look() == []
    assert followed.fetched() == 2
    assert followed.one.states().keys() == {f"1.2.3.{number}" for number in (1, 2, 3, 4, 5)}


def test_a_deletion_has_nothing_read_again(followed, tmp_path):
    orthanc = followed.orthanc
    names = [orthanc.store(study(tmp_path, number)[0]) for number in (1, 2, 3)]
    assert followed.look() == []
    followed.fetched()
    for name in names[:0:-1]:  # the last ones
        orthanc.delete(name)
    assert followed.look() == []
    orthanc.store(study(tmp_path, 4)[0])
    assert followed.look() == []
    assert followed.fetched() == 1
    orthanc.delete(names[0])
    for number in (5, 6):
        orthanc.store(study(tmp_path, number)[0])
    assert followed.look() == []
    assert followed.fetched() == 2


def test_what_was_deleted_meanwhile_is_passed_over(followed, files):
    first = followed.orthanc.store(files[0])
    followed.orthanc.store(files[1])
    followed.orthanc.acts[f"{first}/file"] = lambda handler: reply(handler, b"", 404)
    assert followed.look() == []
    assert followed.objects() == 1


def test_an_instance_without_a_noted_class_is_fetched(followed, files):
    followed.orthanc.store(files[0])
    followed.orthanc.acts["SopClassUid"] = lambda handler: reply(handler, b"", 404)
    assert followed.look() == []
    assert followed.objects() == 1


def test_an_object_that_is_known_or_in_quarantine_is_passed(followed, files, tmp_path):
    followed.one.receive(files[0])
    other = tmp_path / "other.dcm"
    ds = dcmread(files[0])
    ds.PatientName = "Other"
    ds.save_as(other)
    for path in (files[0], other, files[1]):
        followed.orthanc.store(path)
    assert followed.look() == []
    assert followed.objects() == 2
    assert len(list(followed.one.places.quarantine.iterdir())) == 1
    assert followed.cursor().seq == followed.orthanc.last
