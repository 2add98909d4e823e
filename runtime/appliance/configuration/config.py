"""The appliance's configuration: a TOML file as frozen dataclasses, with every fault of it said at once."""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from spinescore.runtime.appliance.configuration.endpoints import (
    Destination,
    Http,
    Path_,
    ResultKind,
    Seconds,
    SopClassName,
    Source,
    Tls,
    check_ae_title,
    check_host,
)
from spinescore.runtime.appliance.seen.audit import Audit
from spinescore.runtime.documents import read
from spinescore.runtime.fields import OPTIONAL, Length, Within, dotted
from spinescore.runtime.files import read_text
from spinescore.runtime.names import DeviceName
from spinescore.runtime.outputs.formats import FORMATS, ResultFormat

__all__ = ["Config", "ConfigError", "Destination", "Node", "Peer", "ResultKind", "Score", "SopClassName", "Source",
           "SpoolPart", "StudyTimes", "Tls", "read_config"]  # fmt: skip

_HTTP = Http()
_AUDIT = Audit()

# Values that fit, in the place of faulty ones, so that the faults behind them are found too.
_FITTING: dict[Any, Any] = {"spool": {"path": "x"}, "score": {"bundle": "x"}, "path": "x", "bundle": "x",
                            "kind": "folder", "quiet_complete_s": 0.0, "node": {}, "ae_title": "X", "port": 104,
                            "host": "127.0.0.1", "peer": [{"ae_title": "X", "host": "127.0.0.1"}],
                            "cert": "x", "key": "x", "ca": "x", "url": "http://x", "role": "reader", "file": "x",
                            "token": [{"role": "reader", "file": "x"}]}  # fmt: skip
_PLACES = ("path", "socket")
_SECRETS = ("cert", "key", "ca", "file", "token_file", "password_file")  # they may be systemd's credentials
_MOST_FAULTS = 100
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")


@dataclass(frozen=True)
class StudyTimes:
    """When a study is due. See `is_due` in `store/studies.py`."""

    quiet_s: Seconds = 60.0
    quiet_complete_s: Seconds = 2.0
    hold_s: Seconds = 600.0

    def _check_fields(self, path: str) -> None:
        if self.quiet_complete_s > self.quiet_s:
            raise ValueError(f"{path}.quiet_complete_s: expected at most quiet_s ({self.quiet_s:g})")


@dataclass(frozen=True)
class Score:
    """How studies are scored. A worker that says nothing for `timeout_s` seconds, or holds more memory, is ended."""

    bundle: Path_
    device: Annotated[DeviceName, OPTIONAL] = "auto"
    timeout_s: Annotated[float, Within(1.0, 3600.0), OPTIONAL] = 60.0
    memory_mb: Annotated[int, Within(256, 1 << 20), OPTIONAL] = 8192
    strict: Annotated[bool, OPTIONAL] = False
    shadow: Annotated[bool, OPTIONAL] = False  # score and keep, and deliver nothing
    hold_for_review: Annotated[bool, OPTIONAL] = False  # deliver only what a reader has accepted or corrected


@dataclass(frozen=True)
class SpoolPart:
    """Where objects and results are kept, and how long after their delivery."""

    path: Path_
    reserve_gb: Annotated[float, Within(0.0, 1e6), OPTIONAL] = 5.0
    max_object_mb: Annotated[int, Within(1, 1024), OPTIONAL] = 256
    objects_h: Annotated[float, Within(0.0, 1e6), OPTIONAL] = 24.0
    results_d: Annotated[float, Within(0.0, 1e5), OPTIONAL] = 30.0
    index_d: Annotated[float, Within(0.0, 1e5), OPTIONAL] = 365.0
    quarantine_gb: Annotated[float, Within(0.0, 1e6), OPTIONAL] = 5.0
    quarantine_d: Annotated[float, Within(0.0, 1e5), OPTIONAL] = 90.0


@dataclass(frozen=True)
class Node:
    """The DICOM node that peers send to. Without this table the appliance listens on no port."""

    ae_title: Annotated[str, Length(1, 16), OPTIONAL] = "SPINESCORE"
    host: Annotated[str, Length(1, 255), OPTIONAL] = "0.0.0.0"  # the address that it listens on
    port: Annotated[int, Within(1, 65535), OPTIONAL] = 11112
    tls: Annotated[Tls | None, OPTIONAL] = None
    max_associations: Annotated[int, Within(1, 200), OPTIONAL] = 10
    max_pdu: Annotated[int, Within(4096, 1 << 20), OPTIONAL] = 131_072

    def _check_fields(self, path: str) -> None:
        check_ae_title(self.ae_title, path)
        check_host(self.host, path)


@dataclass(frozen=True)
class Peer:
    """A peer that may send to the node: its AE title, its address or network, and the SOP classes that it sends.

    Over TLS `cert_sha256`, the SHA-256 of its certificate in DER, makes sure that it is no other.
    """

    ae_title: Annotated[str, Length(1, 16)]
    host: Annotated[str, Length(1, 64)]
    cert_sha256: Annotated[str | None, OPTIONAL, Length(64, 64)] = None
    classes: Annotated[tuple[SopClassName, ...], OPTIONAL, Length(1, 16)] = ("DX", "CR")

    def _check_fields(self, path: str) -> None:
        check_ae_title(self.ae_title, path)
        if self.cert_sha256 is not None and not _SHA256.fullmatch(self.cert_sha256):
            raise ValueError(f"{path}.cert_sha256: expected 64 hexadecimal digits, without colons")
        try:
            ipaddress.ip_network(self.host, strict=False)
        except ValueError:
            text = f"expected an address or a network, as 10.1.2.3 or 10.1.2.0/24, found {self.host!r}"
            raise ValueError(f"{path}.host: {text}") from None


@dataclass(frozen=True)
class Config:
    """The whole configuration. Paths are absolute."""

    spool: SpoolPart
    score: Score
    study: Annotated[StudyTimes, OPTIONAL] = StudyTimes()
    node: Annotated[Node | None, OPTIONAL] = None
    peer: Annotated[tuple[Peer, ...], OPTIONAL] = ()
    source: Annotated[tuple[Source, ...], OPTIONAL] = ()
    destination: Annotated[tuple[Destination, ...], OPTIONAL] = ()
    http: Annotated[Http, OPTIONAL] = _HTTP
    audit: Annotated[Audit, OPTIONAL] = _AUDIT

    def _check_fields(self, path: str) -> None:
        if self.node is not None and not self.peer:
            raise ValueError("peer: missing; without a [[peer]] the node would refuse every association")
        if self.peer and self.node is None:
            raise ValueError("node: missing; peers can send only to a [node]")
        for place, peer in enumerate(self.peer):
            if peer.cert_sha256 is not None and self.node is not None and self.node.tls is None:
                text = "the node has no tls, so that no peer shows a certificate; give it tls, or remove it"
                raise ValueError(f"peer[{place}].cert_sha256: {text}")
        for kind, entries in (("source", self.source), ("destination", self.destination)):
            names = [entry.name for entry in entries]
            for place, name in enumerate(names):
                if name in names[:place]:
                    raise ValueError(f"{kind}[{place}].name: {name!r} is the name of an earlier {kind}; give another")

    @property
    def formats(self) -> tuple[ResultFormat, ...]:
        """The formats that are made of each study: the report, and all that a destination gets."""
        kinds = {kind for destination in self.destination for kind in destination.gets}
        return tuple(name for name in FORMATS if name == "json" or name in kinds)


class ConfigError(Exception):
    """A configuration that cannot be used; `faults` has a sentence for each fault."""

    def __init__(self, path: Path, faults: list[str]) -> None:
        super().__init__(f"{path}: {'; '.join(faults)}")
        self.path, self.faults = path, faults


def read_config(path: Path) -> Config:
    """Return the configuration of a TOML file. Raises ConfigError with all faults that it has."""
    try:
        document = _parse_toml(read_text(path))
    except ModuleNotFoundError:
        text = "Python 3.10 reads TOML with tomli, which is missing: pip install 'spinescore[appliance]'"
        raise ConfigError(path, [text]) from None
    except OSError as error:
        raise ConfigError(path, [f"it cannot be read ({error.strerror or type(error).__name__})"]) from None
    except ValueError as error:  # of TOML, or of UTF-8
        raise ConfigError(path, [f"it is no TOML ({error})"]) from None
    faults = list(_faults(document))
    if faults:
        raise ConfigError(path, faults)
    config: Config = _located(read(Config, document), path.absolute().parent)
    return config


def _faults(document: dict[str, Any]) -> Iterator[str]:
    """Yield every fault: after each one its field is mended, and reading begins again."""
    for number in range(_MOST_FAULTS):
        try:
            read(Config, document)
            return
        except ValueError as error:
            fault = str(error)
        yield fault
        _mend(document, fault, number)


def _mend(document: dict[str, Any], fault: str, number: int) -> None:
    """Give the field that a fault begins with a value that fits, or take the field out if it is not needed."""
    around: Any = None
    here: Any = document
    path = ""
    key: Any = None
    while isinstance(here, (dict, list)):
        keys: Iterable[Any] = here if isinstance(here, dict) else range(len(here))
        names = {one: f"{path}[{one}]" if isinstance(here, list) else dotted(path, one) for one in keys}
        inside = [one for one, name in names.items() if re.match(rf"{re.escape(name)}[.:\[]", fault)]
        if not inside:
            break
        key = max(inside, key=lambda one: len(names[one]))
        around, here, path = here, here[key], names[key]
    if not fault.startswith(f"{path}:"):  # the field is missing
        around, key = here, fault[len(path) :].lstrip(".").partition(":")[0]
    if re.fullmatch(r"(source|destination)\[\d+\]", path) and isinstance(around, list):
        around[key] = {"name": f"x{number}", "kind": "folder", "path": "x"}
    elif (table := re.fullmatch(r"(peer|http\.token)\[\d+\]", path)) and isinstance(around, list):
        around[key] = dict(_FITTING[table[1].rpartition(".")[2]][0])
    elif isinstance(around, list):
        around[key] = "DX" if ".classes[" in path else "sr"
    elif fault.endswith("remove it"):
        del around[key]
    elif key == "name":
        around[key] = f"x{number}"
    elif key in _FITTING:
        around[key] = copy(_FITTING[key])
    else:
        around.pop(key, None)


def _located(value: Any, folder: Path, name: str = "") -> Any:
    """Return a part of the configuration, the field `name`, with paths that do not depend on the working folder.

    A secret is the file of systemd's credential with its name if there is one (`LoadCredential=` of systemd.exec(5)).
    """
    if is_dataclass(value) and not isinstance(value, type):
        inner = {one.name: _located(getattr(value, one.name), folder, one.name) for one in fields(value)}
        return replace(value, **inner)
    if isinstance(value, tuple):
        return tuple(_located(one, folder, name) for one in value)
    if not value or name not in (*_PLACES, *_SECRETS, "bundle"):
        return value
    credential = Path(os.environ.get("CREDENTIALS_DIRECTORY", ""), value).absolute()
    if name in _SECRETS and "CREDENTIALS_DIRECTORY" in os.environ and credential.is_file():
        return str(credential)
    return value if name == "bundle" and not (folder / value).is_dir() else str(folder / value)


def _parse_toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    document: dict[str, Any] = tomllib.loads(text)
    return document
