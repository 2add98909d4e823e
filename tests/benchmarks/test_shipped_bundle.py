"""The bundle that ships with the package, on phantoms that it was not trained on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from golden.packing import FOLDER

from spinescore.benchmarks.phantom.checkpoints import rebuilt_tensors
from spinescore.benchmarks.phantom.evaluate import Tally
from spinescore.benchmarks.phantom.rebuilt import FIELDS, REBUILT, pictures
from spinescore.export.defaults import read_overrides
from spinescore.export.hrnet import build_hrnet
from spinescore.export.proof import TOLERANCE
from spinescore.export.resnet152 import build_resnet
from spinescore.export.sessions import run_model
from spinescore.runtime import Scorer, Study, StudyReport, load_study
from spinescore.runtime.acceptance.comparison import difference_of_range
from spinescore.runtime.acceptance.golden import normalised
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.bundle.provenance import UNCHECKED_NOTE, trust_of
from spinescore.runtime.engines.half import store_half
from spinescore.runtime.phantom import write_study

SEEDS = range(1_600_000, 1_600_008)
MAX_FP32_BYTES, MAX_BYTES = 25_000_000, 40_000_000
KINDS = ("localizer", "grader")


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    with Scorer.open("phantom-reference", "cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [write_study(seed, tmp_path_factory.mktemp("study")) for seed in SEEDS]


@pytest.fixture(scope="module")
def study(folders: list[Path]) -> Study:
    return load_study(folders[0])


def without_timings(report: StudyReport) -> dict[str, object]:
    document = json.loads(report.to_json())
    del document["timings_ms"]
    return document


def grades(report: StudyReport) -> list[int | None]:
    return [corner.grade for region in report.regions.values() for disc in region.discs for corner in disc.corners]


def test_it_is_small_and_says_what_it_is_for(scorer: Scorer) -> None:
    files = scorer.bundle.manifest.files.values()
    assert sum(entry.bytes for entry in files if entry.precision == "fp32") <= MAX_FP32_BYTES
    assert sum(entry.bytes for entry in files) <= MAX_BYTES
    assert "not for clinical use" in scorer.bundle.manifest.intended_use


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_rebuilt_from_its_tensors_is_exported_to_the_same_bytes(kind: str) -> None:
    path = Bundle.open("phantom-reference").path(f"{kind}.fp32.onnx")
    tensors = rebuilt_tensors(onnx.load(str(path)))
    assert {"conv1.weight", "bn1.running_var"} < set(tensors)
    build = build_hrnet if kind == "localizer" else build_resnet
    assert store_half(build(tensors)).SerializeToString() == path.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_it_gives_what_its_pytorch_networks_give(kind: str) -> None:
    bundle = Bundle.open("phantom-reference")
    with np.load(FOLDER / "shipped-torch.npz") as kept:
        outputs = kept[kind]
    grey = pictures(bundle, kind)
    size = bundle.manifest.localizer.input if kind == "localizer" else bundle.manifest.grader.input
    images = normalised(grey[:: len(grey) // len(outputs)], size)
    found = run_model(onnx.load(str(bundle.path(f"{kind}.fp32.onnx"))), images)
    if kind == "localizer":
        found = found[..., ::2, ::2]
    assert difference_of_range(outputs, found) <= TOLERANCE


def test_it_says_how_it_was_checked(scorer: Scorer, study: Study) -> None:
    manifest = scorer.bundle.manifest
    for entry in manifest.provenance["networks"].values():
        assert entry["checked"]["difference_of_range"] <= TOLERANCE
        assert "stored_difference_of_range" not in entry["checked"]
    assert [(found.name, REBUILT in found.checked, found.assumed) for found in trust_of(manifest)] == [
        (kind, True, ()) for kind in KINDS
    ]
    assert UNCHECKED_NOTE not in scorer.score(study).warnings


def test_its_manifest_is_as_the_fields_of_its_export_say() -> None:
    manifest = Bundle.open("phantom-reference").manifest.to_dict()
    stated = read_overrides(FIELDS)
    assert {name: manifest[name] for name in ("name", "version", "intended_use")} == {
        name: stated[name] for name in ("name", "version", "intended_use")
    }
    assert manifest["localizer"]["keypoints"] == stated["localizer"]["keypoints"]


def test_unseen_phantoms_are_scored_as_the_readme_says(scorer: Scorer, folders: list[Path]) -> None:
    """On 192 corners; the bounds leave room for the chance of so few, and are those of the full measure below."""
    tally = Tally()
    for folder in folders:
        tally.add(scorer.score(load_study(folder)), json.loads((folder / "truth.json").read_text("utf-8")))
    figures = tally.figures()
    assert figures["rejects"] == []
    assert figures["point_error_median"] <= 0.03
    assert figures["points_within_quarter"] >= 0.97
    assert figures["accuracy"] >= 0.80
    assert figures["kappa_quadratic"] >= 0.87


def test_two_runs_give_the_same_report(scorer: Scorer, study: Study, folders: list[Path]) -> None:
    first, second = scorer.score(study), scorer.score(load_study(folders[0]))
    assert without_timings(first) == without_timings(second)


def test_without_tags_the_picture_tells_region_and_facing(scorer: Scorer, study: Study) -> None:
    bare = [dataclasses.replace(radiograph, region=None, facing=None, view=None) for radiograph in study.radiographs]
    known, found = scorer.score(study), scorer.score(dataclasses.replace(study, radiographs=tuple(bare)))
    assert grades(found) == grades(known)
    for region, report in known.regions.items():
        assert found.regions[region].radiograph == report.radiograph


def test_a_mirror_image_has_the_same_grades(scorer: Scorer, study: Study) -> None:
    mirrored = [
        dataclasses.replace(radiograph, pixels=radiograph.pixels[:, ::-1].copy(), facing=None)
        for radiograph in study.radiographs
    ]
    known, found = scorer.score(study), scorer.score(dataclasses.replace(study, radiographs=tuple(mirrored)))
    assert grades(found) == grades(known)
    for region, report in known.regions.items():
        assert {found.regions[region].radiograph.facing, report.radiograph.facing} == {"left", "right"}  # type: ignore[union-attr]


def test_the_wrong_region_is_refused(scorer: Scorer, study: Study) -> None:
    swapped = [
        dataclasses.replace(radiograph, region=other)
        for radiograph, other in zip(study.radiographs, ("lumbar", "cervical"), strict=True)
    ]
    report = scorer.score(dataclasses.replace(study, radiographs=tuple(swapped)))
    assert [region.reject and region.reject.code for region in report.regions.values()] == ["wrong-region"] * 2


@pytest.mark.parametrize("kind", ["noise", "blank", "gradient"])
def test_what_is_no_spine_is_refused(scorer: Scorer, kind: str) -> None:
    rows, columns = 1800, 1400
    pictures = {
        "noise": np.random.default_rng(0).integers(0, 4096, (rows, columns)),
        "blank": np.full((rows, columns), 2000),
        "gradient": np.add.outer(np.arange(rows), np.arange(columns)),
    }
    report = scorer.score({"cervical": pictures[kind].astype(np.uint16)})
    assert report.regions["cervical"].status == "rejected"
    assert report.regions["lumbar"].status == "missing"
    assert report.total.value is None


@pytest.mark.parametrize(
    ("quarters", "tags", "code"),
    [
        (2, {"turn_deg": None}, "not-upright"),  # the header names the side alone, by one value of Patient Orientation
        (1, {"turn_deg": None, "facing": None}, "not-upright"),
        (2, {"turn_deg": 0}, "orientation-contradicts"),
    ],
)
def test_a_turned_picture_is_scored_as_it_stands(
    scorer: Scorer, study: Study, quarters: int, tags: dict[str, object], code: str
) -> None:
    turned = [
        dataclasses.replace(image, pixels=np.ascontiguousarray(np.rot90(image.pixels, quarters)), **tags)  # type: ignore[arg-type]
        for image in study.radiographs
    ]
    report = scorer.score(turned)
    assert grades(report) == grades(scorer.score(study))
    assert {region.radiograph.turn_deg for region in report.regions.values() if region.radiograph} == {90 * quarters}
    assert [found.code for found in report.findings if found.code == code] == [code, code]


def test_the_other_side_in_the_header_is_not_followed(scorer: Scorer, study: Study) -> None:
    report = scorer.score(study)
    seen = {
        region.radiograph.source: region.radiograph.facing for region in report.regions.values() if region.radiograph
    }
    other = {"left": "right", "right": "left", None: None}
    mirrored = [dataclasses.replace(image, facing=other[seen[image.source]]) for image in study.radiographs]  # type: ignore[arg-type]
    found = scorer.score(mirrored)
    assert grades(found) == grades(report)
    assert [one.code for one in found.findings].count("orientation-contradicts") == 2
