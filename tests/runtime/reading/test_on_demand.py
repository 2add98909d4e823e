"""One call holds one study at a time, and no more pixels than its budget."""

from __future__ import annotations

import json
import weakref
import zipfile
from pathlib import Path

import numpy as np
import pytest

from helpers import tiny
from helpers.dicom_files import picture, radiograph_dataset, write
from helpers.tiny_study import TOTAL, write_study
from spinescore.runtime import Scorer, cli, load_study
from spinescore.runtime.machine import memory as machine_memory
from spinescore.runtime.reading import memory, ondemand
from spinescore.runtime.reading.filelist import load_listed, read_list
from spinescore.runtime.reading.ondemand import StudiesOnDemand
from spinescore.runtime.reading.studies import load_studies

COUNT = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with studies, a file that is no radiograph, a truncated file, and a file that states no study."""
    folder = tmp_path_factory.mktemp("studies")
    for number in range(COUNT):
        write_study(folder / str(number), uid=f"1.2.3.{number}")
    (folder / "notes.txt").write_text("no radiograph", encoding="utf-8")
    path = folder / "0" / "short.dcm"
    path.write_bytes((folder / "0" / "lumbar.dcm").read_bytes()[:5000])
    write(radiograph_dataset(picture(8), 8, StudyInstanceUID=None, PatientID="other"), folder / "stray.dcm")
    return folder


def facts(study) -> list[object]:
    images = [(image.source, image.sop_instance_uid, image.pixels.tobytes()) for image in study.radiographs]
    return [study.study_instance_uid, images, study.rejects, study.warnings, study.patient_key]


@pytest.mark.parametrize("packed", [False, True])
def test_studies_are_the_same_on_demand(folder, tmp_path, packed):
    given = folder
    if packed:
        given = tmp_path / "studies.zip"
        with zipfile.ZipFile(given, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.rglob("*")):
                archive.write(path, path.relative_to(folder))
    eager, found = load_studies([given]), load_studies([given], on_demand=True)
    assert isinstance(found, StudiesOnDemand)
    try:
        assert [facts(study) for study in found] == [facts(study) for study in eager]
        assert [head.study_instance_uid for head in found.heads] == [study.study_instance_uid for study in eager]
        assert facts(found[-1]) == facts(eager[-1])
        assert [facts(study) for study in found[1:3]] == [facts(study) for study in eager[1:3]]
        with pytest.raises(IndexError):
            found[len(eager)]
    finally:
        found.close()
        found.close()


def test_studies_that_were_used_are_let_go(folder):
    found = load_studies([folder], on_demand=True)
    kept = []
    for number in range(COUNT):
        study = found[number]
        kept.append(weakref.ref(study.radiographs[0].pixels))
        del study
        assert sum(reference() is not None for reference in kept) == 0
    found.close()


@pytest.mark.parametrize(("ahead_bytes", "numbers"), [(None, [0, 1, 2]), (0, [0, 1])])
def test_small_studies_are_read_ahead_unless_the_machine_is_wanted_whole(folder, ahead_bytes, numbers):
    found = load_studies([folder], on_demand=True)
    if ahead_bytes is not None:
        found.ahead_bytes = ahead_bytes
    seen, read = [], found._read

    def counted(number):
        seen.append(number)
        return read(number)

    found._read = counted
    assert found[0].radiographs
    assert found[1].radiographs
    found.close()
    assert seen == numbers


def test_few_files_are_read_at_once(folder):
    studies = load_studies(sorted((folder / "1").iterdir()), on_demand=True)
    assert isinstance(studies, list)
    assert studies[0].read_ms


def test_the_call_scores_study_by_study(folder, tmp_path, capsys):
    bundle = tiny.write_bundle(tmp_path / "bundle")
    assert cli.main(["score", str(folder), "--bundle", str(bundle), "--json"]) == 0
    reports = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    totals = {report["study"]["study_instance_uid"]: report["total"]["value"] for report in reports}
    assert {uid: total for uid, total in totals.items() if uid and uid.startswith("1.2.3.")} == {
        f"1.2.3.{number}": TOTAL for number in range(COUNT)
    }


def test_what_is_stated_is_checked_before_any_is_scored(folder, tmp_path, capsys):
    bundle = tiny.write_bundle(tmp_path / "bundle")
    assert cli.main(["score", str(folder), "--bundle", str(bundle), "--region", "lumbar", "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "states the region cervical" in printed.err


def test_pixels_beyond_the_budget_are_refused_in_the_order_of_files(tmp_path, monkeypatch):
    for number in range(5):
        pixels = np.zeros((200, 300), np.uint16)
        write(radiograph_dataset(pixels, 16, SOPInstanceUID=f"1.2.{number}"), tmp_path / f"{number}.dcm")
    monkeypatch.setenv(memory.LIMIT_VARIABLE, str(2 * 200 * 300 * 2))
    study = load_study(tmp_path)
    assert [image.sop_instance_uid for image in study.radiographs] == ["1.2.0", "1.2.1"]
    assert [(reject.code, reject.source) for reject in study.rejects] == [
        ("too-large", f"{number}.dcm") for number in (2, 3, 4)
    ]
    assert memory.LIMIT_VARIABLE in study.rejects[0].message


def test_the_limit_follows_the_machine(monkeypatch, tmp_path):
    monkeypatch.delenv(memory.LIMIT_VARIABLE, raising=False)
    monkeypatch.setattr(memory, "memory_bytes", lambda: 3 << 30)
    assert memory.pixel_limit() == 3 << 29
    monkeypatch.setattr(memory, "memory_bytes", lambda: 64 << 30)
    assert memory.pixel_limit() == 4 << 30
    for text in ("0", "-5", "many", "1e9"):
        monkeypatch.setenv(memory.LIMIT_VARIABLE, text)
        assert memory.pixel_limit() == 4 << 30
    monkeypatch.setenv(memory.LIMIT_VARIABLE, "1000")
    assert memory.pixel_limit() == 1000


def test_a_container_with_less_memory_counts(monkeypatch, tmp_path):
    container = tmp_path / "memory.max"
    monkeypatch.setattr(machine_memory, "_CGROUP", container)
    container.write_text("1073741824\n", encoding="ascii")
    assert machine_memory.memory_bytes() <= 1 << 30
    container.write_text("max\n", encoding="ascii")
    assert machine_memory.memory_bytes() > 0


def test_too_little_memory_is_a_reject(folder, monkeypatch):
    from spinescore.runtime.reading import pixels

    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr(pixels, "read_pixels", fail)
    study = load_study(folder / "1")
    assert {reject.code for reject in study.rejects} == {"too-large"}


def counted(monkeypatch) -> list[int]:
    """Return a list that the call fills: how many pictures of other studies are in memory at each study."""
    held: list[weakref.ref] = []
    others: list[int] = []

    def note(self, study, *given, **options):
        others.append(sum(image() is not None for image in held))
        held.extend(weakref.ref(image.pixels) for image in study.radiographs)
        return method(self, study, *given, **options)

    method = Scorer.crops
    monkeypatch.setattr(Scorer, "crops", note)
    monkeypatch.setattr(ondemand, "_AHEAD_BYTES", 0)  # what is read ahead is in memory on purpose
    return others


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("anonymous", [False, True])
def test_crops_go_study_by_study(folder, tmp_path, monkeypatch, listed, anonymous):
    bundle = tiny.write_bundle(tmp_path / "bundle")
    words = [str(folder / str(number)) for number in range(1, COUNT)]
    if listed:
        films = [str(path) for name in words for path in sorted(Path(name).glob("*.dcm"))]
        (tmp_path / "list.csv").write_text("\n".join(["path", *films]), encoding="utf-8")
        words = ["--inputs", str(tmp_path / "list.csv")]
    words += ["--anonymous"] if anonymous else []
    others = counted(monkeypatch)
    out = tmp_path / "crops"
    assert cli.main(["crops", *words, "--bundle", str(bundle), "--out", str(out)]) == 0
    assert others == [0] * (COUNT - 1)
    names = {path.name.partition("_")[0] for path in out.glob("*.png")}
    assert len(names) == COUNT - 1
    rows = (out / "index.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + len(list(out.glob("*.png")))


def test_crops_are_the_same_on_demand(folder, tmp_path):
    bundle = tiny.write_bundle(tmp_path / "bundle")
    given = [str(folder / str(number)) for number in (1, 2)]
    assert cli.main(["crops", *given, "--bundle", str(bundle), "--out", str(tmp_path / "both")]) == 0
    for one in given:  # two files, which are read at once
        assert cli.main(["crops", one, "--bundle", str(bundle), "--out", str(tmp_path / "each")]) == 0
    both, each = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("both", "each"))
    assert both == each


def test_a_list_is_read_study_by_study(folder, tmp_path):
    films = [str(path) for number in range(1, COUNT) for path in sorted((folder / str(number)).glob("*.dcm"))]
    (tmp_path / "list.csv").write_text("\n".join(["path", *films, str(folder / "notes.txt")]), encoding="utf-8")
    files = read_list(tmp_path / "list.csv")
    eager, found = load_listed(files), load_listed(files, on_demand=True)
    assert isinstance(eager, list)
    assert isinstance(found, StudiesOnDemand)
    found.ahead_bytes = 0
    kept = []
    for number, like in enumerate(eager):
        study = found[number]
        assert facts(study) == facts(like)
        assert found.heads[number].study_instance_uid == like.study_instance_uid
        kept += [weakref.ref(image.pixels) for image in study.radiographs]
        del study
        assert not any(image() is not None for image in kept)
    found.close()


def test_pixels_of_a_listed_study_have_a_budget(tmp_path, monkeypatch):
    for number in range(4):
        pixels = np.zeros((200, 300), np.uint16)
        write(radiograph_dataset(pixels, 16, SOPInstanceUID=f"1.2.{number}"), tmp_path / f"{number}.dcm")
    (tmp_path / "list.csv").write_text("\n".join(["path", *(f"{number}.dcm" for number in range(4))]))
    monkeypatch.setenv(memory.LIMIT_VARIABLE, str(2 * 200 * 300 * 2))
    (study,) = load_listed(read_list(tmp_path / "list.csv"))
    assert len(study.radiographs) == 2
    assert [(reject.code, reject.source) for reject in study.rejects] == [
        ("too-large", "2.dcm"),
        ("too-large", "3.dcm"),
    ]
