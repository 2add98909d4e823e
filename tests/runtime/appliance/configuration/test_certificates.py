"""Certificates that are not valid now are told, with the date."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from datetime import datetime, timedelta, timezone

import pytest

from helpers.appliance import config_of
from spinescore.runtime.appliance.configuration.config import Destination, Tls
from spinescore.runtime.appliance.network import _validity_fault, certificate_faults

NOW = datetime.now(timezone.utc) + timedelta(hours=1)


def test_a_certificate_is_told_of_before_and_after_its_time(certificates):
    path = certificates / "client.pem"
    assert _validity_fault(path, NOW) is None
    assert f"the certificate {path} was valid until 20" in _validity_fault(path, NOW + timedelta(days=3))
    assert "is not valid before 20" in _validity_fault(path, NOW - timedelta(days=1))
    with pytest.raises(ValueError, match="no certificate"):
        _validity_fault(certificates / "client.key", NOW)


def test_every_certificate_of_the_configuration_is_looked_at(certificates, tmp_path, bundle):
    tls = Tls(*(str(certificates / name) for name in ("client.pem", "client.key", "ca.pem")))
    archive = Destination("archive", "dicom", host="localhost", port=104, ae_title="ARCHIVE", tls=tls)
    config = config_of(tmp_path, bundle, destination=(archive,))
    assert certificate_faults(config, NOW) == []
    faults = certificate_faults(config, NOW + timedelta(days=3))
    assert [fault.split()[2] for fault in faults] == [tls.cert, tls.ca]


def test_the_reason_why_an_archive_is_not_reached_is_told(certificates):
    pytest.importorskip("pynetdicom")
    from spinescore.runtime.appliance.sending.senddicom import Archive, _why_not

    assert _why_not(Archive("127.0.0.1", 1, "A", "B")) == "Connection refused"
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificates / "server.pem", certificates / "server.key")

    def answer() -> None:
        with contextlib.suppress(OSError):
            server.wrap_socket(listener.accept()[0], server_side=True).close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        stranger = ssl.create_default_context()
        reason = _why_not(Archive("localhost", listener.getsockname()[1], "A", "B", stranger))
        thread.join()
    assert "certificate verify failed" in reason
