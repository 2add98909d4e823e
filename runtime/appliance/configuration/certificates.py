"""The time for which a certificate is valid, read from its DER (RFC 5280, section 4.1)."""

from __future__ import annotations

import re
import ssl
from datetime import datetime, timezone
from pathlib import Path

__all__ = ["validity_fault"]

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_VERSION, _UTC_TIME = 0xA0, 0x17


def validity_fault(path: Path, now: datetime) -> str | None:
    """Return a sentence if the first certificate of a PEM file is not valid at a time; None if it is.

    Raises OSError or ValueError if the file cannot be read.
    """
    pem = _PEM.search(path.read_text(encoding="ascii", errors="replace"))
    if pem is None:
        raise ValueError(f"{path} has no certificate")
    begin, end = _validity(ssl.PEM_cert_to_DER_cert(pem[0]))
    if begin <= now <= end:
        return None
    reason = f"is not valid before {begin:%Y-%m-%d %H:%M}" if now < begin else f"was valid until {end:%Y-%m-%d %H:%M}"
    return f"the certificate {path} {reason} UTC; replace it, or correct the machine's date"


def _validity(der: bytes) -> tuple[datetime, datetime]:
    """Return the times between which a certificate is valid. Raises ValueError."""
    try:
        _, at, _ = _element(der, 0)  # Certificate
        _, at, _ = _element(der, at)  # tbsCertificate
        tag, _, after = _element(der, at)
        at = after if tag == _VERSION else at
        for _ in ("serialNumber", "signature", "issuer"):
            _, _, at = _element(der, at)
        _, at, _ = _element(der, at)  # validity
        tag, begin, at = _element(der, at)
        not_before = _time(tag, der[begin:at])
        tag, begin, end = _element(der, at)
        return not_before, _time(tag, der[begin:end])
    except IndexError:
        raise ValueError("a certificate ends too early") from None


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Return the tag of an element, and where its content begins and ends."""
    tag, length, begin = der[at], der[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length, begin = int.from_bytes(der[begin : begin + count], "big"), begin + count
    return tag, begin, begin + length


def _time(tag: int, content: bytes) -> datetime:
    text = content.decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year: 50 and later are of the last century
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)
