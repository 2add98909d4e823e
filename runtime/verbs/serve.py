"""`spinescore serve`: the appliance, which takes studies in, scores them and delivers the results."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.verbs import OK, UsageError, say, show

if TYPE_CHECKING:
    from spinescore.runtime.appliance.config import Config

__all__ = ["DEFAULT_CONFIG", "add_arguments", "add_config", "read", "run"]

DEFAULT_CONFIG = Path("/etc/spinescore/appliance.toml")
_DEMO = Path("appliance-demo")
_DEMO_SEED = 1_000_003

_DEMO_CONFIG = """\
# The configuration of `spinescore serve --demo`: a folder as the source, a folder as the destination.
[spool]
path = "spool"
reserve_gb = 0.1

[score]
bundle = "phantom-reference"

[study]
quiet_s = 10

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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `spinescore serve`."""
    add_config(parser)
    chosen = parser.add_mutually_exclusive_group()
    text = "check the configuration, its folders and the bundle, say every fault, and end"
    chosen.add_argument("--check", action="store_true", help=text)
    text = f"serve the folder {_DEMO}, which is made with a configuration and a synthetic study in its inbox"
    chosen.add_argument("--demo", action="store_true", help=text)
    text = "end when no file, study or delivery waits any more"
    parser.add_argument("--until-idle", action="store_true", help=text)
    parser.set_defaults(verb=run)


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the configuration."""
    text = f"configuration of the appliance, a TOML file (default: {DEFAULT_CONFIG})"
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, metavar="F", help=text)


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C. Return the exit status."""
    if sys.platform == "win32":
        raise SpineScoreError("the appliance runs on Linux only; on Windows use spinescore score")
    if arguments.demo:
        arguments.config = _make_demo(_DEMO)
    config = read(arguments.config)
    if arguments.check:
        return _check(config, arguments.config)
    from spinescore.runtime.appliance.supervisor import serve

    stop = threading.Event()
    before = {number: signal.signal(number, _setter(stop)) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        serve(config, stop, say, until_idle=arguments.until_idle)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if arguments.demo:
        say(f"the results are in {_DEMO / 'results'}")
    return OK


def _setter(stop: threading.Event) -> Callable[..., None]:
    """Return a signal handler that sets the event, in a thread: the signal may find `stop.wait` holding its lock."""
    return lambda *_: threading.Thread(target=stop.set).start()


def read(path: Path) -> Config:
    """Return the configuration. Raises UsageError after a message for every fault of the file."""
    from spinescore.runtime.appliance.config import ConfigError, read_config

    try:
        return read_config(path)
    except ConfigError as error:
        for fault in error.faults:
            say(f"{path}: {fault}")
        count = len(error.faults)
        raise UsageError(f"the configuration {path} has {count} fault{'s' * (count != 1)}; correct it, and check it "
                         "with spinescore serve --check") from None  # fmt: skip


def _check(config: Config, path: Path) -> int:
    """Check what the configuration names. Raises UsageError after a message for every fault."""
    from spinescore.runtime.appliance.network import network_faults
    from spinescore.runtime.appliance.places import network_fault
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
    faults += network_faults(config)
    if fault := network_fault(Path(config.spool.path)):
        faults.append(fault)
    for fault in faults:
        say(f"{path}: {fault}")
    if faults:
        raise UsageError(f"{len(faults)} faults; correct them, then start the service")
    show(f"{path} is valid: {len(config.source)} sources, {len(config.destination)} destinations, "
         f"bundle {config.score.bundle}")  # fmt: skip
    return OK


def _fault_of(check: Callable[[], object]) -> str | None:
    """Return the message of the error that a check raises; None if it raises none."""
    try:
        check()
    except SpineScoreError as error:
        return str(error)
    return None


def _make_demo(folder: Path) -> Path:
    """Make the demo's folder if it is not there; return its configuration."""
    config = folder / "appliance.toml"
    if config.exists():
        return config
    from spinescore.runtime.files import write_atomic
    from spinescore.runtime.phantom import write_study

    say(f"making {folder}: a configuration, and a synthetic study in {folder / 'inbox'}")
    (folder / "results").mkdir(parents=True, exist_ok=True)
    write_study(_DEMO_SEED, folder / "inbox" / "study")
    (folder / "inbox" / "study" / "truth.json").unlink()
    return write_atomic(config, _DEMO_CONFIG)
