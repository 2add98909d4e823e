"""`spinescore bundle info|verify`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from spinescore.runtime.verbs import OK, REFUSED, gate
from spinescore.runtime.verbs.export import export_extra

__all__ = ["add_arguments"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    for name, verb, text in (
        ("info", _info, "what the bundle is and holds"),
        ("verify", _verify, "check its files and run its golden inputs"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("bundle", help="a folder, or the name of a bundle that ships with the package")
        action.add_argument("--json", action="store_true", help="print JSON")
        action.set_defaults(verb=verb)
        if verb is _verify:
            gate.add_arguments(action)


def _info(arguments: argparse.Namespace) -> int:
    from spinescore.runtime.bundle import Bundle
    from spinescore.runtime.verbs.summary import bundle_summary

    bundle = Bundle.open(arguments.bundle)
    if arguments.json:
        print(json.dumps({"sha256": bundle.sha256, "manifest": bundle.manifest.to_dict()}, indent=2))
    else:
        print(bundle_summary(bundle))
    return OK


def _verify(arguments: argparse.Namespace) -> int:
    if arguments.device or arguments.engine or arguments.precision or arguments.studies:
        return gate.run(arguments)
    with export_extra():
        from spinescore.export.verify import verify_bundle
    from spinescore.runtime.verbs.summary import verify_summary

    report = verify_bundle(arguments.bundle)
    found = {**asdict(report), "passed": report.passed}
    print(json.dumps(found, indent=2) if arguments.json else verify_summary(report))
    return OK if report.passed else REFUSED
