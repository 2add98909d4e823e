"""Hostile peers at the DICOM node: how soon another modality is served meanwhile, and how much memory that takes.

The node speaks TLS. Again and again a modality asks for an association, for C-ECHO or for C-STORE of a small
radiograph, and releases it; its seconds count from the connection to the release, on processors that both share. Until
then each kind of hostile peer does its worst: `silent` connects and says nothing, 60 times; `silent after TLS` does so
after its handshake; `PDU of 3.75 GiB` claims so much, for a request and for an object, and sends it as long as it is
taken; `slow` sends a request byte by byte, in 20 connections; `200 associations` are those that one peer asks for and
keeps. `peak_mib` is the most memory that the receiving process ever held. Needs openssl.
"""

from __future__ import annotations

import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

from spinescore.benchmarks.harness.appliance import processes_of, write_config
from spinescore.benchmarks.harness.child import SPINESCORE, session
from spinescore.benchmarks.harness.environment import memory_bytes, mib
from spinescore.benchmarks.harness.ports import free_port, listens, wait_until
from spinescore.benchmarks.harness.studies import UIDS, write_studies

__all__ = ["try_hostile"]

_CLAIMED = 0xF0000000  # 3.75 GiB
_ASSOCIATE_RQ, _DATA = 0x01, 0x04
_SILENT, _SLOW, _CROWD, _GREEDY = 60, 20, 200, 4
_SETTLE_S = 1.0
_BLOCK = bytes(1 << 20)


class _Node:
    """The address of the node, with the TLS settings of a peer."""

    def __init__(self, port: int, keys: Path) -> None:
        self.port = port
        self.tls = ssl.create_default_context(cafile=keys / "ca.pem")
        self.tls.load_cert_chain(keys / "peer.pem", keys / "peer.key")

    def connect(self, *, tls: bool = True) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        return self.tls.wrap_socket(connection, server_hostname="localhost") if tls else connection

    def associate(self, calling: str, *sop_classes: Any) -> Any:
        """Return an association of pynetdicom, or None if it is not accepted."""
        from pynetdicom import AE
        from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

        entity = AE(calling)
        for sop_class in sop_classes or (Verification,):
            entity.add_requested_context(sop_class)
        association = entity.associate("127.0.0.1", self.port, ae_title="SPINESCORE", tls_args=(self.tls, "localhost"))
        return association if association.is_established else None


def try_hostile(folder: Path, bundle: str, count: int) -> dict[str, Any]:
    """Return the seconds of `count` calls of each kind beside each kind of hostile peer, and the memory."""
    keys = _write_keys(folder / "keys")
    port = free_port()
    config = write_config(folder, port, free_port(), bundle, quiet_s=3600.0, quiet_complete_s=3600.0)
    text = config.read_text(encoding="utf-8").replace(
        "[[peer]]", f'tls = {{ cert = "{keys}/node.pem", key = "{keys}/node.key", ca = "{keys}/ca.pem" }}\n'
        '[[peer]]\nae_title = "CROWD"\nhost = "127.0.0.1"\n[[peer]]', 1,
    )  # fmt: skip
    config.write_text(text, encoding="utf-8")
    [*_, study] = write_studies(folder / "studies", 2)
    film = min(study.glob("*.dcm"), key=lambda path: path.stat().st_size)
    outcome: dict[str, Any] = {"calls": count, "object_mb": round(film.stat().st_size / 1e6, 2), "beside": {}}
    with session([*SPINESCORE, "serve", "--config", str(config)]) as service:
        wait_until(lambda: listens(port), "the service listening")
        node = _Node(port, keys)
        for kind, hostile in _KINDS.items():
            with hostile(node):
                time.sleep(_SETTLE_S)
                seconds = [_calls(node, film) for _ in range(count)]
            echo_s, store_s = ([pair[one] for pair in seconds] for one in (0, 1))
            receiver = processes_of(service.pid)["receive"]
            peak_mib = mib(memory_bytes(Path(f"/proc/{receiver}/status"))["peak_bytes"] or 0)
            outcome["beside"][kind] = {"echo_s": _spread(echo_s), "store_s": _spread(store_s), "peak_mib": peak_mib}
    return outcome


def _calls(node: _Node, film: Path) -> tuple[float, float]:
    """Return the seconds of a C-ECHO and of a C-STORE, each in an association of its own."""
    from pydicom import dcmread
    from pydicom.uid import UID

    ds = dcmread(film)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = UID(f"{UIDS}.80.{time.time_ns()}")
    return (_seconds(lambda: _ask(node, (), lambda one: one.send_c_echo())),
            _seconds(lambda: _ask(node, (ds.SOPClassUID,), lambda one: one.send_c_store(ds))))  # fmt: skip


def _ask(node: _Node, sop_classes: Sequence[Any], call: Callable[[Any], Any]) -> None:
    association = node.associate("MODALITY", *sop_classes)
    if association is None:
        raise RuntimeError("the association of the modality was not accepted")
    status = call(association)
    association.release()
    if status.get("Status") != 0:
        raise RuntimeError(f"the service answered with {status}")


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@contextmanager
def _nobody(node: _Node) -> Iterator[None]:
    yield


@contextmanager
def _silent(node: _Node, *, tls: bool = False) -> Iterator[None]:
    with ExitStack() as opened:
        for _ in range(_SILENT):
            opened.enter_context(node.connect(tls=tls))
        yield


@contextmanager
def _silent_after_tls(node: _Node) -> Iterator[None]:
    with _silent(node, tls=True):
        yield


@contextmanager
def _at_work(work: Callable[[threading.Event], None], count: int) -> Iterator[None]:
    """Do a work in threads until the block ends; each is done again when the node has ended its connection."""
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            with suppress(OSError):
                work(done)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join(5)


@contextmanager
def _greedy(node: _Node) -> Iterator[None]:
    kinds = iter([_ASSOCIATE_RQ, _DATA] * _GREEDY)

    def claim(done: threading.Event) -> None:
        with node.connect() as connection:
            connection.sendall(struct.pack(">BBL", next(kinds, _DATA), 0, _CLAIMED))
            while not done.is_set():
                connection.sendall(_BLOCK)

    with _at_work(claim, _GREEDY):
        yield


@contextmanager
def _slow(node: _Node) -> Iterator[None]:
    def trickle(done: threading.Event) -> None:
        with node.connect() as connection:
            connection.sendall(struct.pack(">BBL", _ASSOCIATE_RQ, 0, 200))
            while not done.wait(0.5):
                connection.sendall(b"\0")

    with _at_work(trickle, _SLOW):
        yield


@contextmanager
def _crowd(node: _Node) -> Iterator[None]:
    associations = [node.associate("CROWD") for _ in range(_CROWD)]
    try:
        yield
    finally:
        for association in associations:
            if association is not None:
                association.abort()


_KINDS = {"nobody": _nobody, "silent": _silent, "silent after TLS": _silent_after_tls, "PDU of 3.75 GiB": _greedy,
          "slow": _slow, "200 associations": _crowd}  # fmt: skip


def _write_keys(folder: Path) -> Path:
    """Write certificates of an authority, of the node and of its peers, made by openssl; return the folder."""
    folder.mkdir()
    for name in ("ca", "node", "peer"):
        words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
                 "-addext", "subjectAltName=DNS:localhost", "-keyout", f"{name}.key",
                 "-out", f"{name}.pem"]  # fmt: skip
        signed = [] if name == "ca" else ["-CA", "ca.pem", "-CAkey", "ca.key"]
        subprocess.run([*words, *signed], cwd=folder, check=True, capture_output=True)
    return folder


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    return {"p50": round(median(seconds), 3), "max": round(max(seconds), 3)}
