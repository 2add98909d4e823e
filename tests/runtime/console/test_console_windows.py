"""The C library for Windows, called under wine: its sockets, time-outs, names of files, and a real service over TCP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.console_build import C_WARNINGS, need_unix, run, sdk
from helpers.console_calls import EXPECTED, LINE, MISUSE
from helpers.console_double import SR, console_double
from helpers.console_service import need_service, printed_grades, serving_over_tcp
from helpers.wine import COMPILER, compile_for_windows, windows, windows_path
from spinescore.runtime import Scorer, load_study
from spinescore.runtime.phantom import write_study
from spinescore.runtime.study import REGIONS

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def wine(tmp_path_factory):
    need_unix()
    with windows(tmp_path_factory.mktemp("windows") / "prefix") as opened:
        yield opened


@pytest.fixture(scope="module")
def library(wine, tmp_path_factory):
    return sdk(tmp_path_factory.mktemp("sdk"))


def test_each_answer_gives_its_status(wine, library, tmp_path):
    """But for `slow-send`: over TCP the buffers of the system take the whole study of the probe."""
    probe = compile_for_windows(library, tmp_path / "probe.exe", str(HERE / "probe.c"))
    cases = [case for case in EXPECTED if case != "slow-send"]
    with console_double(None) as double:
        text = wine.run(probe, double.address, windows_path(tmp_path), *cases)
        assert {"slow", "slow-body", "cancel"} <= set(double.closed)
        facts = json.loads(double.parts("indented")["request"][1])
    lines = {match[1]: match.groups() for line in text.splitlines() if (match := LINE.fullmatch(line))}
    assert {case: line[2] for case, line in lines.items()} == {case: EXPECTED[case] for case in cases}
    assert lines["right"][1] == " total=3 range=3..3 results=2 L1-superior=1 own=0"
    assert lines["rejected"][6:] == ("The localizer is not sure: caf\u00e9 \U0001f9b4.", "Give the points.")
    assert facts["views"][0]["pixel_spacing_mm"] == [0.14, 1.0625]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("file")] == ["file-right"]
    assert (tmp_path / "file-right").read_bytes() == SR


def test_wrong_calls_are_refused_and_newer_programs_served(wine, library, tmp_path):
    misuse = compile_for_windows(library, tmp_path / "misuse.exe", str(HERE / "misuse.c"))
    with console_double(None) as double:
        assert wine.run(misuse, double.address) == MISUSE


def test_a_unix_socket_is_refused_and_a_closed_port_is_said(wine, library, tmp_path):
    example = compile_for_windows(library, tmp_path / "score.exe", str(library / "examples" / "score.c"))
    (tmp_path / "neck.dcm").write_bytes(b"the bytes of a file")
    unix = wine.call(example, "C:\\spinescore\\http.sock", windows_path(tmp_path / "neck.dcm"))
    assert (unix.returncode, "which Windows does not take" in unix.stderr) == (1, True)
    gone = wine.call(example, "127.0.0.1:1", windows_path(tmp_path / "neck.dcm"))
    assert (gone.returncode, gone.stderr.split(" (")[0]) == (1, "unreachable: There is no service at 127.0.0.1:1")


def test_the_library_as_a_dll_scores_and_writes_names_beyond_ascii(wine, library, tmp_path):
    """The result replaces a file of before, and its name is UTF-8 for the library."""
    folder = tmp_path / "Prüfung"
    folder.mkdir()
    words = ("-shared", "-DSPINESCORE_BUILD_DLL", f"-Wl,--out-implib,{tmp_path / 'libspinescore.a'}")
    compile_for_windows(library, tmp_path / "spinescore.dll", *words)
    sources = ("-I", str(library), str(library / "examples" / "score.c"), str(tmp_path / "libspinescore.a"))
    run([COMPILER, *C_WARNINGS, "-DSPINESCORE_DLL", *sources, "-o", str(tmp_path / "score.exe")])
    (folder / "nœud.dcm").write_bytes(b"the bytes of a file")
    (folder / "sé.dcm").write_bytes(b"an earlier result")
    with console_double(None) as double:
        words = (double.address, windows_path(folder / "nœud.dcm"), "-o", windows_path(folder / "sé.dcm"))
        done = wine.call(tmp_path / "score.exe", *words, SPINESCORE_TOKEN="right")
    assert (done.returncode, done.stderr) == (0, "")
    assert "mSASSS 3, " in done.stdout
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "nœud.dcm": b"the bytes of a file",
        "sé.dcm": SR,
    }


def test_a_real_service_scores_a_phantom_study(wine, library, tmp_path):
    need_service()
    example = compile_for_windows(library, tmp_path / "score.exe", str(library / "examples" / "score.c"))
    write_study(1_500_000, tmp_path / "study")
    study = [tmp_path / "study" / f"{region}.dcm" for region in REGIONS]
    files = [windows_path(path) for path in study]
    with serving_over_tcp(tmp_path / "service") as (address, token):
        done = wine.call(example, address, *files, "-o", windows_path(tmp_path / "sr.dcm"), SPINESCORE_TOKEN=token)
        wrong = wine.call(example, address, *files, SPINESCORE_TOKEN="wrong")
    assert (done.returncode, done.stderr) == (0, "")
    with Scorer.open("phantom-reference", "cpu", build="no") as scorer:
        report = scorer.score(load_study(*study))
    grades = [
        (corner.site, corner.grade)
        for region in report.regions.values()
        for disc in region.discs
        for corner in disc.corners
    ]
    assert printed_grades(done.stdout) == grades
    assert (tmp_path / "sr.dcm").read_bytes()[128:132] == b"DICM"
    assert wrong.returncode == 1
    assert "token" in wrong.stderr
