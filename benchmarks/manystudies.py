"""The memory of one call with many studies, beside that of the largest study alone.

    python -m spinescore.benchmarks.manystudies [--count 1000] [--verb score] [--inputs] [--bundle B] [--out F]

The studies are a full-size phantom and copies of a few smaller ones, each under UIDs and a patient ID of its own. Each
call is a process of its own, of which the peak of resident memory is read at its end, and its size after every study;
decoders and engine builders, which are other processes, are not needed for these films. `--inputs` lists the files in a
CSV file in place of naming their folder. Exit status 1 if the peak of all is more than 50 MiB above that of the one.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from spinescore.benchmarks.bench.memory import memory_bytes
from spinescore.benchmarks.records import publish
from spinescore.runtime.phantom import draw_view
from spinescore.runtime.phantom.study import dicom_file
from spinescore.runtime.study import REGIONS

__all__ = ["main", "write_studies"]

MOST_ABOVE_BYTES = 50 << 20
_DRAWN = 4  # small studies that are copied
_SCALE = 0.25  # of their pixels' number along each side
_MIB = 1 << 20


def write_studies(folder: Path, count: int, seed: int = 4200) -> list[Path]:
    """Write `count` studies into folders of their own; the first is of full size, and the largest."""
    from io import BytesIO

    from pydicom import dcmread

    drawn = [
        [dicom_file(seed + number, draw_view(seed + number, region, _SCALE if number else 1.0)) for region in REGIONS]
        for number in range(min(count, _DRAWN + 1))
    ]
    folders = []
    for number in range(count):
        place = folder / f"{number:05}"
        place.mkdir(parents=True)
        for region, content in zip(REGIONS, drawn[number and 1 + (number - 1) % _DRAWN], strict=True):
            ds = dcmread(BytesIO(content))
            ds.StudyInstanceUID, ds.PatientID = f"1.2.826.0.1.3680043.8.498.77.{number}", f"MANY-{number}"
            ds.SOPInstanceUID = f"{ds.StudyInstanceUID}.{REGIONS.index(region)}"
            ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
            ds.save_as(place / f"{region}.dcm")
        folders.append(place)
    return folders


def _call(arguments: argparse.Namespace, folder: Path, given: Sequence[Path], out: Path) -> dict[str, Any]:
    """Return the memory and the time of a call with these studies' folders, as its process measured them."""
    words = [arguments.verb, "--bundle", arguments.bundle, "--device", "cpu", "--build", "no", "--out", str(out)]
    if arguments.inputs:
        words += ["--inputs", str(_listed(given, folder / f"inputs-{len(given)}.csv"))]
    else:
        words += map(str, given)
    command = [sys.executable, "-m", "spinescore.benchmarks.manystudies", "--child", json.dumps(words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"spinescore {' '.join(words[:6])} ended with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _listed(folders: Sequence[Path], path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path"])
        rows.writerows([str(film)] for folder in folders for film in sorted(folder.glob("*.dcm")))
    return path


def _child(words: Sequence[str]) -> int:
    """Run the command; the last line of standard output tells of its memory."""
    from spinescore.runtime import cli
    from spinescore.runtime.scorer import Scorer

    sizes: list[int] = []
    for name in ("score", "crops"):
        setattr(Scorer, name, _noting(getattr(Scorer, name), sizes))
    status = cli.main(list(words))
    print(json.dumps({"peak_bytes": memory_bytes()["peak_bytes"], "after_study_bytes": sizes, "status": status}))
    return status


def _noting(method: Callable[..., Any], sizes: list[int]) -> Callable[..., Any]:
    def call(*given: Any, **options: Any) -> Any:
        found = method(*given, **options)
        sizes.append(memory_bytes()["resident_bytes"] or 0)
        return found

    return call


def _every(sizes: Sequence[int], count: int) -> Iterator[float]:
    """`count` of the sizes, evenly, in MiB."""
    for step in range(count):
        yield round(sizes[step * (len(sizes) - 1) // max(count - 1, 1)] / _MIB, 1)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 if many studies take at most 50 MiB more than the largest alone, else 1."""
    parser = argparse.ArgumentParser(prog="python -m spinescore.benchmarks.manystudies", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="studies (1000)")
    parser.add_argument("--verb", choices=("score", "crops"), default="score")
    parser.add_argument("--inputs", action="store_true", help="list the files in a CSV file")
    parser.add_argument("--bundle", default="phantom-reference", metavar="B")
    parser.add_argument("--out", type=Path, metavar="F", help="write the figures as JSON")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child:
        return _child(json.loads(arguments.child))
    with tempfile.TemporaryDirectory(prefix="spinescore-many-") as scratch:
        folder = Path(scratch)
        given = write_studies(folder / "studies", arguments.count)
        one = _call(arguments, folder, given[:1], folder / "one")
        many = _call(arguments, folder, given, folder / "many")
    above = many["peak_bytes"] - one["peak_bytes"]
    record = {
        "schema": "spinescore.many-studies/1",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": {"system": platform.platform(), "python": platform.python_version()},
        "protocol": " ".join(str(__doc__).split()),
        "verb": arguments.verb,
        "inputs": "list" if arguments.inputs else "folders",
        "bundle": arguments.bundle,
        "studies": arguments.count,
        "peak_mib": {"largest": round(one["peak_bytes"] / _MIB, 1), "all": round(many["peak_bytes"] / _MIB, 1)},
        "above_mib": round(above / _MIB, 1),
        "resident_mib_over_the_call": list(_every(many["after_study_bytes"], 11)),
    }
    publish(record, arguments.out)
    return 0 if above <= MOST_ABOVE_BYTES else 1


if __name__ == "__main__":
    raise SystemExit(main())
