"""The page in a real browser: marks stand on the radiograph, boxes hide them, and it prints on one sheet of A4."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from helpers import pages, tiny
from spinescore.runtime import Scorer
from spinescore.runtime.outputs.html import html

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason=f"no browser is installed ({', '.join(NAMES)})"),
    pytest.mark.slow,
]

WIDTH, HEIGHT = 1400, 1700
A4_PT = (595, 842)
COLOURS = {0: (0x56, 0xB4, 0xE9), 1: (0xF0, 0xE4, 0x42), 2: (0xE6, 0x9F, 0x00), 3: (0xF4, 0x66, 0x5C)}

# Added to the page, without its policy, in one run: it reports the places of badges and pictures, and the script.
MEASURE = """<script>
const box = (e) => { const b = e.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; };
const found = { badges: {}, pictures: [...document.querySelectorAll("image")].map(box) };
found.wide = document.documentElement.scrollWidth;
for (const a of document.querySelectorAll(".grades a")) found.badges[a.id.slice(5)] = box(a.querySelector("use"));
const view = document.querySelector(".viewport");
document.getElementById("zoom-4").click();
found.middle = [(view.scrollLeft + view.clientWidth / 2) / view.scrollWidth,
                (view.scrollTop + view.clientHeight / 2) / view.scrollHeight];
document.documentElement.innerHTML = JSON.stringify(found);
</script></body>"""


INJECTED = "<script>document.title = 'taken over';</script></body>"


def browse(folder: Path, page: Path, option: str) -> tuple[str, str]:
    """The browser's output: the page after its script ran (for --dump-dom), and its console."""
    flags = ["--headless", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1", "--no-first-run"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        flags.append("--no-sandbox")
    profile = f"--user-data-dir={folder / 'profile' / page.stem / option.strip('-').split('=')[0]}"
    logged = "--enable-logging=stderr"
    command = [str(BROWSER), *flags, logged, profile, f"--window-size={WIDTH},{HEIGHT}", option, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=True)
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """The folder with the browser's pictures of each page (NAME.png, NAME.pdf), its output, and the report."""
    folder = tmp_path_factory.mktemp("pages")
    with Scorer.open(tiny.write_bundle(folder / "bundle"), device="cpu") as scorer:
        studies = {"complete": pages.complete(), "rejected": pages.rejected(), "one-view": pages.one_view()}
        found = {name: (study, scorer.score(study)) for name, study in studies.items()}
        found["imputed"] = (pages.complete(), pages.abstained(found["complete"][1]))
        texts = {name: html(study, report) for name, (study, report) in found.items()}
    no_script = re.sub(r"<script>.*</script>", "", texts["complete"], flags=re.DOTALL)
    texts["hidden"] = re.sub(r'(id="show-(?:grades|points|levels)") checked', r"\1", no_script)
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", texts["complete"])
    texts["measured"] = free.replace("</body>", MEASURE)
    zoomed = texts["measured"].replace(' id="zoom-1" checked', ' id="zoom-1"').replace('"zoom-4">', '"zoom-4" checked>')
    texts["zoomed"] = re.sub(r"<script>.use strict.*?</script>", "", zoomed, flags=re.DOTALL)
    texts["injected"] = texts["complete"].replace("</body>", INJECTED)
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8", newline="\n")
    runs = [(name, "--dump-dom") for name in ("measured", "zoomed", "injected")]
    runs += [(name, f"--screenshot={folder / name}.png") for name in ("complete", "hidden")]
    runs += [(name, f"--print-to-pdf={folder / name}.pdf") for name in found]
    with ThreadPoolExecutor(2) as pool:
        printed = pool.map(lambda run: browse(folder, folder / f"{run[0]}.html", run[1]), runs)
        outputs = dict(zip((name for name, _ in runs[:5]), printed, strict=False))
    return folder, outputs, found["complete"][1]


@pytest.fixture(scope="module")
def measured(seen):
    return found_in(seen[1]["measured"])


def found_in(printed):
    return json.loads(re.search(r"\{.*\}", printed[0])[0])


def screenshot(seen, name):
    return cv2.imread(str(seen[0] / f"{name}.png"))[..., ::-1].astype(int)


def near(image, colour):
    return np.abs(image - colour).max(axis=2) < 12


def test_every_badge_has_its_colour_on_the_screen(seen, measured):
    report = seen[2]
    image = screenshot(seen, "complete")
    corners = [corner for region in report.regions.values() for disc in region.discs for corner in disc.corners]
    assert len(measured["badges"]) == len(corners) == 24
    for corner in corners:
        left, top, right, bottom = map(round, measured["badges"][corner.site])
        assert 12 < right - left < 60
        shown = near(image[top:bottom, left:right], COLOURS[corner.grade])
        assert shown.mean() > 0.25, corner


def test_radiographs_are_on_the_screen_as_they_are(seen, measured):
    image = screenshot(seen, "hidden")
    for (left, top, right, bottom), radiograph in zip(measured["pictures"], pages.complete().radiographs, strict=True):
        shown = image[round(top) : round(bottom), round(left) : round(right)].mean(axis=2)
        assert min(shown.shape) > 400
        true = cv2.resize(radiograph.pixels, shown.shape[::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(shown - true).mean() < 3


def test_boxes_hide_the_marks_without_a_script(seen, measured):
    left, top, right, bottom = (round(value) for value in measured["badges"]["C2-inferior"])
    shown = screenshot(seen, "hidden")[top:bottom, left:right]
    assert not near(shown, COLOURS[0]).any()
    assert np.ptp(shown, axis=2).max() < 12  # grey


def test_zoom_enlarges_without_a_script_and_the_page_stays_as_wide(seen, measured):
    zoomed = found_in(seen[1]["zoomed"])
    for (left, _, right, _), (zoomed_left, _, zoomed_right, _) in zip(
        measured["pictures"], zoomed["pictures"], strict=True
    ):
        assert zoomed_right - zoomed_left == pytest.approx(4 * (right - left), rel=0.001)
    assert max(measured["wide"], zoomed["wide"]) <= WIDTH


def test_its_script_keeps_the_middle_where_it_was(measured):
    assert measured["middle"] == pytest.approx([0.5, 0.5], abs=0.01)


def test_its_policy_admits_its_own_script_and_no_other(seen):
    assert "Content Security Policy" not in seen[1]["complete"][1]
    page, console = seen[1]["injected"]
    assert "Content Security Policy" in console
    assert "<title>mSASSS report</title>" in page


@pytest.mark.parametrize("name", ["complete", "rejected", "one-view", "imputed"])
def test_it_prints_on_one_sheet_of_a4(seen, name):
    data = (seen[0] / f"{name}.pdf").read_bytes()
    assert len(re.findall(rb"/Type\s*/Page\b", data)) == 1
    size = [float(number) for number in re.search(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)", data).groups()]
    assert size == pytest.approx(A4_PT, abs=1)
