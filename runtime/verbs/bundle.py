"""`spinescore export` and `spinescore bundle info|verify`: each takes the parsed arguments, returns the exit status."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from spinescore.runtime.errors import BundleError
from spinescore.runtime.verbs import OK, REFUSED, say

__all__ = ["bundle_info", "bundle_verify", "export", "export_extra"]


def export(arguments: argparse.Namespace) -> int:
    with export_extra():
        from spinescore.export.bundle import export_bundle
    from spinescore.runtime.verbs import gate
    from spinescore.runtime.verbs.engine import build_into
    from spinescore.runtime.verbs.summary import export_summary

    report = export_bundle(
        arguments.localizer,
        arguments.grader,
        arguments.out,
        alternatives=arguments.alternative,
        manifest=arguments.manifest,
        name=arguments.name,
        version=arguments.version,
        golden=arguments.golden,
        golden_studies=arguments.golden_studies,
        precisions=("fp32",) if arguments.half_weights else ("fp32", "fp16"),
        weights="half" if arguments.half_weights else "single",
        int8=arguments.int8,
        strict=arguments.strict,
    )
    for warning in report.warnings:
        say(f"warning: {warning}")
    print(export_summary(report))
    if arguments.int8:
        gate.accept_int8(arguments.out)
    for engine in arguments.engine:
        build_into(arguments.out, engine, arguments.target, precision="int8" if arguments.int8 else "fp16")
    return OK


@contextmanager
def export_extra() -> Iterator[None]:
    """Says which extra brings what the exporter needs, where that is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "spinescore").startswith("spinescore"):
            raise
        raise BundleError(
            f'bundles are made and verified with {error.name}, which is missing: pip install "spinescore[export]"'
        ) from error


def bundle_info(arguments: argparse.Namespace) -> int:
    from spinescore.runtime.bundle import Bundle
    from spinescore.runtime.verbs.summary import bundle_summary

    bundle = Bundle.open(arguments.bundle)
    if arguments.json:
        print(json.dumps({"sha256": bundle.sha256, "manifest": bundle.manifest.to_dict()}, indent=2))
    else:
        print(bundle_summary(bundle))
    return OK


def bundle_verify(arguments: argparse.Namespace) -> int:
    if arguments.device or arguments.engine or arguments.precision:
        from spinescore.runtime.verbs import gate

        return gate.run(arguments)
    with export_extra():
        from spinescore.export.verify import verify_bundle
    from spinescore.runtime.verbs.summary import verify_summary

    report = verify_bundle(arguments.bundle)
    found = {**asdict(report), "passed": report.passed}
    print(json.dumps(found, indent=2) if arguments.json else verify_summary(report))
    return OK if report.passed else REFUSED
