"""`spinescore doctor`: what this machine can run."""

from __future__ import annotations

import argparse
import json

from spinescore.runtime.verbs import OK, REFUSED, show

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundles", nargs="*", metavar="BUNDLE", help="bundles to look at besides those that ship")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    from spinescore.runtime.bundle import Bundle
    from spinescore.runtime.doctor import can_score, examine, findings_dict, findings_text

    for bundle in arguments.bundles:
        Bundle.open(bundle)  # refuses what is none
    findings = examine(arguments.bundles)
    show(json.dumps(findings_dict(findings), indent=2) if arguments.json else findings_text(findings))
    return OK if can_score(findings) else REFUSED
