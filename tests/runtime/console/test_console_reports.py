"""The reader of answers in the C library: every field, the bounds of every number, kept reports, and wrong calls."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest

from helpers.console_build import SANITIZERS, compile_c, need_unix, run, sdk
from helpers.console_calls import MISUSE
from helpers.console_double import ANSWER, PLAIN, REPORT, console_double, edited
from helpers.console_structs import SentAnswer
from helpers.made_reports import NORMAL, changed, made_report
from spinescore.runtime.codes import CODES
from spinescore.runtime.console.wire import pack_answer
from spinescore.runtime.study import REGIONS

HERE = Path(__file__).parent
CORNERS = ("scored", "abstained", "unreadable", "imputed")
TOTALS = ("complete", "imputed", "incomplete")


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """`readback` and `misuse`, with sanitizers."""
    need_unix()
    folder = tmp_path_factory.mktemp("readback")
    library = sdk(folder / "sdk")
    return {
        name: str(compile_c("gcc", library, folder / name, *SANITIZERS, str(HERE / f"{name}.c")))
        for name in ("readback", "misuse")
    }


def kept(answer):
    """The bytes of a report."""
    return pack_answer({}, answer["report"], answer.get("results", {}), 0)[832:]


def number(value):
    return -1.0 if value is None else float(value)


def flat(answer):
    """The lines that `readback` prints of an answer, numbers as floats."""
    report = answer.get("report", answer)
    low, high = report["total"]["range"]
    within = {None: -1, False: 0, True: 1}[report["within_budget"]]
    yield ["study", report["study"]["study_instance_uid"] or "", TOTALS.index(report["total"]["status"]),
           f"{low}..{high}", within, 0]  # fmt: skip
    yield ["total", number(report["total"]["value"])]
    yield ["elapsed", number(report["timings_ms"]["total"])]
    for name in REGIONS:
        region = report["regions"][name]
        status = ("scored", "rejected", "missing").index(region["status"])
        low, high = region["range"]
        code = region["reject"]["code"] if region["reject"] else "-"
        yield ["region", status, region["missing"], f"{low}..{high}", code, len(region["discs"])]
        yield ["total", number(region["total"])]
        for disc in region["discs"]:
            yield ["disc", disc["level"]]
            yield ["centre", *map(number, disc["centre_px"])]
            yield ["anterior", *map(number, disc["anterior_px"])]
            yield ["confidence", number(disc["confidence"])]
            yield ["rotation", number(disc["rotation_deg"])]
            yield ["total", number(disc["total"])]
            for corner in disc["corners"]:
                grade = -1 if corner["grade"] is None else corner["grade"]
                yield ["corner", corner["site"], CORNERS.index(corner["status"]), grade]
                yield ["imputed", number(corner["imputed"])]
                yield ["probabilities", *map(number, corner["probabilities"] or [None] * 4)]
    for name, most in (("notices", 32), ("rejects", 16)):
        yield ["warnings" if name == "notices" else "rejects", len(report[name])]
        for one in report[name][:most]:
            yield ["finding", one["code"], (*REGIONS, None).index(one["region"]) if one["region"] else -1]
    for name, path in answer.get("results", {}).items():
        yield ["result", name, path]


def printed(text):
    return [line.split(" ") for line in text.splitlines()]


def alike(line, expected):
    return len(line) == len(expected) and all(
        float(word) == value if isinstance(value, float) else word == str(value)
        for word, value in zip(line, expected, strict=True)
    )


def notices(count):
    return [
        {"code": "saturated", "severity": "warning", "message": "\u00e9", "region": region, "source": None}
        for region in ([*REGIONS, None] * count)[:count]
    ]


@pytest.mark.parametrize(
    "answer",
    [
        ANSWER,
        edited(notices=notices(40), rejects=notices(20)[::-1], within_budget=True),
        edited(timings_ms={**REPORT["timings_ms"], "total": 812.0625}, within_budget=False),
        {"report": json.loads(made_report({"cervical": changed(NORMAL, at1=None, at4=3), "lumbar": None}).to_json())},
        {
            "report": json.loads(
                made_report({"cervical": None, "lumbar": changed(NORMAL, at0=None, at1=None, at5=None)}).to_json()
            )
        },
    ],
)
def test_every_field_is_read(programs, tmp_path, answer):
    (tmp_path / "kept").write_bytes(kept(answer))
    lines = printed(run([programs["readback"], str(tmp_path / "kept")]))
    expected = list(flat(answer))
    assert [line for line, wish in zip(lines, expected, strict=True) if not alike(line, wish)] == []
    assert len(lines) > 10


def test_long_texts_are_cut_between_characters():
    sent = SentAnswer.from_buffer_copy(
        pack_answer({"detail": "\u20ac" * 200, "next_step": "x" * 400, "retry_after_s": 5}, None, {}, 7)
    )
    problem = sent.problem
    assert sent.report.answer_bytes == 7
    assert problem.message.decode() == "\u20ac" * 170  # of 3 bytes each
    assert problem.next_step == b"x" * 255
    assert (problem.struct_size, problem.code, problem.retry_after_s) == (832, b"", 5)


def test_reports_with_any_change_are_read_or_refused_cleanly(programs, tmp_path):
    chance = random.Random(6)
    report = kept(ANSWER)
    files = []
    for number in range(600):
        place = chance.randrange(chance.choice((200, 2700, len(report))))
        piece = chance.choice((bytes([chance.randrange(256)]), b"\xff" * 8, struct.pack("<d", chance.uniform(-9, 99))))
        changed_report = report[:place] + piece + report[place + len(piece) :]
        files.append(tmp_path / str(number))
        files[-1].write_bytes(
            changed_report[: chance.choice((len(report), len(report), chance.randrange(len(report))))]
        )
    lines = run([programs["readback"], "-s", *map(str, files)]).splitlines()
    said = [line.split()[0] for line in lines]
    assert set(said) == {"ok", "bad-answer"}
    assert 100 < said.count("ok") < 400


def test_a_kept_report_is_read_again_also_by_an_older_program(programs, tmp_path):
    report = kept(ANSWER)
    (tmp_path / "newer").write_bytes(struct.pack("<I", len(report) + 16) + report[4:] + b"\7" * 16)
    (tmp_path / "cut").write_bytes(report[:-1] + b"x")
    (tmp_path / "short").write_bytes(report[:9000])
    files = [str(tmp_path / name) for name in ("newer", "cut", "short")]
    said = [line.split()[0] for line in run([programs["readback"], "-s", *files]).splitlines()]
    assert said == ["ok", "ok", "bad-answer"]


DRIVER = """
#include <stdio.h>
#include <stdint.h>
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);
int main(int count, char **words) {
    static uint8_t data[100000];
    for (int i = 1; i < count; i++) {
        FILE *file = fopen(words[i], "rb");
        size_t bytes = file ? fread(data, 1, sizeof data, file) : 0;
        if (file) fclose(file);
        LLVMFuzzerTestOneInput(data, bytes);
    }
    return 0;
}
"""


def test_answers_with_any_change_are_read_or_refused_cleanly(programs, tmp_path):
    """The target of libFuzzer, with a short run of changes of our own."""
    (tmp_path / "driver.c").write_text(DRIVER, encoding="utf-8")
    library = Path(programs["readback"]).parent / "sdk"
    sources = [str(HERE / "fuzz.c"), str(library / "spinescore_codes.c"), str(tmp_path / "driver.c")]
    run(["gcc", "-std=c99", *SANITIZERS, "-I", str(library), *sources, "-o", str(tmp_path / "fuzz")])
    chance = random.Random(7)
    texts = [text for text in PLAIN.values() if 0 < len(text) < 50_000]
    words = [b"", b"\r\n", b"\n", b"\0", b"\xff", b": ", b"9" * 20, b"Content-Length: 7\r\n", b"HTTP/1.1 200 OK\r\n"]
    files = []
    for number in range(600):
        text = chance.choice(texts)
        place = chance.randrange(min(len(text), chance.choice((200, 20_000))))
        files.append(tmp_path / str(number))
        files[-1].write_bytes(
            bytes([number % 2]) + text[:place] + chance.choice(words) + text[place + chance.randrange(9) :]
        )
    run([str(tmp_path / "fuzz"), *map(str, files)])


def test_the_table_of_codes_is_that_of_the_service(programs):
    rows = [line.split("\t") for line in run([programs["readback"], "-c"]).splitlines()]
    assert rows == [[name, code.severity, code.meaning, code.next_step, "1"] for name, code in CODES.items()]
    assert max(map(len, CODES)) < 48, "the structs of C hold 47 bytes"


def test_wrong_calls_are_refused_and_newer_programs_served(programs, tmp_path):
    with console_double(tmp_path / "s") as double:
        assert run([programs["misuse"], double.address]) == MISUSE
