"""Every message is one printable line, whatever text of others it holds."""

from __future__ import annotations

import json

import pytest

from spinescore.runtime.text import as_json, brief, number_of, one_line, several_lines, table

# Escape, C1's own escape, carriage return, newlines, bidirectional and zero-width letters, a mark, a lone surrogate.
HIDDEN = "\x1b\x9b\r\n\x0b\x85\u2028\u2029\u202e\u2066\u200b\u200d\ufeff\xad\x7f\0\ud800\U000e0041\u3164"


def test_nothing_that_a_terminal_obeys_or_hides_is_left():
    said = one_line(f"a{HIDDEN}b")
    assert said.isprintable()
    assert said.startswith("a\\x1b\\x9b\\r\\n")
    assert said.endswith("\\u3164b")
    assert said.encode("utf-8")


@pytest.mark.parametrize(
    "text",
    ["a b", "\u00e9tude", "\u0441\u043d\u0438\u043c\u043e\u043a", "\u690e\u9593\u677f 1", "a\u00a0b", "C:\\films"],
)
def test_other_text_stays_as_it_is(text):
    assert one_line(text) == several_lines(text) == as_json(text) == text


def test_newlines_of_ones_own_layout_stay():
    assert several_lines("a\nb\x1b") == "a\nb\\x1b"


def test_json_stays_the_same_document():
    document = {"a": f"x{HIDDEN}".replace("\ud800", ""), "b": ["\U0001f9b4", "\u202e"]}
    text = as_json(json.dumps(document, ensure_ascii=False, indent=2))
    assert json.loads(text) == document
    assert text.replace("\n", "").isprintable()


def test_cells_of_tables_and_faults_are_one_line():
    assert "\\n" in table([["a\nb", 1]], ["name", "number"])
    assert len(table([["a\nb", 1]], ["name", "number"]).splitlines()) == 3
    assert brief(ValueError("a\n" * 500)) == ("ValueError: " + "a " * 500)[:160]


def test_a_count_has_the_form_of_its_noun():
    assert [number_of(count, "study") for count in (0, 1, 2)] == ["0 studies", "1 study", "2 studies"]
    assert (number_of(1, "corner"), number_of(12, "corner")) == ("1 corner", "12 corners")
