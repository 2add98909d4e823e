"""`spinescore engine build|list|verify`: each verb takes the parsed arguments and returns the exit status."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from spinescore.kernels.signing import key_fault
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.engines.places import engine_name, engine_paths, is_own
from spinescore.runtime.engines.sidecar import FLAVOURS, HARDWARE, Sidecar
from spinescore.runtime.errors import EngineError
from spinescore.runtime.text import lines
from spinescore.runtime.verbs import OK, REFUSED, say, show
from spinescore.runtime.verbs.export import export_extra

__all__ = ["add_arguments", "build", "build_into", "list_engines", "verify"]

_NAMES = {name.replace("_", "-"): name for name in FLAVOURS if name != "tensorrt_lean"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions of `spinescore engine`."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    builder = actions.add_parser("build", help="build a bundle's networks into engines")
    _add_bundle(builder)
    builder.add_argument("--engine", choices=sorted(_NAMES), help="TensorRT or TensorRT-RTX (what is installed)")
    text = "compute capability to build for without that GPU, as 8.6; TensorRT-RTX alone"
    builder.add_argument("--target", action="append", default=[], metavar="CC", help=text)
    builder.add_argument("--precision", choices=("fp16", "int8"), default="fp16", help="of the networks (fp16)")
    builder.add_argument("--any-batch", action="store_true", help="one up to the pipeline's batch, not that alone")
    builder.add_argument("--version-compatible", action="store_true", help="for later TensorRT and the lean runtime")
    builder.add_argument("--hardware", choices=HARDWARE, default="this", help="GPUs that the engine runs on (this)")
    builder.set_defaults(verb=build)
    for name, verb, text in (
        ("list", list_engines, "the engines of a bundle"),
        ("verify", verify, "check every engine's file and the network that it was built from"),
    ):
        action = actions.add_parser(name, help=text)
        _add_bundle(action)
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
    """Build a bundle's networks with `engine` (what is installed, if None) and print the engines' paths."""
    with export_extra():
        from spinescore.export.engine import BuildOptions, build_engines, sort_targets
    flavour = _NAMES[engine] if engine else _installed()
    chosen = BuildOptions(flavour, sort_targets(targets), **options)
    for path in build_engines(Bundle.open(bundle), chosen, say):
        show(str(path))
    if fault := key_fault():
        say(f"spinescore: {fault}")


def list_engines(arguments: argparse.Namespace) -> int:
    return _show(arguments, check=False)


def verify(arguments: argparse.Namespace) -> int:
    """Hashes alone: whether an engine runs is seen when its device is opened."""
    return _show(arguments, check=True)


def _show(arguments: argparse.Namespace, check: bool) -> int:
    bundle = Bundle.open(arguments.bundle)
    rows = [_row(bundle, path, check) for path in engine_paths(bundle.folder)]
    if arguments.json:
        show(json.dumps(rows, indent=2))
    elif not rows:
        show(f"Bundle {bundle.manifest.name} has no engines; build them: spinescore engine build {arguments.bundle}")
    else:
        show(lines(_line(row, check) for row in rows))
    return REFUSED if any(row["error"] for row in rows) else OK


def _row(bundle: Bundle, path: Path, check: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"engine": engine_name(bundle.folder, path), "path": str(path), "error": None}
    found["cached"], found["own"] = not path.is_relative_to(bundle.folder), False
    try:
        sidecar = Sidecar.read(path)
        found |= {**asdict(sidecar), "own": is_own(bundle.folder, path, sidecar)}
        if check:
            sidecar.check_files(path, bundle.path(sidecar.onnx))
    except EngineError as error:
        found["error"] = str(error)
    return found


def _line(row: dict[str, Any], check: bool) -> str:
    if row["error"]:
        return f"{row['engine']}: {row['error']}"
    place = row["gpu"] or f"compute capability {', '.join(row['compute_capabilities'])}"
    batch = row["most_batch"] if row["least_batch"] == row["most_batch"] else f"1 to {row['most_batch']}"
    state = "  file and network as built" if check else ""
    kept = f"  in {Path(row['path']).parent}" if row["cached"] else ""
    kept += "" if row["own"] else "  not built on this machine, and not loaded (see spinescore bundle trust)"
    what = f"{row['flavour']} {row['version']}, {row['precision']}, batch {batch}, for {place}"
    return f"{row['engine']}: {what}{state}{kept}"


def _add_bundle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", help="a folder, or the name of a bundle that ships with the package")


def _installed() -> str:
    from spinescore.runtime.engines.tensorrt import installed_flavours

    found = [name for name in installed_flavours() if name in _NAMES.values()]
    if not found:
        raise EngineError('no TensorRT that builds is installed; install one: pip install "spinescore[tensorrt-rtx]"')
    return found[0]
