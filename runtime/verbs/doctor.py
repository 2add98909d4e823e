"""`spinescore doctor`: show which devices, engines and bundles this machine can run."""

from __future__ import annotations

import argparse
import json

from spinescore.runtime.verbs import OK, REFUSED, UsageError, show

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundles", nargs="*", metavar="BUNDLE", help="bundles to check besides the shipped ones")
    text = "show only the name, version, licence and licence file of every package that is installed for spinescore"
    parser.add_argument("--licences", action="store_true", help=text)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(verb=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.licences:
        return _show_licences(arguments)
    from spinescore.runtime.bundle import Bundle
    from spinescore.runtime.doctor import can_score, examine, findings_dict, findings_text

    for bundle in arguments.bundles:
        Bundle.open(bundle)  # raises BundleError if it is no bundle
    findings = examine(arguments.bundles)
    show(json.dumps(findings_dict(findings), indent=2) if arguments.json else findings_text(findings))
    return OK if can_score(findings) else REFUSED


def _show_licences(arguments: argparse.Namespace) -> int:
    from spinescore.runtime.machine.licences import find_licences, licences_dict, licences_text

    if arguments.bundles:
        raise UsageError(f"--licences shows packages and no bundles: leave out {', '.join(arguments.bundles)}")
    licences = find_licences()
    show(json.dumps(licences_dict(licences), indent=2) if arguments.json else licences_text(licences))
    return OK
