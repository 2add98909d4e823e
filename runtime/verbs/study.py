"""`spinescore study list|show|report|retry|deliver|dismiss`: the studies of the appliance."""

from __future__ import annotations

import argparse
import json
from typing import Any

from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.text import table
from spinescore.runtime.verbs import OK, UsageError, say, show, show_json
from spinescore.runtime.verbs.options import add_action
from spinescore.runtime.verbs.serve import add_config
from spinescore.runtime.verbs.status import opened, study_of

__all__ = ["add_arguments"]

_STATES = ("collecting", "due", "scoring", "scored", "delivering", "delivered", "parked", "dismissed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `spinescore study`."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    lister = add_action(actions, "list", "list the studies, the newest first")
    lister.add_argument("--state", choices=_STATES, help="only studies in this state")
    lister.set_defaults(verb=list_all)
    shower = add_action(actions, "show", "show a study with its objects, results and deliveries")
    reporter = add_action(actions, "report", "print the structured report of a study, as its destinations got it")
    retrier = add_action(actions, "retry", "have a parked study scored again")
    deliverer = add_action(actions, "deliver", "have the results of a study delivered again, if they are not there")
    dismisser = add_action(actions, "dismiss", "give up deliveries of a study that wait or are parked")
    for action in (deliverer, dismisser):
        action.add_argument("--destination", metavar="NAME", help="only to this destination")
    for action in (lister, shower):
        action.add_argument("--json", action="store_true", help="print JSON")
    for action, verb in ((shower, show_one), (reporter, report), (retrier, retry), (deliverer, deliver),
                         (dismisser, dismiss)):  # fmt: skip
        action.add_argument("study", metavar="STUDY", help="number of the study, or its Study Instance UID")
        action.set_defaults(verb=verb)
    for action in (lister, shower, reporter, retrier, deliverer, dismisser):
        add_config(action)


def list_all(arguments: argparse.Namespace) -> int:
    """Print the studies. Return the exit status."""
    from spinescore.runtime.appliance.seen.status import list_studies

    with opened(arguments.config) as (_, index, _):
        studies = list_studies(index, arguments.state)
    if arguments.json:
        show_json(json.dumps(studies, indent=2))
    elif studies:
        header = ("study", "state", "revision", "code", "received", "study instance UID")
        names = ("study", "state", "revision", "code", "received_at", "study_instance_uid")
        show(table([[_shown(study[name]) for name in names] for study in studies], header))
    else:
        show("no studies")
    return OK


def show_one(arguments: argparse.Namespace) -> int:
    """Print one study. Return the exit status."""
    from spinescore.runtime.appliance.seen.status import show_study

    with opened(arguments.config) as (_, index, _):
        study = show_study(index, study_of(index, arguments.study))
    if arguments.json:
        show_json(json.dumps(study, indent=2))
        return OK
    parts = ("objects", "results", "deliveries", "revisions")
    text = [f"{name}: {_shown(value)}" for name, value in study.items() if name not in parts]
    for part in parts:
        rows = study[part]
        if rows:
            text += ["", part, table([[_shown(value) for value in row.values()] for row in rows], tuple(rows[0]))]
    show("\n".join(text))
    return OK


def _shown(value: Any) -> str:
    if isinstance(value, dict):  # a total
        return f"{_shown(value['value'])} ({value['status']})"
    if isinstance(value, list):
        return ", ".join(value) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def report(arguments: argparse.Namespace) -> int:
    """Print the newest structured report. Return the exit status. Raises SpineScoreError if there is none."""
    from spinescore.runtime.appliance.seen.status import show_study
    from spinescore.runtime.outputs.formats import FORMATS
    from spinescore.runtime.outputs.srtext import report_text

    with opened(arguments.config) as (places, index, _):
        number = study_of(index, arguments.study)
        keys = [result["input_key"] for result in show_study(index, number)["results"] if not result["removed"]]
    paths = [path for key in reversed(keys) if (path := places.results / key / FORMATS["sr"].file).is_file()]
    if not paths:
        raise SpineScoreError(f"study {number} has no structured report in the spool; spinescore study show {number} "
                              "says how far it is")  # fmt: skip
    show(f"{paths[0]}\n{report_text(paths[0])}")
    return OK


def retry(arguments: argparse.Namespace) -> int:
    """Have a study scored again. Return the exit status."""
    from spinescore.runtime.appliance.seen import status

    with opened(arguments.config) as (_, index, clock):
        say(status.retry(index, clock, study_of(index, arguments.study)))
    return OK


def deliver(arguments: argparse.Namespace) -> int:
    """Have a study delivered again. Return the exit status."""
    from spinescore.runtime.appliance.seen import status
    from spinescore.runtime.verbs.serve import read

    names = [one.name for one in read(arguments.config).destination]
    if arguments.destination is not None and arguments.destination not in names:
        raise UsageError(f"there is no destination {arguments.destination}; there are {', '.join(names) or 'none'}")
    with opened(arguments.config) as (_, index, clock):
        say(status.deliver_again(index, clock, study_of(index, arguments.study), arguments.destination, among=names))
    return OK


def dismiss(arguments: argparse.Namespace) -> int:
    """Give up deliveries of a study, also to a destination that is not configured any more. Return the exit status."""
    from spinescore.runtime.appliance.seen import status

    with opened(arguments.config) as (_, index, clock):
        say(status.dismiss(index, clock, study_of(index, arguments.study), arguments.destination))
    return OK
