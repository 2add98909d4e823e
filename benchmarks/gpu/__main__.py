"""The command: it runs the parts one after the other, each in a process of its own, and prints a table."""

from __future__ import annotations

import argparse
import importlib
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spinescore.benchmarks import gpu
from spinescore.benchmarks.gpu.record import FAILED, PASSED, SCHEMA, SKIPPED, Record, outcome, text_table
from spinescore.benchmarks.harness.child import this_module
from spinescore.benchmarks.harness.record import head
from spinescore.runtime.machine.processes import end_with_parent

__all__ = ["PARTS", "Options", "main"]

COMMAND = tuple(this_module("gpu"))

# Part (a module of this package) -> its percentage of the minutes; unused time goes to the next parts. The answers come
# first, then whole studies, both within half of the minutes, then kernels, then everything else.
PARTS = {
    "machine": 3,
    "kernels": 10,
    "networks": 14,
    "pipelines": 11,
    "study": 8,
    "timing": 11,
    "acceptance": 7,
    "peers": 22,
    "tools": 14,
}
_HIDDEN_PARTS = ("launches",)  # that other parts start
_MAY_BE_CUT = ("networks", "acceptance", "peers", "tools")  # these export, open engines, compile: it may take any time
_GRACE_S = 5.0  # beyond its time, before a part is ended
_LEAST_S = 3.0


@dataclass(frozen=True)
class Options:
    """Options of the parts. `scratch` is a folder that all of them share, `command` starts a part in a new process."""

    quick: bool
    scratch: Path
    command: tuple[str, ...] = COMMAND


def main(argv: Sequence[str] | None = None, command: Sequence[str] = COMMAND) -> int:
    """Run the parts. `command` starts one.

    Returns 0 if no check failed, 1 if one did, 2 if FILE cannot be written, 3 if the kernels were among the parts and
    no check of them ran.
    """
    arguments = _parser().parse_args(argv)
    if arguments.part:
        return _run_part(arguments, tuple(command))
    end = time.monotonic() + 60 * arguments.minutes
    try:
        record = Record.start(arguments.out, _head(arguments, argv))
    except OSError as error:
        print(f"{arguments.out} cannot be written ({error.strerror}); give another --out.", file=sys.stderr)
        return 2
    parts = {name: share for name, share in PARTS.items() if name in arguments.only}
    with tempfile.TemporaryDirectory(prefix="spinescore-gpu-", ignore_cleanup_errors=True) as scratch:
        for name in parts:
            rest = sum(share for other, share in parts.items() if list(parts).index(other) >= list(parts).index(name))
            seconds = (end - time.monotonic()) * parts[name] / rest
            record = _part(record, [*command, *_part_arguments(arguments, name, scratch)], name, seconds)
    record.document["finished"] = True
    record.write()
    print(text_table(record.document))
    statuses = [check["status"] for check in record.document["checks"]]
    print(", ".join(f"{statuses.count(status)} {status}" for status in (PASSED, FAILED, SKIPPED)), "in", arguments.out)
    if FAILED in statuses:
        return 1
    checked = [check["status"] for check in record.document["checks"] if check["part"] == "kernels"]
    if "kernels" in parts and PASSED not in checked:
        print("No kernel was checked; the table says why.", file=sys.stderr)
        return 3
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m spinescore.benchmarks.gpu", description="GPU checks and figures.")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file, written after every check")
    parser.add_argument("--minutes", type=_minutes, default=8.0, metavar="N", help="how long it may take (8)")
    parser.add_argument("--quick", action="store_true", help="few cases, small networks, no peers that compile")
    parser.add_argument(
        "--only", nargs="+", default=list(PARTS), choices=list(PARTS), metavar="PART", help="these parts"
    )
    parser.add_argument("--part", choices=[*PARTS, *_HIDDEN_PARTS], help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=60.0, help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    return parser


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of minutes above 0, got {text}")
    return minutes


def _part_arguments(arguments: argparse.Namespace, name: str, scratch: str) -> list[str]:
    words = ["--out", str(arguments.out), "--part", name, "--scratch", scratch]
    return [*words, "--quick"] if arguments.quick else words


def _part(record: Record, command: list[str], name: str, seconds: float) -> Record:
    """Run one part and add its end to the record, which is read again since the part wrote to it."""
    print(f"{name}: {seconds:.0f} s", file=sys.stderr, flush=True)
    if seconds < _LEAST_S:
        record.part = name
        record.add("the part", SKIPPED, {}, "the minutes were over")
        return record
    started, ended, status = time.monotonic(), "", FAILED
    with tempfile.TemporaryFile() as errors:
        words = [*command, "--seconds", f"{seconds:.1f}"]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=errors, stderr=errors)
        try:
            code = process.wait(seconds + _GRACE_S)
            ended = f"its process ended with status {code}" if code else ""
        except subprocess.TimeoutExpired:
            ended = f"it was cut: it took longer than {seconds:.0f} s"
            status = SKIPPED if name in _MAY_BE_CUT else FAILED
        finally:
            process.kill()
            process.communicate()
        errors.seek(0)
        output = errors.read().decode(errors="replace").strip()[-1500:]
    record = Record.resume(record.path, name)
    taken = round(time.monotonic() - started, 1)
    record.document["parts"].append({"name": name, "seconds": taken, "given_s": round(seconds, 1), "output": output})
    if ended:
        last = next((check["name"] for check in reversed(record.document["checks"]) if check["part"] == name), "none")
        record.add("the part", status, {}, f"{ended}; the last check that was done: {last}. {output[-700:]}")
    else:
        record.write()
    return record


def _run_part(arguments: argparse.Namespace, command: tuple[str, ...]) -> int:
    end_with_parent()
    record = Record.resume(arguments.out, arguments.part, arguments.seconds)
    try:
        module = importlib.import_module(f"spinescore.benchmarks.gpu.{arguments.part}")
        module.run(record, Options(arguments.quick, arguments.scratch, command))
    except Exception as error:  # outside of the checks, which catch their own errors
        status, reason = outcome(error)
        record.add("the part", status, {}, reason)
    return 0


def _head(arguments: argparse.Namespace, argv: Sequence[str] | None) -> dict[str, object]:
    words = ["python", "-m", gpu.__name__, *(sys.argv[1:] if argv is None else argv)]
    return {
        **head(SCHEMA, gpu.__doc__ or "", words),
        "minutes": arguments.minutes,
        "quick": arguments.quick,
        "environment": {name: os.environ[name] for name in ("CUDA_VISIBLE_DEVICES",) if name in os.environ},
    }


if __name__ == "__main__":
    sys.exit(main())
