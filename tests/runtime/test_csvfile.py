"""The one reader of CSV files that users write."""

from __future__ import annotations

import pytest

from spinescore.runtime.csvfile import csv_rows, delimiter_of, read_csv_text
from spinescore.runtime.followup.patientfile import read_patient_file

ROWS = [["patient_id", "name"], ["A-1", "Müller, K."], ["A-2", "Ž"]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_every_form_that_spreadsheets_write(tmp_path, encoding, delimiter, ending):
    lines = [delimiter.join(f'"{cell}"' for cell in row) for row in ROWS]
    path = tmp_path / "list.csv"
    path.write_bytes((ending.join([*lines, "", " "]) + ending).encode(encoding))
    text = read_csv_text(path, "list.csv", 1000)
    assert delimiter_of(text) == delimiter
    assert list(csv_rows(text, "list.csv")) == [(number, row) for number, row in enumerate(ROWS, 1)]
    assert [row["name"] for row in read_patient_file(path).rows] == ["Müller, K.", "Ž"]


class Fault(ValueError):
    pass


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a,b\n1\n", "line 2: 1 fields where the header has 2"),
        (b"a,b\n\n1,2,3\n", "line 3: 3 fields where the header has 2"),
        (b"a,b\n\xe9,1\n", "byte 4 is not UTF-8"),
        (b"a\n" + b"x" * 3000, "cannot be read (it is larger than the limit"),
        (b'a,b\n"' + b"x" * 200_000 + b'",1\n', "line 2: this is no CSV"),
        (b"\xff\xfea", "is not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16-le"), "it holds null characters; save the file as UTF-8"),
    ],
)
@pytest.mark.parametrize("name", ["list.csv", ""])
def test_faults_are_named(tmp_path, content, words, name):
    path = tmp_path / "list.csv"
    path.write_bytes(content)
    limit = 1 << 20 if len(content) > 100_000 else 2000
    with pytest.raises(Fault) as caught:
        list(csv_rows(read_csv_text(path, name, limit, Fault), name, Fault))
    assert words in str(caught.value)
    assert ("list.csv" in str(caught.value)) == bool(name)


def test_the_separator_is_that_of_the_first_line_also_if_carriage_returns_end_lines():
    assert delimiter_of("a,b\r1;2;3,4;5\r") == ","


def test_an_empty_file_has_an_empty_header(tmp_path):
    (tmp_path / "empty.csv").write_bytes(b"")
    assert list(csv_rows(read_csv_text(tmp_path / "empty.csv", "", 10), "")) == [(1, [])]
