"""The command line: `spinescore VERB ...`. What the verbs do stands in `spinescore.runtime.verbs`.

Reports go to standard output, messages to standard error. Exit status: 0 at least one region was scored (or the verb
did its work), 1 unexpected fault, 2 wrong usage, 3 nothing could be scored, 4 bundle, checkpoint, engine or device
refused, 5 scored but over budget.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import logging
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import NoReturn

from spinescore.runtime.errors import BudgetExceeded, InputRejected, SpineScoreError
from spinescore.runtime.verbs import (
    NOTHING_SCORED,
    OK,
    OVER_BUDGET,
    REFUSED,
    USAGE,
    UsageError,
    say,
    show,
)
from spinescore.runtime.verbs.faults import told
from spinescore.runtime.verbs.streams import ReaderGone, flush, keep_descriptors, set_encoding

__all__ = ["main"]

_INTERRUPTED = 130  # what a shell expects after Ctrl-C

# Each verb's module, which adds the verb's options and names its function, and what the verb does.
_VERBS = {
    "demo": ("runtime.verbs.demo", "score a synthetic study with the shipped bundle"),
    "score": ("runtime.verbs.score", "score DICOM files or folders"),
    "export": ("runtime.verbs.export", "make a bundle from trained weights"),
    "bundle": ("runtime.verbs.bundle", "show or verify a bundle"),
    "engine": ("runtime.verbs.engine", "build, list or verify TensorRT engines"),
    "phantom": ("runtime.verbs.phantom", "draw synthetic studies with known truth"),
    "crops": ("runtime.verbs.crops", "write the regions exactly as the grader sees them"),
    "compare": ("runtime.verbs.compare", "what changed between two studies of a patient"),
    "cohort": ("runtime.verbs.cohort", "many reports as tables, with a plot of change"),
    "associate": ("runtime.verbs.associate", "an exposure and the change of the same vertebral units"),
    "bench": ("benchmarks.bench.verb", "measure the latency of this machine"),
    "plan": ("runtime.verbs.plan", "find the most accurate way to run within a budget"),
    "evaluate": ("benchmarks.agreement.verb", "agreement of grades with a reader's"),
    "doctor": ("runtime.verbs.doctor", "what this machine can run, and what is missing for the rest"),
}
_STATUSES = """\
exit status: 0 at least one region was scored, 1 unexpected fault, 2 wrong usage, 3 nothing could be scored,
4 bundle, checkpoint, engine or device refused, 5 scored but over budget"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Wrong options end in `SystemExit(2)`, as argparse has it."""
    atexit.register(gc.freeze)  # nothing is left to free but memory: searching it for cycles would take 0.1 s
    words = sys.argv[1:] if argv is None else argv
    keep_descriptors()
    try:
        arguments = _parser(words).parse_args(words)
        set_encoding()
        with _logged() if arguments.verbose else nullcontext():
            status = int(arguments.verb(arguments))
        flush()
        return status
    except ReaderGone:
        return OK
    except UsageError as error:
        return _fail(USAGE, str(error))
    except InputRejected as error:
        return _fail(NOTHING_SCORED, f"{error.code}: {error}")
    except BudgetExceeded as error:
        return _fail(OVER_BUDGET, str(error))
    except SpineScoreError as error:
        return _fail(REFUSED, str(error))
    except KeyboardInterrupt:
        return _fail(_INTERRUPTED, "interrupted")
    except Exception as error:
        return _fail(*told(error))


def _fail(status: int, message: str) -> int:
    say(f"spinescore: {message}")
    return status


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Says what is wrong with the words of the command, which may hold anything, and ends."""
        for line in self.format_usage().splitlines():
            say(line)
        say(f"{self.prog}: error: {message}")
        sys.exit(USAGE)


class _Version(argparse.Action):
    """Says the version and ends, without reading the package's metadata for any other command."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from spinescore.runtime.machine.packages import software_version

        show(f"spinescore {software_version()}")
        flush()
        parser.exit()


@contextmanager
def _logged() -> Iterator[None]:
    """Say on standard error what the package logs, one line each, with the milliseconds since the start."""
    logger, handler = logging.getLogger("spinescore"), _ToStandardError()
    handler.setFormatter(logging.Formatter("%(relativeCreated)8.0f ms  %(name)s: %(message)s"))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _ToStandardError(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def _parser(words: Collection[str] = tuple(_VERBS)) -> argparse.ArgumentParser:
    """Of the verbs, those among the command's words have their options: no other's modules are imported."""
    parser = _Parser(
        prog="spinescore",
        description="Scores a lateral spine study (DICOM) with the mSASSS. Not a medical device.",
        epilog=_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version, and nothing else")
    text = "say on standard error what is chosen and why, and how long each stage takes (before VERB)"
    parser.add_argument("-v", "--verbose", action="store_true", help=text)
    added = parser.add_subparsers(metavar="VERB", required=True)
    for name, (module, text) in _VERBS.items():
        own = added.add_parser(name, help=text)
        if name in words:
            import_module(f"spinescore.{module}").add_arguments(own)
    return parser


if __name__ == "__main__":
    sys.exit(main())
