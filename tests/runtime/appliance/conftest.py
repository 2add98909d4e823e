"""The tiny bundle, open once, and appliances in one process."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from helpers import appliance
from helpers.certificates import write_certificates

if sys.platform == "win32":
    collect_ignore_glob = ["test_*.py"]


_MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    return appliance.write_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="session")
def score(bundle):
    scorer = appliance.open_scorer(bundle)
    yield scorer.score
    scorer.close()


@pytest.fixture
def make(tmp_path, bundle, score):
    """A function that opens an appliance in the test's folder, as a start of the service does."""
    opened = []
    umask = os.umask(0o077)

    def start(clock=None, score=score, settings=None, **changes):
        changes |= {} if settings is None else {"score": settings}
        opened.append(appliance.Appliance(appliance.config_of(tmp_path, bundle, **changes), score, clock))
        return opened[-1]

    yield start
    os.umask(umask)
    for one in opened:
        one.close()


@pytest.fixture
def files(tmp_path):
    return appliance.tiny_files(tmp_path / "study")


@pytest.fixture
def memory_folder(tmp_path):
    """A folder in memory if there is one, where an fsync takes no time."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if has_memory() else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture
def tmp_path(request, tmp_path):
    """The test's folder: in memory, as most of the time goes into an fsync, but on the disk for slow tests."""
    if request.node.get_closest_marker("slow") or not has_memory():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=_MEMORY, prefix="spinescore-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory):
    """A folder of a module's tests: in memory if there is one."""
    with tempfile.TemporaryDirectory(dir=_MEMORY if has_memory() else tmp_path_factory.getbasetemp()) as folder:
        yield Path(folder)


def has_memory() -> bool:
    """Whether there is memory for files, and programs in it may run."""
    if not os.access(_MEMORY, os.W_OK) or os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC:
        return False
    return shutil.disk_usage(_MEMORY).free > 1 << 30


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """An authority, and certificates of it for a server and a client, made by openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    return write_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def closed_clients(monkeypatch):
    """The clients of these tests close their sockets; pynetdicom leaves one open if its shutdown fails."""
    from pynetdicom import transport

    shut = transport.AssociationSocket._shutdown_socket

    def shut_and_close(self):
        connection = self.socket
        shut(self)
        if connection is not None and self.assoc.is_requestor:
            connection.close()

    monkeypatch.setattr(transport.AssociationSocket, "_shutdown_socket", shut_and_close)
