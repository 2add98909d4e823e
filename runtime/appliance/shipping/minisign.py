"""Signatures in minisign's format: Ed25519 over the BLAKE2b-512 of a file, with a trusted comment.

Each file has a line with an untrusted comment and a line in base64. In bytes, numbers little endian:

    public key   "Ed", key id (8), public key (32)
    secret key   "Ed", "Sc" or two zeros, "B2", salt (32), opslimit (8), memlimit (8); then, hidden by scrypt's stream,
                 key id (8), seed and public key (64), BLAKE2b-256 of "Ed" and these two (32)
    signature    "ED", key id (8), signature (64); below it the trusted comment, and the signature over both

Source: the section on formats of minisign's manual page.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nacl.exceptions import BadSignatureError, CryptoError
from nacl.pwhash import scrypt
from nacl.signing import SigningKey, VerifyKey

from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.files import read_text

__all__ = ["PublicKey", "SecretKey", "read_public_key", "read_secret_key", "sign", "verify"]

_KEY, _PREHASHED = b"Ed", b"ED"
_SECRET = struct.Struct("<2s2s2s32sQQ104s")
_TRUSTED = "trusted comment: "
_MOST_MEMORY = 1 << 30  # of the key derivation; what minisign -G chooses
_SMALL = 4096  # bytes of a key or a signature


@dataclass(frozen=True)
class PublicKey:
    """A key that verifies. `key_id` has 8 bytes, `key` 32."""

    key_id: bytes
    key: bytes

    def __str__(self) -> str:
        return base64.b64encode(_KEY + self.key_id + self.key).decode()


@dataclass(frozen=True, repr=False)
class SecretKey:
    """A key that signs. `seed` has 32 bytes."""

    key_id: bytes
    seed: bytes

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.key_id, bytes(SigningKey(self.seed).verify_key))


def read_public_key(path: Path) -> PublicKey:
    """Return the key of a file of `minisign -G`. Raises SpineScoreError."""
    data = _decode(_lines(path)[-1], 42, path)
    if data[:2] != _KEY:
        raise SpineScoreError(f"{path} is no public key of minisign; make a pair of keys with minisign -G")
    return PublicKey(data[2:10], data[10:])


def read_secret_key(path: Path, password: Callable[[], str]) -> SecretKey:
    """Return the key of a file of `minisign -G`. `password` is called if the file needs one. Raises SpineScoreError."""
    data = _decode(_lines(path)[-1], _SECRET.size, path)
    algorithm, derivation, checksum, salt, opslimit, memlimit, hidden = _SECRET.unpack(data)
    if (algorithm, checksum) != (_KEY, b"B2") or derivation not in (b"Sc", b"\0\0"):
        raise SpineScoreError(f"{path} is no secret key of minisign; make a pair of keys with minisign -G")
    if derivation == b"Sc":
        if memlimit > _MOST_MEMORY:
            raise SpineScoreError(
                f"{path} asks for {memlimit >> 20} MiB of memory; make a pair of keys with minisign -G"
            )
        try:
            stream = scrypt.kdf(len(hidden), password().encode(), salt, opslimit, memlimit)
        except CryptoError as error:
            raise SpineScoreError(f"the key {path} cannot be opened: {error}") from error
        hidden = bytes(a ^ b for a, b in zip(hidden, stream, strict=True))
    key_id, pair, digest = hidden[:8], hidden[8:72], hidden[72:]
    expected = hashlib.blake2b(_KEY + key_id + pair, digest_size=32).digest()
    if derivation == b"Sc" and not hmac.compare_digest(digest, expected):  # minisign -G -W writes no hash
        raise SpineScoreError(f"the password does not open the key {path}, or the file is damaged")
    key = SecretKey(key_id, pair[:32])
    if key.public.key != pair[32:]:
        raise SpineScoreError(f"the two halves of the key {path} do not belong together; the file is damaged")
    return key


def sign(data: bytes, key: SecretKey, comment: str) -> str:
    """Return the text of a signature over `data`. The comment is one line, which the signature covers."""
    signing = SigningKey(key.seed)
    signature = signing.sign(hashlib.blake2b(data).digest()).signature
    whole = signing.sign(signature + comment.encode()).signature
    lines = (
        "untrusted comment: signature of spinescore",
        base64.b64encode(_PREHASHED + key.key_id + signature).decode(),
        _TRUSTED + comment,
        base64.b64encode(whole).decode(),
    )
    return "\n".join(lines) + "\n"


def verify(data: bytes, signature: Path, key: PublicKey) -> str:
    """Return the trusted comment of a signature over `data`. Raises SpineScoreError if it is not the key's."""
    lines = _lines(signature)
    if len(lines) != 4 or not lines[2].startswith(_TRUSTED):
        raise SpineScoreError(f"{signature} is no signature of minisign")
    own, whole = _decode(lines[1], 74, signature), _decode(lines[3], 64, signature)
    comment = lines[2].removeprefix(_TRUSTED)
    if own[:2] != _PREHASHED:
        raise SpineScoreError(f"{signature} is a signature of minisign's old kind; sign with minisign -S -H")
    if own[2:10] != key.key_id:
        raise SpineScoreError(f"{signature} was made with another key than the given one")
    verifying = VerifyKey(key.key)
    try:
        verifying.verify(hashlib.blake2b(data).digest(), own[10:])
        verifying.verify(own[10:] + comment.encode(), whole)
    except BadSignatureError as error:
        raise SpineScoreError(f"{signature} does not fit: the file or its signature was changed") from error
    return comment


def _lines(path: Path) -> list[str]:
    """Return the lines of a small file, at least one. Raises SpineScoreError."""
    try:
        lines = read_text(path, _SMALL).splitlines()
    except OSError as error:
        raise SpineScoreError(f"{path} cannot be read ({error.strerror or type(error).__name__})") from error
    except UnicodeDecodeError as error:
        raise SpineScoreError(f"{path} is no file of minisign") from error
    return lines or [""]


def _decode(line: str, size: int, path: Path) -> bytes:
    try:
        data = base64.b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != size:
        raise SpineScoreError(f"{path} is no such file of minisign, or is damaged")
    return data
