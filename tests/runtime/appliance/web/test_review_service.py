"""The review page with a real service: a study comes over DICOM, is corrected in Chromium, and goes out corrected."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager

import pytest
from pydicom import dcmread

from helpers.browser import browsing, need_browser
from helpers.http_calls import ask
from helpers.review_reader import Reader
from spinescore.benchmarks.harness.appliance import write_config
from spinescore.benchmarks.harness.ports import free_port, listens, wait_until
from spinescore.runtime.phantom import write_study

pytestmark = pytest.mark.slow

TOKEN = "0123456789abcdef0123456789abcdef"
POINT = "C4/C5, anterior point"
MORE = """\
results = ["sr"]
[http]
tcp = "127.0.0.1:{web}"
[[http.token]]
role = "reader"
file = "reader.token"
name = "Dr A. Berg"
"""


@contextmanager
def running(words, is_there, name, **settings):
    with subprocess.Popen([str(word) for word in words], stderr=subprocess.PIPE, **settings) as process:
        try:
            wait_until(is_there, name, 180)
            yield process
        finally:
            process.terminate()
            said = process.stderr.read().decode()
            process.wait(180)
    assert "Traceback" not in said, said


@pytest.fixture
def service(tmp_path):
    """A service with an archive, a node, and a token of a named reader; yields its address and the archive's folder."""
    need_browser()
    for program in ("storescp", "dcmsend"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: dcmtk)")
    ports = {name: free_port() for name in ("node", "archive", "web")}
    (tmp_path / "reader.token").write_text(TOKEN)
    (tmp_path / "reader.token").chmod(0o600)
    config = write_config(tmp_path, ports["node"], ports["archive"], "phantom-reference", quiet_s=2.0,
                          quiet_complete_s=0.2)  # fmt: skip
    with config.open("a") as file:
        file.write(MORE.format(**ports))
    archive = tmp_path / "archive"
    archive.mkdir()
    scp = ("storescp", "-od", archive, ports["archive"])
    serve = (sys.executable, "-m", "spinescore.runtime.cli", "serve", "--config", config)
    environment = {**os.environ, "SPINESCORE_CHECK": "0"}

    def is_ready():
        try:
            return ask(tmp_path / "spool" / "http.sock", "GET", "/health/ready").status == 200
        except OSError:
            return False

    with (
        running(scp, lambda: listens(ports["archive"]), "storescp listening"),
        running(serve, is_ready, "the service ready", env=environment),
    ):
        write_study(1_000_003, tmp_path / "study")
        files = sorted((tmp_path / "study").glob("*.dcm"))
        send = ("dcmsend", "-aet", "MODALITY", "-aec", "SPINESCORE", "127.0.0.1", ports["node"], *files)
        subprocess.run([str(word) for word in send], check=True, capture_output=True, timeout=60)
        yield f"http://127.0.0.1:{ports['web']}", archive


def reports(archive):
    """The structured reports at the archive, in the order of their times."""
    objects = [dcmread(path) for path in archive.iterdir() if not path.name.endswith(".part")]
    return sorted(objects, key=lambda ds: ds.InstanceNumber)


def test_a_correction_goes_from_the_page_to_the_archive(service):
    url, archive = service
    with browsing() as driver:
        reader = Reader(driver, url)
        driver.get(url)
        reader.wait_text("main", "Sign in")
        reader.keys(*TOKEN, "\ue007")
        reader.wait_text(".worklist", "delivered")
        reader.one(".worklist tbody a").click()
        reader.wait_drawn()
        assert driver.find_element("id", "reader").get_attribute("value") == "Dr A. Berg"
        before = reader.total()
        reader.drag(reader.place(POINT), 6, 3)
        settled = reader.settled_total()
        assert "not known" not in reader.text(".total")
        assert settled.split(" becomes → ")[0] == before
        reader.one("input[name='grade-L1-inferior'][aria-label^='3,']").find_element("xpath", "..").click()
        reader.wait_text(".changes", "L1-inferior")
        corrected = reader.settled_total().split(" becomes → ")[1]
        reader.one("#comment").send_keys("a bridge")
        reader.press("Save correction")
        reader.wait_text(".head", "Revision 2")
        reader.wait_text(".head", "State: delivered.")
        reader.wait(lambda: reader.total() == corrected, "the total of the preview")
        assert "corrected" in reader.text(".head")
        assert "Dr A. Berg" in reader.text(".revisions")
        assert "a bridge" in reader.text(".revisions")
        reader.press("Accept as it is")
        reader.wait_text(".head", "accepted")
        assert reader.problems((401,)) == []  # the page asks without a token first
    wait_until(lambda: len(reports(archive)) == 2, "two reports at the archive", 180)
    first, second = reports(archive)
    if "PredecessorDocumentsSequence" not in second:
        first, second = second, first
    (predecessor,) = second.PredecessorDocumentsSequence
    (series,) = predecessor.ReferencedSeriesSequence
    (document,) = series.ReferencedSOPSequence
    assert document.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert "PredecessorDocumentsSequence" not in first
    assert "Dr A. Berg" in str(second)
