"""The example of a configuration that a release has."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import spinescore.runtime.appliance.shipping as shipping
from helpers.documentation import blocks
from spinescore.runtime.appliance.configuration.config import read_config

FILE = Path(shipping.__file__).with_name("appliance.toml")


def settings_of(document, name: str = "") -> set[str]:
    """The names of all settings of a configuration."""
    if isinstance(document, dict):
        return set().union(*(settings_of(value, f"{name}.{key}") for key, value in document.items()))
    if isinstance(document, list):
        return set().union(*(settings_of(one, name) for one in document))
    return {name}


def test_it_is_valid():
    config = read_config(FILE)
    assert config.node is not None
    assert [place.kind for place in config.destination] == ["dicom"]


def test_it_has_the_settings_of_the_page(tmp_path):
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    (page,) = blocks("docs/appliance.md", "ini")
    whole = re.sub(r"^#(?=\[|\w+ = )", "", FILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert settings_of(tomllib.loads(whole)) == settings_of(tomllib.loads(page))
    (tmp_path / "appliance.toml").write_text(whole, encoding="utf-8")
    config, short = read_config(tmp_path / "appliance.toml"), read_config(FILE)
    assert config.node is not None
    assert replace(config.node, tls=None) == short.node
    for name in ("spool", "score", "study", "audit"):
        assert getattr(config, name) == getattr(short, name)  # behind a # is the default
