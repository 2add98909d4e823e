"""Signatures, made and read by minisign itself."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("nacl", reason="needs PyNaCl, of the extra appliance")

from nacl.pwhash import scrypt

from spinescore.runtime.appliance.shipping import minisign
from spinescore.runtime.errors import SpineScoreError

SEED = bytes(range(32))
KEY = minisign.SecretKey(b"\1\2\3\4\5\6\7\x08", SEED)
DATA = b"0123  install.sh\n"

needs_minisign = pytest.mark.skipif(shutil.which("minisign") is None, reason="needs minisign")


def write_public(folder: Path, key: minisign.PublicKey = KEY.public) -> Path:
    path = folder / "release.pub"
    path.write_text(f"untrusted comment: a key\n{key}\n", encoding="utf-8")
    return path


def run(*words: object, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, words)], input=typed, capture_output=True, text=True, timeout=60)


@pytest.fixture
def signed(tmp_path):
    """A file and its signature, with the public key."""
    (tmp_path / "sums").write_bytes(DATA)
    (tmp_path / "sums.minisig").write_text(minisign.sign(DATA, KEY, "spinescore 1.2"), encoding="utf-8")
    write_public(tmp_path)
    return tmp_path


def test_a_signature_is_verified_with_its_comment(signed):
    key = minisign.read_public_key(signed / "release.pub")
    assert key == KEY.public
    assert minisign.verify(DATA, signed / "sums.minisig", key) == "spinescore 1.2"


@needs_minisign
def test_minisign_verifies_ours(signed):
    ended = run("minisign", "-V", "-m", signed / "sums", "-p", signed / "release.pub")
    assert ended.returncode == 0, ended.stderr
    assert "Trusted comment: spinescore 1.2" in ended.stdout


@needs_minisign
def test_we_sign_with_a_key_of_minisign(tmp_path):
    public, secret = tmp_path / "a.pub", tmp_path / "a.key"
    assert run("minisign", "-G", "-W", "-p", public, "-s", secret).returncode == 0
    key = minisign.read_secret_key(secret, lambda: pytest.fail("no password is needed"))
    assert key.public == minisign.read_public_key(public)
    (tmp_path / "sums").write_bytes(DATA)
    (tmp_path / "sums.minisig").write_text(minisign.sign(DATA, key, "ours"), encoding="utf-8")
    assert run("minisign", "-V", "-m", tmp_path / "sums", "-p", public).returncode == 0
    assert run("minisign", "-S", "-m", tmp_path / "sums", "-s", secret, "-t", "theirs").returncode == 0
    assert minisign.verify(DATA, tmp_path / "sums.minisig", key.public) == "theirs"


def test_a_key_behind_a_password_is_opened(tmp_path):
    path = write_secret(tmp_path, "spine")
    assert minisign.read_secret_key(path, lambda: "spine") == KEY
    with pytest.raises(SpineScoreError, match="the password does not open the key"):
        minisign.read_secret_key(path, lambda: "spin")


@needs_minisign
def test_minisign_opens_the_key_of_the_test_above(tmp_path):
    path = write_secret(tmp_path, "spine")
    (tmp_path / "sums").write_bytes(DATA)
    ended = run("minisign", "-S", "-m", tmp_path / "sums", "-s", path, typed="spine\n")
    assert ended.returncode == 0, ended.stderr
    minisign.verify(DATA, tmp_path / "sums.minisig", KEY.public)


def write_secret(folder: Path, password: str) -> Path:
    """A secret key in minisign's format, with a weak key derivation so that the test is fast."""
    pair = SEED + KEY.public.key
    bare = KEY.key_id + pair + hashlib.blake2b(b"Ed" + KEY.key_id + pair, digest_size=32).digest()
    salt, opslimit, memlimit = os.urandom(32), 1 << 15, 1 << 24
    stream = scrypt.kdf(len(bare), password.encode(), salt, opslimit, memlimit)
    head = struct.pack("<2s2s2s32sQQ", b"Ed", b"Sc", b"B2", salt, opslimit, memlimit)
    data = head + bytes(a ^ b for a, b in zip(bare, stream, strict=True))
    path = folder / "release.key"
    path.write_text(f"untrusted comment: a key\n{base64.b64encode(data).decode()}\n", encoding="utf-8")
    return path


def test_another_file_is_refused(signed):
    with pytest.raises(SpineScoreError, match="does not fit"):
        minisign.verify(DATA + b" ", signed / "sums.minisig", KEY.public)


def test_another_comment_is_refused(signed):
    path = signed / "sums.minisig"
    path.write_text(path.read_text(encoding="utf-8").replace("spinescore 1.2", "spinescore 1.3"), encoding="utf-8")
    with pytest.raises(SpineScoreError, match="does not fit"):
        minisign.verify(DATA, path, KEY.public)


def test_another_key_is_refused(signed):
    other = minisign.SecretKey(b"another!", bytes(32)).public
    with pytest.raises(SpineScoreError, match="another key"):
        minisign.verify(DATA, signed / "sums.minisig", other)
    same_id = minisign.PublicKey(KEY.key_id, other.key)
    with pytest.raises(SpineScoreError, match="does not fit"):
        minisign.verify(DATA, signed / "sums.minisig", same_id)


@pytest.mark.parametrize("text", ["", "\0", "untrusted comment: x\n", "untrusted comment: x\nRWQ=\n", "\ud800"])
def test_files_that_are_none_of_minisign_are_refused(tmp_path, text):
    path = tmp_path / "file"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    for read in (
        minisign.read_public_key,
        lambda path: minisign.read_secret_key(path, str),
        lambda path: minisign.verify(DATA, path, KEY.public),
    ):
        with pytest.raises(SpineScoreError, match="minisign"):
            read(path)
    with pytest.raises(SpineScoreError, match="cannot be read"):
        minisign.read_public_key(tmp_path / "none")
