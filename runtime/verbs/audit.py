"""`spinescore audit verify`: whether the audit log of the service is whole."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.text import number_of
from spinescore.runtime.verbs import OK, say, show
from spinescore.runtime.verbs.options import add_action
from spinescore.runtime.verbs.serve import add_config, read
from spinescore.runtime.verbs.status import opened

if TYPE_CHECKING:
    from spinescore.runtime.appliance.seen.audit import Head

__all__ = ["add_arguments", "verify"]

_LOOKS = 3  # a service may be writing the last line
_BETWEEN_S = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `spinescore audit`."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    verifier = add_action(actions, "verify", "check the chain of hashes, and name the first record that was changed")
    add_config(verifier)
    verifier.set_defaults(verb=verify)


def verify(arguments: argparse.Namespace) -> int:
    """Check the log, and print a summary. Return the exit status. Raises SpineScoreError for a log with a flaw."""
    from spinescore.runtime.appliance.seen.audit import FOLDER
    from spinescore.runtime.appliance.seen.auditcheck import Flaw, check

    spool = Path(read(arguments.config).spool.path)
    if not (spool / "index.sqlite").exists():
        say(f"there is no index in {spool}: nothing shows whether the end of the log is missing")
    for look in range(_LOOKS):
        result = check(spool, _head_of(arguments.config, spool))
        if not isinstance(result, Flaw) or result.kind != "torn" or look == _LOOKS - 1:
            break
        time.sleep(_BETWEEN_S)
    if isinstance(result, Flaw):
        path = spool / FOLDER / result.file
        raise SpineScoreError(f"{path}, line {result.line}: {result.kind}: {result.message}")
    if not result.records:
        show(f"the audit log in {spool / FOLDER} has no records yet")
        return OK
    repaired = f"; {result.repaired} torn lines, each explained by a record" * bool(result.repaired)
    amount = f"{number_of(result.records, 'record')} in {number_of(result.files, 'file')}"
    show(f"the audit log in {spool / FOLDER} is whole: {amount}, from {result.first} to {result.last}{repaired}")
    return OK


def _head_of(config: Path, spool: Path) -> Head | None:
    from spinescore.runtime.appliance.seen.audit import read_head

    if not (spool / "index.sqlite").exists():
        return None
    with opened(config) as (_, index, _):
        return read_head(index)
