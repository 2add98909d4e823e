"""What `console-sdk` writes, and that every compiler takes it: C for Linux and Windows, C++, C#, CMake."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import spinescore.runtime
from helpers.console_build import C_WARNINGS, compile_c, need, need_unix, run, sdk
from helpers.console_double import PLAIN, SR, console_double
from helpers.console_languages import CXX_WARNINGS, MAKERS, call_example
from helpers.documentation import blocks
from spinescore.runtime import cli
from spinescore.runtime.console import codes_header, codes_source

ROOT = Path(__file__).parents[3]
CODES_PAGE = (Path(spinescore.runtime.__file__).parent / "codes.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return sdk(tmp_path_factory.mktemp("sdk"))


def test_the_command_writes_a_folder_and_writes_it_again(tmp_path, capsys):
    for _ in range(2):
        assert cli.main(["console-sdk", str(tmp_path / "new" / "sdk")]) == 0
        names = {
            Path(line).relative_to(tmp_path / "new" / "sdk").as_posix() for line in capsys.readouterr().out.split()
        }
        assert names >= {
            "spinescore.h",
            "spinescore.c",
            "spinescore.hpp",
            "SpineScore.cs",
            "README.md",
            "CMakeLists.txt",
        }
        assert names >= {"spinescore_codes.h", "spinescore_codes.c"}
        assert names >= {"examples/score.c", "examples/score.cpp", "examples/Score.cs"}
    written = {
        path.relative_to(tmp_path / "new" / "sdk").as_posix() for path in tmp_path.rglob("*.*") if path.is_file()
    }
    assert written == names
    assert (tmp_path / "new" / "sdk" / "spinescore.c").read_text("utf-8").startswith("/* spinescore.c: ")


def test_every_file_is_in_the_wheel():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib; the other versions run this")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["spinescore.runtime.console"]
    files = [path for path in (ROOT / "runtime" / "console").rglob("*.*") if path.suffix not in (".py", ".pyc")]
    assert [path.name for path in files if not any(path.match(pattern) for pattern in patterns)] == []
    assert len(files) >= 9


def test_a_file_is_no_folder(tmp_path, capsys):
    (tmp_path / "sdk").write_text("x", encoding="utf-8")
    assert cli.main(["console-sdk", str(tmp_path / "sdk")]) == 2
    assert "is a file; name a folder" in capsys.readouterr().err


def test_the_codes_are_those_of_the_page():
    names = re.findall(r"^\| `([a-z-]+)` \| (?:reject|warning|skipped|error|service) ", CODES_PAGE, re.MULTILINE)
    assert re.findall(r'^#define SPINESCORE_CODE_\w+ "([a-z-]+)"$', codes_header(), re.MULTILINE) == names
    assert re.findall(r'^    \{"([a-z-]+)", ', codes_source(), re.MULTILINE) == names
    assert '#define SPINESCORE_CODE_LOW_CONFIDENCE "low-confidence"' in codes_header()


def test_no_source_depends_on_the_locale_or_on_signals(library):
    text = "".join(path.read_text(encoding="utf-8") for path in library.glob("*.[ch]"))
    assert (
        re.findall(r"\b(?:strtod|atof|localeconv|setlocale|signal|sigaction|strtok|gethostbyname|strerror)\s*\(", text)
        == []
    )
    assert re.findall(r"%[0-9.]*[aefgAEFG]\b", text) == []


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_c_compiles_without_a_warning(library, tmp_path, compiler):
    need_unix()
    for level in ("-O0", "-O2"):
        compile_c(compiler, library, tmp_path / "score", level, str(library / "examples" / "score.c"))


def test_c_compiles_for_windows_and_links(library, tmp_path):
    need_unix()
    example = str(library / "examples" / "score.c")
    program = compile_c("x86_64-w64-mingw32-gcc", library, tmp_path / "score.exe", "-O2", example, "-lws2_32")
    assert program.read_bytes()[:2] == b"MZ"
    words = ("-shared", "-DSPINESCORE_BUILD_DLL", "-lws2_32")
    assert compile_c("x86_64-w64-mingw32-gcc", library, tmp_path / "spinescore.dll", *words).stat().st_size > 10_000


def test_the_library_needs_only_the_c_library_and_shows_only_its_calls(library, tmp_path):
    need_unix()
    need("readelf", "nm")
    shared = compile_c("gcc", library, tmp_path / "libspinescore.so", "-shared", "-fPIC", "-fvisibility=hidden")
    assert re.findall(r"NEEDED.*\[(.*)\]", run(["readelf", "-d", str(shared)])) == ["libc.so.6"]
    calls = {line.split()[-1] for line in run(["nm", "-D", "--defined-only", str(shared)]).splitlines()}
    declared = set(re.findall(r"\b(spinescore_\w+)\(", (library / "spinescore.h").read_text(encoding="utf-8")))
    assert calls == declared


def test_nothing_in_the_library_is_global_and_can_change(library, tmp_path):
    need_unix()
    need("gcc", "nm")
    run(["gcc", *C_WARNINGS, "-fno-pic", "-c", str(library / "spinescore.c"), "-o", str(tmp_path / "spinescore.o")])
    symbols = run(["nm", "--defined-only", str(tmp_path / "spinescore.o")])
    assert re.findall(r"^\S+ [bBdDcCsS] .*$", symbols, re.MULTILINE) == []
    assert " T spinescore_score" in symbols


def test_the_examples_build_with_cmake(library, tmp_path):
    need_unix()
    need("cmake", "g++")
    run(["cmake", "-S", str(library), "-B", str(tmp_path / "build"), "-DBUILD_SHARED_LIBS=ON"])
    run(["cmake", "--build", str(tmp_path / "build")])
    assert {"score", "score_cpp", "libspinescore.so"} <= {path.name for path in (tmp_path / "build").iterdir()}


@pytest.mark.parametrize("language", MAKERS)
def test_the_example_of_each_language_scores(library, tmp_path, language):
    need_unix()
    command = MAKERS[language](library, tmp_path)
    (tmp_path / "neck.dcm").write_bytes(b"the bytes of a file")
    (tmp_path / "back.dcm").write_bytes(b"those of another")
    files = [tmp_path / "neck.dcm", tmp_path / "back.dcm"]
    with console_double(tmp_path / "s") as double:
        done = call_example(command, tmp_path, double.address, *files, "-o", tmp_path / "sr.dcm")
        assert (done.returncode, done.stderr) == (0, "")
        full = call_example(command, tmp_path, double.address, *files, token="busy")
        bad = call_example(command, tmp_path, double.address, *files, token="rejected")
        parts = double.parts("busy")
    assert (tmp_path / "sr.dcm").read_bytes() == SR
    assert [part for _, part in parts.values()][1:] == [b"the bytes of a file", b"those of another"]
    assert "mSASSS 3, " in done.stdout
    grades = re.findall(r"\b([CTLS]\d+-(?:inferior|superior))\s+(\d)", done.stdout)
    assert len(grades) == 24
    assert {site: grade for site, grade in grades if grade != "0"} == {"C3-superior": "2", "L1-superior": "1"}
    assert (full.returncode, bad.returncode) == (1, 1)
    assert "budget" in full.stderr
    assert "low-confidence: The localizer is not sure: caf" in bad.stderr
    assert "Give the points." in bad.stderr
    gone = call_example(command, tmp_path, str(tmp_path / "none"), *files)
    assert gone.returncode == 1
    assert "There is no service at " in gone.stderr


def test_the_example_in_c_scores_raw_pixels(library, tmp_path):
    need_unix()
    command = MAKERS["c"](library, tmp_path)
    (tmp_path / "neck.raw").write_bytes(bytes(2 * 30 * 20))
    with console_double(tmp_path / "s") as double:
        done = call_example(command, tmp_path, double.address, f"cervical:30:20:{tmp_path / 'neck.raw'}")
        wrong = call_example(command, tmp_path, double.address, f"cervical:31:20:{tmp_path / 'neck.raw'}")
        parts = double.parts("right")
    assert (done.returncode, wrong.returncode) == (0, 1)
    assert parts["view-1"] == ("application/octet-stream", bytes(1200))
    assert "usage: A view's rows" in wrong.stderr


def test_the_structs_of_csharp_are_as_long_as_those_of_c(library, tmp_path):
    need_unix()
    need("mcs", "mono")
    names = ("report", "region", "disc", "corner", "finding", "result", "problem", "options", "view", "request")
    lines = "".join(f'    printf("%lu\\n", (unsigned long)sizeof(spinescore_{name}));\n' for name in names)
    (tmp_path / "sizes.c").write_text(
        f'#include <stdio.h>\n#include "spinescore.h"\nint main(void) {{\n{lines}    return 0;\n}}\n', encoding="utf-8"
    )
    kinds = ", ".join(
        f"typeof({'Native.' if name in ('problem', 'options', 'view', 'request') else ''}{name.title()})"
        for name in names
    )
    (tmp_path / "Sizes.cs").write_text(
        "namespace SpineScore { public static class Sizes { public static void Main() {\n"
        f"foreach (var kind in new System.Type[] {{ {kinds} }})\n"
        "System.Console.WriteLine(System.Runtime.InteropServices.Marshal.SizeOf(kind)); } } }\n",
        encoding="utf-8",
    )
    ours = run([str(compile_c("gcc", library, tmp_path / "sizes", str(tmp_path / "sizes.c")))])
    run(["mcs", f"-out:{tmp_path / 'Sizes.exe'}", str(library / "SpineScore.cs"), str(tmp_path / "Sizes.cs")])
    assert run(["mono", str(tmp_path / "Sizes.exe")]).split() == ours.split()


WRONG_IN_CSHARP = """\
words: ok True
words-as-bytes: ok True
bytes-too-few: Usage
header: ok True
integers: View.Data is neither ushort[] nor byte[].
nothing: View.Data is neither ushort[] nor byte[].
cancel: False
disposed: Usage
cancel: False
"""


def test_wrong_calls_in_csharp_are_refused(library, tmp_path):
    need_unix()
    need("mcs", "mono")
    compile_c("gcc", library, tmp_path / "libspinescore.so", "-shared", "-fPIC")
    source = str(Path(__file__).with_name("Misuse.cs"))
    run(["mcs", "-warn:4", "-warnaserror", f"-out:{tmp_path / 'Misuse.exe'}", str(library / "SpineScore.cs"), source])
    with console_double(tmp_path / "s") as double:
        done = call_example(["mono", str(tmp_path / "Misuse.exe")], tmp_path, double.address)
        parts = double.parts("right")
    assert (done.stdout, done.stderr) == (WRONG_IN_CSHARP, "")
    assert parts["view-1-header"] == ("application/dicom", bytes(9))


def test_a_project_may_contain_the_library_without_its_examples(library, tmp_path):
    need_unix()
    need("cmake")
    (tmp_path / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.13)\nproject(console C)\nadd_subdirectory({library} sdk)\n"
        "add_executable(score main.c)\ntarget_link_libraries(score PRIVATE spinescore)\n",
        encoding="utf-8",
    )
    (tmp_path / "main.c").write_text(
        '#include "spinescore.h"\nint main(void) { return spinescore_cancel(NULL); }\n', encoding="utf-8"
    )
    run(["cmake", "-S", str(tmp_path), "-B", str(tmp_path / "build")])
    run(["cmake", "--build", str(tmp_path / "build")])
    run([str(tmp_path / "build" / "score")])


def test_the_programs_of_the_page_compile(library, tmp_path):
    need_unix()
    need("g++")
    (program,) = blocks("docs/console.md", "c")
    (tmp_path / "page.c").write_text(
        '#include "spinescore.h"\n'
        "extern int report_problem(const spinescore_problem *);\nextern void retry_after(int);\n"
        "extern void show(double, const int32_t *, const spinescore_disc *);\n"
        f"extern const void *frame;\nextern size_t frame_bytes;\nextern int page(void);\n"
        f"int page(void) {{\n{program}return 0;\n}}\n",
        encoding="utf-8",
    )
    run(["gcc", "-std=c99", "-Wall", "-Werror", "-c", "-I", str(library), str(tmp_path / "page.c"), "-o", os.devnull])
    (program,) = blocks("docs/console.md", "cpp")
    (tmp_path / "page.cpp").write_text(
        '#include "spinescore.hpp"\nextern const uint16_t *neck, *back;\n'
        "void show(double, const std::string &);\nvoid log(const std::string &, const char *, const std::string &);\n"
        f"void page();\nvoid page() {{\n{program}}}\n",
        encoding="utf-8",
    )
    run(["g++", *CXX_WARNINGS, "-c", "-I", str(library), str(tmp_path / "page.cpp"), "-o", os.devnull])


def test_the_double_knows_eighty_answers():
    assert len(PLAIN) >= 80
