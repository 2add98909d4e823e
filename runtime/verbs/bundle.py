"""`spinescore bundle info|verify|trust`: show, verify or trust a bundle."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from spinescore.runtime.text import one_line
from spinescore.runtime.verbs import OK, REFUSED, gate, show
from spinescore.runtime.verbs.extras import export_extra
from spinescore.runtime.verbs.options import add_action, add_bundle

__all__ = ["add_arguments"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    for name, verb, text in (
        ("info", _info, "show what a bundle is and contains"),
        ("verify", _verify, "check a bundle's files and run its golden inputs"),
        ("trust", _trust, "accept networks, records, plans and engines in a bundle that another machine made"),
    ):
        action = add_action(actions, name, text)
        add_bundle(action)
        action.add_argument("--json", action="store_true", help="print JSON")
        action.set_defaults(verb=verb)
        if verb is _verify:
            gate.add_arguments(action)
        if verb is _trust:
            action.add_argument("--show", action="store_true", help="only show them, and accept none")


def _info(arguments: argparse.Namespace) -> int:
    from spinescore.runtime.bundle import Bundle
    from spinescore.runtime.verbs.summary import bundle_summary

    bundle = Bundle.open(arguments.bundle, any_network=True)
    if arguments.json:
        show(json.dumps({"sha256": bundle.sha256, "manifest": bundle.manifest.to_dict()}, indent=2))
    else:
        show(bundle_summary(bundle))
    return OK


def _trust(arguments: argparse.Namespace) -> int:
    """Show everything that does not count on this machine, and sign it if it is sound.

    Returns status 4 if something could not be signed.
    """
    from spinescore.kernels.signing import key_fault
    from spinescore.runtime.bundle import Bundle
    from spinescore.runtime.errors import EngineError
    from spinescore.runtime.opening.adoption import foreign

    bundle = Bundle.open(arguments.bundle, any_network=True)
    rows = []
    for item in foreign(bundle):
        trusted = item.sound and not arguments.show and item.trust()
        rows.append({"path": str(item.path), "text": item.text, "sound": item.sound, "trusted": trusted})
    if arguments.json:
        show(json.dumps(rows, indent=2))
    for row in () if arguments.json else rows:
        state = "trusted from now on" if row["trusted"] else "not trusted" if row["sound"] else "cannot be trusted"
        show(one_line(f"{row['path']}: {row['text']}  [{state}]"))
    if not rows and not arguments.json:
        show(f"Bundle {bundle.manifest.name} has nothing that another machine made; everything in it counts here.")
    if arguments.show:
        return OK
    if any(row["sound"] and not row["trusted"] for row in rows):
        raise EngineError(key_fault() or "A signature could not be written; try again.")
    return OK if all(row["trusted"] for row in rows) else REFUSED


def _verify(arguments: argparse.Namespace) -> int:
    if arguments.device or arguments.engine or arguments.precision or arguments.studies:
        return gate.run(arguments)
    with export_extra():
        from spinescore.export.verify import verify_bundle
    from spinescore.runtime.verbs.summary import verify_summary

    report = verify_bundle(arguments.bundle)
    document = {**asdict(report), "passed": report.passed}
    show(json.dumps(document, indent=2) if arguments.json else verify_summary(report))
    return OK if report.passed else REFUSED
