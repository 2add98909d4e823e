"""Watch a folder, and score each study that arrives in it. Ends by Ctrl-C.

    python examples/watch_folder.py INBOX RESULTS [--bundle BUNDLE] [--quiet-s SECONDS]

Each folder in INBOX is a study. A study is complete when nothing in its folder has changed for SECONDS (5). Its
results appear in RESULTS under the same name, all at once. A study that has results is not scored again, so the
program may be stopped and started at any time; delete a study's results to score it again.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

from spinescore.runtime import Cancelled, Scorer, SpineScoreError, load_study, write_results

LOG = logging.getLogger("watch")
Files = frozenset[tuple[str, int, int]]  # the name, size and time of change of each file of a study


def main() -> int:
    """Open a scorer, watch until Ctrl-C, close. Returns the exit status."""
    options = argparse.ArgumentParser(description="Watch a folder, and score each study that arrives in it.")
    options.add_argument("inbox", type=Path)
    options.add_argument("results", type=Path)
    options.add_argument("--bundle", default="phantom-reference")
    options.add_argument("--quiet-s", type=float, default=5.0)
    arguments = options.parse_args()
    if not arguments.inbox.is_dir():
        options.error(f"there is no folder {arguments.inbox}; make it, or name another one")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):  # in a thread: the signal may find `stop.wait` holding its lock
        signal.signal(number, lambda *_: threading.Thread(target=stop.set).start())
    arguments.results.mkdir(parents=True, exist_ok=True)
    try:
        with Scorer.open(arguments.bundle, cancel=stop, progress=LOG.info) as scorer:
            watch(scorer, arguments.inbox, arguments.results, arguments.quiet_s, stop)
    except Cancelled:
        pass  # Ctrl-C while the scorer opened, or while it scored
    except SpineScoreError as error:
        LOG.error("%s: %s", error.code, error)
        return 1
    LOG.info("ended")
    return 0


def watch(scorer: Scorer, inbox: Path, results: Path, quiet_s: float, stop: threading.Event) -> None:
    """Look at the inbox every `quiet_s` seconds until `stop` is set. Raises `Cancelled` if that is during a study."""
    LOG.info("watching %s", inbox)
    before: dict[str, Files] = {}
    while not stop.wait(quiet_s):
        now = {folder.name: files_of(folder) for folder in studies_in(inbox) if not (results / folder.name).exists()}
        for name in sorted(now):
            if now[name] and now[name] == before.get(name):
                score(scorer, inbox / name, results / name, stop)
        before = now


def studies_in(inbox: Path) -> Iterator[Path]:
    """The folders in the inbox, except those whose name begins with a dot."""
    return (folder for folder in inbox.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def files_of(folder: Path) -> Files:
    """The files of a study as they are now; empty if one of them disappears meanwhile."""
    try:
        states = [(path, path.stat()) for path in folder.rglob("*") if path.is_file()]
    except FileNotFoundError:
        return frozenset()
    return frozenset((str(path), state.st_size, state.st_mtime_ns) for path, state in states)


def score(scorer: Scorer, study: Path, results: Path, stop: threading.Event) -> None:
    """Score one study, and let its results appear as a whole. A fault of one study does not end the program."""
    unfinished = results.with_name(f".{results.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        radiographs = load_study(study)
        report = scorer.score(radiographs, cancel=stop)
        write_results(radiographs, report, unfinished, formats=["json", "html"])
        LOG.info("%s: mSASSS %s, possible %s to %s", study.name, report.total.value, *report.total.range)
    except Cancelled:
        shutil.rmtree(unfinished)
        raise
    except SpineScoreError as error:
        LOG.error("%s: %s (%s)", study.name, error, error.code)
        (unfinished / "error.txt").write_text(f"{error.code}: {error}\n", encoding="utf-8")
    except Exception:
        LOG.exception("%s: unexpected fault", study.name)
        (unfinished / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
    unfinished.rename(results)


if __name__ == "__main__":
    sys.exit(main())
