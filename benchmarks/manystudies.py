"""Measures the memory of one call with many studies, beside that of the largest study alone.

    python -m spinescore.benchmarks.manystudies [--count 1000] [--verb score] [--inputs] [--bundle B] [--out F]

The studies are a full-size phantom and copies of a few smaller ones, each under its own UIDs and patient ID. Each call
is a process of its own, which reports its resident memory after every study and its peak at the end; decoders and
engine builders, which are other processes, are not needed for these films. `--inputs` lists the files in a CSV file
instead of naming their folders. Exit status 1 if the peak of all is more than 50 MiB above that of the largest.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from spinescore.benchmarks.harness.child import answer, this_module
from spinescore.benchmarks.harness.environment import memory_bytes, mib
from spinescore.benchmarks.harness.record import Command
from spinescore.benchmarks.harness.studies import write_studies

__all__ = ["main"]

SCHEMA = "spinescore.many-studies/2"
MOST_ABOVE_BYTES = 50 << 20
_LOOKS = 11  # at the memory over the call, in the record


def _call(arguments: argparse.Namespace, scratch: Path, folders: Sequence[Path], out: Path) -> dict[str, Any]:
    """Return the memory of a call with these studies, as its process measured it."""
    words = [arguments.verb, "--bundle", arguments.bundle, "--device", "cpu", "--build", "no", "--out", str(out)]
    if arguments.inputs:
        words += ["--inputs", str(_write_list(folders, scratch / f"inputs-{len(folders)}.csv"))]
    else:
        words += map(str, folders)
    memory: dict[str, Any] = answer(this_module("manystudies", "--child", json.dumps(words)))
    return memory


def _write_list(folders: Sequence[Path], path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path"])
        rows.writerows([str(film)] for folder in folders for film in sorted(folder.glob("*.dcm")))
    return path


def _child(words: Sequence[str]) -> int:
    """Run the command, then print its memory in the last line of standard output."""
    from spinescore.runtime import cli
    from spinescore.runtime.scorer import Scorer

    sizes: list[int] = []
    for name in ("score", "crops"):
        setattr(Scorer, name, _noting(getattr(Scorer, name), sizes))
    status = cli.main(list(words))
    print(json.dumps({"peak_bytes": memory_bytes()["peak_bytes"], "after_study_bytes": sizes}))
    return status


def _noting(method: Callable[..., Any], sizes: list[int]) -> Callable[..., Any]:
    def call(*given: Any, **options: Any) -> Any:
        result = method(*given, **options)
        sizes.append(memory_bytes()["resident_bytes"] or 0)
        return result

    return call


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 if many studies take at most 50 MiB more than the largest alone, else 1."""
    command = Command("manystudies", SCHEMA, __doc__)
    add = command.options.add_argument
    add("--count", type=int, default=1000, metavar="N", help="studies (1000)")
    add("--verb", choices=("score", "crops"), default="score", help="command of spinescore (score)")
    add("--inputs", action="store_true", help="list the files in a CSV file")
    add("--bundle", default="phantom-reference", metavar="B", help="bundle (phantom-reference)")
    add("--child", help=argparse.SUPPRESS)
    arguments = command.start(argv)
    if arguments.child:
        return _child(json.loads(arguments.child))
    with tempfile.TemporaryDirectory(prefix="spinescore-many-") as name:
        scratch = Path(name)
        folders = write_studies(scratch / "studies", arguments.count)
        one = _call(arguments, scratch, folders[:1], scratch / "one")
        many = _call(arguments, scratch, folders, scratch / "many")
    above, sizes = many["peak_bytes"] - one["peak_bytes"], many["after_study_bytes"]
    command.publish(
        {
            "verb": arguments.verb,
            "inputs": "list" if arguments.inputs else "folders",
            "bundle": arguments.bundle,
            "studies": arguments.count,
            "peak_mib": {"largest": mib(one["peak_bytes"]), "all": mib(many["peak_bytes"])},
            "above_mib": mib(above),
            "resident_mib_over_the_call": [
                mib(sizes[look * (len(sizes) - 1) // (_LOOKS - 1)]) for look in range(_LOOKS)
            ],
        }
    )
    return 0 if above <= MOST_ABOVE_BYTES else 1


if __name__ == "__main__":
    raise SystemExit(main())
