"""The page: its content; it loads nothing, and no text of the input becomes markup."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import pages, tiny
from spinescore.runtime import Scorer, Study
from spinescore.runtime.outputs.html import html
from spinescore.runtime.outputs.marks import disc_marks
from spinescore.runtime.outputs.svg import clean
from spinescore.runtime.scoring.report import RejectInfo
from spinescore.runtime.study import SITES

ALL_SITES = [site for sites in SITES.values() for site in sites]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    with Scorer.open(tiny.write_bundle(tmp_path_factory.mktemp("bundle")), device="cpu") as opened:
        yield opened


@pytest.fixture(scope="module")
def report(scorer):
    return scorer.score(pages.complete())


@pytest.fixture(scope="module")
def text(scorer, report):
    return html(pages.complete(), report)


@pytest.fixture(scope="module")
def page(text):
    return pages.Page.of(text)


def page_of(scorer, study, report=None):
    return pages.Page.of(html(study, report or scorer.score(study)))


def test_every_site_has_its_grade_and_probabilities(page, report):
    rows = {row.attributes["id"].removeprefix("row-"): row for row in page.named("tr") if "id" in row.attributes}
    assert list(rows) == ALL_SITES
    for region in report.regions.values():
        for corner in (corner for disc in region.discs for corner in disc.corners):
            percents = "".join(f"{100 * p:.0f}" for p in corner.probabilities)
            assert f"{corner.site}{corner.grade}{percents}" in rows[corner.site].text


def test_totals_identity_and_notice_are_on_it(page, report, scorer):
    manifest = scorer.bundle.manifest
    said = ("26 of 72", "13 of 36", "2026-01-05", "1.2.3.4", f"{manifest.name} {manifest.version}")
    for words in (*said, scorer.bundle.sha256, "Not a medical device.", manifest.intended_use, report.device.name):
        assert words in page.text
    assert "All 24 corners were graded" in page.text


def test_it_is_a_whole_document_for_every_reader(page):
    assert page.named("html", lang="en")
    assert all(head.attributes.get("scope") in ("col", "row", "rowgroup") for head in page.named("th"))
    assert len(page.named("caption")) == len(page.named("table"))
    assert all(e.attributes.get("aria-label") for e in page.elements if e.attributes.get("role") in ("img", "group"))
    assert len(page.named("h1")) == 1
    inputs = {element.attributes["id"] for element in page.named("input")}
    assert inputs == {label.attributes["for"] for label in page.named("label")}
    ids = [element.attributes["id"] for element in page.elements if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    targets = {e.attributes["href"] for e in page.elements if e.attributes.get("href", "").startswith("#")}
    assert {target[1:] for target in targets} <= set(ids)


def test_it_loads_nothing(text, page):
    for element in page.elements:
        assert "style" not in element.attributes  # its policy would refuse it
        assert not any(name.startswith("on") for name in element.attributes)
        for name in ("href", "src", "srcset", "action", "poster", "data"):
            assert re.match(r"#|data:image/jpeg;base64,", element.attributes.get(name, "#"))
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|WebSocket|https?:", text)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & {element.name for element in page.elements}


def test_its_policy_admits_its_own_style_and_script_alone(page):
    (policy,) = (e.attributes["content"] for e in page.named("meta") if "http-equiv" in e.attributes)
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for kind in ("style", "script"):
        (element,) = page.named(kind)
        digest = base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_pictures_are_the_radiographs(page):
    for picture, radiograph in zip(page.named("image"), pages.complete().radiographs, strict=True):
        data = base64.b64decode(picture.attributes["href"].split(",")[1])
        shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert shown.shape == radiograph.pixels.shape
        grey = radiograph.table[radiograph.pixels.astype(int) - radiograph.stored_min] * 255
        assert np.abs(shown - grey).mean() < 2
        assert (picture.attributes["width"], picture.attributes["x"]) == (str(radiograph.columns), "-0.5")


def test_marks_stand_where_the_report_says(page, report, scorer):
    circles = [e for e in page.named("circle") if "g" in e.inside]
    uses = {e.attributes["href"]: [] for e in page.named("use")}
    for use in (e for e in page.named("use") if "a" in e.inside):
        place = [float(use.attributes[name]) for name in ("x", "y", "width")]
        uses[use.attributes["href"]].append((place[0] + place[2] / 2, place[1] + place[2] / 2))
    found = iter([float(circle.attributes[name]) for name in ("cx", "cy")] for circle in circles)
    for region in report.regions.values():
        for marks in disc_marks(region, report.bundle.rules):
            assert next(found) == pytest.approx(marks.disc.centre_px, abs=0.06)
            assert next(found) == pytest.approx(marks.disc.anterior_px, abs=0.06)
            for badge in marks.badges:
                places = np.array(uses[f"#badge-{badge.corner.grade}"])
                assert np.linalg.norm(places - badge.centre, axis=1).min() < 0.2
    assert next(found, None) is None


def test_a_bridge_is_drawn_as_one(page, report):
    bridged = sum(disc.corners[0].grade == 3 for region in report.regions.values() for disc in region.discs)
    assert len(page.named("line", class_="bridge")) == bridged == 2


def test_large_noisy_radiographs_make_no_large_page(scorer, report):
    noise = np.random.default_rng(0).integers(0, 256, (2400, 2200)).astype(np.uint8)
    study = pages.complete()
    study = replace(study, radiographs=tuple(replace(image, pixels=noise) for image in study.radiographs))
    for name, region in report.regions.items():
        info = replace(region.radiograph, rows=2400, columns=2200, pixels_digest=None)
        report = replace(report, regions={**report.regions, name: replace(region, radiograph=info)})
    assert len(html(study, report)) < 3_000_000


def test_a_rejected_region_says_why_and_shows_its_radiograph(scorer):
    page = page_of(scorer, pages.rejected())
    assert "Rejected (low-confidence)." in page.text
    assert "Cervical: rejected, low-confidence; its 12 corners have no grade" in page.text
    assert "No total" in page.text
    assert page.text.count("Warning: skipped: a/folder/of/names/that/are/long/notes-") == 10
    assert len(page.named("image")) == 2
    assert len([row for row in page.named("tr") if "id" in row.attributes]) == 12


def test_a_radiograph_that_is_not_lateral_is_shown_with_the_reason(scorer):
    cervical, lumbar = pages.complete().radiographs
    study = replace(pages.complete(), radiographs=(replace(cervical, view="other"), lumbar))
    page = page_of(scorer, study)
    assert "Rejected (not-lateral)." in page.text
    assert len(page.named("image")) == 2


def test_an_alternative_localizer_is_named(scorer, report, page):
    named = replace(report, bundle=replace(report.bundle, localizer="narrow"))
    assert "localizer narrow" in page_of(scorer, pages.complete(), named).text
    assert "localizer narrow" not in page.text


def test_a_missing_region_is_said_to_be_missing(scorer):
    page = page_of(scorer, pages.one_view())
    assert "Missing: the study holds no cervical radiograph." in page.text
    assert len(page.named("image")) == 1


def test_imputed_corners_are_named_with_what_they_count(scorer, report):
    page = page_of(scorer, pages.complete(), pages.abstained(report))
    assert "2 of 24 corners imputed with their region's mean; the total lies between 24 and 30" in page.text
    assert "Lumbar, abstained: T12-inferior, L1-inferior" in page.text
    assert page.text.count("imputed 0.9") == 2
    assert len(page.named("use", href="#badge-none")) == 2 + 2 + 1  # pictures, table, legend


def test_discs_that_were_not_found_have_no_marks(scorer, report):
    cervical = report.regions["cervical"]
    lost = (
        replace(corner, grade=None, probabilities=None, status="unreadable") for corner in cervical.discs[0].corners
    )
    first = replace(
        cervical.discs[0], confidence=0.0, corners=tuple(lost), centre_px=(0.0, 0.0), anterior_px=(0.0, 0.0)
    )
    region = replace(cervical, discs=(first, *cervical.discs[1:]), total=None, range=(12, 18), missing=2)
    page = page_of(scorer, pages.complete(), replace(report, regions={**report.regions, "cervical": region}))
    assert "Cervical, unreadable: C2-inferior, C3-superior" in page.text
    assert not page.named("a", id="mark-C2-inferior")
    assert page.named("a", id="mark-C3-inferior")


def hostile(report, words):
    """A report in which every text that can come from the input or the bundle is `words`."""
    regions = {}
    for name, region in report.regions.items():
        regions[name] = replace(
            region, status="rejected", reject=RejectInfo(words, words, words), radiograph=None, discs=()
        )
    return replace(
        report,
        study=replace(report.study, study_instance_uid=words, study_date=words),
        bundle=replace(report.bundle, name=words, version=words, sha256=words, intended_use=words),
        device=replace(report.device, kind=words, name=words, engine=words, precision=words),
        regions=regions,
        warnings=(words,),
        rejects=(RejectInfo("other", words, words),),
        schema=words,
    )


def structure(text):
    return [(element.name, sorted(element.attributes), element.inside) for element in pages.Page.of(text).elements]


@pytest.fixture(scope="module")
def plain(scorer, report):
    return structure(html(Study((), study_instance_uid="words"), hostile(report, "words")))


@given(
    words=st.one_of(
        st.text(min_size=1),
        st.lists(
            st.sampled_from(
                ["<script>", "</style>", "<!--", "-->", "]]>", '"', "'", "&lt;", "&", "$style", "${x}", "`"]
            ),
            min_size=1,
        ).map("".join),
    )
)
@settings(max_examples=60)
def test_no_text_becomes_markup(scorer, report, plain, words):
    text = html(Study((), study_instance_uid=words), hostile(report, words))
    assert structure(text) == plain
    assert text.count(f"<bdi>{clean(words)}</bdi>") >= 6
    text.encode("utf-8")


def test_what_no_page_may_hold_is_replaced():
    assert clean("a\0b\udcffc\u202ed\n<e>") == "a\ufffdb\ufffdc\ufffdd\ufffd&lt;e&gt;"
    assert clean("Zervikal ü 頸椎 '\"&") == "Zervikal ü 頸椎 &#x27;&quot;&amp;"
