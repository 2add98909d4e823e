"""Studies as arrays: the grades of the same files, a wrong or missing facing, names, DICOM results."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest

from helpers.dicom_files import radiograph_dataset
from helpers.scoring import CERVICAL, LUMBAR, OTHER_GRADES, assert_found, checked, grades
from helpers.spy_device import Spy
from helpers.tiny import draw, write_bundle
from spinescore.runtime import (
    OutputError,
    Scorer,
    Study,
    load_study,
    radiograph_from_array,
)
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.outputs.source import scored_radiographs, source_of
from spinescore.runtime.phantom.study import draw_view

SEED, SCALE = 1_000_001, 0.35
PARTS = {"cervical": "CSPINE", "lumbar": "LSPINE"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def scorer(bundle):
    with Scorer.open(bundle, "cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def shipped():
    with Scorer.open("phantom-reference", "cpu", build="no") as opened:
        yield opened


@pytest.fixture(scope="module")
def phantom():
    """Return the view as 12 bits in 16, MONOCHROME2, with a window."""
    made = {}
    for region in PARTS:
        view = draw_view(SEED, region, SCALE)
        pixels = view.image.pixels.astype(np.int64) >> max(view.image.bits - 12, 0)
        pixels = (4095 - pixels if view.image.inverted else pixels).astype(np.uint16)
        made[region] = (pixels, tuple(np.percentile(pixels, (2, 98))), view)
    return made


def window_of(edges, photometric="MONOCHROME2", offset=0):
    low, high = edges if photometric == "MONOCHROME2" else (4095 - edges[1], 4095 - edges[0])
    return round((low + high) / 2) + offset, round(high - low)


def files(phantom):
    for region, (pixels, edges, view) in phantom.items():
        centre, width = window_of(edges)
        orientation = ["P", "F"] if view.facing == "left" else ["A", "F"]
        ds = radiograph_dataset(
            pixels, 12, BodyPartExamined=PARTS[region], PatientOrientation=orientation,
            PixelSpacing=[view.pixel_mm] * 2, WindowCenter=str(centre), WindowWidth=str(width),
        )  # fmt: skip
        ds.save_as(stream := io.BytesIO(), enforce_file_format=True)
        yield ds, stream.getvalue()


def totals(report):
    return [(grades(region), region.total) for region in checked(report).regions.values()], report.total.value


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i2", ">i2"])
def test_a_phantom_study_as_arrays_is_graded_as_its_files_are(shipped, phantom, dtype, photometric) -> None:
    expected = totals(shipped.score(load_study(*(data for _, data in files(phantom)))))
    offset = -2048 if "i" in dtype else 0
    radiographs = []
    for region, (pixels, edges, view) in phantom.items():
        stored = pixels if photometric == "MONOCHROME2" else 4095 - pixels
        given = (stored.astype(np.int64) + offset).astype(dtype)
        radiographs.append(
            radiograph_from_array(
                given, region=region, facing=view.facing, spacing_mm=view.pixel_mm, bits_stored=12,
                photometric=photometric, window=window_of(edges, photometric, offset + (photometric == "MONOCHROME1")),
            )
        )  # fmt: skip
    assert expected[1] is not None
    assert totals(shipped.score(radiographs)) == expected


def test_a_phantom_study_as_datasets_and_as_arrays_with_headers(shipped, phantom) -> None:
    datasets, data = zip(*files(phantom), strict=True)
    expected = totals(shipped.score(load_study(*data)))
    assert totals(shipped.score(datasets)) == expected
    assert totals(shipped.score(dict(zip(phantom, datasets, strict=True)))) == expected
    images = [
        radiograph_from_array(pixels, header=ds) for ds, (pixels, _, _) in zip(datasets, phantom.values(), strict=True)
    ]
    report = shipped.score(images)
    assert totals(report) == expected
    assert report.study.study_instance_uid == "1.2.3.4"


def test_bare_arrays_of_either_byte_order(shipped, phantom) -> None:
    native = {region: pixels for region, (pixels, _, _) in phantom.items()}
    expected = totals(shipped.score(native))
    assert expected[1] is not None
    assert totals(shipped.score({region: pixels.astype(">u2") for region, pixels in native.items()})) == expected
    by_hand = [replace(radiograph_from_array(pixels, region=region), pixels=pixels.astype(">u2"))
               for region, pixels in native.items()]  # fmt: skip
    assert totals(shipped.score(by_hand)) == expected


@pytest.mark.parametrize("film", ["left", "right"])
@pytest.mark.parametrize("with_header", [False, True])
def test_a_wrong_facing_is_found_and_named(scorer, film, with_header) -> None:
    images = []
    for drawn in (draw("cervical", facing=film), draw("lumbar", OTHER_GRADES, facing=film)):
        pixels, region = drawn.radiograph.pixels, drawn.radiograph.region
        tags = {"WindowCenter": "128", "WindowWidth": "256", "BodyPartExamined": PARTS[region], "PixelSpacing": None}
        header = radiograph_dataset(pixels, 8, **tags) if with_header else None
        wrong = "left" if film == "right" else "right"
        images.append((drawn, radiograph_from_array(pixels, region=region, facing=wrong, header=header)))
    report = checked(scorer.score([image for _, image in images]))
    for drawn, image in images:
        region = report.regions[image.region]
        assert_found(region, drawn)
        assert region.radiograph.facing == film
        found = [one for one in report.findings if one.region == image.region and one.code == "orientation-contradicts"]
        assert len(found) == 1
        assert (
            f"the facing was given as {image.facing}, but the picture shows the patient upright, facing {film}; the"
            in found[0].message
        )
        assert found[0].message.endswith("correct the facing that is given.")


@pytest.mark.parametrize("seed", [1_500_000, 1_500_077])
def test_a_wrong_facing_is_found_though_the_mirrored_picture_looks_like_a_spine(shipped, seed) -> None:
    """In the mirrored picture these discs have a mean confidence of 0.77 and 0.83."""
    view = draw_view(seed, "lumbar")
    facts = {"region": "lumbar", "spacing_mm": view.pixel_mm, "window": view.image.window}
    facts["photometric"] = "MONOCHROME1" if view.image.inverted else "MONOCHROME2"
    other = "left" if view.facing == "right" else "right"
    reports = [
        shipped.score([radiograph_from_array(view.image.pixels, facing=facing, **facts)])
        for facing in (view.facing, other)
    ]
    assert [report.regions["lumbar"].radiograph.facing for report in reports] == [view.facing] * 2
    assert reports[0].regions["lumbar"].total == reports[1].regions["lumbar"].total
    found = [[one.code for one in report.findings if one.code == "orientation-contradicts"] for report in reports]
    assert found == [[], ["orientation-contradicts"]]


def test_a_missing_facing_costs_a_run_of_the_localizer_for_each_radiograph(tmp_path) -> None:
    """A second run is made only if the peaks leave a doubt; in this bundle they leave none."""
    bundle = write_bundle(tmp_path, **{"localizer.min_confidence": 0.2})
    runs = {}
    for given in ("left", None):
        spy = Spy()
        with Scorer(Bundle.open(bundle), spy) as scorer:
            spy.inputs.clear()
            images = [
                radiograph_from_array(one.radiograph.pixels, region=one.radiograph.region, facing=given)
                for one in (CERVICAL, LUMBAR)
            ]
            report = scorer.score(images)
            assert_found(report.regions["cervical"], CERVICAL)
            runs[given] = len(spy.inputs)
    assert runs[None] - runs["left"] == 2


def test_arrays_of_one_region_are_told_apart(scorer) -> None:
    faint = np.zeros_like(CERVICAL.radiograph.pixels)
    faint[:, 300:450] = 100
    pixels = (faint, CERVICAL.radiograph.pixels)
    report = checked(scorer.score([radiograph_from_array(one, region="cervical") for one in pixels]))
    assert_found(report.regions["cervical"], CERVICAL)
    assert report.regions["cervical"].radiograph.source == "cervical array 2 of 2"
    assert "cervical array 2 of 2 was scored, not cervical array 1 of 2." in report.warnings[0]
    named = [radiograph_from_array(one, region="cervical", name=name) for one, name in zip(pixels, "AB", strict=True)]
    assert "B was scored, not A." in scorer.score(named).warnings[0]


def test_results_find_the_radiograph_that_was_told_apart(scorer) -> None:
    faint = np.zeros_like(CERVICAL.radiograph.pixels)
    faint[:, 300:450] = 100
    study = Study(tuple(radiograph_from_array(one, region="cervical") for one in (faint, CERVICAL.radiograph.pixels)))
    report = scorer.score(study)
    ((_, radiograph, _),) = scored_radiographs(study, report)
    assert np.shares_memory(radiograph.pixels, CERVICAL.radiograph.pixels)


def test_one_array_that_is_too_large_costs_its_region_alone(scorer) -> None:
    large = np.broadcast_to(np.zeros((1, 1), np.uint8), (11_000, 10_000))
    report = checked(scorer.score({"cervical": large, "lumbar": LUMBAR.radiograph.pixels}))
    assert report.regions["cervical"].reject.code == "too-large"
    assert_found(report.regions["lumbar"], LUMBAR)


def test_a_dataset_that_is_refused_costs_its_region_alone(scorer) -> None:
    broken = radiograph_dataset(Rows=40)
    report = checked(scorer.score({"cervical": broken, "lumbar": LUMBAR.radiograph}))
    assert report.regions["cervical"].reject.code == "corrupt-pixels"
    assert report.regions["cervical"].reject.source == f"dataset {broken.SOPInstanceUID}"
    assert_found(report.regions["lumbar"], LUMBAR)


def test_an_array_without_a_header_has_no_dicom_results() -> None:
    with pytest.raises(
        OutputError, match=r"^neck has no DICOM header.*radiograph_from_array\(pixels, header=dataset\)"
    ):
        source_of(radiograph_from_array(CERVICAL.radiograph.pixels, name="neck"))
