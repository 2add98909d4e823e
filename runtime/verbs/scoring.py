"""`spinescore score|demo|crops|phantom|doctor`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spinescore.runtime.errors import BudgetExceeded, OutputError
from spinescore.runtime.study import Study
from spinescore.runtime.verbs import NOTHING_SCORED, OK, OVER_BUDGET, REFUSED, UsageError, say

if TYPE_CHECKING:
    from spinescore.runtime.report import StudyReport
    from spinescore.runtime.scorer import ScoredCrops, Scorer

__all__ = ["crops", "demo", "doctor", "open_scorer", "phantom", "score"]

_KEYPOINTS_FORM = '{"cervical": {"C2/C3": {"centre_px": [x, y], "anterior_px": [x, y]}}}'


def score(arguments: argparse.Namespace) -> int:
    from spinescore.runtime.outputs import results

    keypoints = _read_keypoints(arguments.keypoints)
    _check_folder(arguments.out)
    if arguments.format is not None and arguments.out is None:
        raise UsageError("--format says what is written to a folder; name it with --out DIR")
    formats = arguments.format or results.DEFAULT_FORMATS
    results.check_formats(formats, arguments.anonymous)
    studies = _read_studies(arguments.paths, arguments.window)
    if arguments.anonymous:
        from spinescore.runtime.intake import anonymous

        studies = [anonymous(study) for study in studies]
    several, all_written, given_up, reports = len(studies) > 1, True, False, []
    with open_scorer(arguments) as scorer:
        if arguments.hard and arguments.budget_ms is None and scorer.bundle.manifest.budget_ms is None:
            raise UsageError("--hard says that a budget must be kept; name it with --budget-ms N")
        folders = None if arguments.out is None else results.study_folders(arguments.out, len(studies))
        try:
            for number, study in enumerate(studies, 1):
                if several:
                    say(f"study {number} of {len(studies)}")
                report = _report(scorer, study, arguments, keypoints)
                if report is None:
                    given_up = True
                    if folders is not None:
                        results.remove_results(folders[number - 1])
                    continue
                reports.append(report)
                if folders is not None:
                    own = [name for name in formats if name != "csv" or not several]
                    all_written &= _write(folders[number - 1], study, report, scorer, own)
                _print_report(report, arguments.json, several)
        finally:
            if several and "csv" in formats and reports:
                results.write_rows(arguments.out, reports)
    status = OVER_BUDGET if given_up else _status(reports)
    return status if all_written or status == NOTHING_SCORED else REFUSED


def _report(scorer: Scorer, study: Study, arguments: argparse.Namespace, keypoints: Any) -> StudyReport | None:
    """A study's report; None, once it was said, where the study was given up for a hard budget."""
    try:
        report = scorer.score(study, arguments.budget_ms, keypoints, strict=arguments.strict, hard=arguments.hard)
    except BudgetExceeded as late:
        say(f"spinescore: {late}")
        if late.report is None:
            return None
        report = late.report
    _say_what_was_refused(report)
    return report


def _write(folder: Path, study: Study, report: StudyReport, scorer: Scorer, formats: Sequence[str]) -> bool:
    """Write a study's results; says what could not be written, and returns whether all were."""
    from spinescore.runtime.outputs.results import write_results

    try:
        write_results(folder, study, report, scorer.bundle, formats)
    except OutputError as error:
        say(f"not written: {error}")
        return False
    return True


def demo(arguments: argparse.Namespace) -> int:
    from spinescore.benchmarks.phantom import write_study
    from spinescore.runtime.dicom import load_study
    from spinescore.runtime.outputs.results import write_results
    from spinescore.runtime.verbs.summary import study_summary

    _check_folder(arguments.out)
    folder = arguments.out / "study"
    say(f"drawing the synthetic study {arguments.seed} in {folder}")
    write_study(arguments.seed, folder)
    with open_scorer(arguments) as scorer:
        study = load_study(*sorted(folder.glob("*.dcm")))
        report = scorer.score(study, strict=arguments.strict)
        _say_what_was_refused(report)
        print(study_summary(report, _read_truth(folder / "truth.json")))
        written = write_results(arguments.out, study, report, scorer.bundle, ("json", "html", "png"))
    say(f"\nwritten: {', '.join(map(str, written))}")
    return _status([report])


def crops(arguments: argparse.Namespace) -> int:
    from spinescore.runtime.outputs.crops import write_crops

    keypoints = _read_keypoints(arguments.keypoints)
    _check_folder(arguments.out)
    studies = _read_studies(arguments.paths, arguments.window)
    with open_scorer(arguments) as scorer:
        count = write_crops(_cropped(scorer, studies, keypoints, arguments.strict), arguments.out)
    say(f"{count} crops and index.csv are in {arguments.out}" if count else "no region could be cropped")
    return OK if count else NOTHING_SCORED


def _cropped(scorer: Scorer, studies: Sequence[Study], keypoints: Any, strict: bool) -> Iterator[ScoredCrops]:
    for study in studies:
        found = scorer.crops(study, keypoints=keypoints, strict=strict)
        _say_what_was_refused(found.report)
        yield found


def phantom(arguments: argparse.Namespace) -> int:
    from spinescore.benchmarks.phantom import write_study

    _check_folder(arguments.out)
    for seed in range(arguments.seed, arguments.seed + arguments.count):
        for visit in range(arguments.visits):
            folder = arguments.out / (f"phantom-{seed}" + (f"-visit-{visit + 1}" if visit else ""))
            write_study(seed, folder, visit)
            say(str(folder))
    return OK


def doctor(arguments: argparse.Namespace) -> int:
    from spinescore.runtime.doctor import can_score, examine, findings_dict, findings_text

    findings = examine()
    print(json.dumps(findings_dict(findings), indent=2) if arguments.json else findings_text(findings))
    return OK if can_score(findings) else REFUSED


def _check_folder(folder: Path | None) -> None:
    """Refuse, before any work, a folder for results that is a file."""
    if folder is not None and folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file; name a folder")


def _read_studies(paths: Sequence[Path], window: str | None) -> list[Study]:
    """The studies in files and folders; what cannot be read stands in a study's rejects."""
    from spinescore.runtime.dicom import load_studies

    for path in paths:
        if not path.exists():
            raise UsageError(f"there is no file or folder {path}")
    return load_studies(paths, window=window)


def open_scorer(arguments: argparse.Namespace) -> Scorer:
    from spinescore.runtime.scorer import Scorer

    chosen = arguments.engine or arguments.precision or arguments.unaccepted or arguments.localizer
    if arguments.plan not in ("auto", "none") and chosen:
        raise UsageError(
            "--plan chooses engine and precision: leave out --engine, --precision, --unaccepted and --localizer"
        )
    return Scorer.open(
        arguments.bundle,
        arguments.device,
        engine=arguments.engine,
        precision=arguments.precision,
        localizer=arguments.localizer,
        require_acceptance=not arguments.unaccepted,
        build=arguments.build,
        progress=say,
        max_imputed_per_region=arguments.max_imputed,
        budget_ms=getattr(arguments, "budget_ms", None),
        plan=None if arguments.plan == "none" else arguments.plan,
    )


def _read_keypoints(path: Path | None) -> dict[str, dict[str, tuple[Any, Any]]] | None:
    """A reader's points: region -> level -> {"centre_px": [x, y], "anterior_px": [x, y]}, for any of the 12 discs."""
    from spinescore.runtime.intake import given_points

    if path is None:
        return None
    document = _read_json(path)
    try:
        found = {
            region: {level: _centre_and_anterior(points) for level, points in levels.items()}
            for region, levels in document.items()
        }
        given_points(found)  # refuses what the scorer would refuse, before anything is read
    except AttributeError as error:
        raise UsageError(f"{path}: expected {_KEYPOINTS_FORM}") from error
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    return found


def _centre_and_anterior(points: Any) -> tuple[Any, Any]:
    if set(points.keys()) != {"centre_px", "anterior_px"}:
        raise ValueError(f"expected {_KEYPOINTS_FORM}, found {', '.join(points) or 'nothing'}")
    return points["centre_px"], points["anterior_px"]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())  # finds the encoding: Windows' editors and shells write UTF-16 and marks
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or type(error).__name__})") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid JSON ({error})") from error


def _read_truth(path: Path) -> dict[str, int]:
    """Site -> grade that the phantom was drawn with."""
    document = json.loads(path.read_text(encoding="utf-8"))
    discs = [disc for region in document["regions"].values() for disc in region["discs"]]
    return {corner["site"]: corner["grade"] for disc in discs for corner in disc["corners"]}


def _say_what_was_refused(report: StudyReport) -> None:
    for warning in report.warnings:
        say(f"warning: {warning}")
    rejects = [*report.rejects, *(region.reject for region in report.regions.values() if region.reject)]
    for line in dict.fromkeys(f"rejected ({reject.code}): {reject.message}" for reject in rejects):
        say(line)


def _print_report(report: StudyReport, as_json: bool, several: bool) -> None:
    """A report for people, or as JSON where it was asked for or where nothing could be scored."""
    from spinescore.runtime.verbs.summary import study_summary

    if as_json or not _is_scored(report):
        print(report.to_json(indent=None if several else 2), flush=True)
    else:
        print(study_summary(report) + ("\n" if several else ""), flush=True)


def _is_scored(report: StudyReport) -> bool:
    return any(region.status == "scored" for region in report.regions.values())


def _status(reports: Sequence[StudyReport]) -> int:
    if not any(_is_scored(report) for report in reports):
        return NOTHING_SCORED
    return OVER_BUDGET if any(report.within_budget is False for report in reports) else OK
