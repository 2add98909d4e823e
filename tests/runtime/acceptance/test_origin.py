"""The files beside a bundle that count: this machine's own, and those that its operator or the package vouches for."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from helpers.golden_bundle import record_of, write_golden_bundle
from helpers.tensorrt_double import write_engine
from spinescore.runtime import bundle as bundles
from spinescore.runtime import cli
from spinescore.runtime.acceptance import AcceptanceRecord, find_records, keeping, mark_failed, write_record
from spinescore.runtime.bundle import Bundle, command_name, is_shipped
from spinescore.runtime.engines.places import failure, is_own, note_failure
from spinescore.runtime.engines.sidecar import Sidecar
from spinescore.runtime.machine.processor import processor_kind

FUTURE = "9999-01-01T00:00:00+00:00"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return Bundle.open(write_golden_bundle(tmp_path_factory.mktemp("golden") / "b", "none"))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Sets which machine this is: each has a cache of its own."""

    def machine(name: str) -> None:
        monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / name))

    machine("this")
    return machine


@pytest.fixture
def bundle(whole, here):
    yield whole
    for path in whole.folder.glob("acceptance/*"):
        path.unlink()


def records(bundle):
    return find_records(bundle, "cpu", processor_kind())


def test_a_strangers_record_is_passed_over_with_one_line(bundle, here):
    here("another")
    paths = [write_record(replace(record_of(bundle), framework=f"onnxruntime {n}"), bundle) for n in (1, 2)]
    assert len(records(bundle).accepted) == 2
    here("this")
    found = records(bundle)
    assert (found.accepted, found.failed, found.altered) == ((), (), ())
    (line,) = found.passed_over
    assert "brings acceptance records of onnxruntime fp16 that this machine did not make" in line
    assert f"spinescore bundle verify {bundle.folder} --device cpu" in line
    assert f"spinescore bundle trust {bundle.folder}" in line
    own = write_record(replace(record_of(bundle), framework="onnxruntime 1", date="2026-01-02"), bundle)
    assert own not in paths  # what another machine wrote is left to it
    assert [record.framework for record in records(bundle).accepted] == ["onnxruntime 1"]
    here("another")
    assert len(records(bundle).accepted) == 2


def test_the_operator_lets_them_count(bundle, here, capsys):
    here("another")
    path = write_record(record_of(bundle), bundle)
    here("this")
    assert cli.main(["bundle", "trust", str(bundle.folder), "--show"]) == 0
    printed = capsys.readouterr().out
    assert f"{path}: acceptance record: onnxruntime 1.2.3 fp16 accepted on " in printed
    assert "[not trusted]" in printed
    assert records(bundle).accepted == ()
    assert cli.main(["bundle", "trust", str(bundle.folder), "--json"]) == 0
    assert [row["trusted"] for row in json.loads(capsys.readouterr().out)] == [True]
    assert len(records(bundle).accepted) == 1
    assert records(bundle).passed_over == ()
    assert cli.main(["bundle", "trust", str(bundle.folder)]) == 0
    assert "has nothing that another machine made" in capsys.readouterr().out


def test_a_strangers_record_is_no_news_where_an_engine_was_accepted(bundle, here):
    here("another")
    write_record(record_of(bundle), bundle)
    here("this")
    assert records(bundle).passed_over
    write_record(replace(record_of(bundle), precision="fp32"), bundle)
    assert [record.precision for record in records(bundle).accepted] == ["fp32"]
    assert records(bundle).passed_over == ()


def test_what_a_stranger_wrote_is_shown_in_escapes(bundle, here, capsys):
    here("another")
    write_record(replace(record_of(bundle), framework="x\x1b[2J\n\u202e"), bundle)
    here("this")
    assert "\x1b" not in records(bundle).passed_over[0]
    assert cli.main(["bundle", "trust", str(bundle.folder), "--show"]) == 0
    printed = capsys.readouterr().out
    assert "x\\x1b[2J\\n\\u202e fp16 accepted" in printed
    assert "\x1b" not in printed


def test_what_is_no_record_cannot_be_trusted(bundle, capsys):
    path = write_record(record_of(bundle), bundle)
    path.write_text(path.read_text(encoding="utf-8").replace('"corners": 96', '"corners": 97'), encoding="utf-8")
    assert cli.main(["bundle", "trust", str(bundle.folder)]) == 4
    assert f"{path}: The acceptance record {path} was altered.  [cannot be trusted]" in capsys.readouterr().out


def test_trusting_where_nothing_can_be_signed(bundle, here, tmp_path, capsys):
    write_record(record_of(bundle), bundle)
    (tmp_path / "blocked").write_text("a file where the folder would be", encoding="utf-8")
    here("blocked")
    assert cli.main(["bundle", "trust", str(bundle.folder)]) == 4
    assert "set SPINESCORE_CACHE" in capsys.readouterr().err
    assert records(bundle).accepted == ()


def test_a_strangers_failed_record_takes_nothing_away(bundle, here):
    own = write_record(record_of(bundle), bundle)
    here("another")
    mark_failed(record_of(bundle), bundle, "never use it")
    stranger = own.with_name("acceptance-x.json")
    stranger.write_bytes(next(iter(keeping._cached(bundle).glob("*.json"))).read_bytes())
    here("this")
    assert (len(records(bundle).accepted), records(bundle).failed, records(bundle).passed_over) == (1, (), ())


@pytest.mark.parametrize("date", [FUTURE, "tomorrow", None], ids=["far", "none", "in two days"])
def test_a_record_of_the_future_does_not_win(bundle, date, tmp_path):
    date = date or (datetime.now(timezone.utc) + timedelta(days=2)).isoformat()
    write_record(replace(record_of(bundle), date=date), bundle, keeping._cached(bundle))
    assert len(records(bundle).accepted) == 1  # a clock that was wrong
    write_record(replace(record_of(bundle), self_test="it computed wrongly", passed=False), bundle)
    assert (records(bundle).accepted, len(records(bundle).failed)) == ((), 1)


def test_a_bundle_inside_the_package_counts_and_one_that_looks_alike_does_not(whole, here, tmp_path, monkeypatch):
    shipped = bundles._SHIPPED / "phantom-reference"
    (tmp_path / "phantom-reference").symlink_to(shipped, target_is_directory=True)
    (tmp_path / "bundles").mkdir()
    package = tmp_path / "package"
    package.mkdir()
    (package / "own").mkdir()
    (package / "link").symlink_to(whole.folder, target_is_directory=True)
    assert is_shipped(shipped)
    assert is_shipped(shipped / "golden" / "..")
    assert is_shipped(tmp_path / "phantom-reference")  # another path to the same
    assert command_name(tmp_path / "phantom-reference") == "phantom-reference"
    assert not is_shipped(tmp_path / "bundles" / "phantom-reference")
    monkeypatch.setattr(bundles, "_SHIPPED", package)
    assert is_shipped(package / "own")
    assert not is_shipped(package / "link")
    assert not is_shipped(package / "own" / "deeper")


def test_a_shipped_bundles_records_count(here):
    bundle = Bundle.open("phantom-reference")
    for path in (bundle.folder / "acceptance").glob("*.json"):
        assert keeping.counts(bundle, path, AcceptanceRecord.read(path))


def test_an_engine_counts_where_it_was_built_or_trusted(here, tmp_path, capsys):
    here("another")
    engine, _, sidecar = write_engine(tmp_path)
    assert is_own(tmp_path, engine, sidecar)
    here("this")
    sidecar = Sidecar.read(engine)
    assert not is_own(tmp_path, engine, sidecar)
    sidecar.write(engine)
    assert is_own(tmp_path, engine, sidecar)
    assert not is_own(tmp_path, engine, replace(sidecar, version_compatible=True))


def test_why_an_engine_failed_counts_where_it_failed(here, tmp_path):
    here("another")
    note_failure(tmp_path, "target", "no memory")
    assert failure(tmp_path, "target") == "no memory"
    here("this")
    assert failure(tmp_path, "target") == ""


def test_an_engine_that_the_operator_trusts(whole, here, tmp_path, capsys):
    bundle = Bundle.open(write_golden_bundle(tmp_path / "b", "none"))
    source = bundle.path("localizer.fp32.onnx")
    here("another")
    (tmp_path / "like").mkdir()
    _, _, like = write_engine(tmp_path / "like")
    engine = bundle.folder / "engines" / "there" / "localizer.fp16.engine"
    engine.parent.mkdir(parents=True)
    engine.write_bytes(b"plan")
    entry = bundle.manifest.files[source.name]
    replace(like, onnx=source.name, onnx_sha256=entry.sha256, version_compatible=True).write(engine)
    here("this")
    assert cli.main(["engine", "list", str(bundle.folder)]) == 0
    assert "not built on this machine, and not loaded (see spinescore bundle trust)" in capsys.readouterr().out
    assert cli.main(["bundle", "trust", str(bundle.folder)]) == 0
    assert "brings code that will run on this computer  [trusted from now on]" in capsys.readouterr().out
    assert is_own(bundle.folder, engine, Sidecar.read(engine))
