"""`spinescore engine build|list|verify`: TensorRT engines of a bundle."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spinescore.kernels.signing import key_fault
from spinescore.runtime.bundle import Bundle, command_name
from spinescore.runtime.engines.places import engine_name, engine_paths, is_own
from spinescore.runtime.engines.sidecar import HARDWARE, Sidecar
from spinescore.runtime.errors import EngineError
from spinescore.runtime.text import lines
from spinescore.runtime.verbs import OK, REFUSED, say, show
from spinescore.runtime.verbs.extras import export_extra
from spinescore.runtime.verbs.options import BUILDERS, add_action, add_bundle

__all__ = ["add_arguments", "build", "build_into", "list_engines", "verify"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `spinescore engine`."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    builder = add_action(actions, "build", "build engines from a bundle's networks")
    add_bundle(builder)
    text = "TensorRT or TensorRT-RTX (default: the one that is installed)"
    builder.add_argument("--engine", choices=sorted(BUILDERS), help=text)
    text = "compute capability to build for, such as 8.6, without a GPU of that kind; TensorRT-RTX only; repeatable"
    builder.add_argument("--target", action="append", default=[], metavar="CC", help=text)
    text = "precision of the networks (default: fp16)"
    builder.add_argument("--precision", choices=("fp16", "int8"), default="fp16", help=text)
    text = "build for every batch size from 1 to the pipeline's, not only for the pipeline's"
    builder.add_argument("--any-batch", action="store_true", help=text)
    text = "build an engine that later versions of TensorRT and the lean runtime can load"
    builder.add_argument("--version-compatible", action="store_true", help=text)
    text = "GPUs that can run the engine (default: this)"
    builder.add_argument("--hardware", choices=HARDWARE, default="this", help=text)
    builder.set_defaults(verb=build)
    for name, verb, text in (
        ("list", list_engines, "list the engines of a bundle"),
        ("verify", verify, "check every engine's file and the network that it was built from"),
    ):
        action = add_action(actions, name, text)
        add_bundle(action)
        action.add_argument("--json", action="store_true", help="print JSON")
        action.set_defaults(verb=verb)


def build(arguments: argparse.Namespace) -> int:
    options = {
        "any_batch": arguments.any_batch,
        "version_compatible": arguments.version_compatible,
        "hardware": arguments.hardware,
        "precision": arguments.precision,
    }
    build_into(arguments.bundle, arguments.engine, arguments.target, **options)
    return OK


def build_into(bundle: str | Path, engine: str | None, targets: Sequence[str], **options: Any) -> None:
    """Build a bundle's networks with `engine` (the installed one if None) and print the engines' paths."""
    with export_extra():
        from spinescore.export.engine import BuildOptions, build_engines, sort_targets
    flavour = BUILDERS[engine] if engine else _installed()
    chosen = BuildOptions(flavour, sort_targets(targets), **options)
    for path in build_engines(Bundle.open(bundle), chosen, say):
        show(str(path))
    if fault := key_fault():
        say(f"spinescore: {fault}")


def list_engines(arguments: argparse.Namespace) -> int:
    return _show(arguments, check=False)


def verify(arguments: argparse.Namespace) -> int:
    """Check the hashes of files only; whether an engine runs is seen when its device is opened."""
    return _show(arguments, check=True)


def _show(arguments: argparse.Namespace, check: bool) -> int:
    bundle = Bundle.open(arguments.bundle)
    rows = [_row(bundle, path, check) for path in engine_paths(bundle.folder)]
    if arguments.json:
        show(json.dumps(rows, indent=2))
    elif not rows:
        command = f"spinescore engine build {command_name(bundle.folder)}"
        show(f"Bundle {bundle.manifest.name} has no engines; build them: {command}")
    else:
        show(lines(_line(row, check) for row in rows))
    return REFUSED if any(row["error"] for row in rows) else OK


def _row(bundle: Bundle, path: Path, check: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"engine": engine_name(bundle.folder, path), "path": str(path), "error": None}
    row["cached"], row["own"] = not path.is_relative_to(bundle.folder), False
    try:
        sidecar = Sidecar.read(path)
        row |= {**asdict(sidecar), "own": is_own(bundle.folder, path, sidecar)}
        if check:
            sidecar.check_files(path, bundle.path(sidecar.onnx))
    except EngineError as error:
        row["error"] = str(error)
    return row


def _line(row: dict[str, Any], check: bool) -> str:
    if row["error"]:
        return f"{row['engine']}: {row['error']}"
    place = f"compute capability {', '.join(row['compute_capabilities'])}"
    if row["gpu"]:
        place = row["gpu"] + (f" with {row['multiprocessors']} multiprocessors" if row["multiprocessors"] else "")
    batch = row["most_batch"] if row["least_batch"] == row["most_batch"] else f"1 to {row['most_batch']}"
    state = "  file and network as built" if check else ""
    kept = f"  in {Path(row['path']).parent}" if row["cached"] else ""
    kept += "" if row["own"] else "  not built on this machine, and not loaded (see spinescore bundle trust)"
    build = f"{row['flavour']} {row['version']}, {row['precision']}, batch {batch}, for {place}"
    return f"{row['engine']}: {build}{state}{kept}"


def _installed() -> str:
    from spinescore.runtime.engines.flavours import installed_flavours

    installed = [name for name in installed_flavours() if name in BUILDERS.values()]
    if not installed:
        raise EngineError(
            'no TensorRT that can build engines is installed; install one: pip install "spinescore[tensorrt-rtx]"'
        )
    return installed[0]
