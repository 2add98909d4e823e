"""`spinescore bundle verify --device`: accept or refuse engines on this machine."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from spinescore.runtime.names import DeviceName
from spinescore.runtime.verbs import OK, REFUSED, check_paths, say, show
from spinescore.runtime.verbs.options import add_engine, count

if TYPE_CHECKING:
    from spinescore.runtime.acceptance.gate import Outcome
    from spinescore.runtime.bundle import Bundle

__all__ = ["accept_int8", "add_arguments", "run"]

_LEAST_PROCESSES = 3  # the same as `gate.LEAST_PROCESSES`, whose import loads NumPy


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the gate to those of `bundle verify`."""
    text = "run the golden inputs on this device's engines, and accept engines within the bundle's tolerances"
    parser.add_argument("--device", choices=get_args(DeviceName), help=text)
    add_engine(parser, unaccepted=False)
    text = "also score these whole studies (folders or files): more corners show smaller shares of changed grades"
    parser.add_argument("--studies", type=Path, nargs="+", default=[], metavar="PATH", help=text)
    text = "number of new processes that each engine runs in; the worst one counts (default and minimum: 3)"
    parser.add_argument("--processes", type=_processes, default=_LEAST_PROCESSES, metavar="N", help=text)
    text = "folder for acceptance records (default: beside the bundle, or the user's cache)"
    parser.add_argument("--records", type=Path, metavar="DIR", help=text)


def _processes(text: str) -> int:
    if (number := count(text)) < _LEAST_PROCESSES:
        raise argparse.ArgumentTypeError(f"must be at least {_LEAST_PROCESSES}")
    return number


def run(arguments: argparse.Namespace) -> int:
    """Run the gate and print its outcome. Returns 4 unless an engine ran and every one that ran was accepted."""
    from spinescore.kernels.signing import key_fault
    from spinescore.runtime.bundle import Bundle

    check_paths(arguments.studies)
    bundle, device = Bundle.open(arguments.bundle), _device(arguments)
    options = {"studies": arguments.studies, "processes": arguments.processes}
    outcomes = _verify(bundle, device, arguments.engine, arguments.precision, arguments.records, **options)
    if arguments.json:
        show(json.dumps([_document(outcome) for outcome in outcomes], indent=2))
    else:
        show(_text(outcomes, bundle.manifest.localizer.passes))
    if fault := key_fault():
        say(f"spinescore: {fault}")
    ran = [outcome.record for outcome in outcomes if outcome.record is not None]
    return OK if ran and all(record.passed for record in ran) else REFUSED


def accept_int8(folder: Path) -> None:
    """Run the gate for the INT8 networks of a new bundle on this CPU, and print its outcome."""
    from spinescore.runtime.bundle import Bundle

    bundle = Bundle.open(folder)
    if any(entry.precision == "int8" for entry in bundle.manifest.files.values()):
        show(f"\n{_text(_verify(bundle, 'cpu', None, 'int8'), bundle.manifest.localizer.passes)}")


def _verify(
    bundle: Bundle,
    device: str,
    engine: str | None,
    precision: str | None,
    folder: Path | None = None,
    **options: Any,
) -> list[Outcome]:
    """Run the gate for the bundle's own localizer, then for every alternative."""
    from spinescore.runtime.acceptance.gate import verify_device
    from spinescore.runtime.errors import EngineError

    outcomes = verify_device(bundle, device, engine, precision, folder, say, **options)
    for name in bundle.manifest.localizer.names[1:]:
        try:
            outcomes += verify_device(bundle.with_localizer(name), device, engine, precision, folder, say, **options)
        except EngineError as error:  # noqa: PERF203  # an alternative may have fewer files
            say(f"localizer {name}: {error}")
    return outcomes


def _device(arguments: argparse.Namespace) -> str:
    """Return the device; `auto`, or none, is the GPU if there is one."""
    from spinescore.runtime.devices import hardware_of
    from spinescore.runtime.errors import DeviceError

    if arguments.device not in (None, "auto"):
        return str(arguments.device)
    try:
        hardware_of("cuda")
    except DeviceError as error:
        say(f"On the CPU. {error}")
        return "cpu"
    return "cuda"


def _document(outcome: Outcome) -> dict[str, Any]:
    record = None if outcome.record is None else asdict(outcome.record)
    path = None if outcome.path is None else str(outcome.path)
    choice = {"choice": asdict(outcome.choice), "localizer": outcome.localizer}
    return {**choice, "record": record, "path": path, "reason": outcome.reason}


def _text(outcomes: list[Outcome], passes: int) -> str:
    from spinescore.runtime.text import lines as lines_of
    from spinescore.runtime.text import table

    rows = []
    lines = []
    for outcome in outcomes:
        record = outcome.record
        if record is None:
            lines.append(f"{outcome.name} did not run: {outcome.reason}")
            continue
        figures, whole = record.figures, record.studies
        rows.append(
            [
                outcome.name,
                "accepted" if record.passed else "NOT accepted",
                f"{figures.median_shift_px:.3f}, {figures.p99_shift_px:.3f}",
                f"{100 * figures.median_shift_of_spacing:.2f} %",
                _flips(figures.grade_flips, figures.corners),
                _flips(whole.grade_flips, whole.corners) if whole else "-",
                f"{figures.total} for {figures.reference_total}",
                f"{sum(record.networks_ms.values()):.1f}",
                f"{record.share_of_reference(passes):.2f}",
            ]
        )
        lines += [f"{outcome.name}: {outcome.reason}"] if outcome.reason else []
        lines.append(f"{outcome.name}: {outcome.path}")
    header = ["engine", "", "shift px (median, p99)", "of spacing", "flips (95 %)", "in studies", "total"]
    header += ["networks ms", "of reference"]
    return "\n\n".join(part for part in (table(rows, header) if rows else "", lines_of(lines)) if part)


def _flips(flips: int, corners: int) -> str:
    from spinescore.runtime.acceptance import flips_at_most

    return f"{flips} of {corners} (< {100 * flips_at_most(flips, corners):.1f} %)"
