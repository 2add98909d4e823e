"""Run as `python cases_trials.py CASE FOLDER` in a network namespace: see test_trials."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from helpers import appliance
from helpers.certificates import write_certificates
from helpers.loopback import NODE, STORESCP, process, raise_loopback, reports, storescp, wait_until

STUNNEL = 11114
CLOCK = Path(__file__).resolve().parents[2] / "helpers" / "host" / "jumping_clock.c"
SPINESCORE = (sys.executable, "-m", "spinescore.runtime.cli")
TLS = 'tls = {{ cert = "{0}/server.pem", key = "{0}/server.key", ca = "{0}/ca.pem" }}\n'


def configure(
    folder: Path, node: str = "", peer: str = "", study: str = "quiet_s = 20\nquiet_complete_s = 0\n"
) -> Path:
    """Write the configuration of a node with a modality and an archive."""
    bundle = appliance.write_bundle(folder / "bundle")
    path = folder / "appliance.toml"
    path.write_text(
        f'[node]\nhost = "127.0.0.1"\nport = {NODE}\n{node}[[peer]]\nae_title = "MODALITY"\nhost = "127.0.0.1"\n{peer}'
        f'[spool]\npath = "spool"\nreserve_gb = 0.001\n[score]\nbundle = "{bundle}"\ndevice = "cpu"\n[study]\n{study}'
        f'[[destination]]\nname = "archive"\nkind = "dicom"\nhost = "127.0.0.1"\nport = {STORESCP}\n'
        'ae_title = "ARCHIVE"\n'
    )
    return path


@contextlib.contextmanager
def serve(config: Path, **more: str) -> Iterator[subprocess.Popen]:
    environment = {**os.environ, "SPINESCORE_CACHE": str(config.parent / "cache"), **more}
    with process(*SPINESCORE, "serve", "--config", config, port=NODE, env=environment) as running:
        yield running


def run(*words: object, succeeds: bool | None = True) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, errors="replace", timeout=60)
    assert succeeds is None or (done.returncode == 0) == succeeds, (words, done.stdout, done.stderr)
    return done.stdout + done.stderr


def send(*files: Path, calling: str = "MODALITY") -> None:
    told = run("dcmsend", "-v", "-aet", calling, "-aec", "SPINESCORE", "127.0.0.1", NODE, *files)
    assert f"with status SUCCESS  : {len(files)}" in told, told


def status(config: Path) -> dict:
    return json.loads(run(*SPINESCORE, "status", "--config", config, "--json", succeeds=None))


def records(config: Path) -> list[dict]:
    lines = [path.read_text() for path in sorted((config.parent / "spool" / "audit").glob("*.jsonl"))]
    return [json.loads(line) for line in "".join(lines).splitlines()]


def refusals(config: Path) -> str:
    return "\n".join(record["reason"] for record in records(config) if record["event"] == "refused")


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def case_a_jumping_clock_fires_nothing(folder: Path) -> None:
    """With dcmsend and storescp, and a library that moves the date, which cc compiles."""
    library, jump = folder / "jumping_clock.so", folder / "jump"
    run("cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, CLOCK)
    config = configure(folder, study="quiet_s = 16\nquiet_complete_s = 12\n")
    fake = {"LD_PRELOAD": str(library), "JUMPING_CLOCK": str(jump)}
    whole, half = appliance.tiny_files(folder / "a", "1.2.3"), appliance.tiny_files(folder / "b", "1.2.4", ("lumbar",))
    with serve(config, **fake) as running:
        wait_until(lambda: status(config)["worker"].get("state") == "ready", "the worker being ready")
        send(*whole)
        send(*half)
        jump.write_text("7200")
        processes = children(running.pid)
        for _ in range(4):
            assert status(config)["studies"]["collecting"] == 2
            time.sleep(0.5)
        wait_until(lambda: status(config)["studies"]["delivering"] >= 1, "the scoring of the whole study")
        jump.write_text("-86400")  # while one delivery waits for its archive, and a study for its second view
        wait_until(lambda: status(config)["studies"]["delivering"] == 2, "the scoring of half a study")
        with storescp(folder / "archive"):
            wait_until(lambda: status(config)["studies"]["delivered"] == 2, "the delivery of both reports")
            assert reports(folder / "archive") == ["1.2.3", "1.2.4"]
        assert children(running.pid) == processes  # no process was ended as a silent one
    days = [record["at"][:13] for record in records(config)]
    assert days != sorted(days)  # the date went back
    scored = [record["at"] for record in records(config) if record["event"] == "scored"]
    assert scored[0] > scored[1]
    assert "is whole" in run(*SPINESCORE, "audit", "verify", "--config", config)


def hashed(certificate: Path) -> str:
    import hashlib

    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()


@contextlib.contextmanager
def serve_tls(folder: Path, node: str = "") -> Iterator[tuple[Path, Path]]:
    """A service that asks for the certificate `client`; yields its configuration and the folder of certificates."""
    keys = folder / "keys"
    keys.mkdir()
    write_certificates(keys)
    write_certificates(keys, ("stranger",), "other-ca")
    fingerprint = f'cert_sha256 = "{hashed(keys / "client.pem")}"\n'
    config = configure(folder, TLS.format(keys) + node, fingerprint)
    with serve(config):
        yield config, keys


def echo(keys: Path, name: str = "client", succeeds: bool | None = True) -> str:
    """C-ECHO over TLS by dcmtk, with the certificate of this name."""
    words = ("+tls", keys / f"{name}.key", keys / f"{name}.pem", "+cf", keys / "ca.pem", "-aet", "MODALITY")
    return run("echoscu", *words, "-aec", "SPINESCORE", "-to", "20", "-ta", "20", "localhost", NODE, succeeds=succeeds)


def s_client(keys: Path, *words: object, name: str = "client", **settings) -> subprocess.Popen:
    """A TLS client of openssl that says nothing after its handshake."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{NODE}", "-CAfile", keys / "ca.pem", "-cert",
               keys / f"{name}.pem", "-key", keys / f"{name}.key", *words]  # fmt: skip
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen([str(word) for word in command], **pipes, **settings)


def case_silent_tls_clients_stop_nobody(folder: Path) -> None:
    """With openssl, stunnel4 and echoscu."""
    with serve_tls(folder) as (_, keys), contextlib.ExitStack() as opened:
        for _ in range(40):  # more than may wait without a request
            opened.enter_context(socket.create_connection(("127.0.0.1", NODE), timeout=10))
        echo(keys)
        silent = [opened.enter_context(s_client(keys)) for _ in range(5)]
        opened.callback(lambda: [client.kill() for client in silent])
        tunnel = folder / "stunnel.conf"
        tunnel.write_text(
            f"foreground = yes\npid =\n[dicom]\nclient = yes\naccept = 127.0.0.1:{STUNNEL}\n"
            f"connect = 127.0.0.1:{NODE}\ncert = {keys}/client.pem\nkey = {keys}/client.key\n"
            f"CAfile = {keys}/ca.pem\nverifyChain = yes\n"
        )
        opened.enter_context(process("stunnel4", tunnel, port=STUNNEL, stderr=subprocess.DEVNULL))
        opened.enter_context(socket.create_connection(("127.0.0.1", STUNNEL), timeout=10))  # silent behind the tunnel
        run("echoscu", "-aet", "MODALITY", "-aec", "SPINESCORE", "-to", "20", "127.0.0.1", STUNNEL)
        echo(keys)


def case_old_tls_and_wrong_certificates_are_rejected_and_audited(folder: Path) -> None:
    """With openssl and echoscu."""
    with serve_tls(folder) as (config, keys):
        with s_client(keys, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0") as client:
            told = client.communicate(b"", timeout=60)[0].decode(errors="replace")
        assert "Cipher is (NONE)" in told or "alert" in told, told
        wait_until(lambda: "UNSUPPORTED_PROTOCOL" in refusals(config).upper(), "the record of old TLS")
        echo(keys, "stranger", succeeds=False)
        wait_until(lambda: "CERTIFICATE_VERIFY_FAILED" in refusals(config), "the record of a strange authority")
        echo(keys, "other", succeeds=False)
        text = f"MODALITY at 127.0.0.1 was refused: its certificate ({hashed(keys / 'other.pem')}) is not the peer's"
        wait_until(lambda: text in refusals(config), "the record of another certificate")
        run(
            "echoscu",
            "-aet",
            "MODALITY",
            "-aec",
            "SPINESCORE",
            "-to",
            "20",
            "-ta",
            "20",
            "127.0.0.1",
            NODE,
            succeeds=False,
        )
        wait_until(lambda: refusals(config).count("the TLS handshake failed") >= 3, "the record of a plain connection")
        echo(keys)
    assert "is whole" in run(*SPINESCORE, "audit", "verify", "--config", config)


def case_strangers_are_rejected_and_audited(folder: Path) -> None:
    """With echoscu, dcmsend and openssl, which binds to another address."""
    config = configure(folder)
    with serve(config):
        words = ("echoscu", "-to", "20", "-ta", "20")
        told = run(*words, "-aet", "STRANGER", "-aec", "SPINESCORE", "127.0.0.1", NODE, succeeds=False)
        assert "Calling AE Title Not Recognized" in told
        told = run(*words, "-aet", "MODALITY", "-aec", "OTHER", "127.0.0.1", NODE, succeeds=False)
        assert "Called AE Title Not Recognized" in told
        run("openssl", "s_client", "-bind", "127.0.0.2:0", "-connect", f"127.0.0.1:{NODE}", succeeds=False)
        wait_until(lambda: "belongs to no peer" in refusals(config), "the record of a strange address")
        text = refusals(config)
        assert "STRANGER at 127.0.0.1 was refused: no peer has this AE title and address" in text
        assert "MODALITY at 127.0.0.1 was refused: it calls OTHER" in text
        assert "127.0.0.2 was refused: the address belongs to no peer" in text
        send(*appliance.tiny_files(folder / "study", "1.2.3"))
    received = [record for record in records(config) if record["event"] == "received"]
    assert [record["peer"] for record in received] == ["MODALITY", "MODALITY"]


def association_request() -> bytes:
    """The bytes with which pynetdicom requests an association, as a listener gets them."""
    from pynetdicom import AE
    from pynetdicom.sop_class import Verification

    entity = AE("MODALITY")
    entity.add_requested_context(Verification)
    requested: list[bytes] = []

    def listen() -> None:
        connection, _ = listener.accept()
        with connection:
            requested.append(connection.recv(1 << 16))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=listen)
        thread.start()
        entity.associate("127.0.0.1", listener.getsockname()[1], ae_title="SPINESCORE")
        thread.join()
    return requested[0]


def request(words: bytes) -> tuple[socket.socket, bytes]:
    """Request an association; return its connection and the answer (PS3.8, section 9.3: 2 accepts, 3 rejects)."""
    connection = socket.create_connection(("127.0.0.1", NODE), timeout=60)
    connection.sendall(words)
    return connection, connection.recv(1 << 16)


def case_two_hundred_associations_hold_up_nobody(folder: Path) -> None:
    """With dcmsend and storescp; the associations are requested as pynetdicom does."""
    config, words = configure(folder, "max_associations = 200\n"), association_request()
    with storescp(folder / "archive"), serve(config) as running, contextlib.ExitStack() as held:
        for _ in range(199):
            connection, answer = request(words)
            held.enter_context(connection)
            assert answer[0] == 2
        send(*appliance.tiny_files(folder / "study", "1.2.3"))

        def next_answer() -> int:
            connection, answer = request(words)
            held.enter_context(connection)
            return answer[0]

        wait_until(lambda: next_answer() == 2, "the place of dcmsend's association")
        assert next_answer() == 3
        wait_until(lambda: reports(folder / "archive") == ["1.2.3"], "the delivery of a report")
        receive = next(pid for pid in children(running.pid) if b'"receive"' in command_of(pid))
        lines = Path(f"/proc/{receive}/status").read_text().splitlines()
        peak_kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        assert peak_kib <= 256 * 1024
        held.close()
        wait_until(lambda: len(list(Path(f"/proc/{receive}/task").iterdir())) < 20, "the end of the threads")
    assert "200 associations are open" in refusals(config)


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


if __name__ == "__main__":
    raise_loopback()
    target = Path(sys.argv[2])
    globals()[f"case_{sys.argv[1]}"](target)
    shutil.rmtree(target, ignore_errors=True)
