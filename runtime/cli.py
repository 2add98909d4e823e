"""The command line: `spinescore VERB ...`. The verbs themselves are modules of `spinescore.runtime.verbs`.

Reports go to standard output, messages to standard error. Exit status: 0 at least one region was scored (or the verb
did its work), 1 unexpected fault, 2 wrong usage, 3 nothing could be scored, 4 bundle, checkpoint, engine or device
refused, or a result could not be written, 5 scored but over budget.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import logging
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Any, NoReturn

from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.verbs import (
    OK,
    REFUSED,
    USAGE,
    UsageError,
    say,
    show,
)
from spinescore.runtime.verbs.faults import told
from spinescore.runtime.verbs.streams import ReaderGone, flush, keep_descriptors, set_encoding

__all__ = ["main"]

_INTERRUPTED = 130  # the usual exit status after Ctrl-C

# Each verb's module, whose `add_arguments` adds the verb's options, and what the verb does.
_VERBS = {
    "demo": ("runtime.verbs.demo", "draw a synthetic study, score it, and show its grades beside the truth"),
    "score": ("runtime.verbs.score", "score files, folders and zip archives, and write results"),
    "compare": ("runtime.verbs.compare", "show what changed between studies of one patient"),
    "cohort": ("runtime.verbs.cohort", "turn many reports and readers' files into tables, with a plot of change"),
    "archive": ("runtime.verbs.archive", "score a whole archive into tables, and go on after an interruption"),
    "evaluate": ("benchmarks.agreement.verb", "measure agreement with a reader, on grades, totals and change"),
    "associate": (
        "runtime.verbs.associate",
        "compute the odds ratio of an exposure and change in the same vertebral unit",
    ),
    "crops": ("runtime.verbs.crops", "write the pictures that the networks see, to train on"),
    "export": ("runtime.verbs.export", "make a bundle from trained weights"),
    "bundle": ("runtime.verbs.bundle", "show, verify or trust a bundle"),
    "engine": ("runtime.verbs.engine", "build, list or verify TensorRT engines"),
    "plan": ("runtime.verbs.plan", "find the most accurate way to score within a time budget on this machine"),
    "serve": ("runtime.verbs.serve", "take studies in, score them and deliver the results, as a service"),
    "status": ("runtime.verbs.status", "show the state of the service"),
    "study": ("runtime.verbs.study", "show the studies of the service, and have them scored or delivered again"),
    "audit": ("runtime.verbs.audit", "check that nobody changed the audit log of the service"),
    "console-sdk": ("runtime.verbs.consolesdk", "write the C library for consoles, with C++, C# and examples"),
    "appliance": (
        "runtime.verbs.appliance",
        "write or verify a folder that installs the service without a network",
    ),
    "phantom": ("runtime.verbs.phantom", "draw synthetic studies with known truth"),
    "bench": ("benchmarks.bench.verb", "measure the latency of this machine"),
    "doctor": ("runtime.verbs.doctor", "show what this machine can run, and what is missing for the rest"),
}
_STATUSES = """\
exit status: 0 at least one region was scored, 1 unexpected fault, 2 wrong usage, 3 nothing could be scored,
4 bundle, checkpoint, engine or device refused, or a result not written, 5 scored but over budget,
130 ended by Ctrl-C"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. Wrong options raise `SystemExit(2)`, as argparse does."""
    atexit.register(gc.freeze)  # at the end only memory is left to free: a search for cycles would take 0.1 s
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
    except KeyboardInterrupt:
        return _fail(_INTERRUPTED, "interrupted")
    except Exception as error:
        status, message = told(error)
        return _fail(status, str(error) if isinstance(error, SpineScoreError) and status == REFUSED else message)


def _fail(status: int, message: str) -> int:
    say(f"spinescore: {message}")
    return status


class _Parser(argparse.ArgumentParser):
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse, and end for a word that this parser does not know: the verb names it, not the whole command."""
        parsed, others = super().parse_known_args(args, namespace)
        if others:
            self.error(f"unrecognized arguments: {' '.join(others)}")
        return parsed, others

    def error(self, message: str) -> NoReturn:
        """Print the error through `say`, since words of a command may contain anything, and end.

        The usage is left out: a verb's options take many lines, and its help has them.
        """
        say(f"{self.prog}: error: {message}{self._near(message)} (help: {self.prog} --help)")
        sys.exit(USAGE)

    def _near(self, message: str) -> str:
        """Return the option, verb or name that a misspelt word was probably meant to be, in words."""
        from spinescore.runtime.fields import near_name

        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if choice is not None:
            return near_name(choice[1], re.findall(r"[\w.-]+", choice[2]))
        option = re.search(r"unrecognized arguments: (?:.* )?(--[\w-]+)", message)
        return "" if option is None else near_name(option[1], self._option_string_actions)


class _Version(argparse.Action):
    """Print the version and end. Other commands do not read the package's metadata."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from spinescore.runtime.machine.packages import software_version

        show(f"spinescore {software_version()}")
        flush()
        parser.exit()


@contextmanager
def _logged() -> Iterator[None]:
    """Print the package's log on standard error, one line each, with the milliseconds since the start."""
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
    """Return the parser. Only verbs among the command's words get their options, so that no other is imported."""
    parser = _Parser(
        prog="spinescore",
        description="Scores a lateral spine study (DICOM) with the mSASSS. Not a medical device.",
        epilog=_STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    text = "print on standard error what is chosen and why, and the time of each stage (give it before VERB)"
    parser.add_argument("-v", "--verbose", action="store_true", help=text)
    added = parser.add_subparsers(metavar="VERB", required=True)
    for name, (module, text) in _VERBS.items():
        own = added.add_parser(name, help=text, description=f"{text[:1].upper()}{text[1:]}.")
        if name in words:
            import_module(f"spinescore.{module}").add_arguments(own)
    return parser


if __name__ == "__main__":
    sys.exit(main())
