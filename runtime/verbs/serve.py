"""`spinescore serve`: the appliance, which takes studies in, scores them and delivers the results."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.names import DeviceName
from spinescore.runtime.text import number_of
from spinescore.runtime.verbs import NOTHING_SCORED, OK, UsageError, say, show
from spinescore.runtime.verbs.options import BUNDLE
from spinescore.runtime.verbs.servedemo import FOLDER, Modality, make_demo, results_of

if TYPE_CHECKING:
    from spinescore.runtime.appliance.configuration.config import Config

__all__ = ["DEFAULT_CONFIG", "add_arguments", "add_config", "read", "run"]

DEFAULT_CONFIG = Path("/etc/spinescore/appliance.toml")
_LAST_PORT = 65535
_OF_HTTP_ONLY = ("bundle", "device", "folder", "port")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `spinescore serve`."""
    add_config(parser)
    chosen = parser.add_mutually_exclusive_group()
    text = "check the configuration, its folders and the bundle, name every fault, and end"
    chosen.add_argument("--check", action="store_true", help=text)
    text = f"serve the folder {FOLDER}, which is made with a configuration, and send a synthetic study to the service"
    chosen.add_argument("--demo", action="store_true", help=text)
    text = "serve consoles over HTTP alone, without a configuration, with --bundle and --device"
    chosen.add_argument("--http-only", action="store_true", help=text)
    text = f"with --http-only: bundle to score with, a folder or the name of a shipped bundle (default: {BUNDLE})"
    parser.add_argument("--bundle", metavar="B", help=text)
    text = "with --http-only: device to run on; auto: a GPU if it can run the bundle, else the CPU (default: auto)"
    parser.add_argument("--device", choices=get_args(DeviceName), help=text)
    text = "with --http-only: the folder of the socket and the results (default: a temporary one)"
    parser.add_argument("--folder", type=Path, metavar="DIR", help=text)
    text = "with --http-only: answer also on this port of 127.0.0.1, to programs that send the token in the folder"
    parser.add_argument("--port", type=int, metavar="N", help=text)
    text = "end when no file, study or delivery waits any more"
    parser.add_argument("--until-idle", action="store_true", help=text)
    parser.set_defaults(verb=run)


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the configuration."""
    text = f"configuration of the appliance, a TOML file (default: {DEFAULT_CONFIG})"
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="F", help=text)


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C. Return the exit status."""
    if arguments.http_only:
        return _serve_http_only(arguments)
    if alone := [name for name in _OF_HTTP_ONLY if getattr(arguments, name) is not None]:
        raise UsageError(f"--{alone[0]} is for --http-only; the appliance has this in its configuration (--config F)")
    if sys.platform == "win32":
        text = "the appliance runs on Linux only; on Windows use spinescore serve --http-only, or spinescore score"
        raise SpineScoreError(text)
    if arguments.demo:
        arguments.config = make_demo(FOLDER)
    config = read(arguments.config)
    if arguments.check:
        return _check(config, arguments.config)
    from spinescore.runtime.appliance.supervisor import serve

    modality = Modality(FOLDER, config.node.port) if arguments.demo and config.node else None
    with _stopping() as stop:
        if modality is not None:
            modality.start()
        expects = bool if modality is None else modality.is_busy
        serve(config, stop, say, until_idle=arguments.until_idle, expects=expects)
    if not arguments.demo:
        return OK
    if not results_of(FOLDER):
        say(f"no results are in {FOLDER / 'results'}; spinescore status --config {arguments.config} shows why")
        return NOTHING_SCORED
    say(f"the results are in {FOLDER / 'results'}")
    return OK


def _serve_http_only(arguments: argparse.Namespace) -> int:
    from spinescore.runtime.appliance.httponly import ROLES, alone, own_folder
    from spinescore.runtime.appliance.supervisor import serve
    from spinescore.runtime.bundle import Bundle

    if arguments.config != DEFAULT_CONFIG or arguments.until_idle:
        raise UsageError("--http-only has no configuration and no end: leave --config and --until-idle out")
    if arguments.port is not None and not 1 <= arguments.port <= _LAST_PORT:
        raise UsageError(f"--port: {arguments.port} is no port; name one from 1 to {_LAST_PORT}")
    bundle = arguments.bundle or BUNDLE
    Bundle.open(bundle)  # a fault is said before a folder is made
    with _stopping() as stop, own_folder(arguments.folder) as folder:
        config, where = alone(folder, bundle, arguments.device or "auto", arguments.port)
        say(f"answering {where}")
        serve(config, stop, say, roles=ROLES)
    return OK


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM, Ctrl-C, Ctrl-Break and the end of the terminal set while the block runs."""
    stop = threading.Event()
    numbers = {signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGBREAK", signal.SIGINT)}
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # `nohup` ignores it
        numbers.add(signal.SIGHUP)
    before = {number: signal.signal(number, _setter(stop)) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _setter(stop: threading.Event) -> Callable[..., None]:
    """Return a signal handler that sets the event, in a thread: the signal may find `stop.wait` holding its lock."""
    return lambda *_: threading.Thread(target=stop.set).start()


def read(path: Path) -> Config:
    """Return the configuration. Raises UsageError after a message for every fault of the file."""
    from spinescore.runtime.appliance.configuration.config import ConfigError, read_config

    if not path.exists():
        text = f"there is no configuration {path}; name one with --config F, or let spinescore serve --demo write one"
        raise UsageError(text)
    try:
        return read_config(path)
    except ConfigError as error:
        for fault in error.faults:
            say(f"{path}: {fault}")
        option = "" if path == DEFAULT_CONFIG else f" --config {path}"
        raise UsageError(f"the configuration {path} has {number_of(len(error.faults), 'fault')}; correct it, and check "
                         f"it with spinescore serve --check{option}") from None  # fmt: skip


def _check(config: Config, path: Path) -> int:
    """Check what the configuration names. Raises UsageError after a message for every fault."""
    from spinescore.runtime.appliance.network import certificate_faults, network_faults
    from spinescore.runtime.appliance.store.places import disk_fault
    from spinescore.runtime.bundle import Bundle
    from spinescore.runtime.outputs.results import check_formats

    faults = []
    for kind, entries in (("source", config.source), ("destination", config.destination)):
        missing = [one for one in entries if one.kind == "folder" and not Path(str(one.path)).is_dir()]
        faults += [f"{kind} {one.name}: there is no folder {one.path}; mount or make it" for one in missing]
    checks: tuple[Callable[[], object], ...] = (
        lambda: check_formats(config.formats),
        lambda: Bundle.open(config.score.bundle),
    )
    faults += [fault for check in checks if (fault := _fault_of(check))]
    faults += [*network_faults(config), *certificate_faults(config, datetime.now(timezone.utc))]
    if fault := disk_fault(Path(config.spool.path)):
        faults.append(fault)
    for fault in faults:
        say(f"{path}: {fault}")
    if faults:
        raise UsageError(f"{number_of(len(faults), 'fault')}; correct them, then start the service")
    sources, destinations = number_of(len(config.source), "source"), number_of(len(config.destination), "destination")
    show(f"{path} is valid: {sources}, {destinations}, bundle {config.score.bundle}")
    return OK


def _fault_of(check: Callable[[], object]) -> str | None:
    """Return the message of the error that a check raises; None if it raises none."""
    try:
        check()
    except SpineScoreError as error:
        return str(error)
    return None
