"""README.md and the pages of docs as tests read them: their commands, programs, links, and the files that they need."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")))
}
MARK = re.compile(r"#\s+(?:needs|takes) ")  # a command or a program that tests do not run
_FENCED = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    return [text for name, text in _FENCED.findall(PAGES[page]) if name == language]


def programs(page: str) -> list[str]:
    """The Python programs of a page."""
    return blocks(page, "python")


def is_marked(text: str) -> bool:
    """Whether the first line of a program or a command says that it needs or takes something special."""
    return bool(MARK.search(text.splitlines()[0]))


def commands(page: str) -> list[str]:
    """The lines of a page that stand alone as commands, with their comments."""
    return re.findall(r"^    (\S.*)$", _FENCED.sub("", PAGES[page]), re.MULTILINE)


def inline(page: str) -> list[str]:
    """The pieces of code within the text of a page, each on one line."""
    text = re.sub(r"^    \S.*$", "", _FENCED.sub("", PAGES[page]), flags=re.MULTILINE)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", PAGES[page]), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def small_bundle(path: Path) -> None:
    """Copy the shipped bundle with the golden inputs of one study, which are verified sooner."""
    shutil.copytree(ROOT / "runtime/bundles/phantom-reference", path)
    document = json.loads((path / "bundle.json").read_text(encoding="utf-8"))
    with np.load(path / "golden/localizer.npz") as stored:
        first = [int(np.argmax(stored["region_both"] == region)) for region in (0, 1)]
        arrays = {"localizer": {name: stored[name][first] for name in stored.files}}
    with np.load(path / "golden/grader.npz") as stored:
        rows = [6 * radiograph + disc for radiograph in first for disc in range(6)]
        arrays["grader"] = {name: stored[name][rows] for name in stored.files}
    for name, parts in arrays.items():
        file = path / f"golden/{name}.npz"
        np.savez(file, **parts)
        entry = document["files"][f"golden/{name}.npz"]
        entry["sha256"], entry["bytes"] = hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_size
    (path / "bundle.json").write_text(json.dumps(document), encoding="utf-8")


class Folder:
    """A folder in which a page's commands run. A file that a command names is made when it is first needed."""

    def __init__(self, path: Path, page: str, study: Path, score: Callable[[str], None]) -> None:
        """`study` is a phantom's folder; `score` runs one command line in this folder."""
        self.path, self.page, self.study, self._score = path, page, study, score
        self._makers: dict[str, Callable[[Path], object]] = {
            "study": lambda path: shutil.copytree(study, path),
            "demo/study": lambda path: shutil.copytree(study, path),
            "my-bundle": small_bundle,
            "study.zip": lambda path: shutil.make_archive(str(path.with_suffix("")), "zip", study),
            "DICOMDIR": self._dicomdir,
            "film.dcm": lambda path: shutil.copy(study / "lumbar.dcm", path),
            "film.png": lambda path: self._picture(path, "lumbar"),
            "films.csv": self._list_of_films,
            "fields.toml": lambda path: path.write_text(""),
            "points.json": self._points,
            "reader.csv": self._reader,
            "results": self._score_into,
            "reports": self._score_into,
            "list.csv": lambda path: path.write_text("patient_id,treatment\n4711,a\n4712,b\n"),
            "mri.csv": self._exposures,
            "before.json": self._latency,
            "after.json": self._latency,
        }

    def prepare(self, words: list[str]) -> None:
        """Make the files that these words of a command, or texts of a program, name and that are not there yet."""
        for before, word in zip(["", *words], words, strict=False):
            name = word.rstrip("/")
            if name in self._makers and before != "--out" and not (self.path / name).exists():
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                self._makers[name](self.path / name)

    def _score_into(self, path: Path) -> None:
        self.prepare(["study"])
        self._score(f"spinescore score study --out {path.name} --format json")

    def _truths(self) -> list[dict]:
        """The truth of every phantom in this folder, or else of the study that pages begin with."""
        files = sorted((self.path / "films").glob("*/truth.json")) or [self.study / "truth.json"]
        return [json.loads(path.read_text(encoding="utf-8")) for path in files]

    def _reader(self, path: Path) -> None:
        """A reader's grades: the true ones."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["study", "site", "grade"])
            for truth in self._truths():
                for region in truth["regions"].values():
                    for corner in (corner for disc in region["discs"] for corner in disc["corners"]):
                        writer.writerow([truth["study"]["study_instance_uid"], corner["site"], corner["grade"]])

    def _points(self, path: Path) -> None:
        """The points that the page shows, or else the true ones of every phantom in this folder."""
        shown = blocks(self.page, "json")
        points = {
            truth["study"]["study_instance_uid"]: {
                region: {
                    disc["level"]: {name: disc[name] for name in ("centre_px", "anterior_px")}
                    for disc in value["discs"]
                }
                for region, value in truth["regions"].items()
            }
            for truth in self._truths()
        }
        path.write_text(shown[0] if shown else json.dumps(points), encoding="utf-8")

    def _exposures(self, path: Path) -> None:
        with (self.path / "tables" / "units.csv").open(encoding="utf-8", newline="") as file:
            patients = {row["patient_key"] for row in csv.DictReader(file)}
        lines = [
            f"{key},{level},{n % 2},{30 + n},{n}" for key in patients for n, level in enumerate(("C2/C3", "L1/L2"))
        ]
        path.write_text("\n".join(["patient,level,exposure,age,crp", *lines, ""]), encoding="utf-8")

    def _latency(self, path: Path) -> None:
        shutil.copy(ROOT / "benchmarks/results/latency-epyc-2-cores.json", path)

    def _picture(self, path: Path, region: str) -> None:
        """A radiograph of the study as PNG, as it would look on film."""
        import cv2
        from pydicom import dcmread

        from spinescore.runtime import load_radiograph

        radiograph = load_radiograph(self.study / f"{region}.dcm")
        grey = radiograph.table[radiograph.pixels.astype(np.int64) - radiograph.stored_min] * 255
        mirrored = dcmread(self.study / f"{region}.dcm", stop_before_pixels=True).PatientOrientation[0] == "A"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.rint(grey[:, :: -1 if mirrored else 1]).astype(np.uint8))

    def _list_of_films(self, path: Path) -> None:
        (shown,) = blocks(self.page, "csv")
        path.write_text(shown, encoding="utf-8")
        for name, region in (("neck", "cervical"), ("back", "lumbar")):
            self._picture(self.path / f"p01/{name}.png", region)

    def _dicomdir(self, path: Path) -> None:
        from pydicom import dcmread
        from pydicom.fileset import FileSet

        fileset = FileSet()
        for file in sorted(self.study.glob("*.dcm")):
            dataset = dcmread(file)
            dataset.StudyTime, dataset.StudyID, dataset.SeriesNumber = "101010", "1", 1
            fileset.add(dataset)
        fileset.write(path.parent)
        fileset._stage["t"].cleanup()  # or pydicom leaves it to the garbage collector, which warns
