"""Signatures of this machine: what they hold for, and what happens where none can be made."""

from __future__ import annotations

import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from spinescore.kernels import signing
from spinescore.kernels.signing import is_signed, key_fault, sign, signed_bytes

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no modes of files")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_signature_holds_for_that_content_and_kind_alone(cache):
    assert not is_signed("plan", "12")
    assert sign("plan", "12")
    assert is_signed("plan", "12")
    assert not is_signed("plan", "13")
    assert not is_signed("record", "12")
    assert sign("plan", "13")
    assert not is_signed("plan", "12")  # the latest content of that name


def test_bytes_are_given_back_if_they_were_signed():
    data = b"what a compiler keeps"
    assert signed_bytes("cache", data) is None
    sign("cache", hashlib.sha256(data).hexdigest())
    assert signed_bytes("cache", data) == data
    assert signed_bytes("cache", data[:-1]) is None


def test_another_machine_signs_with_another_key(cache, monkeypatch, tmp_path):
    sign("plan", "12")
    monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "other"))
    assert not is_signed("plan", "12")
    sign("plan", "12")
    for path in (tmp_path / "other" / "signatures").iterdir():  # carried along
        (cache / "signatures" / path.name).write_bytes(path.read_bytes())
    monkeypatch.setenv("SPINESCORE_CACHE", str(cache))
    assert not is_signed("plan", "12")


@posix
def test_the_key_is_its_users_alone(cache):
    sign("plan", "12")
    assert (cache / "key").stat().st_mode & 0o777 == 0o600
    (cache / "key").chmod(0o644)
    assert not is_signed("plan", "12")
    assert not sign("plan", "12")
    assert f"{cache / 'key'} is not readable by this user alone; remove it to begin anew" in key_fault()


@posix
def test_a_key_that_is_a_link_or_a_pipe_is_not_used(cache, tmp_path):
    sign("plan", "12")
    (cache / "key").rename(tmp_path / "elsewhere")
    (cache / "key").symlink_to(tmp_path / "elsewhere")
    assert (is_signed("plan", "12"), sign("plan", "12")) == (False, False)
    (cache / "key").unlink()
    os.mkfifo(cache / "key", 0o600)
    assert (is_signed("plan", "12"), sign("plan", "12")) == (False, False)


def test_a_key_that_was_cut_short_is_made_again(cache):
    sign("plan", "12")
    (cache / "key").write_bytes(b"")
    assert not is_signed("plan", "12")
    assert sign("plan", "12")
    assert is_signed("plan", "12")


def test_a_cache_that_cannot_be_written_is_said(cache):
    cache.write_text("a file where the folder would be", encoding="utf-8")
    assert (sign("plan", "12"), is_signed("plan", "12")) == (False, False)
    assert "set SPINESCORE_CACHE to a folder of this user's own" in key_fault()


def test_a_user_without_a_home(monkeypatch):
    monkeypatch.setattr(signing, "user_cache", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert (sign("plan", "12"), is_signed("plan", "12")) == (False, False)
    assert "no home" in key_fault()


def test_many_that_begin_at_once_have_one_key(cache):
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda number: sign(f"plan {number}", "12"), range(32)))
    assert all(is_signed(f"plan {number}", "12") for number in range(32))
    assert not list(cache.glob(".key*"))
    assert key_fault() == ""


def test_a_name_with_a_path_that_is_not_utf8_is_signed():
    """Such a path is text with lone surrogates, which are no characters."""
    name, content = "timing cache /bundles/\udcff/timing.cache", "ab" * 32
    assert sign(name, content)
    assert is_signed(name, content)
    assert not is_signed(name.replace("\udcff", "\udcfe"), content)
