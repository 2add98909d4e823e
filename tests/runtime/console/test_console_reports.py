"""The reader of answers in the C library: every field, the strictness of its JSON, its numbers, and wrong calls."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from helpers.console_build import SANITIZERS, compile_c, need_unix, run, sdk
from helpers.console_calls import MISUSE
from helpers.console_double import ANSWER, PLAIN, REPORT, console_double, edited
from helpers.made_reports import NORMAL, changed, made_report
from spinescore.runtime.codes import CODES
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


def number(value):
    return -1.0 if value is None else float(value)


def flat(answer, size):
    """The lines that `readback` prints of an answer, numbers as floats."""
    report = answer.get("report", answer)
    low, high = report["total"]["range"]
    within = {None: -1, False: 0, True: 1}[report["within_budget"]]
    yield ["study", report["study"]["study_instance_uid"] or "", TOTALS.index(report["total"]["status"]),
           f"{low}..{high}", within, size]  # fmt: skip
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
        REPORT,
        edited(notices=notices(40), rejects=notices(20)[::-1], within_budget=True),
        edited(timings_ms={**REPORT["timings_ms"], "total": 812.0625}, within_budget=False),
        json.loads(made_report({"cervical": changed(NORMAL, at1=None, at4=3), "lumbar": None}).to_json()),
        json.loads(made_report({"cervical": None, "lumbar": changed(NORMAL, at0=None, at1=None, at5=None)}).to_json()),
    ],
)
def test_every_field_is_read(programs, tmp_path, answer):
    (tmp_path / "answer").write_text(json.dumps(answer, ensure_ascii=False), encoding="utf-8")
    lines = printed(run([programs["readback"], str(tmp_path / "answer")]))
    expected = list(flat(answer, (tmp_path / "answer").stat().st_size))
    assert [line for line, wish in zip(lines, expected, strict=True) if not alike(line, wish)] == []
    assert len(lines) > 10


def is_json(text):
    """Whether Python's strict reader takes the bytes, within our depth, and they are text without half surrogates."""

    def refuse(word):
        raise ValueError(word)

    def depth(value):
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return 1 + max(map(depth, inner), default=0) if isinstance(value, (dict, list)) else 0

    try:
        value = json.loads(text.decode(), parse_constant=refuse)
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError:
        return False
    return depth(value) <= 32


WORDS = [
    *(
        b'{"',
        b'"}',
        b"[1,",
        b"]",
        b"null",
        b"true",
        b"false",
        b"NaN",
        b"Infinity",
        b"-",
        b"0",
        b"01",
        b"1.",
        b".5",
        b"1e5",
    ),
    *(
        b"1E+",
        b"e-3",
        b'"',
        b"\\u",
        b"\\ud83d\\ude00",
        b"\\ud83d",
        b"\\udc00",
        b"\\n",
        b"\\x",
        b"\\",
        b"\xff",
        b"\xc3\xa9",
    ),
    *(
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xf0\x9f\xa6\xb4",
        b"\x00",
        b"\x1f",
        b"\x7f",
        b" ",
        b"\t",
    ),
    *(b"\x0c", b",", b":", b"[" * 30, b"]" * 30, b"/", b"//", b"'a'", b"1" * 40, b"1e999", b"\xef\xbb\xbf"),
]
SEEDS = [
    *(b'{"a": [1, -2.5e+3, true, null, "x\\u00e9\\n"], "b": {}}', b"[[], {}, [[0]]]", b'"\xc3\xa9\xf0\x9f\xa6\xb4"'),
    *(
        b"-0.0",
        b"1e-400",
        b"123456789012345678901234567890",
        b"[" * 31 + b"]" * 31,
        b"[" * 32 + b"]" * 32,
        b'{"a":1,"a":2}',
    ),
]


def mutated(chance):
    """A piece of JSON, changed at a few places."""
    text = chance.choice(SEEDS)
    for _ in range(chance.randrange(4)):
        begin = chance.randrange(len(text) + 1)
        end = min(len(text), begin + chance.choice((0, 0, 1, 3)))
        text = text[:begin] + chance.choice((b"", *WORDS)) + text[end:]
    return text


def test_json_is_as_strict_as_pythons(programs, tmp_path):
    chance = random.Random(5)
    pieces = [*SEEDS, *WORDS, *(mutated(chance) for _ in range(1500))]
    outer = json.dumps(ANSWER).encode()
    files = []
    for number, piece in enumerate(pieces):
        files.append(tmp_path / str(number))
        files[-1].write_bytes(outer[:-1] + b', "x": ' + piece + b"}")
    lines = run([programs["readback"], "-s", *map(str, files)]).splitlines()
    said = [line.startswith("ok") for line in lines]
    wished = [is_json(path.read_bytes()) for path in files]
    wrong = [path.read_bytes()[len(outer) + 5 :] for path, a, b in zip(files, said, wished, strict=True) if a != b]
    assert wrong == []
    assert 300 < sum(said) < len(said) - 300


def test_answers_with_any_change_are_read_or_refused_cleanly(programs, tmp_path):
    chance = random.Random(6)
    text = json.dumps(ANSWER).encode()
    files = []
    for number in range(600):
        place = chance.randrange(len(text))
        changed_text = text[:place] + chance.choice(WORDS) + text[place + chance.randrange(12) :]
        files.append(tmp_path / str(number))
        files[-1].write_bytes(changed_text[: chance.choice((len(changed_text), chance.randrange(len(changed_text))))])
    lines = run([programs["readback"], "-s", *map(str, files)]).splitlines()
    assert {line.split()[0] for line in lines} == {"ok", "bad-answer"}
    assert any("The field " in line for line in lines)


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


def test_answers_of_http_with_any_change_are_read_or_refused_cleanly(programs, tmp_path):
    """The target of libFuzzer, with a short run of changes of our own."""
    (tmp_path / "driver.c").write_text(DRIVER, encoding="utf-8")
    library = Path(programs["readback"]).parent / "sdk"
    sources = [str(HERE / "fuzz.c"), str(library / "spinescore_codes.c"), str(tmp_path / "driver.c")]
    run(["gcc", "-std=c99", *SANITIZERS, "-I", str(library), *sources, "-o", str(tmp_path / "fuzz")])
    chance = random.Random(7)
    texts = [text for text in PLAIN.values() if 0 < len(text) < 50_000]
    files = []
    for number in range(600):
        text = chance.choice(texts)
        place = chance.randrange(min(len(text), 300))
        word = chance.choice([*WORDS, b"\r\n", b"\n", b"Content-Length: 7\r\n", b"HTTP/1.1 200 OK\r\n", b"5;\r\n"])
        files.append(tmp_path / str(number))
        files[-1].write_bytes(bytes([number % 2]) + text[:place] + word + text[place + chance.randrange(9) :])
    run([str(tmp_path / "fuzz"), *map(str, files)])


NUMBERS = [
    *(
        "0",
        "0.0",
        "1",
        "0.1",
        "0.3",
        "123.456789",
        "812.0625",
        "0.000001",
        "999999999.999999",
        "1e3",
        "1.5E-7",
        "25e-1",
    ),
    *("100000000000", "0.30000000000000004", "3.141592653589793", "1e-30", "5e-324", "0e999"),
]


def test_numbers_are_exact(programs, tmp_path):
    """Up to 15 digits to the last bit; longer ones, and great exponents, within a few units in the last place."""
    for text in NUMBERS:
        answer = json.dumps(edited(timings_ms={"total": "?"})).replace('"?"', text)
        (tmp_path / "answer").write_text(answer, encoding="utf-8")
        lines = printed(run([programs["readback"], str(tmp_path / "answer")]))
        read, digits = float(lines[2][1]), len(text.lower().split("e")[0].replace(".", "").lstrip("0"))
        if digits <= 15 and abs(float(text or 0)) > 1e-15:
            assert read == float(text), text
        else:
            assert read == pytest.approx(float(text), rel=1e-14, abs=1e-300), text


def test_the_table_of_codes_is_that_of_the_service(programs):
    rows = [line.split("\t") for line in run([programs["readback"], "-c"]).splitlines()]
    assert rows == [[name, code.severity, code.meaning, code.next_step, "1"] for name, code in CODES.items()]
    assert max(map(len, CODES)) < 48, "the structs of C hold 47 bytes"


def test_wrong_calls_are_refused_and_newer_programs_served(programs, tmp_path):
    with console_double(tmp_path / "s") as double:
        assert run([programs["misuse"], double.address]) == MISUSE
