"""The C library against a service that is right, gone, slow, full, half or wrong, sanitized and under valgrind."""

from __future__ import annotations

import json
import locale
import os
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest

from helpers.console_build import SANITIZERS, compile_c, need, need_unix, run, sdk
from helpers.console_calls import EXPECTED, RIGHT, calls
from helpers.console_double import SR, console_double

PROBE = Path(__file__).with_name("probe.c")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    need_unix()
    return sdk(tmp_path_factory.mktemp("sdk"))


@pytest.fixture(scope="module")
def probe(library, tmp_path_factory):
    """The program that makes the calls, with AddressSanitizer and UndefinedBehaviorSanitizer."""
    out = tmp_path_factory.mktemp("probe") / "probe"
    return compile_c("gcc", library, out, *SANITIZERS, "-pthread", str(PROBE))


@pytest.fixture(scope="module")
def answered(probe, tmp_path_factory):
    """What became of every case over a Unix socket; the service; the folder of files."""
    folder = tmp_path_factory.mktemp("unix")
    with console_double(folder / "s") as double:
        yield calls([probe], double.address, folder, EXPECTED), double, folder


def test_each_answer_gives_its_status(answered):
    lines, _, _ = answered
    assert {case: line[1] for case, line in lines.items()} == EXPECTED
    assert len([case for case, status in EXPECTED.items() if status == "bad-answer"]) > 35


def test_a_right_answer_fills_the_report(answered):
    lines, _, _ = answered
    assert {lines[case][0] for case in RIGHT[:-1]} == {" total=3 range=3..3 results=2 L1-superior=1 own=0"}
    assert lines["own-right"][0].endswith("own=1")  # the JSON is in the caller's buffer, whole
    assert lines["right"][1:] == ("ok", "200", "-1", "", "", "")


def test_a_problem_says_what_happened_and_what_to_do(answered):
    lines, _, _ = answered
    sure = "The localizer is not sure: caf\u00e9 \U0001f9b4."
    assert lines["rejected"][1:] == ("rejected", "422", "-1", "low-confidence", sure, "Give the points.")
    assert lines["rejected"][0] == " rejects="
    assert lines["rejected-report"][0] == " rejects=low-confidence"
    assert lines["busy"][1:5] == lines["busy-early"][1:5] == ("busy", "503", "7", "budget")
    assert lines["unauthorized"][4:] == ("error", "The token is not known.", "Give the points.")
    assert lines["too-late"][1:5] == ("timeout", "504", "-1", "budget")
    assert lines["rejected-wrongly"][0] == " rejects="
    assert lines["code-without-end"][4] == "x" * 47
    assert lines["message-without-end"][5] == "x" * 511
    assert lines["step-without-end"][6] == "x" * 255
    http = "The service answered with the HTTP status 400, without version 2 of the library's structs."
    look = "Look at the log of the service, and whether it is of the library's release."
    assert lines["problem-json"][4:] == ("", http, look)
    other = "The service answered without version 2 of the library's structs."
    assert lines["json"][5] == lines["other-version"][5] == other
    assert lines["ready-starting"][1:6] == ("busy", "503", "-1", "not-ready", "The worker starts.")
    assert all(line[5] and line[6] for case, line in lines.items() if line[1] != "ok"), "a message and a next step"


def test_the_service_gets_the_study_without_the_padding_of_its_rows(answered):
    _, double, _ = answered
    line, headers, _ = double.requests["indented"]
    assert (line, headers["connection"]) == ("POST /v1/score HTTP/1.1", "close")
    parts = double.parts("indented")
    assert list(parts) == ["request", "view-1-header", "view-1", "view-2"]
    assert parts["view-1-header"] == ("application/dicom", b"a header")
    assert json.loads(parts["request"][1]) == {
        "strict": False,
        "budget_ms": 800,
        "formats": ["sr", "gsps"],
        "views": [
            {
                "part": "view-1",
                "rows": 701,
                "columns": 503,
                "bits_allocated": 16,
                "bits_stored": 12,
                "pixel_spacing_mm": [0.14, 1.0625],
                "photometric_interpretation": None,
                "region": "cervical",
                "facing": None,
                "study_instance_uid": None,
                "sop_instance_uid": '1.2."3\\\n',
                "header": "view-1-header",
            }
        ],
    }
    rows, columns = np.mgrid[:701, :1006]
    assert parts["view-1"][0] == "application/octet-stream"
    np.testing.assert_array_equal(
        np.frombuffer(parts["view-1"][1], np.uint8).reshape(701, 1006), (rows * 7 + columns) & 0x7F
    )
    assert parts["view-2"] == ("application/dicom", b"any bytes, with a \r\n--boundary in it")


def test_a_study_that_is_refused_is_not_sent(answered):
    """Windows discards an answer if the study still comes when the service closes the connection."""
    _, double, _ = answered
    line, headers, body = double.requests["busy-early"]
    assert (line, headers["expect"], body) == ("POST /v1/score HTTP/1.1", "100-continue", b"")


def test_the_service_sees_who_is_late_or_cancels(answered):
    _, double, _ = answered
    assert {"slow", "slow-body", "cancel"} <= set(double.closed)


def test_results_are_fetched_whole_or_not_at_all(answered):
    lines, _, folder = answered
    assert lines["fetch-right"][0] == f" bytes={len(SR)} sum={sum(SR)}"
    assert lines["fetch-half-body"][0] == " bytes=0 sum=0"
    assert {path.name for path in folder.iterdir() if path.name.startswith("file")} == {"file-right"}
    assert (folder / "file-right").read_bytes() == SR


def test_without_a_service_it_says_so(probe, tmp_path):
    for address in (str(tmp_path / "none"), "127.0.0.1:1"):
        line = calls([probe], address, tmp_path, ["right"])["right"]
        assert line[1] == "unreachable"
        assert address in line[5]


@pytest.mark.parametrize(
    "address",
    ["", "x" * 300 + "/s", "/" + "x" * 200, "192.168.1.1:80", "example.org:80", "127.0.0.1", "127.0.0.1:0", "127.1:80",
     "127.0.0.1:65536", "127.0.0.256:80", "127.0.0.1:8x"],
)  # fmt: skip
def test_an_address_that_is_not_of_this_computer_is_refused(probe, tmp_path, address):
    assert calls([probe], address, tmp_path, ["right"])["right"][1] == "usage"


@pytest.mark.parametrize("token", ["a b", "a\r\nX: 1", "caf\u00e9", "x" * 512])
def test_a_token_that_would_break_the_head_is_refused(probe, tmp_path, token):
    text = run([str(probe), str(tmp_path / "s"), str(tmp_path), token])
    assert "| usage http=0" in text


def test_a_service_that_takes_no_connection_any_more_is_waited_for_until_the_time_is_over(probe, tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        waiting = []
        while len(waiting) < 100:
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            if waiting[-1].connect_ex(str(tmp_path / "s")) != 0:
                break
        line = calls([probe], str(tmp_path / "s"), tmp_path, ["slow"])["slow"]
        for stream in waiting:
            stream.close()
    assert (line[1], line[5]) == ("timeout", "Connecting took longer than 1000 ms.")


def test_over_tcp_all_is_the_same(probe, answered, tmp_path):
    cases = ("right", "interim", "half-body", "busy", "busy-early", "cancel", "slow", "fetch-right", "total-73")
    with console_double(None) as double:
        lines = calls([probe], double.address, tmp_path, cases)
    assert {case: line[1:5] for case, line in lines.items()} == {case: answered[0][case][1:5] for case in cases}
    assert lines["right"][0] == answered[0]["right"][0]


def test_a_comma_as_decimal_point_changes_nothing(probe, tmp_path):
    need("localedef")
    made = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "UTF-8", str(tmp_path / "de_DE.UTF-8")], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("the sources of locales are not installed")
    environment = {**os.environ, "LOCPATH": str(tmp_path), "LC_ALL": "de_DE.UTF-8"}
    with console_double(tmp_path / "s") as double:
        lines = calls([probe], double.address, tmp_path, ["right"], env=environment)
        facts = json.loads(double.parts("right")["request"][1])
    assert lines["right"][0].startswith(" total=3 range=3..3")
    assert facts["views"][0]["pixel_spacing_mm"] == [0.14, 1.0625]
    assert locale.localeconv()["decimal_point"] == "."


def test_threads_with_handles_of_their_own_are_clean(library, tmp_path):
    program = compile_c("gcc", library, tmp_path / "probe", "-g", "-fsanitize=thread", "-pthread", str(PROBE))
    with console_double(tmp_path / "s") as double:
        lines = calls([program], double.address, tmp_path, ["many-right", "cancel", "twice-cancel"])
    assert [line[1] for line in lines.values()] == ["ok", "cancelled", "in-use"]
    assert lines["many-right"][0] == " right=12"


def test_valgrind_finds_nothing(library, tmp_path):
    need("valgrind")
    program = compile_c("gcc", library, tmp_path / "probe", "-g", "-O1", "-pthread", str(PROBE))
    words = ["valgrind", "-q", "--error-exitcode=9", "--leak-check=full", "--show-leak-kinds=all", program]
    with console_double(tmp_path / "s") as double:
        lines = calls(words, double.address, tmp_path, EXPECTED)
    assert {case: line[1] for case, line in lines.items()} == EXPECTED
