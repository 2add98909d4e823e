"""Archives over HTTP: what each answer, and each failure to answer, means for a delivery. The servers are hostile."""

from __future__ import annotations

import gzip
import shutil
import ssl
import subprocess
import sys

import pytest

pytest.importorskip("pynetdicom")

import numpy as np

from helpers import dicom_files
from helpers.hostile_http import Server, answer, die, drip, flood, half, hang
from helpers.slow_archives import drip_tls, listening
from helpers.web_archives import KINDS, found, opened, stored, told
from spinescore.runtime.appliance import webclient
from spinescore.runtime.appliance.configuration.endpoints import Web
from spinescore.runtime.appliance.fault import Denied
from spinescore.runtime.appliance.sending.delivery import SENT, Outcome, Parcel


@pytest.fixture(scope="module")
def parcel(tmp_path_factory):
    ds = dicom_files.radiograph_dataset(np.arange(1 << 19, dtype=np.uint16).reshape(1 << 10, -1))  # sent in pieces
    path = dicom_files.write(ds, tmp_path_factory.mktemp("study") / "sr.dcm")
    return Parcel(path, "sr", "", ds.SOPInstanceUID, ds.StudyInstanceUID, 1)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


FAILED, OTHER = "00081198", "0008119A"
STOW = [
    (200, ("00081199", None), "sent"),
    (200, ("00081199", 0xB007), "sent"),  # stored with a warning
    (202, ("00081199", None), "sent"),
    (202, (FAILED, 0xA700), "later"),
    (202, (FAILED, 0x0122), "refused"),
    (200, (FAILED, 0xC000), "refused"),
    (409, (FAILED, 0x0110), "later"),
    (409, (FAILED, 0x0111), "sent"),  # it has the instance already
    (409, (FAILED, 0x0124), "later"),  # a right that can be given
    (409, (FAILED, 0xA900), "refused"),
    (409, (FAILED, None), "later"),
    (409, (OTHER, 0x0110), "later"),
    (409, (OTHER, 0xC122), "refused"),
]


@pytest.mark.parametrize(("status", "content", "outcome"), STOW)
def test_the_answer_of_stow_about_the_instance_decides(parcel, status, content, outcome):
    with Server(answer(status, told(parcel, *content))) as server:
        assert opened("stow", server).send(parcel).kind == outcome
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/studies")
    assert parcel.path.read_bytes() in request.body
    assert request.headers["host"] == f"127.0.0.1:{server.port}"
    assert request.headers["accept"] == "application/dicom+json"


STATUSES = {400: "refused", 404: "later", 405: "later", 408: "later", 413: "refused", 415: "refused", 429: "later",
            500: "later", 502: "later", 503: "later", 507: "later"}  # fmt: skip


@pytest.mark.parametrize(("status", "outcome"), [*STATUSES.items(), (409, "refused")])
def test_an_answer_without_a_reason_is_judged_by_its_status(parcel, status, outcome):
    with Server(answer(status, b"<html>")) as server:
        assert opened("stow", server).send(parcel) == Outcome(outcome, f"it answered with the HTTP status {status}")


@pytest.mark.parametrize(("status", "outcome"), STATUSES.items())
def test_orthanc_is_judged_by_its_status(parcel, status, outcome):
    with Server(answer(status, {"HttpStatus": status})) as server:
        assert opened("orthanc", server).send(parcel) == Outcome(outcome, f"it answered with the HTTP status {status}")
    assert server.requests[0].body == parcel.path.read_bytes()


NOTHING = [b"", b"<html>Please log in</html>", b"[", b"[" * 100_000, b"null", b"3", b'"x"', b"[[]]", b"\xff\xfe",
           b'{"00081199": 3}',
           b'{"00081199": {"Value": [3, {"00081155": {"Value": "1.2"}}]}, "Status": ["Success"]}',
           gzip.compress(bytes(50 << 20))]  # fmt: skip


@pytest.mark.parametrize("content", NOTHING, ids=range(len(NOTHING)))
def test_an_answer_that_does_not_name_the_file_is_no_success(parcel, kind, content):
    with Server(answer(200, content)) as server:
        outcome = opened(kind, server).send(parcel)
    assert outcome == Outcome("later", "it answered 200 and not that it stored the file")


def test_an_answer_about_another_instance_is_no_success(parcel):
    with Server(answer(200, told(parcel, uid="1.2.3"))) as server:
        assert opened("stow", server).send(parcel).kind == "later"


def test_what_orthanc_filters_out_is_refused(parcel):
    with Server(answer(200, {"Status": "FilteredOut"})) as server:
        assert opened("orthanc", server).send(parcel).kind == "refused"


FAILURES = {
    "hangs": (hang, "did not answer within 0.3 s"),
    "drips": (drip, "did not answer within 0.5 s"),
    "dies": (die, "ended the connection without a whole answer"),
    "half": (half, "ended the connection without a whole answer"),
    "floods": (flood, "answered with more than 4 MiB"),
    "garbage": (lambda connection, request: connection.sendall(b"garbage\r\n\r\n"), "without a whole answer"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_to_answer_leaves_the_outcome_open(parcel, kind, failure, monkeypatch):
    if failure == "hangs":
        monkeypatch.setattr(webclient, "_SILENT_S", 0.3)
    if failure == "drips":
        monkeypatch.setattr(webclient, "_FILE_S", 0.5)
        monkeypatch.setattr(webclient, "_ANSWER_S", 0.5)
    act, reason = FAILURES[failure]
    with Server(act, act, stored(kind, parcel)) as server:
        archive = opened(kind, server)
        for attempt in (archive.send, archive.holds):
            with pytest.raises(ConnectionError, match=reason) as caught:
                attempt(parcel)
            assert str(caught.value).startswith(f"127.0.0.1:{server.port} ")
            assert "studies" not in str(caught.value)  # paths hold UIDs
        monkeypatch.undo()
        assert archive.send(parcel) == SENT


def test_a_server_that_sends_requests_elsewhere_is_not_followed(parcel, kind):
    with Server(stored(kind, parcel)) as other:
        for status in (301, 302, 303, 307, 308):
            with Server(answer(status, Location=f"{other.url}/studies")) as server:
                for attempt in (opened(kind, server).send, opened(kind, server).holds):
                    with pytest.raises(ConnectionError, match="sends requests on to another place"):
                        attempt(parcel)
    assert other.connections == 0


def test_no_proxy_and_no_file_of_passwords_is_used(parcel, kind, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password mine\n")
    with Server(stored(kind, parcel)) as proxy, Server(stored(kind, parcel)) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert opened(kind, server).send(parcel) == SENT
    assert proxy.connections == 0
    assert "authorization" not in server.requests[0].headers


HOLDS = {
    "stow": [(200, [], False), (204, b"", False), (401, b"", False), (403, b"", False), (404, b"", False),
             (501, b"", False), (500, b"", None), (200, b"<html>", None), (200, {}, None),
             (200, [3, {"00080018": 7}], False), (200, [{"00080018": {"vr": "UI", "Value": ["1.2.3"]}}], False)],
    "orthanc": [(200, [], False), (200, [{"Type": "Study"}], False), (403, b"", False), (404, b"", False),
                (405, b"", False), (500, b"", None), (200, b"<html>", None), (200, [3], False)],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "status", "content", "held"), [(kind, *row) for kind, rows in HOLDS.items() for row in rows]
)
def test_an_archive_that_is_asked_says_yes_no_or_nothing(parcel, kind, status, content, held):
    with Server(answer(status, content), found(kind, parcel)) as server:
        archive = opened(kind, server)
        assert archive.holds(parcel) is held
        assert archive.holds(parcel) is True
    path = f"/studies/{parcel.study_instance_uid}/instances?SOPInstanceUID={parcel.sop_instance_uid}"
    assert server.requests[0].path == (path if kind == "stow" else "/tools/lookup")


def test_credentials_are_shown_as_their_files_have_them_now(parcel, kind, tmp_path):
    token = tmp_path / "token"
    with Server(answer(401), answer(403), stored(kind, parcel)) as server:
        archive = opened(kind, server, token_file=str(token))
        with pytest.raises(Denied, match=r"the credential in .*token cannot be read"):
            archive.send(parcel)
        for text, reason in (
            ("", "is not one line"),
            ("a\nb", "is not one line"),
            ("old\n", "does not accept the token"),
        ):
            token.write_text(text)
            with pytest.raises(Denied, match=reason):
                archive.send(parcel)
        assert archive.holds(parcel) is False  # it may be a credential for storing alone
        token.write_text("new\n")
        assert archive.send(parcel) == SENT
    assert [one.headers["authorization"] for one in server.requests] == ["Bearer old", "Bearer old", "Bearer new"]


def test_a_password_may_have_every_letter(parcel, kind, tmp_path):
    (tmp_path / "password").write_text("Höhle: 7 €\n", encoding="utf-8")
    with Server(stored(kind, parcel)) as server:
        opened(kind, server, user="Jürgen", password_file=str(tmp_path / "password")).send(parcel)
    assert server.requests[0].headers["authorization"] == "Basic SsO8cmdlbjpIw7ZobGU6IDcg4oKs"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority, certificates of it for a server and a client, and another authority, made by openssl."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("tls")
    for name in ("ca", "other", "server", "client"):
        words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
        words += ["-addext", "subjectAltName=DNS:localhost", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        signer = ["-CA", "ca.pem", "-CAkey", "ca.key"] if name in ("server", "client") else []
        subprocess.run([*words, *signer], cwd=folder, check=True, capture_output=True)
    return folder


def test_over_tls_both_sides_show_a_certificate(parcel, kind, certificates):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "server.pem", certificates / "server.key")
    context.load_verify_locations(certificates / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    ours = {"cert": str(certificates / "client.pem"), "key": str(certificates / "client.key")}
    with Server(stored(kind, parcel), tls=context) as server:
        assert opened(kind, server, ca=str(certificates / "ca.pem"), **ours).send(parcel) == SENT
        for ca, more, reason in [
            ("other.pem", ours, "has a certificate that is not accepted"),
            (None, ours, "has a certificate that is not accepted"),
            ("ca.pem", {}, "do not agree on TLS|ended the connection"),
            ("missing.pem", ours, "ca, cert or key cannot be used .No such file"),
        ]:
            ca = ca and str(certificates / ca)
            with pytest.raises(ConnectionError, match=reason):
                opened(kind, server, ca=ca, **more).send(parcel)
    assert len(server.requests) == 1


def test_a_handshake_without_an_end_is_ended(parcel, kind, monkeypatch):
    monkeypatch.setattr(webclient, "_FILE_S", 0.5)
    with listening(drip_tls) as port:
        archive = KINDS[kind]("vna", Web(f"https://127.0.0.1:{port}"))
        with pytest.raises(ConnectionError, match=r"did not answer within 0\.5 s"):
            archive.send(parcel)


def test_the_libraries_are_imported_by_their_processes_alone():
    """The process that delivers imports them, and the one that looks into sources, if the configuration needs them."""
    names = ("configuration.config", "network", "receiving.sources", "sending.destinations", "service", "supervisor")
    code = "import sys\n" + "".join(f"import spinescore.runtime.appliance.{name}\n" for name in names)
    code += "print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "spinescore.runtime.appliance.receiving.sources" in told
    assert not {"pynetdicom", "spinescore.runtime.appliance.webclient"} & set(told)
