"""`spinescore archive SOURCE --out TABLES`: score a whole archive into tables; the same command goes on."""

from __future__ import annotations

import argparse
import errno
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from spinescore.runtime.codes import CODES
from spinescore.runtime.fields import near_name
from spinescore.runtime.names import BuildMode, DeviceName, EngineName, PrecisionName
from spinescore.runtime.outputs.formats import FORMATS, ResultFormat
from spinescore.runtime.scoring.msasss import DEFAULT_MAX_IMPUTED
from spinescore.runtime.verbs import NOTHING_SCORED, OK, REFUSED, UsageError, check_out, check_paths, say, show
from spinescore.runtime.verbs.extras import check_library
from spinescore.runtime.verbs.options import BUNDLE, add_localizer, add_strict, imputed, positive

if TYPE_CHECKING:
    from spinescore.runtime.archive.crews import Outcomes
    from spinescore.runtime.archive.layout import Places
    from spinescore.runtime.archive.run import Part
    from spinescore.runtime.archive.scoring import Request

__all__ = ["add_arguments", "run"]

_SHARD_STUDIES = 128
_TIMEOUT_S = 600
# Errors of a disk or a network share that does not answer; Windows has not all of them.
_GONE = {getattr(errno, name, 0) for name in ("ENOENT", "ENODEV", "ESTALE", "ENOTCONN", "ETIMEDOUT", "EHOSTDOWN")}
_GO_ON = "when it is there again, the same command goes on"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = "folder that is searched with all subfolders, or the address of a DICOMweb server (http:// or https://)"
    parser.add_argument("source", nargs="?", metavar="SOURCE", help=text)
    text = "used instead of SOURCE: a text file that names a file or folder in each line, relative to its own folder"
    parser.add_argument("--list", type=Path, metavar="FILE", help=text)
    text = "folder for the tables; if it has tables of this archive, the run goes on"
    parser.add_argument("--out", type=Path, metavar="TABLES", help=text)
    _add_actions(parser)
    _add_split(parser)
    _add_scoring(parser)
    parser.set_defaults(verb=run, wrong_usage=parser.error)


def _add_actions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--status", type=Path, metavar="TABLES", help="show what a folder of tables holds, and end")
    parser.add_argument("--json", action="store_true", help="print the status as JSON")
    parser.add_argument("--scan-only", action="store_true", help="list the studies of the archive, and end")
    text = "look for studies in files that were changed on this day (YYYY-MM-DD) or later, and score the new ones"
    parser.add_argument("--since", type=_day, metavar="DATE", help=text)
    text = "score the studies again that were not scored for this reason, such as worker-crashed"
    parser.add_argument("--retry", metavar="CODE", help=text)
    text = "write the true Study Instance UIDs, days and paths into the tables (default: keyed replacements, no paths)"
    parser.add_argument("--identifiers", action="store_true", help=text)
    text = (
        "also write results of each study into TABLES/results, as spinescore score does; they name the patient "
        f"(any of {', '.join(FORMATS)}, separated by commas)"
    )
    parser.add_argument("--format", type=_formats, default=[], metavar="F,F", help=text)


def _add_split(parser: argparse.ArgumentParser) -> None:
    text = "local: processes on this machine; ray: actors of Ray, on this machine or a cluster (default: local)"
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help=text)
    text = "with --engine ray, the address of the cluster, such as ray://head:10001 or auto (default: this machine)"
    parser.add_argument("--ray-address", metavar="A", help=text)
    text = "processes that score (default: chosen by a short measurement)"
    parser.add_argument("--workers", type=positive, metavar="N", help=text)
    text = "threads of each process on a CPU (default: chosen by a short measurement)"
    parser.add_argument("--threads", type=positive, metavar="N", help=text)
    text = "score only every n-th shard, beginning with the i-th, if n machines share the work; i is 1 to n"
    parser.add_argument("--shard", type=_part, default=(1, 1), metavar="i/n", help=text)
    text = f"studies of a shard, whose work is lost if the run is killed (default: {_SHARD_STUDIES})"
    parser.add_argument("--shard-studies", type=positive, default=_SHARD_STUDIES, metavar="K", help=text)
    text = f"seconds after which a process that is silent is ended (default: {_TIMEOUT_S})"
    parser.add_argument("--timeout-s", type=positive, default=_TIMEOUT_S, metavar="N", help=text)


def _add_scoring(parser: argparse.ArgumentParser) -> None:
    text = f"bundle to score with: a folder, or the name of a shipped bundle (default: {BUNDLE})"
    parser.add_argument("--bundle", default=BUNDLE, metavar="B", help=text)
    text = "device to run on; auto: a GPU if it can run the bundle, else the CPU (default: auto)"
    parser.add_argument("--device", default="auto", choices=get_args(DeviceName), help=text)
    default = "that of the tables, or else the fastest one accepted on this machine"
    text = f"engine that runs the networks (default: {default})"
    parser.add_argument("--networks", choices=get_args(EngineName), help=text)
    text = f"precision of the networks (default: {default})"
    parser.add_argument("--precision", choices=get_args(PrecisionName), help=text)
    text = "allow an engine that `spinescore bundle verify --device` has not accepted on this machine"
    parser.add_argument("--unaccepted", action="store_true", help=text)
    add_localizer(parser)
    text = (
        "when to build engines for a GPU, or check faster engines of a CPU, if none was accepted yet: now or no; auto: "
        "now, before the first study (default: auto)"
    )
    modes = tuple(mode for mode in get_args(BuildMode) if mode != "background")
    parser.add_argument("--build", choices=modes, default="auto", help=text)
    text = (
        "most missing corners of a region that are replaced by the region's mean; with more missing, the region has no "
        f"total (default: {DEFAULT_MAX_IMPUTED})"
    )
    parser.add_argument("--max-imputed", type=imputed, default=DEFAULT_MAX_IMPUTED, metavar="N", help=text)
    add_strict(parser)


def run(arguments: argparse.Namespace) -> int:
    from spinescore.runtime.archive.layout import ArchiveError, Places

    if arguments.status is None:
        _check(arguments)
    check_library("pyarrow", "parquet", "tables are read and written")
    if arguments.status is not None:
        return _show_status(Places(arguments.status), arguments.json)
    places = Places(arguments.out)
    with _stopped_by_sigterm():
        try:
            return _archive(places, arguments)
        except (KeyboardInterrupt, OSError) as error:
            if isinstance(error, OSError) and error.errno in _GONE:
                raise ArchiveError(f"{error.filename or places.tables}: {error.strerror}; {_GO_ON}") from error
            written, shards = len(places.written()), len(places.shards())
            say(f"stopped; {written} of {shards} shards are written, and the same command goes on")
            raise


def _check(arguments: argparse.Namespace) -> None:
    """Raise UsageError, or end with the usage, for options that do not fit."""
    if (arguments.source is None) == (arguments.list is None):
        arguments.wrong_usage("name the archive as SOURCE, or a list of its files with --list FILE")
    if arguments.out is None:
        arguments.wrong_usage("name the folder for the tables with --out TABLES")
    if arguments.retry is not None and arguments.retry not in CODES:
        near = near_name(arguments.retry, CODES) or "; --status TABLES lists those of the tables"
        raise UsageError(f"--retry: there is no code {arguments.retry!r}{near}")
    if "://" in (arguments.source or "") and not _is_web(arguments):
        raise UsageError(
            f"SOURCE {arguments.source} is no address of a DICOMweb server; it begins with http:// or https://"
        )
    if not _is_web(arguments):
        check_paths([Path(arguments.source or arguments.list)])
    if arguments.source is not None and not _is_web(arguments) and not Path(arguments.source).is_dir():
        raise UsageError(f"SOURCE {arguments.source} is a file; name a folder, or a list of files with --list FILE")
    if arguments.since is not None and arguments.shard[1] > 1 and not arguments.scan_only:
        raise UsageError(
            "--since changes the list of studies, which machines that share the work need first: call spinescore "
            "archive with --since and --scan-only once, then with --shard on each machine"
        )
    if arguments.ray_address is not None and arguments.engine != "ray":
        raise UsageError("--ray-address is for --engine ray")
    if arguments.format:
        from spinescore.runtime.outputs.results import check_formats

        check_formats(arguments.format)
    check_out(arguments.out)


def _archive(places: Places, arguments: argparse.Namespace) -> int:
    from spinescore.runtime.archive.manifest import check_source, make_manifest
    from spinescore.runtime.archive.run import score_archive
    from spinescore.runtime.archive.status import status_of
    from spinescore.runtime.archive.walk import open_source

    kind = "dicomweb" if _is_web(arguments) else "list" if arguments.source is None else "folder"
    place = arguments.source if kind == "dicomweb" else str(Path(arguments.source or arguments.list).resolve())
    if place.encode("utf-8", "replace").decode() != place:
        raise UsageError(f"the path {place!a} has bytes that are no UTF-8; rename the folder")
    if arguments.shard[1] > 1 and not places.scans():
        raise UsageError(
            "machines that share the work need the list of studies: call spinescore archive with --scan-only first, "
            "once for all of them"
        )
    if arguments.shard[1] == 1 or arguments.scan_only:
        with places.locked("list"):
            make_manifest(places, kind, place, arguments.shard_studies, say, arguments.since)
    else:
        check_source(places, kind, place)
    if arguments.scan_only:
        return OK
    base = place if kind == "dicomweb" else str(open_source(kind, Path(place)).base)
    request = _request(arguments, base)
    try:
        with places.locked("run", shared=arguments.shard[1] > 1):
            unwritten = score_archive(places, request, _way(places, arguments), say, arguments.shard, arguments.retry)
        status = status_of(places)
    except ValueError as error:
        raise UsageError(f"{error}; remove that file, and the same command makes it again") from error
    show(status.document() if arguments.json else status.text())
    if unwritten:
        say(f"{unwritten} studies have tables but not all results")
        return REFUSED
    return OK if status.scored else NOTHING_SCORED


def _is_web(arguments: argparse.Namespace) -> bool:
    return arguments.source is not None and arguments.source.startswith(("http://", "https://"))


def _request(arguments: argparse.Namespace, base: str) -> Request:
    from spinescore.runtime.archive.scoring import Request

    build: BuildMode = "now" if arguments.build == "auto" else arguments.build
    return Request(
        arguments.bundle, arguments.device, arguments.networks, arguments.precision, arguments.localizer,
        arguments.max_imputed, arguments.unaccepted, build, arguments.threads, arguments.strict, arguments.identifiers,
        base, tuple(arguments.format),
    )  # fmt: skip


def _way(places: Places, arguments: argparse.Namespace) -> Outcomes:
    if arguments.engine == "ray":
        from spinescore.runtime.archive.rayway import RayWay

        return RayWay(arguments.workers, arguments.threads, arguments.timeout_s, arguments.ray_address, places.note)
    from spinescore.runtime.archive.crews import Crews
    from spinescore.runtime.archive.manifest import largest_bytes
    from spinescore.runtime.caller import PREFIX

    def progress(line: str) -> None:
        if not line.startswith(PREFIX):
            say(line)

    largest = largest_bytes(places)
    return Crews(arguments.workers, arguments.threads, arguments.timeout_s, largest, progress, places.note)


def _show_status(places: Places, as_json: bool) -> int:
    from spinescore.runtime.archive.status import status_of

    if not places.work.is_dir():
        raise UsageError(f"{places.tables} has no tables of spinescore archive; name the folder of --out")
    try:
        status = status_of(places)
    except ValueError as error:
        raise UsageError(str(error)) from error
    show(status.document() if as_json else status.text())
    return OK


def _formats(text: str) -> list[ResultFormat]:
    names = [name.strip().lower() for name in text.split(",")]
    if unknown := [name for name in names if name not in FORMATS]:
        raise argparse.ArgumentTypeError(f"there is no format {unknown[0]!r}; the formats are {', '.join(FORMATS)}")
    return cast("list[ResultFormat]", names)


def _part(text: str) -> Part:
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no part, such as 2/10, with a first number from 1 to the second")
    return int(match[1]), int(match[2])


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day, such as 2026-01-31") from None


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Let SIGTERM, which a cluster sends before it kills, end the run as Ctrl-C does."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
