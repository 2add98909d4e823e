"""`spinescore bench`: measure; `bench compare`: two records; `bench show`: a record as text and plots."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from spinescore.runtime.names import DeviceName
from spinescore.runtime.verbs import OK, UsageError, check_out, check_out_file, check_paths, say
from spinescore.runtime.verbs.extras import check_library
from spinescore.runtime.verbs.options import add_action, add_engine, add_localizer

if TYPE_CHECKING:
    from spinescore.benchmarks.bench.measure import Plan
    from spinescore.runtime.phantom.labelled import PhantomStudy

__all__ = ["add_arguments", "run"]

_BUNDLES = ("phantom-reference", "synthetic")
_PARTS = ("steady", "studies", "starts", "memory", "images", "load", "energy")  # as measure.PARTS
_PEERS = ("torch-eager-single", "torch-eager", "onnxruntime-single", "onnxruntime", "openvino", "openvino-fp32",
          "torch-compile")  # fmt: skip  # as peers.PEERS
_EXPORT = ("onnx", "tqdm")  # of the extra `export`
SLOWER = 5  # exit status of `compare --fail-above`, the same as for a budget that was not kept


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `spinescore bench`, and its two actions."""
    text = f"bundles to measure; {_BUNDLES[1]} is HRNet-W32 and ResNet152 with random weights (default: both)"
    parser.add_argument("--bundle", nargs="+", default=list(_BUNDLES), metavar="B", help=text)
    text = "device to run on (default: auto)"
    parser.add_argument("--device", default="auto", choices=get_args(DeviceName), help=text)
    add_engine(parser)
    add_localizer(parser)
    text = "threads of the networks on a CPU (default: all cores)"
    parser.add_argument("--threads", type=int, metavar="N", help=text)
    text = f"parts to measure, of {', '.join(_PARTS)} (default: all)"
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=list(_PARTS), metavar="PART", help=text)
    parser.add_argument("--runs", type=int, default=200, metavar="N", help="rounds that count (default: 200)")
    text = "longest time for a part's rounds, in seconds (default: 120)"
    parser.add_argument("--seconds", type=float, default=120, metavar="S", help=text)
    text = "rounds before them, which do not count (default: 3)"
    parser.add_argument("--warmup", type=int, default=3, metavar="N", help=text)
    text = "cold starts, warm starts, and pairs of processes whose memory is read (default: 5)"
    parser.add_argument("--starts", type=int, default=5, metavar="N", help=text)
    text = "pixels of each image, in millions (default: 1 4 10)"
    parser.add_argument("--megapixels", type=float, nargs="+", default=[1, 4, 10], metavar="M", help=text)
    text = "rounds of every size and transfer syntax (default: 5)"
    parser.add_argument("--image-runs", type=int, default=5, metavar="N", help=text)
    text = "studies at once, at most (default: as many as cores)"
    parser.add_argument("--concurrent", type=int, metavar="N", help=text)
    text = f"also time the same study by other means: {', '.join(_PEERS)} (default: all that are installed)"
    parser.add_argument("--peers", nargs="*", choices=_PEERS, metavar="PEER", help=text)
    parser.add_argument("--out", type=Path, metavar="F", help="write the record as JSON")
    text = "your own studies to score once each, in place of drawn ones: DICOM files, archives and folders"
    parser.add_argument("--studies", type=Path, nargs="+", metavar="PATH", help=text)
    text = "different studies to draw, without --studies (default: 20)"
    parser.add_argument("--study-count", type=int, default=20, metavar="N", help=text)
    _add_report(parser)
    parser.add_argument("--json", action="store_true", help="print the JSON instead of the tables")
    actions = parser.add_subparsers(metavar="[ACTION]", required=False)
    _add_compare(add_action(actions, "compare", "compare records before and after a change"))
    show = add_action(actions, "show", "show a record as Markdown and plots")
    show.add_argument("record", type=Path, metavar="RECORD", help="record that `spinescore bench --out` wrote")
    _add_report(show)
    parser.set_defaults(verb=run)
    show.set_defaults(verb=_show)


def _add_report(parser: argparse.ArgumentParser) -> None:
    text = "write latency.md and plots into this folder (needs matplotlib)"
    parser.add_argument("--report", type=Path, metavar="DIR", help=text)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    text = "records before (A) and after (B) a change: A B, or A B A B A B as they were taken in turn"
    parser.add_argument("records", type=Path, nargs="+", metavar="RECORD", help=text)
    text = f"exit with {SLOWER} if the whole interval of a ratio of medians lies above R; needs four pairs or more"
    parser.add_argument("--fail-above", type=float, metavar="R", help=text)
    text = "resamples of the bootstrap (default: 2000)"
    parser.add_argument("--bootstrap", type=int, default=2000, metavar="N", help=text)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(verb=_compare)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print and write. Returns the exit status.

    A bundle's tables are printed, and the record is written, as soon as that bundle is done.
    """
    from spinescore.benchmarks.bench.render import heading, protocol, result_text
    from spinescore.benchmarks.harness.record import to_json
    from spinescore.runtime.files import write_atomic
    from spinescore.runtime.machine.processor import core_count

    cores = core_count()
    record: dict[str, Any] = {}
    for record in _records(arguments, _plan(arguments, cores), cores):
        results = record["results"]
        if not arguments.json:
            print(result_text(results[-1]) if results else heading(record), flush=True)
        if arguments.out is not None and results:
            write_atomic(arguments.out, to_json(record))
    _write_report(record, arguments.report)
    print(to_json(record) if arguments.json else protocol(record), end="")
    return OK


def _records(arguments: argparse.Namespace, plan: Plan, cores: int) -> Iterator[dict[str, Any]]:
    """Yield the record before anything is measured, and again after each bundle."""
    import tempfile

    from spinescore.benchmarks.bench import document, measure
    from spinescore.benchmarks.harness.subject import FULL_SIZE, Subject, full_size
    from spinescore.runtime.phantom import labelled

    options = {
        "engine": arguments.engine,
        "precision": arguments.precision,
        "localizer": arguments.localizer,
        "require_acceptance": not arguments.unaccepted,
        "threads": arguments.threads,
    }
    with tempfile.TemporaryDirectory(prefix="spinescore-") as name:
        scratch = Path(name)
        study = labelled.write_labelled_study(scratch)
        different = _different(arguments, plan, scratch)
        record = document.head(study, plan)
        yield record
        for number, bundle in enumerate(arguments.bundle):
            folder = bundle
            if bundle == FULL_SIZE:
                int8 = arguments.precision == "int8"
                say(f"exporting HRNet-W32 and ResNet152 with random weights{', INT8 too: minutes' if int8 else ''}")
                folder = str(full_size(scratch, int8))
            subject = Subject(folder, arguments.device, options, study)
            about = partial(_say_of, bundle)
            result = measure.measure(subject, plan, cores, scratch / f"images-{number}", about, different)
            record["results"].append(result)
            for warning in result["warnings"]:
                about(warning)
            yield record


def _different(arguments: argparse.Namespace, plan: Plan, scratch: Path) -> Sequence[PhantomStudy]:
    """Return the studies that are scored once each; none if that part was not asked for."""
    from spinescore.runtime.acceptance.studies import places_of
    from spinescore.runtime.phantom import labelled

    if "studies" not in plan.parts:
        return []
    if arguments.studies is not None:
        return [labelled.PhantomStudy([path], {}, {}) for path in places_of(arguments.studies)]
    say(f"drawing {plan.studies} different studies")
    return labelled.write_labelled_studies(scratch, plan.studies)


def _plan(arguments: argparse.Namespace, cores: int) -> Plan:
    """Return the plan that the options ask for. Raises `UsageError` before any work is done."""
    import math

    from spinescore.benchmarks.bench.measure import Plan
    from spinescore.runtime.bundle import Bundle

    least = dict.fromkeys(("runs", "starts", "image_runs", "concurrent", "threads", "study_count"), 1) | {"warmup": 0}
    for name, at_least in least.items():
        value = getattr(arguments, name)
        if value is not None and value < at_least:
            raise UsageError(f"--{name.replace('_', '-')} must be at least {at_least}")
    if not (math.isfinite(arguments.seconds) and arguments.seconds > 0):
        raise UsageError("--seconds must be a number above 0")
    if not all(0.01 <= size <= 100 for size in arguments.megapixels):
        raise UsageError("--megapixels must be from 0.01 to 100")
    _check_bundles(arguments.bundle)
    check_paths(arguments.studies or ())
    _check_report(arguments.report)
    check_out_file(arguments.out)
    if arguments.bundle[0] != _BUNDLES[1]:
        Bundle.open(arguments.bundle[0])  # a misspelt one is refused before studies are drawn
    peers = arguments.peers
    return Plan(
        parts=tuple(dict.fromkeys(arguments.parts)),
        runs=arguments.runs,
        warm_up=arguments.warmup,
        seconds=arguments.seconds,
        starts=arguments.starts,
        image_runs=arguments.image_runs,
        megapixels=tuple(arguments.megapixels),
        most_concurrent=arguments.concurrent or cores,
        peers=() if peers is None else tuple(dict.fromkeys(peers or _PEERS)),
        studies=arguments.study_count,
    )


def _check_bundles(names: Sequence[str]) -> None:
    """Raise `UsageError` if the bundle that is exported here lacks packages, before another one is measured."""
    from importlib.util import find_spec

    missing = [name for name in _EXPORT if find_spec(name) is None]
    if _BUNDLES[1] in names and missing:
        raise UsageError(
            f"the bundle {_BUNDLES[1]} is exported first, and {', '.join(missing)} is missing: pip install "
            f'"spinescore[export]", or measure the shipped bundle alone with --bundle {_BUNDLES[0]}'
        )


def _check_report(folder: Path | None) -> None:
    if folder is not None:
        check_out(folder, "--report")
        check_library("matplotlib", "plots", "plots are drawn")


def _write_report(record: dict[str, Any], folder: Path | None) -> None:
    if folder is None:
        return
    from spinescore.benchmarks.bench.plots import plots
    from spinescore.benchmarks.bench.render import markdown
    from spinescore.runtime.files import write_atomic

    files: dict[str, bytes | str] = {"latency.md": markdown(record), **plots(record)}
    for name, data in files.items():
        write_atomic(folder / name, data)
    say(f"written: {', '.join(str(folder / name) for name in files)}")


def _show(arguments: argparse.Namespace) -> int:
    from spinescore.benchmarks.bench.document import read
    from spinescore.benchmarks.bench.render import markdown

    _check_report(arguments.report)
    with _damaged(arguments.record):
        record = read(arguments.record)
        shown = markdown(record)
        _write_report(record, arguments.report)
    print(shown, end="")
    return OK


def _compare(arguments: argparse.Namespace) -> int:
    from spinescore.benchmarks.bench.compare import compare, text
    from spinescore.benchmarks.bench.document import read
    from spinescore.benchmarks.harness.record import to_json

    if arguments.fail_above is not None and not 1 <= arguments.fail_above < 100:
        raise UsageError("--fail-above must be a ratio from 1 on, as 1.10")
    if not 100 <= arguments.bootstrap <= 100_000:
        raise UsageError("--bootstrap must be from 100 to 100000")
    with _damaged(*arguments.records):
        comparison = compare([read(path) for path in arguments.records], arguments.bootstrap, arguments.fail_above)
    print(to_json(comparison) if arguments.json else text(comparison), end="")
    return SLOWER if comparison["slower"] else OK


@contextmanager
def _damaged(*paths: Path) -> Iterator[None]:
    """Report a record of the right schema that lacks fields of the schema as damaged."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        names = " or ".join(map(str, paths))
        raise UsageError(f"{names} is damaged, or was not written by spinescore bench ({error!r})") from error


def _say_of(bundle: str, message: str) -> None:
    say(f"{bundle}: {message}")
