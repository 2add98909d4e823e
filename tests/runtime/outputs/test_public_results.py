"""Results from a program equal those of the command line, and a wrong pair of study and report is refused."""

from __future__ import annotations

import errno
import io
import json
import re
from dataclasses import replace

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from helpers import dicom_results, tiny_study
from spinescore.runtime import (
    OutputError,
    StudyReport,
    anonymous,
    cli,
    files,
    html,
    load_study,
    presentation_states,
    radiograph_from_array,
    secondary_captures,
    structured_report,
    write_results,
)
from spinescore.runtime.outputs.formats import FORMATS

WHEN = dicom_results.WHEN
REGIONS = ("cervical", "lumbar")
FILES = {"json": "report.json", "png": "overlay-cervical.png", "html": "report.html", "csv": "row.csv", "sr": "sr.dcm"}


def arrays_with_headers(folder):
    """A console's study: an image of each region in memory, each with the header under which it will be stored."""
    images = {}
    for image in load_study(tiny_study.write_study(folder)).radiographs:
        assert image.region is not None
        array = radiograph_from_array(image.pixels.copy(), spacing_mm=image.spacing_mm, facing=image.facing)
        uids = {"sop_instance_uid": image.sop_instance_uid, "study_instance_uid": image.study_instance_uid}
        images[image.region] = replace(array, header=image.header, source=f"detector {image.region}", **uids)
    return images


def several_candidates(folder):
    """A study with a second cervical radiograph, whose header states flexion."""
    tiny_study.write_study(folder)
    ds = dcmread(folder / "cervical.dcm")
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["another"])
    ds.SeriesDescription = "C-spine lateral flexion"
    ds.save_as(folder / "another.dcm")
    return load_study(folder)


def blank(folder):
    tiny_study.write_study(folder)
    ds = dcmread(folder / "cervical.dcm")
    ds.PixelData = bytes(len(ds.PixelData))
    ds.save_as(folder / "cervical.dcm")
    return load_study(folder)


STUDIES = {
    "files": (lambda folder: load_study(tiny_study.write_study(folder)), REGIONS),
    "arrays with headers": (arrays_with_headers, REGIONS),
    "a rejected region": (blank, ("lumbar",)),
    "one region": (lambda folder: load_study(tiny_study.write_study(folder, regions=("lumbar",))), ("lumbar",)),
    "several candidates": (several_candidates, REGIONS),
}


@pytest.fixture(scope="module")
def scored(tiny_scorer, tmp_path_factory):
    """A study of files and its report, as a database returns it."""
    study = load_study(tiny_study.write_study(tmp_path_factory.mktemp("study")))
    return study, StudyReport.from_json(tiny_scorer.score(study).to_json())


@pytest.mark.parametrize("kind", STUDIES)
def test_a_study_and_its_report_give_every_result(tiny_scorer, tmp_path, kind):
    make, regions = STUDIES[kind]
    study = make(tmp_path / "study")
    report = tiny_scorer.score(study)
    assert [name for name, region in report.regions.items() if region.status == "scored"] == list(regions)
    uids = [report.regions[name].radiograph.sop_instance_uid for name in regions]

    document = structured_report(study, report, created=WHEN)
    assert (document.Modality, document.StudyInstanceUID) == ("SR", report.study.study_instance_uid)
    referenced = [str(element.value) for element in document.iterall() if element.keyword == "ReferencedSOPInstanceUID"]
    assert set(uids) <= set(referenced)
    captures = secondary_captures(study, report, created=WHEN)
    assert [capture.SourceImageSequence[0].ReferencedSOPInstanceUID for capture in captures] == uids
    states = presentation_states(study, report, created=WHEN)
    images = [state.ReferencedSeriesSequence[0].ReferencedImageSequence[0] for state in states]
    assert [image.ReferencedSOPInstanceUID for image in images] == uids
    page = html(study, report)
    assert page.count("<article") == 2

    paths = write_results(study, report, tmp_path / "out", formats=list(FORMATS), created=WHEN)
    names = {form.file.format(region=region) for form in FORMATS.values() for region in regions}
    assert {path.name for path in paths} - names <= {"overlay-cervical.png"}  # of a rejected region with points
    assert names <= {path.name for path in paths} == {path.name for path in (tmp_path / "out").iterdir()}
    assert (tmp_path / "out" / "report.html").read_text("utf-8") == page
    assert StudyReport.from_json((tmp_path / "out" / "report.json").read_bytes()) == report
    for made, name in (
        (document, "sr.dcm"),
        (captures[0], f"sc-{regions[0]}.dcm"),
        (states[0], f"gsps-{regions[0]}.dcm"),
    ):
        buffer = io.BytesIO()
        made.save_as(buffer, enforce_file_format=True)
        assert (tmp_path / "out" / name).read_bytes() == buffer.getvalue()


def test_the_candidate_that_was_scored_is_the_one_shown(tiny_scorer, tmp_path):
    study = several_candidates(tmp_path)
    report = tiny_scorer.score(study)
    chosen = next(image for image in study.radiographs if image.source == "cervical.dcm")
    capture = secondary_captures(study, report)[0]
    assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == chosen.sop_instance_uid


def comparable(path):
    """The content of a file, without dates and times."""
    if path.suffix == ".dcm":
        ds = dcmread(path)
        for element in list(ds.iterall()):
            if element.VR in ("DA", "TM", "DT") and element.keyword not in ("StudyDate", "StudyTime"):
                element.value = ""
        return ds.to_json()
    if path.name == "report.json":
        document = json.loads(path.read_bytes())
        del document["timings_ms"]
        return document
    if path.name == "report.html":
        return re.sub(r"<table><caption>Milliseconds.*?</table>", "", path.read_text("utf-8"), flags=re.DOTALL)
    return path.read_bytes()


@pytest.mark.parametrize("anonymously", [False, True], ids=["named", "anonymous"])
def test_the_command_line_writes_the_same(tiny_scorer, tmp_path, anonymously, capsys):
    folder, bundle = tmp_path / "study", str(tiny_scorer.bundle.folder)
    tiny_study.write_study(folder)
    formats = [name for name in FORMATS if not anonymously or name not in ("sr", "gsps", "sc")]
    command = ["score", str(folder), "--bundle", bundle, "--device", "cpu", "--out", str(tmp_path / "cli")]
    assert cli.main([*command, "--format", ",".join(formats), *(["--anonymous"] * anonymously)]) == 0
    study = load_study(folder)
    study = anonymous(study) if anonymously else study
    paths = write_results(study, tiny_scorer.score(study), tmp_path / "api", formats=formats)
    assert {path.name for path in paths} == {path.name for path in (tmp_path / "cli").iterdir()}
    for path in paths:
        assert comparable(path) == comparable(tmp_path / "cli" / path.name), path.name


RESULTS = {
    "structured_report": structured_report,
    "secondary_captures": secondary_captures,
    "presentation_states": presentation_states,
    "html": html,
    "write_results": lambda study, report: write_results(study, report, "nowhere"),
}


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_a_study_of_which_the_report_is_not_is_refused(scored, tmp_path, monkeypatch, result):
    monkeypatch.chdir(tmp_path)
    study, report = scored
    other = load_study(tiny_study.write_study(tmp_path / "study", uid="9.8.7"))
    with pytest.raises(OutputError, match=r"the report is of the study 1\.2\.3\.4, not of the study 9\.8\.7"):
        result(other, report)
    with pytest.raises(OutputError, match=r"the report is of the study 1\.2\.3\.4, not of the study without a UID"):
        result(anonymous(study), report)
    first, second = sorted(study.radiographs, key=lambda image: image.source)
    for images in ((), (second,), (replace(first, sop_instance_uid="1.2"), second)):
        with pytest.raises(OutputError, match="the radiograph of the cervical region is not in the study"):
            result(replace(study, radiographs=images), report)
    smaller = replace(first, pixels=first.pixels[:-1])
    with pytest.raises(OutputError, match="the radiograph of the cervical region is not in the study"):
        result(replace(study, radiographs=(smaller, second)), report)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS)
def test_what_is_no_study_is_refused(scored, tmp_path, monkeypatch, result):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((TypeError, ValueError), match="stud"):
        result(["demo/study"], scored[1])


def test_a_file_that_was_renamed_is_still_the_radiograph(scored):
    study, report = scored
    moved = replace(study, radiographs=tuple(replace(image, source="moved.dcm") for image in study.radiographs))
    assert structured_report(moved, report, created=WHEN) == structured_report(study, report, created=WHEN)


def test_arrays_without_a_header_have_a_page_and_pictures_and_a_reason(tiny_scorer, tmp_path):
    images = {name: replace(image, header=None) for name, image in arrays_with_headers(tmp_path / "study").items()}
    report = tiny_scorer.score(images)
    assert "Lateral radiograph of the cervical spine" in html(images, report)
    assert len(write_results(images, report, tmp_path / "out")) == 3
    for result in (structured_report, secondary_captures, presentation_states):
        with pytest.raises(OutputError, match=r"detector cervical has no DICOM header.*_from_array\(.*header="):
            result(images, report)


def test_an_older_report_has_results_without_crops(scored):
    study, report = scored
    document = json.loads(report.to_json())
    del document["bundle"]["rules"]
    older = StudyReport.from_json(json.dumps(document))
    made, now = structured_report(study, older, created=WHEN), structured_report(study, report, created=WHEN)
    assert made.SOPInstanceUID == now.SOPInstanceUID
    words = [str(element.value) for element in made.iterall() if element.keyword == "TextValue"]
    assert not [text for text in words if "threshold" in text or "abstain" in text]
    state = presentation_states(study, older)[0]
    assert [item.GraphicLayer for item in state.GraphicAnnotationSequence] == ["POINTS", "GRADES"]
    assert html(study, report).count("<polygon") - html(study, older).count("<polygon") == 12


def test_formats_are_checked_before_anything_is_written(scored, tmp_path):
    for formats in (["json", "pdf"], "sr"):
        with pytest.raises(ValueError, match="formats"):
            write_results(*scored, tmp_path / "out", formats=formats)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["json", "png", "html", "csv", "sr"])
def test_a_full_disk_leaves_nothing_half_written_and_nothing_old(scored, tmp_path, monkeypatch, name):
    write_results(*scored, tmp_path, formats=list(FILES))
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    before = {path.name for path in tmp_path.iterdir()}
    opened = files.os.fdopen

    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    def fdopen(descriptor, mode):
        is_last = FILES[name] in files.os.readlink(f"/proc/self/fd/{descriptor}")
        if is_last:
            files.os.close(descriptor)
        return Full() if is_last else opened(descriptor, mode)

    monkeypatch.setattr(files.os, "fdopen", fdopen)
    with pytest.raises(OutputError, match=rf"{FILES[name]} cannot be written \(No space left on device\): free space"):
        write_results(*scored, tmp_path, formats=list(FILES))
    assert {path.name for path in tmp_path.iterdir()} == before - {FILES[name]}
    monkeypatch.undo()
    if name != "json":
        assert StudyReport.from_json((tmp_path / "report.json").read_bytes()) == scored[1]


def test_results_replace_those_of_another_report(scored, tiny_scorer, tmp_path):
    write_results(*scored, tmp_path, formats=list(FORMATS))
    study = load_study(tiny_study.write_study(tmp_path / "in", regions=("lumbar",)))
    write_results(study, tiny_scorer.score(study), str(tmp_path), formats=["sr", "png"])
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {"sr.dcm", "overlay-lumbar.png"}


def test_a_file_in_the_folder_s_place_is_named(scored, tmp_path):
    (tmp_path / "out").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="name another folder"):
        write_results(*scored, tmp_path / "out")
    assert (tmp_path / "out").read_text("utf-8") == "mine"
