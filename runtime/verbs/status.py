"""`spinescore status`: the state of the appliance."""

from __future__ import annotations

import argparse
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.text import lines
from spinescore.runtime.verbs import NOTHING_SCORED, OK, show, show_json
from spinescore.runtime.verbs.serve import add_config, read

if TYPE_CHECKING:
    from spinescore.runtime.appliance.clock import Clock
    from spinescore.runtime.appliance.store.index import Index
    from spinescore.runtime.appliance.store.places import Places

__all__ = ["add_arguments", "opened", "run", "study_of"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `spinescore status`."""
    add_config(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(verb=run)


@contextmanager
def opened(config: Path) -> Iterator[tuple[Places, Index, Clock]]:
    """Open the index of the appliance with this configuration. Raises UsageError or SpineScoreError."""
    from spinescore.runtime.appliance.clock import read_clock
    from spinescore.runtime.appliance.store.index import Index, IndexFull, damage
    from spinescore.runtime.appliance.store.places import Places

    spool = read(config).spool
    places = Places(Path(spool.path), int(spool.reserve_gb * (1 << 30)))
    index = Index(places.index, places.release_reserve, make=False)
    try:
        yield places, index, read_clock(index)
    except IndexFull as error:
        raise SpineScoreError(f"nothing was changed: {error}") from error
    except sqlite3.DatabaseError as error:
        raise SpineScoreError(damage(places.index, error)) from error
    finally:
        index.close()


def run(arguments: argparse.Namespace) -> int:
    """Print the state. Return the exit status: NOTHING_SCORED if the service does not run or is not ready."""
    from spinescore.runtime.appliance.seen.status import status

    with opened(arguments.config) as (places, index, clock):
        state = status(places, index, clock)
    if arguments.json:
        show_json(json.dumps(state, indent=2))
    else:
        show(lines(_lines(state)))
    return OK if state["running"] and state["ready"] else NOTHING_SCORED


def _lines(state: dict[str, Any]) -> Iterator[str]:
    worker = state["worker"]
    details = [str(worker[name]) for name in ("step", "engine", "message") if worker.get(name)]
    if worker.get("check"):
        details.append(f"checking {worker['check']} meanwhile")
    if "study" in worker:
        details.insert(0, f"study {worker['study']}")
    yield f"service      {_service(state)}"
    for reason in state["not_ready"] if state["running"] else ():
        yield f"not ready    {reason}"
    yield f"worker       {worker.get('state', 'starting')}{': ' * bool(details)}{', '.join(details)}"
    yield f"studies      {_counted(state['studies'])}"
    if state["parked"]:
        yield f"parked       {_counted(state['parked'])}"
    waiting_s = state["oldest_waiting_s"]
    yield f"oldest wait  {'nothing waits' if waiting_s is None else f'{waiting_s:.0f} s'}"
    removed = f", {state['quarantine_removed']} removed from it" if state["quarantine_removed"] else ""
    size = f" ({state['quarantine_bytes'] / 1e9:.1f} GB)" if state["quarantined"] else ""
    yield f"objects      {state['received_objects']} received, {state['quarantined']} in quarantine{size}{removed}"
    if state["not_radiographs"]:
        yield f"not scored   {_counted(state['not_radiographs'])}"
    for name, counts in state["destinations"].items():
        yield f"destination  {name}: {_counted(counts)}"
    room = "" if state["has_room"] else "; NO OBJECT IS TAKEN IN: free space on the spool's disk"
    free, kept = (state[name] / 2**30 for name in ("free_bytes", "reserve_bytes"))
    yield f"disk         {free:.1f} GiB free, {kept:.1f} GiB in reserve{room}"
    for fault in state["last_faults"]:
        study = "" if fault["study"] is None else f" (study {fault['study']})"
        yield f"fault        {fault['at']} {fault['code']}{study}: {fault['message']}"


def _service(state: dict[str, Any]) -> str:
    if not state["running"]:
        return "not running"
    return "running, ready" if state["ready"] else "running, not ready"


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"


def study_of(index: Index, name: str) -> int:
    """Return the number of the study that a command names. Raises SpineScoreError if there is none."""
    from spinescore.runtime.appliance.seen.status import find_study

    study = find_study(index, name)
    if study is None:
        raise SpineScoreError(f"there is no study {name}; spinescore study list shows those there are")
    return study
