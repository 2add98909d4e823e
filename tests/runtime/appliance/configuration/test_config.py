"""The configuration: every fault of the file is said at once, with its place."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest

from helpers.documentation import blocks
from spinescore.runtime.appliance.configuration.config import Config, ConfigError, Node, Score, SpoolPart, read_config
from spinescore.runtime.appliance.configuration.endpoints import Web
from spinescore.runtime.appliance.network import network_faults
from spinescore.runtime.documents import document_of, read

pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib; the other versions run this")

LEAST = '[spool]\npath = "spool"\n[score]\nbundle = "phantom-reference"\n'


def config_in(folder: Path, text: str) -> Path:
    path = folder / "appliance.toml"
    path.write_text(text, encoding="utf-8")
    return path


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_config(config_in(folder, text))
    return caught.value.faults


def test_paths_are_relative_to_the_file(tmp_path):
    (tmp_path / "mine").mkdir()
    text = LEAST.replace("phantom-reference", "mine") + '[[source]]\nname = "a"\nkind = "folder"\npath = "in"\n'
    config = read_config(config_in(tmp_path, text.replace("…", "0" * 64)))
    assert config.spool.path == str(tmp_path / "spool")
    assert config.score.bundle == str(tmp_path / "mine")
    assert config.source[0].path == str(tmp_path / "in")
    assert read_config(config_in(tmp_path, LEAST)).score.bundle == "phantom-reference"


def test_a_process_gets_the_same_configuration(tmp_path):
    text = LEAST + '[[destination]]\nname = "a"\nkind = "folder"\npath = "out"\nresults = ["sr", "not-scored"]\n'
    config = read_config(config_in(tmp_path, text.replace("…", "0" * 64)))
    assert read(Config, document_of(config)) == config
    assert config.formats == ("json", "sr")
    assert read(Config, document_of(Config(SpoolPart("/s"), Score("b")))) == Config(SpoolPart("/s"), Score("b"))


MANY = """\
odd = 1
[spool]
path = ""
reserve_gb = "much"
typo_h = 3
[score]
bundle = "b"
device = "gpu"
[study]
quiet_s = 5
quiet_complete_s = 9
[[source]]
name = "In Box"
kind = "folder"
path = "a"
[[source]]
name = "c"
kind = "ftp"
path = "c"
[node]
port = 0
ae_title = "A\\\\B"
tls = { cert = "c", key = "k" }
[[peer]]
ae_title = "A TITLE THAT IS LONG"
host = "somewhere"
classes = ["DX", "CT"]
[[peer]]
host = "10.0.0.0/8"
[[destination]]
name = "d"
kind = "folder"
results = ["sr", "pdf"]
host = "here"
[[destination]]
name = "e"
kind = "dicom"
host = "here"
path = "p"
[[destination]]
name = "f"
kind = "dicom"
host = "here"
port = 104
ae_title = "F"
results = ["sr", "html"]
commitment = 1
"""


def test_every_fault_is_said_at_once(tmp_path):
    said = faults(tmp_path, MANY)
    places = [fault.partition(":")[0] for fault in said]
    assert sorted(places) == [
        "destination[0].host", "destination[0].path", "destination[0].results[1]", "destination[1].ae_title",
        "destination[1].path", "destination[1].port", "destination[2].commitment", "destination[2].results",
        "node.ae_title", "node.port", "node.tls.ca", "odd", "peer[0].ae_title", "peer[0].classes[1]", "peer[0].host",
        "peer[1].ae_title", "score.device", "source[0].name", "source[1].kind", "spool.path", "spool.reserve_gb",
        "spool.typo_h", "study.quiet_complete_s",
    ]  # fmt: skip
    assert all(": " in fault for fault in said)


CERTIFIED = '[node]\n[[peer]]\nae_title = "A"\nhost = "10.0.0.1"\ncert_sha256 = "{}"\n'

WEB = """\
[[source]]
name = "a"
kind = "orthanc"
settle_s = 5
user = "u"
[[source]]
name = "b"
kind = "folder"
path = "b"
url = "http://here"
history = false
[[destination]]
name = "c"
kind = "stow"
url = "https://u:p@here/?a=1"
token_file = "t"
user = "u"
password_file = "p"
cert = "c"
commitment = true
results = ["sr", "json"]
[[destination]]
name = "d"
kind = "orthanc"
url = "http://here:8042"
ca = "ca.pem"
host = "here"
ae_title = "HERE"
[[destination]]
name = "e"
kind = "dicom"
host = "here"
port = 104
ae_title = "E"
token_file = "t"
"""


def test_every_fault_of_archives_over_http_is_said(tmp_path):
    places = [fault.partition(":")[0] for fault in faults(tmp_path, LEAST + WEB)]
    assert sorted(places) == [
        "destination[0].cert", "destination[0].commitment", "destination[0].results", "destination[0].token_file",
        "destination[0].url", "destination[1].ae_title", "destination[1].ca", "destination[1].host",
        "destination[2].token_file", "source[0].settle_s", "source[0].url", "source[0].user", "source[1].history",
        "source[1].url",
    ]  # fmt: skip


@pytest.mark.parametrize("url", ["here", "ftp://here", "https://", "http://here:x", "http://a b", "http://me@here",
                                 "http://a..b"])  # fmt: skip
def test_a_url_names_a_server_of_http(tmp_path, url):
    text = LEAST + f'[[destination]]\nname = "a"\nkind = "stow"\nurl = "{url}"\n'
    assert [fault.partition(":")[0] for fault in faults(tmp_path, text)] == ["destination[0].url"]


def test_a_secret_is_a_credential_of_the_service_or_a_file_beside_the_configuration(tmp_path, monkeypatch):
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "token").write_text("x")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    text = '[[destination]]\nname = "a"\nkind = "stow"\nurl = "https://here"\ntoken_file = "token"\nca = "ca.pem"\n'
    config = read_config(config_in(tmp_path, LEAST + text))
    assert config.destination[0].web.token_file == str(credentials / "token")
    assert config.destination[0].web.ca == str(tmp_path / "ca.pem")
    assert config.destination[0].gets == ("sr", "not-scored")
    assert read(Config, document_of(config)) == config
    said = network_faults(config)
    assert said == [f"destination a: there is no file {tmp_path / 'ca.pem'}; correct its path"]
    (credentials / "token").write_text("")
    (tmp_path / "ca.pem").write_text("no certificate")
    said = network_faults(config)
    assert [fault.partition(" (")[0] for fault in said] == [
        f"destination a: the credential in {credentials / 'token'} is not one line of text; write it there, or correct "
        "the path",
        "destination a: its certificate, key and authority cannot be used",
    ]


def test_every_key_and_token_may_be_a_credential(tmp_path, monkeypatch):
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    for name in ("node.key", "reader.token"):
        (credentials / name).write_text("x")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    tls = 'tls = { cert = "node.pem", key = "node.key", ca = "ca.pem" }\n'
    text = f'[http]\ntcp = "127.0.0.1:1"\n{tls}[[http.token]]\nrole = "reader"\nfile = "reader.token"\n'
    text += f'[node]\n{tls}[[peer]]\nae_title = "A"\nhost = "127.0.0.1"\n'
    config = read_config(config_in(tmp_path, LEAST + text))
    for place in (config.node.tls, config.http.tls):
        assert (place.key, place.cert) == (str(credentials / "node.key"), str(tmp_path / "node.pem"))
    assert config.http.token[0].file == str(credentials / "reader.token")


DICOM = '[[destination]]\nname = "a"\nkind = "dicom"\nhost = "{host}"\nport = 104\nae_title = "A"\n'


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("", ["spool"]),
        ("[spool\n", ["it is no TOML"]),
        ("spool = 3\nscore = 4", ["spool"]),
        (LEAST + "[http]\nport = 104\n", ["http.port"]),
        (LEAST + '[http]\ntcp = "localhost:80"\n[[http.token]]\nrole = "reader"\nfile = "x"\n', ["http.tcp: expected"]),
        (LEAST + '[http]\ntcp = "[::1]:8080"\n', ["http.token: missing"]),
        (LEAST + '[[http.token]]\nrole = "nurse"\n', ["http.token[0].role", "http.token[0].file", "http.tcp: missing"]),
        (LEAST + '[http]\ntcp = "1.2.3.4:0"\ntoken = ["x"]\n', ["http.token[0]", "http.tcp"]),
        (LEAST + "[node]\nport = 104\n", ["peer"]),
        (LEAST + '[[peer]]\nae_title = "A"\nhost = "10.0.0.1"\n', ["node"]),
        (LEAST + '[node]\nhost = "a..b"\n[[peer]]\nae_title = "A"\nhost = "10.0.0.1"\n', ["node.host: expected"]),
        (LEAST + DICOM.format(host="x" * 64), ["destination[0].host: expected an address or a name"]),
        (LEAST + CERTIFIED.format("ab:" * 21 + "a"), ["peer[0].cert_sha256: expected 64 hexadecimal digits"]),
        (LEAST + CERTIFIED.format("ab" * 32), ["peer[0].cert_sha256: the node has no tls"]),
        (LEAST + '[[source]]\nname = "a"\nkind = "folder"\npath = "a"\n' * 2, ["source[1].name"]),
        (LEAST + '["a.b: c"]\nd = 1\n', ["a.b: c"]),
    ],
)
def test_faults_begin_with_their_place(tmp_path, text, places):
    said = faults(tmp_path, text)
    assert [fault.startswith(place) for fault, place in zip(said, places, strict=False)] == [True] * len(places)


def test_the_configuration_of_the_page_is_valid(tmp_path):
    (text,) = blocks("docs/appliance.md", "ini")
    config = read_config(config_in(tmp_path, text.replace("…", "0" * 64)))
    least = read_config(config_in(tmp_path, LEAST))
    assert config.score == least.score  # the page shows the defaults
    assert config.study == least.study
    assert replace(config.spool, path="") == replace(least.spool, path="")
    assert replace(config.node, tls=None) == Node()
    parts = (config.peer[0], config.source[0], *config.destination, config.http.token[0], Web())
    for part in (config, *vars(config).values(), *parts):
        names = {field.name for field in fields(part)} - {"web"} if is_dataclass(part) else set()
        assert names <= set(re.findall(r"^(?:\[\[?)?(?:\w+\.)?(\w+)", text, flags=re.MULTILINE))  # and all of them


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "none.toml")
