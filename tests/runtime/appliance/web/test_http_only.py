"""The service alone: its folder, its token, and what is different on Windows, which is imitated here."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from contextlib import closing
from pathlib import Path

import pytest

from spinescore.runtime import cli, durable
from spinescore.runtime.appliance import httponly, supervisor
from spinescore.runtime.appliance.clock import start_clock
from spinescore.runtime.appliance.configuration.config import SpoolPart
from spinescore.runtime.appliance.httponly import alone, own_folder
from spinescore.runtime.appliance.recovery import clean
from spinescore.runtime.appliance.seen import audit
from spinescore.runtime.appliance.store.index import Index
from spinescore.runtime.appliance.store.places import Places, is_running, locked, make_places
from spinescore.runtime.appliance.web import server
from spinescore.runtime.appliance.web.access import Client, read_access
from spinescore.runtime.appliance.web.consoles import Consoles
from spinescore.runtime.appliance.web.server import open_tcp_socket
from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.machine import crashes
from spinescore.runtime.machine.child import Child
from spinescore.runtime.verbs import serve


@pytest.fixture
def windows(monkeypatch):
    """Windows, as far as this package asks: its platform, its locks, and no call that it does not have."""
    held = set()

    def locking(descriptor, mode, count):
        place = os.fstat(descriptor).st_ino
        if place in held:
            raise PermissionError(errno.EACCES, "locked")
        held.add(place)

    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2))
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_KEEPALIVE, raising=False)
    monkeypatch.delattr(os, "getuid")
    monkeypatch.delattr(socket, "AF_UNIX")


def test_without_a_port_there_is_the_socket_alone(tmp_path):
    config, where = alone(tmp_path, "phantom-reference", "cpu", None)
    assert where == f"on the socket {tmp_path / 'http.sock'}"
    assert (config.http.tcp, config.http.token) == (None, ())
    assert (config.node, config.source, config.destination) == (None, (), ())
    assert config.spool.results_d == pytest.approx(1 / 24)
    assert list(tmp_path.iterdir()) == []


def test_a_port_has_a_token_that_stays(tmp_path):
    first = alone(tmp_path, "phantom-reference", "cpu", 8080)
    token = (tmp_path / "token").read_text()
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600
    assert first == alone(tmp_path, "phantom-reference", "cpu", 8080)
    assert (tmp_path / "token").read_text() == token
    assert first[0].http.tcp == "127.0.0.1:8080"
    scope = {"server": ("127.0.0.1", 8080), "headers": [(b"authorization", b"Bearer " + token.strip().encode())]}
    assert read_access(first[0].http).client(scope) == Client("console")


def test_a_token_that_is_no_token_is_refused(tmp_path):
    config = alone(tmp_path, "phantom-reference", "cpu", 8080)[0]
    for content in ("short", "", "two words of many letters", "ä" * 20):
        (tmp_path / "token").write_text(content, encoding="utf-8")
        with pytest.raises(SpineScoreError, match=r"http\.token"):
            read_access(config.http)
    (tmp_path / "token").unlink()
    with pytest.raises(SpineScoreError, match="cannot be read"):
        read_access(config.http)


def test_a_bundle_near_by_keeps_its_place(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert alone(tmp_path, "mine", "cpu", None)[0].score.bundle == str(tmp_path / "mine")
    assert alone(tmp_path, "phantom-reference", "cpu", None)[0].score.bundle == "phantom-reference"


def test_a_temporary_folder_ends_and_those_of_killed_services_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = ("killed", "running", "starting", "file")
    folders = {name: tmp_path / f"spinescore-http-{name}" for name in names}
    for name in names[:3]:
        folders[name].mkdir()
        (folders[name] / "lock").write_bytes(b"")
    folders["file"].write_bytes(b"")
    for name in ("killed", "running", "file"):
        os.utime(folders[name], (0, 0))
    with locked(Places(folders["running"], 0)), own_folder(None) as folder:
        os.utime(folders["running"], (0, 0))
        assert folder.is_dir()
        assert [name for name in names if folders[name].exists()] == ["running", "starting", "file"]
    assert not folder.exists()


def test_a_named_folder_stays_and_one_that_cannot_be_made_is_said(tmp_path):
    with own_folder(tmp_path / "a" / "b") as folder:
        assert folder == tmp_path / "a" / "b"
    assert folder.is_dir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SpineScoreError, match="name another one"), own_folder(tmp_path / "file" / "x"):
        pass


def test_the_verb_serves_the_web_process_alone(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(supervisor, "serve", lambda *given, **more: calls.append((given, more)))
    words = ["serve", "--http-only", "--folder", str(tmp_path), "--port", "8080", "--device", "cpu"]
    assert cli.main(words) == 0
    (config, stop, _), more = calls[0]
    assert (config.spool.path, config.score.device, more) == (str(tmp_path), "cpu", {"roles": httponly.ROLES})
    assert isinstance(stop, threading.Event)
    assert "answering on the socket" in capsys.readouterr().err
    assert cli.main([*words[:-4], "--port", "70000"]) == 2


def test_on_windows_it_answers_on_the_loopback_interface_alone(tmp_path, monkeypatch, windows):
    config, where = alone(tmp_path, "phantom-reference", "cpu", None)
    assert config.http.tcp == f"127.0.0.1:{httponly.PORT}"
    assert where == f"on http://127.0.0.1:{httponly.PORT} with the token in {tmp_path / 'token'}"
    opened = []
    monkeypatch.setattr(server, "open_tcp_socket", lambda *address: opened.append(address) or "tcp")
    assert server.open_sockets(config) == [("tcp", None)]
    assert opened == [("127.0.0.1", httponly.PORT)]


def test_on_windows_the_folder_is_locked_and_synced_in_its_way(tmp_path, windows):
    places = Places(tmp_path, 0)
    with locked(places):
        assert is_running(places)
        with pytest.raises(SpineScoreError, match="another service"), locked(places, 0.1):
            pass
    opened = []
    real = os.open
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "open", lambda path, flags, *more: opened.append((path, flags)) or real(path, flags, *more))
        (tmp_path / "file").write_bytes(b"x")
        durable.sync_tree(tmp_path)
    assert opened == [(tmp_path / "file", os.O_RDWR), (tmp_path / "lock", os.O_RDWR)]  # no folder


def test_on_windows_a_child_gets_pipes_and_nothing_else(monkeypatch, windows):
    options = {}

    class Process:
        pid, stdin, stdout = 1, io.BytesIO(), io.BytesIO()

        def kill(self):
            pass

        def wait(self, timeout=None):
            pass

    def popen(command, **more):
        options.update(more)
        return Process()

    monkeypatch.setattr(subprocess, "CREATE_NO_WINDOW", 77, raising=False)
    monkeypatch.setattr(subprocess, "Popen", popen)
    child = Child("spinescore.runtime.appliance.service", (5,))
    child.start({"role": "web"})
    child.kill()
    assert options["pass_fds"] == ()
    assert options["creationflags"] == 77


def test_an_answer_over_tcp_is_not_held_back():
    with open_tcp_socket("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP  # asyncio sets TCP_NODELAY for these


def test_a_child_hears_every_message_and_ends_with_its_parent():
    """A line may come in pieces, and several at once; what is heard last is said."""
    program = (
        "from spinescore.runtime.machine.child import answering\n"
        "from queue import Queue\n"
        "heard = Queue()\n"
        "say = answering(heard.put)\n"
        "while True:\n"
        "    say(heard=heard.get())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(b'{"a": 1}\n{"b": ')
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"heard": {"a": 1}}
        process.stdin.write(b'"' + b"x" * 100_000 + b'"}\n')
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"heard": {"b": "x" * 100_000}}
        process.stdin.close()
        assert process.wait(60) == 1


@pytest.fixture
def scanned(monkeypatch):
    """A virus scanner that holds a file for the first two tries to rename or remove it. Returns the pauses."""
    pauses = []

    def held(real):
        tries = []

        def work(*arguments, **more):
            tries.append(1)
            if len(tries) <= 2:
                raise PermissionError(errno.EACCES, "used by another process")
            return real(*arguments, **more)

        return work

    monkeypatch.setattr("time.sleep", pauses.append)
    monkeypatch.setattr(type(Path()), "replace", held(type(Path()).replace))
    monkeypatch.setattr(shutil, "rmtree", held(shutil.rmtree))
    return pauses


def test_on_windows_a_file_that_is_held_for_a_moment_is_renamed_later(tmp_path, windows, scanned):
    (tmp_path / "file").write_bytes(b"x")
    durable.move(tmp_path / "file", tmp_path / "final")
    assert (tmp_path / "final").read_bytes() == b"x"
    assert scanned == [0.05, 0.1]


def test_on_linux_a_rename_that_is_refused_is_refused_at_once(tmp_path, scanned):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(PermissionError):
        durable.move(tmp_path / "file", tmp_path / "final")
    assert scanned == []


def test_on_windows_results_that_are_held_are_removed_at_a_later_turn(tmp_path, windows, monkeypatch):
    places = make_places(tmp_path / "spool", 0)
    (places.console / "0-key").mkdir()
    monkeypatch.setattr("time.sleep", lambda _: None)

    def held(*_):
        raise PermissionError(errno.EACCES, "used by another process")

    with monkeypatch.context() as patched, closing(Index(places.index)) as index:
        patched.setattr(type(Path()), "replace", held)
        clean(places, index, start_clock(index), SpoolPart("x", objects_h=0.0, results_d=-1.0))
        assert (places.console / "0-key").is_dir()
    with closing(Index(places.index)) as index:
        clean(places, index, start_clock(index), SpoolPart("x", objects_h=0.0, results_d=-1.0))
    assert not (places.console / "0-key").exists()


def test_the_files_of_a_call_are_removed_as_soon_as_nobody_holds_them(tmp_path, monkeypatch):
    tries = []
    real = shutil.rmtree

    def held(folder, ignore_errors):
        tries.append(folder)
        if len(tries) > 2:
            real(folder, ignore_errors)

    async def call():
        consoles = Consoles().open(make_places(tmp_path, 0), types.SimpleNamespace(now=lambda: 1.0), lambda **_: None)
        monkeypatch.setattr(shutil, "rmtree", held)
        monkeypatch.setattr("spinescore.runtime.appliance.web.consoles._FIRST_PAUSE_S", 0.001)
        async with consoles.call() as (_, folder):
            (folder / "image-1.raw").write_bytes(b"pixels")
        await asyncio.gather(*consoles._tasks)
        return folder

    assert not asyncio.run(call()).exists()
    assert len(tries) == 3


def test_on_windows_control_break_ends_the_service(monkeypatch):
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    with serve._stopping() as stop:
        signal.raise_signal(signal.SIGUSR1)
        assert stop.wait(60)
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_on_windows_the_lines_of_the_audit_log_are_written_as_they_are(tmp_path, monkeypatch):
    """Without O_BINARY Windows would end them with CR LF, and their hashes would not fit."""
    flags = []
    real = os.open
    monkeypatch.setattr(os, "O_BINARY", 1 << 30, raising=False)
    monkeypatch.setattr(
        os, "open", lambda path, flag, *mode: flags.append(flag) or real(path, flag & ~(1 << 30), *mode)
    )
    audit._append(tmp_path / "log", b"a line\n")
    assert flags[0] & 1 << 30


def test_on_windows_a_crash_opens_no_window(windows, monkeypatch):
    modes = []
    names = {"SetErrorMode": modes.append, "SEM_FAILCRITICALERRORS": 1, "SEM_NOGPFAULTERRORBOX": 2}
    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(**names))
    crashes.crash_silently()
    assert modes == [3]
