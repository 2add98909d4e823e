"""`spinescore serve`, `status` and `study`: what they print and what they return."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading

import pytest

from helpers import appliance, dicom_files
from helpers.appliance import tiny_files
from spinescore.runtime import cli, load_study
from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.verbs import serve, servedemo

pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib; the other versions run this")
if sys.platform == "win32":
    pytest.skip("the appliance runs on Linux only", allow_module_level=True)

CONFIG = """\
[spool]
path = "spool"
reserve_gb = 0.001
[score]
bundle = "bundle"
[study]
quiet_s = 0.5
quiet_complete_s = 0.1
[[source]]
name = "inbox"
kind = "folder"
path = "inbox"
settle_s = 0.1
poll_s = 0.1
[[destination]]
name = "out"
kind = "folder"
path = "out"
"""


@pytest.fixture
def umask():
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def config(tmp_path, umask):
    appliance.write_bundle(tmp_path / "bundle")
    for name in ("inbox", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "appliance.toml").write_text(CONFIG)
    return tmp_path / "appliance.toml"


def run(capsys, *words):
    status = cli.main([str(word) for word in words])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_a_folder_is_served_until_nothing_is_left_to_do(config, capsys):
    tiny_files(config.parent / "inbox" / "study")
    assert run(capsys, "serve", "--config", config, "--until-idle")[0] == 0
    study = config.parent / "out" / "1.2.3.4" / "revision-1"
    assert sorted(path.name for path in study.iterdir()) == ["report.json", "set.json", "sr.dcm"]
    assert load_study(study / "sr.dcm").rejects
    status, out, _ = run(capsys, "status", "--config", config)
    assert status == 3
    assert "1 delivered" in out
    assert "not running" in out
    document = json.loads(run(capsys, "status", "--config", config, "--json")[1])
    assert document["schema"] == "spinescore.appliance-status/1"
    assert document["studies"]["delivered"] == 1
    assert document["destinations"] == {"out": {"sent": 3}}
    assert "1.2.3.4" in run(capsys, "study", "list", "--config", config)[1]
    assert run(capsys, "study", "list", "--config", config, "--state", "parked")[1].strip() == "no studies"
    shown = json.loads(run(capsys, "study", "show", "1.2.3.4", "--config", config, "--json")[1])
    assert len(shown["objects"]) == 2
    assert [(one["revision"], one["by"], one["verdict"]) for one in shown["revisions"]] == [(1, "spinescore", None)]
    text = run(capsys, "study", "show", "1", "--config", config)[1]
    assert all(words in text for words in ("sr.dcm", "revisions", "(complete)", "reviewed: -"))
    assert "not parked" in run(capsys, "study", "retry", "1", "--config", config)[2]
    assert run(capsys, "study", "retry", "77", "--config", config)[0] == 4
    assert run(capsys, "study", "deliver", "1", "--destination", "pacs", "--config", config)[0] == 2
    answer = run(capsys, "study", "dismiss", "1", "--destination", "pacs", "--config", config)
    assert "study 1 is delivered and has no delivery that waits" in answer[2]
    (study / "sr.dcm").unlink()
    assert "3 files" in run(capsys, "study", "deliver", "1", "--config", config)[2]
    assert run(capsys, "serve", "--config", config, "--until-idle")[0] == 0
    assert (study / "sr.dcm").exists()


def test_nothing_of_a_patient_is_in_messages_or_the_status(config, capfd):
    ds = dicom_files.radiograph_dataset(PatientName="Quorvexel^Zarnith", PatientID="MRN7355608")
    dicom_files.write(ds, config.parent / "inbox" / "Quorvexel.dcm")
    (config.parent / "inbox" / "Zarnith.txt").write_text("no DICOM")
    for *words, status in (["serve", "--until-idle", 0], ["status", 3], ["status", "--json", 3]):
        assert cli.main([*words, "--config", str(config)]) == status
    said = "".join(capfd.readouterr())
    assert "not-dicom" in said
    assert not [word for word in ("Quorvexel", "Zarnith", "MRN7355608", "1.2.3.4") if word in said]


def test_a_configuration_is_checked(config, capsys):
    assert run(capsys, "serve", "--config", config, "--check")[:2] == (
        0, f"{config} is valid: 1 source, 1 destination, bundle {config.parent / 'bundle'}\n",
    )  # fmt: skip
    (config.parent / "out").rmdir()
    (config.parent / "bundle" / "bundle.json").write_text("{}")
    status, _, said = run(capsys, "serve", "--config", config, "--check")
    assert status == 2
    assert "destination out: there is no folder" in said
    assert "bundle" in said.split("destination out")[1]
    config.write_text(CONFIG + "[nodes]\nx = 1\n[spools]\n")
    status, _, said = run(capsys, "serve", "--config", config, "--check")
    assert (status, said.count("no such field")) == (2, 2)
    assert run(capsys, "status", "--config", config)[0] == 2


def test_a_socket_whose_path_is_too_long_is_said(config, capsys):
    config.write_text(CONFIG + f'[http]\nsocket = "{"x" * 100}/http.sock"\n')
    for words in (["serve", "--check"], ["serve", "--until-idle"]):
        status, _, said = run(capsys, *words, "--config", config)
        assert status in (2, 4)
        assert "at most 107" in said


def test_files_that_archives_over_http_need_are_checked_all_at_once(config, capsys):
    web = 'url = "https://here"\n'
    config.write_text(
        config.read_text()
        + f'[[source]]\nname = "o"\nkind = "orthanc"\n{web}user = "u"\npassword_file = "none"\n'
        + f'[[destination]]\nname = "v"\nkind = "stow"\n{web}token_file = "none"\nca = "ca.pem"\n'
    )
    status, _, said = run(capsys, "serve", "--config", config, "--check")
    assert status == 2
    assert f"source o: the credential in {config.parent / 'none'} cannot be read" in said
    assert f"destination v: the credential in {config.parent / 'none'} cannot be read" in said
    assert f"destination v: there is no file {config.parent / 'ca.pem'}" in said
    assert "3 faults" in said


def test_files_of_tokens_are_checked(config, capsys):
    pytest.importorskip("starlette")
    config.write_text(CONFIG + '[http]\ntcp = "127.0.0.1:1"\n[[http.token]]\nrole = "reader"\nfile = "token"\n')
    for reason in ("cannot be read", "has to hold one token of at least 16"):
        status, _, said = run(capsys, "serve", "--config", config, "--check")
        assert (status, reason in said, "1 fault" in said) == (2, True, True)
        (config.parent / "token").write_text("short")


def test_without_an_index_there_is_nothing_to_show(config, capsys):
    status, _, said = run(capsys, "status", "--config", config)
    assert (status, "there is no index" in said) == (4, True)


def test_a_bundle_that_is_refused_ends_the_start(config, capsys):
    (config.parent / "bundle" / "bundle.json").write_text("{}")
    assert run(capsys, "serve", "--config", config, "--until-idle")[0] == 4


def test_windows_is_told(monkeypatch, capsys):
    monkeypatch.setattr("spinescore.runtime.verbs.serve.sys.platform", "win32")
    status, _, said = run(capsys, "serve")
    assert (status, "Linux only" in said) == (4, True)


def test_the_states_of_the_option_are_those_there_are():
    from spinescore.runtime.appliance.store.studies import STATES
    from spinescore.runtime.verbs import study

    assert study._STATES == STATES


def test_a_signal_that_arrives_while_the_event_is_waited_for_is_not_lost():
    stop = threading.Event()
    with stop._cond:  # as `stop.wait` holds it for a moment
        handling = threading.Thread(target=serve._setter(stop), args=(15, None), daemon=True)
        handling.start()
        handling.join(10)
        assert not handling.is_alive()
    assert stop.wait(10)


def test_the_report_of_a_study_is_printed(config, capsys):
    tiny_files(config.parent / "inbox" / "study")
    assert run(capsys, "study", "report", "1", "--config", config)[0] == 4  # there is no index yet
    run(capsys, "serve", "--config", config, "--until-idle")
    status, out, _ = run(capsys, "study", "report", "1", "--config", config)
    document = json.loads((config.parent / "out/1.2.3.4/revision-1/report.json").read_text())
    assert status == 0
    assert f"mSASSS        {document['total']['value']} of 72" in out
    for region in document["regions"].values():
        for corner in (corner for disc in region["discs"] for corner in disc["corners"]):
            assert f"{corner['site']:12}  {corner['grade']} of 3" in out
    for path in (config.parent / "spool" / "results").glob("*/sr.dcm"):
        path.unlink()
    status, _, err = run(capsys, "study", "report", "1", "--config", config)
    assert (status, "no structured report" in err) == (4, True)


def test_the_demo_without_a_network_has_its_study_in_the_inbox(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(servedemo, "find_spec", lambda name: None)
    config = serve.read(servedemo.make_demo(tmp_path / "demo"))
    assert config.node is None
    assert sorted(path.name for path in (tmp_path / "demo" / "inbox" / "study").iterdir()) == [
        "cervical.dcm",
        "lumbar.dcm",
    ]


def test_the_demo_listens_on_the_loopback_interface_and_takes_nobodys_port(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pynetdicom")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setattr(servedemo, "_PORT", other.getsockname()[1])
        config = serve.read(servedemo.make_demo(tmp_path / "demo"))
        assert config.node.host == "127.0.0.1"
        assert config.node.port != other.getsockname()[1]
        with pytest.raises(SpineScoreError, match="is in use"):
            servedemo.Modality(tmp_path / "demo", other.getsockname()[1]).start()
    assert list((tmp_path / "demo" / "inbox").iterdir()) == []
    assert len(list((tmp_path / "demo" / "study").iterdir())) == 2


def test_a_study_that_cannot_be_sent_goes_to_the_demos_inbox(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(servedemo, "_LISTEN_S", 0.0)
    monkeypatch.setattr(servedemo, "_RESULTS_S", 0.0)
    monkeypatch.setattr(servedemo, "_listens", lambda port: False)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "a.dcm").write_bytes(b"1")
    servedemo.Modality(tmp_path, 11112)._run()
    assert (tmp_path / "inbox" / "study" / "a.dcm").read_bytes() == b"1"
    said = capsys.readouterr().err
    assert f"does not answer at 127.0.0.1, port 11112; the study is put into {tmp_path / 'inbox' / 'study'}" in said
    assert servedemo.results_of(tmp_path) == []
