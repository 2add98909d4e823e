"""The configuration: every fault of the file is said at once, with its place."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest

from helpers.documentation import blocks
from spinescore.runtime.appliance.config import Config, ConfigError, Node, Score, SpoolPart, read_config
from spinescore.runtime.appliance.endpoints import Web
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


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("", ["spool"]),
        ("[spool\n", ["it is no TOML"]),
        ("spool = 3\nscore = 4", ["spool"]),
        (LEAST + "[http]\nport = 104\n", ["http"]),
        (LEAST + "[node]\nport = 104\n", ["peer"]),
        (LEAST + '[[peer]]\nae_title = "A"\nhost = "10.0.0.1"\n', ["node"]),
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
    for part in (config, *vars(config).values(), config.peer[0], config.source[0], *config.destination, Web()):
        names = {field.name for field in fields(part)} - {"web"} if is_dataclass(part) else set()
        assert names <= set(re.findall(r"^(?:\[\[?)?(\w+)", text, flags=re.MULTILINE))  # and all of them


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(tmp_path / "none.toml")
