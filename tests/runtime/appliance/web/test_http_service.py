"""A real service for consoles: its processes, its socket, callers that leave, workers that end, and nginx in front."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread

from helpers.documentation import blocks, commands, programs
from helpers.http_calls import FORM, UnixConnection, ask, form
from helpers.web_server import AMBIGUOUS, exchange
from spinescore.runtime import Scorer, load_study, radiograph_from_array
from spinescore.runtime.phantom import write_study

pytestmark = pytest.mark.slow

DICOM, FRAME = "application/dicom", "application/octet-stream"
WAIT_S = 180.0


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    write_study(1_500_000, folder)
    return [folder / f"{region}.dcm" for region in ("cervical", "lumbar")]


@pytest.fixture(scope="module")
def scorer():
    with Scorer.open("phantom-reference", "cpu", build="no") as opened:
        yield opened


@contextmanager
def serving(folder, *options):
    """A service alone; yields its process when it is ready."""
    command = [sys.executable, "-m", "spinescore.runtime.cli", "serve", "--http-only", "--device", "cpu"]
    with subprocess.Popen([*command, "--folder", str(folder), *options], stderr=subprocess.PIPE) as process:
        try:
            wait_until_ready(folder)
            yield process
        finally:
            process.terminate()
            said = process.stderr.read().decode()
            assert process.wait(WAIT_S) == 0, said
    assert "Traceback" not in said


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    with serving(folder) as process:
        yield folder, process


def wait(condition) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "it never came so far"
        time.sleep(0.02)


def wait_until_ready(folder) -> None:
    def is_ready():
        try:
            return ask(folder / "http.sock", "GET", "/health/ready").status == 200
        except OSError:
            return False

    wait(is_ready)


def dicom_form(study) -> bytes:
    return form(*((path.stem, DICOM, path.read_bytes()) for path in study))


def frames_of(study):
    """A call with raw frames, and the radiographs of the same arrays."""
    views, parts, radiographs = [], [], []
    for path in study:
        ds = dcmread(path)
        spacing = [float(side) for side in ds.get("ImagerPixelSpacing") or ds.PixelSpacing]
        facts = {"region": path.stem, "facing": "left"}
        kind = ds.PhotometricInterpretation
        views.append({"part": path.stem, "rows": ds.Rows, "columns": ds.Columns, "bits_allocated": 16,
                      "bits_stored": ds.BitsStored, "photometric_interpretation": kind, "pixel_spacing_mm": spacing,
                      **facts})  # fmt: skip
        parts.append((path.stem, FRAME, ds.pixel_array.astype("<u2").tobytes()))
        radiographs.append(radiograph_from_array(
            ds.pixel_array, spacing_mm=tuple(spacing), photometric=kind, bits_stored=ds.BitsStored, name=path.stem,
            **facts))  # fmt: skip
    return form(("request", "application/json", json.dumps({"views": views}).encode()), *parts), radiographs


def plain(report) -> dict:
    text = json.dumps({name: value for name, value in report.items() if name != "timings_ms"})
    for number, region in enumerate(("cervical", "lumbar"), 1):
        text = text.replace(f"image-{number}.dcm", f"{region}.dcm")
    return json.loads(text)


def nothing_is_left(folder) -> bool:
    return not list((folder / "incoming").iterdir())


def children_of(process: int) -> dict[str, int]:
    children = {}
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            words = Path(f"/proc/{child}/cmdline").read_bytes().decode()
            children["web" if '"role": "web"' in words else "work"] = child
    return children


def test_the_report_is_that_of_the_scorer_in_process(service, study, scorer):
    folder, _ = service
    answer = ask(folder / "http.sock", "POST", "/v1/score", dicom_form(study), FORM)
    assert answer.status == 200
    assert plain(answer.json()["report"]) == plain(json.loads(scorer.score(load_study(*study)).to_json()))
    body, radiographs = frames_of(study)
    answer = ask(folder / "http.sock", "POST", "/v1/score", body, FORM)
    assert plain(answer.json()["report"]) == plain(json.loads(scorer.score(radiographs).to_json()))
    assert answer.json()["report"]["total"]["status"] == "complete"
    wait(lambda: nothing_is_left(folder))


def test_results_are_fetched(service, study):
    folder, _ = service
    request = ("request", "application/json", json.dumps({"formats": ["sr", "html"]}).encode())
    files = ((path.stem, DICOM, path.read_bytes()) for path in study)
    answer = ask(folder / "http.sock", "POST", "/v1/score", form(request, *files), FORM)
    links = answer.json()["results"]
    assert ask(folder / "http.sock", "GET", links["sr"]).body[128:132] == b"DICM"
    assert b"<html" in ask(folder / "http.sock", "GET", links["html"]).body


def test_four_consoles_at_once_have_right_answers(service, study, scorer):
    folder, _ = service
    body = dicom_form(study)
    expected = plain(json.loads(scorer.score(load_study(*study)).to_json()))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ask(folder / "http.sock", "POST", "/v1/score", body, FORM), range(12)))
    assert {answer.status for answer in answers} == {200}
    assert all(plain(answer.json()["report"]) == expected for answer in answers)
    wait(lambda: nothing_is_left(folder))


def test_who_leaves_is_cancelled_and_the_next_is_served(service, study):
    """In the middle of the body, and while the study is scored."""
    folder, _ = service
    body = dicom_form(study)
    for sent in (body[: len(body) // 2], body):
        connection = UnixConnection(folder / "http.sock")
        connection.putrequest("POST", "/v1/score")
        connection.putheader("Content-Type", FORM)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(sent)
        wait(lambda: not nothing_is_left(folder))
        connection.close()
        wait(lambda: nothing_is_left(folder))
    assert ask(folder / "http.sock", "POST", "/v1/score", body, FORM).status == 200


def test_a_worker_that_is_killed_or_stopped_is_told_and_the_next_one_scores(tmp_path, study):
    body, _ = frames_of(study)
    with serving(tmp_path) as process, ThreadPoolExecutor(1) as pool:
        worker = children_of(process.pid)["work"]
        os.kill(worker, signal.SIGSTOP)
        answer = pool.submit(ask, tmp_path / "http.sock", "POST", "/v1/score", body, FORM)
        wait(lambda: sum(path.stat().st_size for path in tmp_path.glob("incoming/*/*.raw")) > 0.99 * len(body))
        time.sleep(0.5)  # the web process hands the job over
        os.kill(worker, signal.SIGKILL)
        assert (answer.result().status, answer.result().code) == (500, "worker-crashed")
        assert ask(tmp_path / "http.sock", "POST", "/v1/score", body, FORM).code == "not-ready"
        wait_until_ready(tmp_path)
        assert ask(tmp_path / "http.sock", "POST", "/v1/score", body, FORM).status == 200
        web = children_of(process.pid)["web"]
        gone = pool.submit(ask, tmp_path / "http.sock", "POST", "/v1/score", body, FORM)
        wait(lambda: not nothing_is_left(tmp_path))
        os.kill(web, signal.SIGKILL)
        assert isinstance(gone.exception(), OSError)
        wait_until_ready(tmp_path)
        wait(lambda: nothing_is_left(tmp_path))
        assert ask(tmp_path / "http.sock", "POST", "/v1/score", body, FORM).status == 200


def test_a_service_that_ends_while_it_scores_leaves_no_pixels(tmp_path, study):
    body, _ = frames_of(study)
    with ThreadPoolExecutor(1) as pool:
        with serving(tmp_path) as process:
            os.kill(children_of(process.pid)["work"], signal.SIGSTOP)
            gone = pool.submit(ask, tmp_path / "http.sock", "POST", "/v1/score", body, FORM)
            wait(lambda: list(tmp_path.glob("incoming/*/image-2.raw")))
        assert isinstance(gone.exception(), OSError)
    assert nothing_is_left(tmp_path)


def test_a_temporary_folder_ends_with_the_service_and_tcp_needs_the_token(tmp_path, study, monkeypatch):
    import http.client

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    port = free_port()
    command = [sys.executable, "-m", "spinescore.runtime.cli", "serve", "--http-only", "--device", "cpu"]
    with subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.PIPE) as process:
        try:
            said = process.stderr.readline().decode()
            assert f"http://127.0.0.1:{port}" in said
            (folder,) = tmp_path.glob("spinescore-http-*")
            wait_until_ready(folder)
            assert (folder / "token").stat().st_mode & 0o777 == 0o600
            token = (folder / "token").read_text().strip()
            for headers, status in (({}, 401), ({"Authorization": f"Bearer {token}"}, 200)):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
                connection.request("POST", "/v1/score", dicom_form(study), {"Content-Type": FORM, **headers})
                answer = connection.getresponse()
                answer.read()
                assert answer.status == status
                connection.close()
        finally:
            process.terminate()
            process.stderr.read()
            process.wait(WAIT_S)
    assert list(tmp_path.glob("spinescore-http-*")) == []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


NGINX = """
daemon off; pid {root}/pid; error_log {root}/error.log; worker_processes 1; user root;
events {{ }}
http {{
    access_log off; client_max_body_size 256m; client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
    upstream scores {{ server unix:{socket}; keepalive 4; }}
    server {{
        listen unix:{root}/front.sock;
        location / {{
            proxy_pass http://scores; proxy_request_buffering off; proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_in_front(service, study, tmp_path):
    folder, _ = service
    (tmp_path / "nginx.conf").write_text(NGINX.format(root=tmp_path, socket=folder / "http.sock"))
    with subprocess.Popen(["nginx", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]) as nginx:
        try:
            wait((tmp_path / "front.sock").exists)
            answer = ask(tmp_path / "front.sock", "POST", "/v1/score", dicom_form(study), FORM)
            assert answer.json()["report"]["total"]["status"] == "complete"
            assert ask(tmp_path / "front.sock", "GET", "/nothing").status == 404
            for name, request in AMBIGUOUS.items():
                exchange(tmp_path / "front.sock", request)
                others = [ask(tmp_path / "front.sock", "GET", "/health/live").status for _ in range(3)]
                assert others == [200] * 3, f"{name}: another client got the answer to a hidden request"
        finally:
            nginx.terminate()
            nginx.wait(WAIT_S)


def test_health_is_answered_while_a_study_is_scored(service, study):
    folder, _ = service
    body = dicom_form(study)
    done = threading.Event()

    def score():
        answer = ask(folder / "http.sock", "POST", "/v1/score", body, FORM)
        done.set()
        return answer

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(score)
        lived = 0
        while not done.is_set():
            assert ask(folder / "http.sock", "GET", "/health/live").status == 200
            lived += 1
        assert answer.result().status == 200
    assert lived > 3


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_commands_and_the_program_of_the_page(tmp_path, study, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(study[0].parent, "demo/study")
    (serve,) = commands("docs/http.md")
    calls = [line for line in "".join(blocks("docs/http.md", "sh")).splitlines() if "# needs" not in line]
    assert shlex.split(serve, comments=True) == ["spinescore", "serve", "--http-only", "--folder", "console"]
    with serving(tmp_path / "console"):
        answers = [json.loads(subprocess.run(["bash", "-c", f"{line} -sS"], capture_output=True).stdout)
                   for line in calls]  # fmt: skip
        (program,) = programs("docs/http.md")
        exec(program, {})
    assert answers[0] == {"ready": True}
    assert [answer["report"]["total"]["status"] for answer in answers[1:]] == ["complete", "incomplete"]
    assert capsys.readouterr().out.startswith("422 ")
