"""Sources to read: archives, DICOMDIR, bytes and streams, their limits. The order of files does not matter."""

from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pydicom.data import get_testdata_file
from pydicom.fileset import FileSet

from helpers import tiny
from helpers.dicom_files import picture, radiograph_dataset, write
from helpers.tiny_study import TOTAL, write_study
from spinescore.benchmarks.agreement.pictures import PICTURES
from spinescore.runtime import InputRejected, Scorer, load_radiograph, load_studies, load_study
from spinescore.runtime.followup.tables import TABLES
from spinescore.runtime.outputs.formats import FORMATS
from spinescore.runtime.reading import archives, inputs
from spinescore.runtime.study import REGIONS

OWN = (
    "truth.json",
    "index.csv",
    "columns.csv",
    "study-0123456789ab_corners_C2-C3_C2-inferior+C3-superior.png",
    "study-0123456789ab-2_localizer_lumbar.png",
    *(f"{table}.{kind}" for table in TABLES for kind in ("csv", "parquet")),
    *("comparison.json", "comparison.png", "change.png", "evaluate.json", "evaluate.md", "association.md"),
    *(f"{picture}.{kind}" for picture in PICTURES for kind in ("png", "svg", "pdf")),
)


def image(path: Path, uid: str, **tags: object) -> Path:
    return write(radiograph_dataset(picture(8), 8, SOPInstanceUID=uid, **tags), path)


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def two(tmp_path) -> list[Path]:
    return [
        image(tmp_path / "in" / "one", "1.2.1"),
        image(tmp_path / "in" / "two", "1.2.2", BodyPartExamined="LSPINE"),
    ]


# ---- archives --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_archive_is_read_like_a_folder(tmp_path: Path, two: list[Path], method: int) -> None:
    members = {f"a/{path.name}": path.read_bytes() for path in two}
    members |= {"notes.txt": b"nothing", "DICOMDIR": b"x", "__MACOSX/a/._one": b"x", "a/.hidden": b"x"}
    path = zipped(tmp_path / "study.zip", members, method)
    before = sorted(tmp_path.rglob("*"))
    study = load_study(path)
    assert [radiograph.source for radiograph in study.radiographs] == ["study.zip/a/one", "study.zip/a/two"]
    np.testing.assert_array_equal(study.radiographs[0].pixels, picture(8))
    assert study.rejects == ()
    assert len(study.warnings) == 1
    assert "notes.txt" in study.warnings[0]
    assert sorted(tmp_path.rglob("*")) == before


def test_archive_may_be_bytes_or_a_stream(tmp_path: Path, two: list[Path]) -> None:
    path = zipped(tmp_path / "study.zip", {path.name: path.read_bytes() for path in two})
    with path.open("rb") as stream:
        for given in (path.read_bytes(), io.BytesIO(path.read_bytes()), stream):
            assert [found.sop_instance_uid for found in load_study(given).radiographs] == ["1.2.1", "1.2.2"]


def damaged(path: Path, at: bytes, offset: int, value: bytes) -> Path:
    data = bytearray(path.read_bytes())
    start = data.rindex(at) + offset
    data[start : start + len(value)] = value
    path.write_bytes(data)
    return path


def end_of_directory(two: list[Path], path: Path) -> Path:
    return zipped(path, {"one": two[0].read_bytes()})


@pytest.mark.parametrize(("how", "code"), [
    (lambda two, path: damaged(end_of_directory(two, path), b"PK\5\6", 12, struct.pack("<I", 1 << 30)), "too-large"),
    (lambda two, path: damaged(end_of_directory(two, path), b"PK\5\6", 0, b"nope"), "not-dicom"),
    (lambda two, path: damaged(end_of_directory(two, path), b"PK\1\2", 0, b"nope"), "not-dicom"),
    (lambda two, path: zipped(path, {f"{number}": b"" for number in range(archives.MAX_MEMBERS + 1)}), "too-large"),
])  # fmt: skip
def test_archive_that_is_refused(tmp_path: Path, two: list[Path], how, code: str) -> None:
    (reject,) = load_study(how(two, tmp_path / "study.zip")).rejects
    assert (reject.code, reject.source) == (code, "study.zip")
    with pytest.raises(InputRejected, match=r"study\.zip") as caught:
        load_radiograph(tmp_path / "study.zip")
    assert caught.value.code == code


@pytest.mark.parametrize(("at", "offset", "value", "code"), [
    (b"PK\1\2", 8, b"\1\0", "not-dicom"),  # encrypted
    (b"PK\1\2", 10, b"\x0c\0", "not-dicom"),  # bzip2, which unpacks without a bound
    (b"PK\1\2", 24, struct.pack("<I", archives.MAX_MEMBER_BYTES + 1), "too-large"),
    (b"PK\1\2", 24, struct.pack("<I", 300 << 20), "too-large"),  # from a few hundred bytes
    (b"PK\1\2", 16, b"\0\0\0\0", "corrupt-pixels"),  # another checksum
])  # fmt: skip
def test_member_that_is_refused(tmp_path, two: list[Path], at: bytes, offset: int, value: bytes, code: str) -> None:
    path = damaged(end_of_directory(two, tmp_path / "study.zip"), at, offset, value)
    study = load_study(path)
    assert study.radiographs == ()
    if code == "not-dicom":
        assert any("study.zip/one" in warning for warning in study.warnings)
    else:
        assert [(reject.code, reject.source) for reject in study.rejects] == [(code, "study.zip/one")]


def test_bomb_takes_no_memory(tmp_path: Path, two: list[Path]) -> None:
    head = two[0].read_bytes()
    path = zipped(tmp_path / "bomb.zip", {"bomb": head + bytes(256 << 20), "no image": bytes(256 << 20)})
    load_radiograph(two[0])  # imports are not counted
    tracemalloc.start()
    try:
        study = load_study(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [reject.code for reject in study.rejects] == ["too-large", "too-large"]
    assert peak < 16 << 20


# ---- DICOMDIR --------------------------------------------------------------------------------------------------------


def media(tmp_path: Path) -> Path:
    """A DICOMDIR with two radiographs and a CT slice, as pydicom writes it."""
    files = FileSet()
    for number, tags in enumerate(({}, {"BodyPartExamined": "LSPINE"}, {"Modality": "CT"})):
        extra = {"StudyTime": "101010", "StudyID": "1", "SeriesNumber": 1, "InstanceNumber": number, **tags}
        files.add(radiograph_dataset(picture(8), 8, SOPInstanceUID=f"1.2.{number}", **extra))
    files.write(tmp_path / "media")
    files._stage["t"].cleanup()  # or pydicom leaves it to the garbage collector, which warns
    return tmp_path / "media" / "DICOMDIR"


def test_dicomdir_leads_to_its_images(tmp_path: Path) -> None:
    path = media(tmp_path)
    (path.parent / "unlisted").write_bytes(b"nothing")
    study = load_study(path)
    assert [radiograph.sop_instance_uid for radiograph in study.radiographs] == ["1.2.0", "1.2.1"]
    assert [radiograph.region for radiograph in study.radiographs] == ["cervical", "lumbar"]
    (warning,) = study.warnings
    assert "modality CT" in warning


def test_dicomdir_of_pydicom() -> None:
    studies = load_studies([get_testdata_file("DICOMDIR", download=False)])
    found = [radiograph for study in studies for radiograph in study.radiographs]
    assert {"77654033/CR1/6154"} <= {radiograph.source for radiograph in found}
    assert {radiograph.modality for radiograph in found} == {"CR"}


def test_dicomdir_finds_names_in_lower_case_and_names_what_is_missing(tmp_path: Path) -> None:
    path = media(tmp_path)
    names = sorted(file for file in path.parent.rglob("*") if file.is_file() and file.name != "DICOMDIR")
    names[0].rename(names[0].with_name(names[0].name.lower()))
    names[1].unlink()
    study = load_study(path)
    assert len(study.radiographs) == 1
    (reject,) = study.rejects
    assert (reject.code, reject.source) == ("missing-file", "DICOMDIR")
    assert "refers to 3 images, and 1 of them are not there" in reject.message
    assert names[1].name in reject.message


def test_dicomdir_alone_is_a_reject(tmp_path: Path) -> None:
    path = media(tmp_path)
    copy = tmp_path / "copy" / "DICOMDIR"
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    study = load_study(copy)
    assert study.radiographs == ()
    assert [reject.code for reject in study.rejects] == ["missing-file"]
    with pytest.raises(InputRejected, match="3 of them are not there") as caught:
        load_radiograph(copy)
    assert caught.value.code == "missing-file"


def test_dicomdir_without_images_is_a_reject(tmp_path: Path) -> None:
    path = media(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"IMAGE ", b"STUDY "))
    assert [reject.code for reject in load_study(path).rejects] == ["no-pixels"]


@pytest.mark.parametrize("name", [["..", "secret"], ["A/B"], ["C:", "X"], [""], ["/ETC"]])
def test_dicomdir_never_leads_out_of_its_folder(monkeypatch, tmp_path: Path, name: list[str]) -> None:
    monkeypatch.setattr(inputs, "_components", lambda record: name)
    (reject,) = load_study(media(tmp_path)).rejects
    assert "outside of its folder" in reject.message


def test_dicomdir_as_bytes_refers_to_nothing(tmp_path: Path) -> None:
    (reject,) = load_study(media(tmp_path).read_bytes()).rejects
    assert reject.code == "not-dicom"
    assert "give its path" in reject.message


def test_dicomdir_that_is_broken(tmp_path: Path) -> None:
    path = media(tmp_path)
    path.write_bytes(path.read_bytes()[:400])
    (reject,) = load_study(path).rejects
    assert (reject.code, reject.source) == ("not-dicom", "DICOMDIR")


# ---- bytes and streams -----------------------------------------------------------------------------------------------


def test_bytes_and_streams(tmp_path: Path, two: list[Path]) -> None:
    data = two[0].read_bytes()
    with two[0].open("rb") as stream:
        given = [data, bytearray(data), memoryview(data), io.BytesIO(data), stream]
        found = [load_radiograph(one) for one in given]
    assert {radiograph.source for radiograph in found} == {f"{len(data)} bytes in memory", "one"}
    for radiograph in found:
        np.testing.assert_array_equal(radiograph.pixels, picture(8))
        assert radiograph.region == "cervical"
    assert len(load_study(*(path.read_bytes() for path in two)).radiographs) == 2


def test_stream_is_read_no_further_than_the_limit(monkeypatch, two: list[Path]) -> None:
    monkeypatch.setattr(inputs, "MAX_BYTES_IN_MEMORY", 1000)
    asked = []

    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            asked.append(size)
            return bytes(size)

    with pytest.raises(InputRejected) as caught:
        load_radiograph(Endless())
    assert caught.value.code == "too-large"
    assert asked == [1001]


def test_what_is_no_input() -> None:
    with pytest.raises(TypeError, match="bytes or a binary stream, got int"):
        load_radiograph(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="gives str"):
        load_radiograph(io.StringIO("text"))  # type: ignore[arg-type]


def test_one_radiograph_may_be_in_a_folder_but_not_several(two: list[Path]) -> None:
    with pytest.raises(InputRejected, match="holds 2 radiographs") as caught:
        load_radiograph(two[0].parent)
    assert caught.value.code == "not-radiograph"
    two[1].unlink()
    assert load_radiograph(two[0].parent).source == "one"


# ---- order and grouping ----------------------------------------------------------------------------------------------


def test_order_does_not_change_the_report(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study")
    for name in ("a/IM1", "b/IM1"):  # the same name, and no UID to tell them apart
        write(radiograph_dataset(np.zeros((300, 200), np.uint8), 8, SOPInstanceUID=""), folder / name)
    (folder / "notes.txt").write_text("nothing")
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    reports = []
    with Scorer.open(tiny.write_bundle(tmp_path / "bundle"), "cpu") as scorer:
        for seed in range(5):
            random.Random(seed).shuffle(paths)
            document = scorer.score(load_study(*paths)).to_dict()
            document.pop("timings_ms")
            reports.append(document)
    assert reports[0]["total"]["value"] == TOTAL
    assert all(report == reports[0] for report in reports)


def test_order_of_bytes_does_not_matter() -> None:
    """The same length, and no UID to tell them apart."""
    given = []
    for value in range(4):
        file = io.BytesIO()
        radiograph_dataset(np.full((40, 40), value, np.uint8), 8, SOPInstanceUID="").save_as(file)
        given.append(file.getvalue())
    orders = (given, given[::-1], given[2:] + given[:2])
    seen = [[int(radiograph.pixels[0, 0]) for radiograph in load_study(*order).radiographs] for order in orders]
    assert len(seen[0]) == 4
    assert seen[0] == seen[1] == seen[2]


def test_files_without_a_study_are_told_apart_by_patient(tmp_path: Path) -> None:
    for number, patient in enumerate(("P-1", "P-2", "P-1")):
        image(tmp_path / f"{number}", f"1.2.{number}", StudyInstanceUID="", PatientID=patient)
    assert sorted(len(study.radiographs) for study in load_studies([tmp_path])) == [1, 2]


def test_what_states_no_study_and_no_patient_joins_the_only_study(tmp_path: Path) -> None:
    image(tmp_path / "one", "1.2.1")
    image(tmp_path / "two", "1.2.2", StudyInstanceUID="", PatientID="")
    (study,) = load_studies([tmp_path])
    assert len(study.radiographs) == 2
    assert study.study_instance_uid == "1.2.3.4"


# ---- links, and this package's own files -----------------------------------------------------------------------------


def test_links_to_folders_inside_are_read_once_and_those_that_lead_out_are_named(tmp_path, two: list[Path]) -> None:
    image(tmp_path / "elsewhere" / "three", "1.2.3")
    folder = tmp_path / "in"
    (folder / "sub").mkdir()
    links = {"out": "../elsewhere", "up": "..", "self": ".", "sub/back": "..", "again": "sub", "gone": "nowhere"}
    for name, target in links.items():
        (folder / name).symlink_to(target, target_is_directory=True)
    (folder / "sub" / "film").symlink_to("../../elsewhere/three")  # a file, which is read
    study = load_study(folder)
    assert [radiograph.sop_instance_uid for radiograph in study.radiographs] == ["1.2.1", "1.2.2", "1.2.3"]
    named = [note.split(" is a link to a folder outside")[0] for note in study.warnings if "is a link" in note]
    assert named == ["skipped: out", "skipped: up"]
    assert any("gone" in note for note in study.warnings)
    (tmp_path / "linked").symlink_to("in", target_is_directory=True)
    assert len(load_study(tmp_path / "linked").radiographs) == 3


def test_own_results_beside_radiographs_are_passed_over_in_silence(tmp_path, two: list[Path]) -> None:
    for name in (*(form.file.format(region=region) for form in FORMATS.values() for region in REGIONS), *OWN):
        (two[0].parent / name).write_bytes(b"nothing")
    study = load_study(two[0].parent)
    assert (len(study.radiographs), study.rejects, study.warnings) == (2, (), ())
    (two[0].parent / "truth.txt").write_bytes(b"nothing")
    (warning,) = load_study(two[0].parent).warnings
    assert "truth.txt" in warning
    named = load_study(two[0].parent / "report.json")
    assert [reject.code for reject in named.rejects] == ["not-dicom"]


def test_a_radiograph_with_a_results_name_is_read(tmp_path: Path) -> None:
    for name in ("sr.dcm", "truth.json"):
        image(tmp_path / name, "1.2.1")
        assert len(load_study(tmp_path).radiographs) == 1
        (tmp_path / name).unlink()


def test_a_folder_of_results_alone_says_so(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_bytes(b"{}")
    (warning,) = load_study(tmp_path).warnings
    assert "results of this program and no radiographs" in warning
