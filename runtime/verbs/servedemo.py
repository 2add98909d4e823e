"""The folder of `spinescore serve --demo`, and the synthetic study that the demo sends to its own DICOM node."""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.machine.processes import interpreter
from spinescore.runtime.text import one_line
from spinescore.runtime.verbs import say

__all__ = ["FOLDER", "Modality", "make_demo", "results_of"]

FOLDER = Path("appliance-demo")
_SEED = 1_000_003
_PORT = 11112
_HOST = "127.0.0.1"
_LISTEN_S, _SEND_S, _RESULTS_S, _LOOK_S = 60.0, 120.0, 600.0, 0.2

_CONFIG = """\
# The configuration of `spinescore serve --demo`: results go to a folder, and studies come from a folder{also}.
[spool]
path = "spool"
reserve_gb = 0.1

[score]
bundle = "phantom-reference"

[study]
quiet_s = 10
{node}
[[source]]
name = "inbox"
kind = "folder"
path = "inbox"
settle_s = 0.5

[[destination]]
name = "results"
kind = "folder"
path = "results"
results = ["json", "html", "sr", "not-scored"]
"""
_NODE = """
[node]
ae_title = "SPINESCORE"
host = "{host}"
port = {port}

[[peer]]
ae_title = "MODALITY"
host = "{host}"
"""


def make_demo(folder: Path) -> Path:
    """Make the demo's folder if it is not there; return its configuration.

    With pynetdicom the service is a DICOM node on the loopback interface, and the study lies beside its inbox, to be
    sent. Without it the study lies in the inbox.
    """
    config = folder / "appliance.toml"
    if config.exists():
        return config
    from spinescore.runtime.files import write_atomic
    from spinescore.runtime.phantom import write_study

    is_node = find_spec("pynetdicom") is not None and bool(interpreter())
    study = folder / "study" if is_node else folder / "inbox" / "study"
    say(f"making {folder}: a configuration, and a synthetic study in {study}")
    for name in ("inbox", "results"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_study(_SEED, study)
    (study / "truth.json").unlink()
    node = _NODE.format(host=_HOST, port=_free_port()) if is_node else ""
    return write_atomic(config, _CONFIG.format(node=node, also=" and over DICOM" * is_node))


def _free_port() -> int:
    """Return the usual port of the node if it is free, else another one."""
    if _is_free(_PORT):
        return _PORT
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
        return True


class Modality:
    """Sends the demo's study in a thread, with pynetdicom's own program, and says where its results are."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder, self._port = folder, port
        self._thread = threading.Thread(target=self._run, name="spinescore-demo", daemon=True)

    def start(self) -> None:
        """Send the study when the service listens. Raises SpineScoreError if another program has its port."""
        if not _is_free(self._port):
            config = self._folder / "appliance.toml"
            raise SpineScoreError(f"port {self._port} is in use; end the other program, or change the port in {config}")
        self._thread.start()

    def is_busy(self) -> bool:
        """Return whether the study is still to be sent, or its results are still to come."""
        return self._thread.is_alive()

    def _run(self) -> None:
        fault = self._send()
        if fault is not None:
            inbox = self._folder / "inbox" / "study"
            say(f"{fault}; the study is put into {inbox} instead")
            shutil.copytree(self._folder / "study", inbox, dirs_exist_ok=True)
        config = self._folder / "appliance.toml"
        if not self._wait(_RESULTS_S, lambda: bool(results_of(self._folder))):
            say(f"there are no results yet; spinescore status --config {config} shows why")
            return
        say(f"its results are in {results_of(self._folder)[-1]}; to read the structured report there: "
            f"spinescore study report 1 --config {config}")  # fmt: skip

    def _send(self) -> str | None:
        """Send the study. Return a sentence if that is not possible, as where the loopback interface is down."""
        if not self._wait(_LISTEN_S, lambda: _listens(self._port)):
            return f"the DICOM node does not answer at {_HOST}, port {self._port}"
        say(f"the DICOM node SPINESCORE listens on {_HOST}, port {self._port}")
        words = ["-m", "pynetdicom", "storescu", _HOST, str(self._port), str(self._folder / "study"), "-r", "-cx",
                 "-aet", "MODALITY", "-aec", "SPINESCORE"]  # fmt: skip
        say(f"sending the study: python {shlex.join(words)}")
        ended = subprocess.run([interpreter(), *words], capture_output=True, timeout=_SEND_S, check=False)
        return (
            None
            if ended.returncode == 0
            else f"it was not taken ({one_line(ended.stderr.decode(errors='replace')[-300:])})"
        )

    def _wait(self, seconds: float, condition: Callable[[], bool]) -> bool:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(_LOOK_S)
        return True


def results_of(folder: Path) -> list[Path]:
    """Return the folders of the results that came to the demo's destination."""
    return [path.parent for path in sorted((folder / "results").glob("*/revision-*/set.json"))]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((_HOST, port)) == 0
