"""A bounded share of the fuzzing, the files that it found, and the harness that finds them.

The long run is by hand: `python -m spinescore.benchmarks.fuzz --count 10000`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from spinescore.benchmarks.fuzz import __main__ as fuzz
from spinescore.benchmarks.fuzz.mutations import mutant
from spinescore.benchmarks.fuzz.parents import all_parents
from spinescore.benchmarks.fuzz.tree import PIXEL_DATA, encoded, parent
from spinescore.runtime.errors import REJECT_CODES, InputRejected
from spinescore.runtime.reading.studies import load_radiograph
from spinescore.runtime.study import Radiograph

pytest.importorskip("imagecodecs", reason="the files that are mutated are written with imagecodecs")

FIRST_SEED, SHARE = 1_000_000, 200
REGRESSIONS = sorted(Path(__file__).parent.joinpath("regressions").glob("*.bin"))


@pytest.fixture(scope="module")
def parents():
    return all_parents()


def test_phantoms_can_be_read_and_taken_apart(parents) -> None:
    phantoms = [one for one in parents if one.name.startswith("phantom")]
    assert len({one.name for one in phantoms}) >= 13
    for one in phantoms:
        found = load_radiograph(one.data)
        assert (found.region, found.view) == ("cervical", "lateral")
        assert one.tree is not None
        assert any(element.tag == PIXEL_DATA for element in one.tree.elements)
        np.testing.assert_array_equal(load_radiograph(encoded(one.tree)).pixels, found.pixels)


def test_files_that_cannot_be_taken_apart_are_parents_too() -> None:
    for data in (b"", b"\0" * 200, b"\0" * 128 + b"DICM" + b"\2\0\0\0"):
        assert parent("odd", data).tree is None


def test_a_seed_gives_the_same_file(parents) -> None:
    files = [mutant(parents, seed) for seed in range(40)]
    assert files == [mutant(parents, seed) for seed in range(40)]
    assert len(set(files)) > 30


@pytest.mark.parametrize("first", range(FIRST_SEED, FIRST_SEED + SHARE, 50))
def test_share(parents, tmp_path: Path, first: int) -> None:
    """Any file gives a radiograph or a coded reject, and no warning (warnings are errors here)."""
    found = {fuzz.outcome(mutant(parents, seed), tmp_path, seed)[0] for seed in range(first, first + 50)}
    assert found <= {"read", *REJECT_CODES}
    assert len(found) > 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: path.stem)
def test_regressions(tmp_path: Path, path: Path) -> None:
    """Files that were once read wrongly. A file's name begins with the code that it must get."""
    for way in range(4):
        code, message = fuzz.outcome(path.read_bytes(), tmp_path, way)
        assert path.stem.startswith(f"{code}-"), message


# ---- the harness -----------------------------------------------------------------------------------------------------


def test_what_is_broken_is_noticed(monkeypatch, tmp_path: Path) -> None:
    pixels, table = np.zeros((2, 2), np.uint16), np.linspace(0, 1, 16, dtype=np.float32)
    for broken in (Radiograph(pixels + 16, table), Radiograph(pixels[::2], table.astype(np.float32) * 2),
                   Radiograph(pixels.astype(float), table), Radiograph(pixels, table * np.nan)):  # fmt: skip
        monkeypatch.setattr(fuzz, "load_radiograph", lambda _, found=broken: found)
        with pytest.raises(fuzz.Broken):
            fuzz.outcome(b"", tmp_path, 1)

    def refuse(_: object) -> Radiograph:
        raise InputRejected("not-dicom", f"{tmp_path}/mutant is not a DICOM file")

    monkeypatch.setattr(fuzz, "load_radiograph", refuse)
    with pytest.raises(fuzz.Broken, match="folder"):
        fuzz.outcome(b"", tmp_path, 1)


@pytest.mark.parametrize(("ms", "mb", "outcome", "failed"), [
    (10.0, 200.0, "read", False), (10.0, None, "too-large", False), (5001.0, 200.0, "read", True),
    (10.0, 1501.0, "read", True), (10.0, 200.0, "ValueError: no", True),
])  # fmt: skip
def test_what_fails(ms: float, mb: float | None, outcome: str, failed: bool) -> None:
    assert fuzz.Mutant(1, outcome, ms, mb).failed == failed


def test_crash_and_hang_are_those_of_their_mutant(monkeypatch) -> None:
    """Children that end at mutant 2 and are silent at mutant 4; the mutants before and after are still read."""
    code = """
import json, os, sys, time
for seed in range(int(sys.argv[1]), int(sys.argv[2])):
    print(json.dumps({"begins": seed}), flush=True)
    if seed == 2: os._exit(9)
    if seed == 4: time.sleep(300)
    print(json.dumps({"seed": seed, "outcome": "read", "ms": 1.0}), flush=True)
"""
    monkeypatch.setattr(fuzz, "_PATIENCE_S", 2.0)
    monkeypatch.setattr(
        fuzz, "_command", lambda seeds, files: [sys.executable, "-c", code, str(seeds.start), str(seeds.stop)]
    )
    found = list(fuzz._batch(range(6), []))
    assert [one.seed for one in found] == [0, 1, 2, 3, 4, 5]
    assert [one.seed for one in found if one.failed] == [2, 4]
    assert found[2].outcome == "crash: status 9"
    assert found[4].outcome.startswith("hang")


def test_a_run_leaves_its_figures(tmp_path: Path, capsys) -> None:
    status = fuzz.main(["--count", "5", "--seed", "77", "--out", str(tmp_path / "f.json"), "--keep", str(tmp_path)])
    record = json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))
    assert status == 0, capsys.readouterr().err
    assert (record["schema"], record["count"], record["first_seed"]) == (fuzz.SCHEMA, 5, 77)
    assert sum(record["outcomes"].values()) == 5
    assert record["failures"] == []
    assert 77 <= record["slowest"]["seed"] < 82
