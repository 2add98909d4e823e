"""Measures how long the review page takes from opening a study until both radiographs are drawn with their points.

    python -m spinescore.benchmarks.review [--opens N] [--bundle B] [--out F] [--picture F]

The appliance (`spinescore serve`) has one study of two radiographs with 3000 x 2400 pixels in 16 bits, 14.4 MB each,
and answers over TCP of the loopback interface to a token. Chromium without a window (1280 x 900 pixels) shows the page;
it runs on the same cores as the service, without a GPU. The page sets the marks `study-opened` and `study-drawn`
(`performance.mark`); the screen shows what is drawn in the next frame. `first_ms`: from a click in the work list, when
the worker has to decode both files (the spool's views are removed before each). `again_ms`: the same when the spool has
the views. `address_ms`: from the start of a new page at the study's address to the drawn study, with kept views.
`window_ms`: one frame in which both pictures are drawn anew with another window, by the page's clock.

`--picture` writes the picture of the docs in place of that: the page with a point that was moved, a grade that was set,
and the new total. Needs the extra `appliance`, selenium, and Debian's packages chromium and chromium-driver; the
picture needs Pillow, too.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinescore.benchmarks.harness.child import SPINESCORE, session
from spinescore.benchmarks.harness.ports import free_port, listens, wait_until
from spinescore.benchmarks.harness.record import Command
from spinescore.benchmarks.harness.studies import study_of_size
from spinescore.benchmarks.harness.timing import percentiles
from spinescore.runtime.study import REGIONS

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

__all__ = ["main"]

SCHEMA = "spinescore.review/1"
_SEED = 1_500_000
_ROWS, _COLUMNS = 3000, 2400
_WAIT_S = 300.0
_WARM_UP = 2
_GREYS = 56  # in the picture: more are not seen
_TOKEN = "a-token-of-this-measurement-alone"
_CONFIG = """\
[spool]
path = "spool"
reserve_gb = 0.01
[score]
bundle = "{bundle}"
device = "cpu"
[study]
quiet_s = 2
quiet_complete_s = 0.2
[[source]]
name = "inbox"
kind = "folder"
path = "inbox"
settle_s = 0.5
[[destination]]
name = "out"
kind = "folder"
path = "out"
[http]
tcp = "127.0.0.1:{port}"
[[http.token]]
role = "reader"
file = "reader.token"
"""
_DRAWN = "return document.querySelector('.study')?.dataset.drawn === 'yes'"
_OPENED_MS = """
const at = (name) => performance.getEntriesByName(name).at(-1).startTime;
return at("study-drawn") - at("study-opened");
"""
_ADDRESS_MS = "return performance.getEntriesByName('study-drawn').at(-1).startTime"
# A key changes the window of each picture. Both are drawn in the next frame, between the two callbacks from here.
_WINDOW_MS = """
const done = arguments[0];
document.querySelector("input[name=tool][value=window]").click();
let start;
requestAnimationFrame(() => { start = performance.now(); });
for (const one of document.querySelectorAll(".surface")) {
  one.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowUp", bubbles: true }));
}
requestAnimationFrame(() => done(performance.now() - start));
"""


@contextmanager
def _service(folder: Path, bundle: str) -> Iterator[str]:
    """Run the appliance with the study; yield the address of its page when the study is scored."""
    port = free_port()
    for name in ("inbox", "out"):
        (folder / name).mkdir()
    (folder / "reader.token").write_text(_TOKEN, encoding="utf-8")
    (folder / "reader.token").chmod(0o600)
    config = folder / "appliance.toml"
    config.write_text(_CONFIG.format(bundle=bundle, port=port), encoding="utf-8")
    for region, ds in zip(REGIONS, study_of_size(_SEED, _ROWS, _COLUMNS), strict=True):
        ds.save_as(folder / "inbox" / f"{region}.dcm")
    words = [*SPINESCORE, "serve", "--config", str(config)]
    with session(words) as process:
        wait_until(lambda: process.poll() is not None or listens(port), "the start of the service", _WAIT_S)
        wait_until(lambda: process.poll() is not None or bool(list((folder / "out").glob("*/*/set.json"))),
                   "the score of the study", _WAIT_S)  # fmt: skip
        if process.poll() is not None:
            raise RuntimeError("the service did not start")
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _browser() -> Iterator[Chrome]:
    from selenium import webdriver

    browser, driver_path = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver_path is None:
        raise RuntimeError("chromium or chromedriver is missing; install Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in ("--headless=new", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--window-size=1280,900"):
        options.add_argument(flag)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_path))
    try:
        driver.set_script_timeout(_WAIT_S)
        yield driver
    finally:
        driver.quit()


def _until(driver: Chrome, script: str) -> None:
    wait_until(lambda: bool(driver.execute_script(script)), "the page", _WAIT_S)


def _open(driver: Chrome, views: Path | None) -> float:
    """Return the milliseconds from a click in the list to the drawn study; `views` are removed before."""
    driver.execute_script("location.hash = '#/'")
    _until(driver, "return document.querySelector('.worklist a') !== null")
    for path in () if views is None else views.iterdir():
        path.unlink()
    driver.execute_script("document.querySelector('.worklist a').click()")
    _until(driver, _DRAWN)
    return float(driver.execute_script(_OPENED_MS))


def _sign_in(driver: Chrome, url: str) -> None:
    """Leave the token in the tab; the page removes it if the answer to a call without one comes later."""
    driver.get(f"{url}/review")
    _until(driver, "return document.querySelector('#token') !== null")
    driver.execute_script("sessionStorage.setItem('spinescore-token', arguments[0])", _TOKEN)


def _address(driver: Chrome, url: str) -> float:
    driver.get("about:blank")
    driver.get(f"{url}/review#/studies/1")
    _until(driver, _DRAWN)
    return float(driver.execute_script(_ADDRESS_MS))


def _measure(driver: Chrome, url: str, views: Path, count: int) -> dict[str, Any]:
    _sign_in(driver, url)
    driver.refresh()
    _until(driver, "return document.querySelector('.worklist a') !== null")
    runs = range(_WARM_UP + count)
    times = {
        "first_ms": [_open(driver, views) for _ in runs],
        "again_ms": [_open(driver, None) for _ in runs],
        "window_ms": [_windowed(driver) for _ in runs],
        "address_ms": [_address(driver, url) for _ in runs],
    }
    return {name: percentiles(ms[_WARM_UP:]) for name, ms in times.items()}


def _windowed(driver: Chrome) -> float:
    time.sleep(0.1)
    return float(driver.execute_async_script(_WINDOW_MS))


def _draw(driver: Chrome, url: str, path: Path) -> None:
    """Write a picture of the page with a correction that is not saved."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    _sign_in(driver, url)
    size = {"width": 1280, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    _address(driver, url)
    driver.execute_script("document.getElementById('reader').value = 'AB'")
    for mark, keys in (("C5-inferior", "1"), ("C4/C5, anterior point", Keys.SHIFT + 3 * Keys.ARROW_RIGHT)):
        driver.execute_script("document.querySelector(`.mark[aria-label^='${arguments[0]}']`).focus()", mark)
        ActionChains(driver).send_keys(keys).perform()
    _until(driver, "return document.querySelector('.total .arrow') && "
                   "document.querySelector('.total').getAttribute('aria-busy') === 'false'")  # fmt: skip
    driver.execute_script("scrollTo(0, 0)")
    _save(driver.get_screenshot_as_png(), path)


def _save(png: bytes, path: Path) -> None:
    """Write a picture in the page's own colours and some greys, which takes half the bytes."""
    import io

    from PIL import Image

    style = files("spinescore.runtime.appliance.web").joinpath("review/review.css").read_text(encoding="utf-8")
    colours = [bytes.fromhex(name) for name in sorted(set(re.findall(r"#([0-9a-f]{6})\b", style)))]
    greys = [bytes(3 * [round(number * 255 / (_GREYS - 1))]) for number in range(_GREYS)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(b"".join(colours + greys))
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0."""
    command = Command("review", SCHEMA, __doc__)
    add = command.options.add_argument
    add("--opens", type=int, default=30, metavar="N", help="times that the study is opened, for each figure (30)")
    add("--bundle", default="phantom-reference", metavar="B", help="bundle (phantom-reference)")
    add("--picture", type=Path, metavar="F", help="only write a picture of the page to this file")
    arguments = command.start(argv)
    with tempfile.TemporaryDirectory(prefix="spinescore-review-") as name:
        folder = Path(name)
        with _service(folder, arguments.bundle) as url, _browser() as driver:
            if arguments.picture:
                _draw(driver, url, arguments.picture)
                return 0
            times = _measure(driver, url, folder / "spool" / "views", arguments.opens)
            browser = driver.capabilities["browserVersion"]
    view = {"rows": _ROWS, "columns": _COLUMNS, "megabytes": round(2 * _ROWS * _COLUMNS / 1e6, 1)}
    command.publish({"view": view, "chromium": browser, "opens": arguments.opens, **times})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
