"""A program that ends an appliance before each of its steps on the disk between a reader's correction and its delivery.

    python -m helpers.appliance_review_crashes FOLDER BUNDLE

A step is as in `appliance_crashes`. After each end the service starts again, and a reader who was not told that the
correction was taken gives it again. It prints one JSON object: the number of steps, and what was wrong after which one.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from helpers.appliance import OUT, Appliance, FakeClock, config_of, open_scorer, tiny_files
from helpers.appliance_crashes import FILES, TURN, end_before, forked, try_each_step
from spinescore.runtime import Correction, load_study
from spinescore.runtime.appliance.seen.audit import files_of, read_head, record_of
from spinescore.runtime.appliance.seen.auditcheck import Flaw, check
from spinescore.runtime.appliance.store.reviews import Conflict, take_correction

CORRECTION = Correction("AB", "2026-11-29T15:04:05+00:00", grades={"C3-superior": 2})


def outcome(appliance: Appliance) -> list[str]:
    """Return a sentence for each fault that is left after all work is done."""
    faults = []
    if appliance.delivered() != {"revision-1": FILES, "revision-2": FILES}:
        faults.append(f"delivered: {appliance.delivered()}, states {appliance.states()}")
    rows = appliance.index.rows("SELECT r.revision, d.file, d.state, d.attempts FROM deliveries d JOIN results r "
                                "USING (input_key) WHERE r.revision = 2")  # fmt: skip
    if sorted(row["file"] for row in rows) != FILES or {row["state"] for row in rows} != {"sent"}:
        faults.append(f"deliveries: {[tuple(row) for row in rows]}")
    report = appliance.root / OUT / "1.2.3.4" / "revision-2" / "report.json"
    if report.exists() and [one["reader"] for one in json.loads(report.read_text())["corrections"]] != ["AB"]:
        faults.append("the report does not have the correction once")
    if (
        appliance.index.one("SELECT count(*) FROM reviews")[0] != 1
        or len(list(appliance.places.results.iterdir())) != 2
    ):
        faults.append("there is not one verdict, or there are not two sets of results")
    lines = [line for path in files_of(appliance.places.root / "audit") for line in path.read_bytes().splitlines()]
    taken = [record for line in lines if (record := record_of(line)) and record["event"] == "corrected"]
    undone = [n for line in lines if (record := record_of(line)) for n in record.get("not_committed", ())]
    if len([record for record in taken if record["n"] not in undone]) != 1:
        faults.append(f"the audit log has the correction {len(taken)} times")
    if isinstance(flaw := check(appliance.places.root, read_head(appliance.index)), Flaw):
        faults.append(f"the audit log: {flaw}")
    return faults


def main(folder: Path, bundle: Path) -> None:
    files = tiny_files(folder / "study")
    scorer = open_scorer(bundle)
    ready = scorer.score(load_study(*files))
    scorer.close()
    os.umask(0o077)

    def start(root: Path, now_s: float) -> Appliance:
        return Appliance(config_of(root, bundle), lambda study: ready, FakeClock(now_s))

    def score_first(root: Path) -> int:
        appliance = start(root, 1000.0)
        appliance.receive(*files)
        appliance.run(10)
        return 0

    def correct(appliance: Appliance) -> None:
        try:
            take_correction(appliance.index, appliance.clock, 1, 1, CORRECTION)
        except Conflict:  # it was taken before the end, and the reader was not told
            assert appliance.index.one("SELECT 1 FROM reviews") is not None

    def run(root: Path, number: int) -> int:
        appliance = start(root, 1100.0 if number else 1200.0)
        if number:
            end_before(number)
        correct(appliance)
        appliance.run(10)
        faults = [] if number else outcome(appliance)
        for fault in faults:
            print(f"{root.name}: {fault}", file=sys.stderr)
        return 2 * bool(faults)

    assert forked(lambda: score_first(folder / TURN)) == 0
    (folder / TURN).rename(folder / "scored")
    try_each_step(folder, lambda root: shutil.copytree(folder / "scored", root), run)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
