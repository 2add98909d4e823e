"""Programs on the loopback interface of a network namespace: storescp, Orthanc, and a service of ours."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from pydicom import dcmread

STORESCP, ORTHANC, NODE = 11113, 4242, 11112
WEB = 8042
WAIT_S = 60.0
SPINESCORE = (sys.executable, "-m", "spinescore.runtime.cli")


def raise_loopback() -> None:
    """Bring the namespace's loopback interface up (SIOCSIFFLAGS with IFF_UP)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1))


def wait_until(condition, what: str) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not happen within {WAIT_S:g} s")
        time.sleep(0.05)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def process(*words: object, port: int | None = None, **settings) -> Iterator[subprocess.Popen]:
    """A process that listens on `port`, and is ended by its own process id."""
    with subprocess.Popen([str(word) for word in words], **settings) as running:
        try:
            if port is not None:
                wait_until(lambda: listens(port), f"{words[0]} listening")
            yield running
        finally:
            running.terminate()
            try:
                running.wait(20)
            except subprocess.TimeoutExpired:
                running.kill()


def storescp(folder: Path, *options: str):
    folder.mkdir(exist_ok=True)
    return process("storescp", *options, "-od", folder, STORESCP, port=STORESCP)


def orthanc(folder: Path, **changes):
    folder.mkdir(exist_ok=True)
    settings = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "Plugins": [],
        "HttpPort": WEB,
        "DicomPort": ORTHANC,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "UnknownSopClassAccepted": True,
        **changes,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    return process("Orthanc", folder / "orthanc.json", port=WEB, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
DICOMWEB = {"Plugins": [PLUGIN], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}}
PASSWORD = {"AuthenticationEnabled": True, "RegisteredUsers": {"spinescore": "open sesame"}}


def ask(path: str, method: str = "GET", body: bytes | None = None) -> bytes:
    """Orthanc's answer to a request of its REST."""
    request = urllib.request.Request(f"http://127.0.0.1:{WEB}{path}", body, method=method)
    with urllib.request.urlopen(request) as answer:
        return answer.read()


def stored(uid: str) -> bytes:
    """The file of an instance that Orthanc has."""
    (one,) = json.loads(ask("/tools/lookup", "POST", uid.encode()))
    return ask(f"{one['Path']}/file")


def instances() -> list[str]:
    """The SOP Instance UIDs that Orthanc has."""
    return sorted(one["MainDicomTags"]["SOPInstanceUID"] for one in json.loads(ask("/instances?expand")))


def serve(config: Path, port: int | None = NODE):
    environment = {**os.environ, "SPINESCORE_CACHE": str(config.parent / "cache")}
    return process(*SPINESCORE, "serve", "--config", config, port=port, env=environment)


def states(config: Path) -> dict:
    """The status of a service."""
    told = subprocess.run([*SPINESCORE, "status", "--config", str(config), "--json"], capture_output=True, text=True)
    return json.loads(told.stdout or "{}")


def reports(folder: Path) -> list[str]:
    """The Study Instance UIDs of the structured reports in a folder; one that is half written is passed over."""
    whole = []
    for path in folder.glob("SR*"):
        with contextlib.suppress(Exception):
            whole.append(str(dcmread(path).StudyInstanceUID))
    return sorted(whole)
