"""Whatever is done to an audit log, the first bad line is named; what a killed writer leaves is repaired."""

from __future__ import annotations

import hashlib
import json
import os
import random
from datetime import datetime, timezone

import pytest

from helpers.appliance import FakeClock
from spinescore.runtime import cli
from spinescore.runtime.appliance.seen import audit
from spinescore.runtime.appliance.seen.auditcheck import Flaw, Summary, check
from spinescore.runtime.appliance.store.index import Index

MONTHS = (9, 10, 11)
A_MONTH = 4  # records


class Calendar(FakeClock):
    month = 9

    def date(self):
        return datetime(2026, self.month, 5, tzinfo=timezone.utc)


@pytest.fixture
def log(tmp_path):
    """A spool whose log has twelve records in three files, its index, and its clock."""
    index, clock = Index(tmp_path / "index.sqlite"), Calendar()
    for month in MONTHS:
        clock.month = month
        for _ in range(A_MONTH):
            note(index, clock)
    yield tmp_path, index, clock
    index.close()


def note(index, clock, event="event"):
    with index.transaction():
        audit.note(index, clock, event, study=1)


def outcome(spool, index):
    result = check(spool, audit.read_head(index))
    return (result.file, result.line, result.kind) if isinstance(result, Flaw) else result


def lines_of(spool) -> list[list[bytes]]:
    return [path.read_bytes().splitlines() for path in audit.files_of(spool / "audit")]


def write(spool, files) -> None:
    for path, lines in zip(audit.files_of(spool / "audit"), files, strict=True):
        path.write_bytes(b"".join(line + b"\n" for line in lines))


def place(number: int) -> tuple[str, int]:
    return f"2026-{MONTHS[number // A_MONTH]:02}.jsonl", number % A_MONTH + 1


ALL = range(A_MONTH * len(MONTHS))
EDITS = ((b'"study":1', b'"study":2'), (b'"previous":"', b'"previous":"0'), (b"event", b"\xff"), (b"{", b""))


def test_an_untouched_log_is_whole(log):
    spool, index, _ = log
    result = outcome(spool, index)
    assert isinstance(result, Summary)
    assert (result.records, result.files, result.repaired) == (12, 3, 0)


@pytest.mark.parametrize("number", ALL)
def test_an_edited_record_is_named(log, number):
    spool, index, _ = log
    whole = lines_of(spool)
    for old, new in EDITS:
        files = [list(lines) for lines in whole]
        files[number // A_MONTH][number % A_MONTH] = whole[number // A_MONTH][number % A_MONTH].replace(old, new, 1)
        write(spool, files)
        assert outcome(spool, index) == (*place(number), "edited"), (old, new)


@pytest.mark.parametrize("number", ALL)
def test_a_removed_record_is_missed(log, number):
    spool, index, _ = log
    files = lines_of(spool)
    del files[number // A_MONTH][number % A_MONTH]
    write(spool, files)
    if number == ALL[-1]:
        assert outcome(spool, index) == ("2026-11.jsonl", A_MONTH, "truncated")
    else:
        file, line = place(number + 1)
        assert outcome(spool, index) == (file, line - (number % A_MONTH < A_MONTH - 1), "removed")


@pytest.mark.parametrize("number", ALL)
@pytest.mark.parametrize("kind", ["copy", "forged", "text"])
def test_an_inserted_line_is_named(log, number, kind):
    spool, index, _ = log
    files = lines_of(spool)
    lines, at = files[number // A_MONTH], number % A_MONTH
    record = json.loads(lines[at])
    forged = json.dumps({**record, "study": 7}).encode()  # it continues the chain: only the next record shows it
    lines.insert(at, {"copy": files[1][2], "forged": forged, "text": b"no record"}[kind])
    write(spool, files)
    file, line, found = outcome(spool, index)
    assert (file, found) == (place(number)[0], "inserted")
    assert line == place(number)[1] + (kind == "copy" and number == A_MONTH + 2)  # there it is the copy of itself


def test_a_file_that_is_gone_is_missed(log):
    spool, index, _ = log
    first, second, third = audit.files_of(spool / "audit")
    content = second.read_bytes()
    second.unlink()
    assert outcome(spool, index) == (third.name, 1, "removed")
    second.write_bytes(content)
    first.unlink()
    assert outcome(spool, index) == (second.name, 1, "removed")
    for path in (second, third):
        path.unlink()
    assert outcome(spool, index)[2] == "truncated"


@pytest.mark.parametrize("cut", [1, 5, 80, 200, 700])
def test_an_end_that_was_cut_off_is_missed_and_stays_missed(log, cut):
    spool, index, clock = log
    path = audit.files_of(spool / "audit")[-1]
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    if cut == 1:  # the newline alone: every record is there
        assert isinstance(outcome(spool, index), Summary)
    else:
        assert outcome(spool, index)[2] == "truncated"
    note(index, clock)
    (fault,) = index.rows("SELECT code FROM faults")
    assert fault["code"] == "audit-altered"
    if cut == 1:
        assert isinstance(outcome(spool, index), Summary)
    else:
        assert outcome(spool, index)[2] in ("removed", "torn", "edited")
    assert b'"event":"altered"' in path.read_bytes()


def test_records_that_were_all_written_anew_do_not_fit_the_index(log):
    spool, index, _ = log
    files, last = lines_of(spool), audit.FIRST
    for lines in files:
        for at, line in enumerate(lines):
            record = {**json.loads(line), "previous": last}
            record["study"] = 9
            lines[at] = json.dumps(record).encode()
            last = hashlib.sha256(lines[at]).hexdigest()
    write(spool, files)
    assert outcome(spool, index) == ("2026-11.jsonl", A_MONTH, "edited")
    assert isinstance(check(spool, None), Summary)  # without the index it cannot be seen


def test_a_writer_killed_anywhere_in_a_line_is_repaired_by_the_next(log, monkeypatch):
    spool, index, clock = log
    path = audit.files_of(spool / "audit")[-1]

    def end_after(count):
        def begin(file, data):
            with file.open("ab") as stream:
                stream.write(data[:count])
            raise KeyboardInterrupt  # the process ends: its transaction is rolled back

        return begin

    whole = (0, -1, None)  # nothing is left of the line, or no more than its newline is missing
    counts = [*range(0, 150, 17), -2, -1, None]
    for count in counts:
        with monkeypatch.context() as patched:
            patched.setattr(audit, "_append", end_after(count))
            with pytest.raises(KeyboardInterrupt):
                note(index, clock, "killed")
        found = outcome(spool, index)
        assert isinstance(found, Summary) if count in whole else found[2] == "torn", count
        note(index, clock, "next")
        assert isinstance(outcome(spool, index), Summary), count
    repairs = [json.loads(line) for line in path.read_bytes().splitlines() if b'"repaired"' in line]
    assert len(repairs) == len(counts) - 1
    assert [bool(one["not_committed"]) for one in repairs].count(True) == 2
    assert outcome(spool, index).repaired == len(repairs) - 2
    torn = next(line for line in path.read_bytes().splitlines() if audit.record_of(line) is None)
    path.write_bytes(path.read_bytes().replace(torn, torn[:-1] + b"?", 1))
    assert outcome(spool, index)[2] == "inserted"  # a torn line is held by its hash, too


def test_a_killed_writer_of_a_new_month_is_repaired(log):
    spool, index, clock = log
    for name, text, lines in (("2026-12", b"", 1), ("2027-01", b'{"half', 3)):
        (spool / "audit" / f"{name}.jsonl").write_bytes(text)
        clock.month = 12
        note(index, clock)
        assert isinstance(outcome(spool, index), Summary)
        assert len(lines_of(spool)[-1]) == lines


def test_a_log_whose_index_is_gone_goes_on(log):
    spool, index, clock = log
    with index.transaction():
        index.change("DELETE FROM facts")
    note(index, clock)
    *_, lost, last = (json.loads(line) for line in lines_of(spool)[-1])
    assert (lost["n"], lost["event"], last["n"]) == (13, "head-lost", 14)
    assert isinstance(outcome(spool, index), Summary)


def test_processes_that_write_at_once_and_are_killed_make_one_chain(memory_folder):
    """In memory, as four writers that wait for a busy disk could keep one of them waiting for too long."""
    Index(memory_folder / "index.sqlite").close()
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            write_until_killed(memory_folder, random.Random(number))
        children.append(child)
    assert {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children} == {9}
    index = Index(memory_folder / "index.sqlite")
    note(index, Calendar())
    result = outcome(memory_folder, index)
    index.close()
    assert isinstance(result, Summary)
    assert result.records >= 41
    assert result.repaired >= 1


def write_until_killed(spool, chance) -> None:
    """Write ten records, then half of one, and end."""
    try:
        index = Index(spool / "index.sqlite")
        for _ in range(10):
            note(index, Calendar())

        def half(descriptor, data, write=os.write):
            write(descriptor, data[: chance.randrange(1, max(2, len(data)))])  # or the end of a torn line
            os._exit(9)

        audit.os.write = half
        note(index, Calendar())
    finally:
        os._exit(1)


CONFIG = '[spool]\npath = "."\n[score]\nbundle = "phantom-reference"\n'


def test_the_command_says_what_is_wrong_and_where(log, capsys):
    spool, index, _ = log
    (spool / "appliance.toml").write_text(CONFIG)
    words = ["audit", "verify", "--config", str(spool / "appliance.toml")]
    assert cli.main(words) == 0
    assert "12 records in 3 files" in capsys.readouterr().out
    files = lines_of(spool)
    files[1][2] = files[1][2].replace(b'"study":1', b'"study":2')
    write(spool, files)
    assert cli.main(words) == 4
    assert "2026-10.jsonl, line 3: edited: record 7 was changed" in capsys.readouterr().err
    index.close()
    (spool / "index.sqlite").unlink()
    for path in audit.files_of(spool / "audit"):
        path.unlink()
    assert cli.main(words) == 0
    told = capsys.readouterr()
    assert "no records yet" in told.out
    assert "there is no index" in told.err


def test_a_folder_that_cannot_be_listed_is_no_empty_one(log):
    spool, index, _ = log
    (spool / "audit").rename(spool / "elsewhere")
    assert outcome(spool, index)[2] == "truncated"
    (spool / "audit").write_text("")
    with pytest.raises(NotADirectoryError):
        outcome(spool, index)
