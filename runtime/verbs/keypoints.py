"""`--keypoints F`: a reader's points from a JSON file, for the study in which they were set.

Points are pixels of one study's radiographs. So a plain file (region -> level -> points) serves one study; for several
studies the file is keyed by Study Instance UID. No part of a file is ignored silently. Reports and a phantom's
`truth.json` contain points too, of the study that they name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spinescore.runtime.jsonfile import read_json
from spinescore.runtime.scoring.intake import given_points
from spinescore.runtime.study import REGIONS, Study
from spinescore.runtime.verbs import UsageError, unreadable

__all__ = ["KeypointsFile", "Points", "points_by_study", "read_keypoints", "true_points", "truth_files"]

Points = dict[str, dict[str, tuple[Any, Any]]]  # region -> level -> (centre xy, anterior xy)

_DISC = '{"C2/C3": {"centre_px": [x, y], "anterior_px": [x, y]}}'
_FORM = f'{{"cervical": {_DISC}}}'
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")  # PS3.5 9.1
_MOST_SHOWN = 5
_WITH_POINTS = ("spinescore.report/1", "spinescore.truth/1")  # documents of this project that hold points


@dataclass(frozen=True)
class KeypointsFile:
    """A file's points: those of one study without its UID (`plain`), or by Study Instance UID."""

    path: Path
    plain: Points | None
    by_study: dict[str, Points]

    def of_studies(self, studies: Sequence[Study], anonymous: bool = False) -> list[Points | None]:
        """Return each study's points, None for a study that the file does not name.

        Raises UsageError if points cannot be assigned to a study. If `anonymous`, the message quotes no UID of the
        studies.
        """
        uids = [study.study_instance_uid for study in studies]
        shown = ", ".join(uid for uid in uids[:_MOST_SHOWN] if uid) if not anonymous else ""
        if self.plain is not None:
            if len(studies) > 1 and self.plain:
                example = next((uid for uid in uids if uid and not anonymous), "<study instance UID>")
                raise UsageError(
                    f"{self.path} holds the points of one study, but {len(studies)} studies were read: key the points "
                    f'by Study Instance UID, {{"{example}": {_FORM}}}, or score one study at a time'
                )
            return [self.plain] * len(studies)
        unknown = [uid for uid in self.by_study if uid not in uids]
        if unknown:
            read = f" (they are {shown})" if shown else ""
            more = f" and {len(unknown) - _MOST_SHOWN} more" if len(unknown) > _MOST_SHOWN else ""
            raise UsageError(
                f"{self.path} has points of study {', '.join(unknown[:_MOST_SHOWN])}{more}, which is not among the "
                f"studies that were read{read}: correct the UID, name that study's files, or leave its points out"
            )
        return [self.by_study.get(uid or "") for uid in uids]


def points_by_study(
    file: KeypointsFile | None, studies: Sequence[Study], anonymous: bool = False
) -> Sequence[Points | None]:
    """Return each study's points, as `KeypointsFile.of_studies` does; without a file, None for each."""
    return [None] * len(studies) if file is None else file.of_studies(studies, anonymous)


def read_keypoints(path: Path | None) -> KeypointsFile | None:
    """Return the checked points of a file; None without a file. Raises UsageError."""
    if path is None:
        return None
    document = _read_json(path)
    try:
        if isinstance(document, dict) and document.get("schema") in _WITH_POINTS:
            uid, points = _of_document(document)
            return KeypointsFile(path, None, {uid: points}) if uid else KeypointsFile(path, points, {})
        if _is_by_study(document):
            return KeypointsFile(path, None, {uid: _points(f"study {uid}: ", part) for uid, part in document.items()})
        return KeypointsFile(path, _points("", document), {})
    except AttributeError as error:
        raise UsageError(f'{path}: expected {_FORM}, or {{"<study instance UID>": {_FORM}}}') from error
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error


def true_points(paths: Iterable[Path]) -> dict[str, Points]:
    """Return the points of every phantom's `truth.json` in the folders among `paths`, by Study Instance UID."""
    points: dict[str, Points] = {}
    for file in truth_files(paths):
        truth = read_keypoints(file)
        points.update(truth.by_study if truth is not None else {})
    return points


def truth_files(paths: Iterable[Path]) -> list[Path]:
    """Return every phantom's `truth.json` in the folders among `paths`."""
    return [file for path in paths if path.is_dir() for file in sorted(path.rglob("truth.json"))]


def _of_document(document: dict[str, Any]) -> tuple[str | None, Points]:
    """Return the Study Instance UID and the points of a report or a phantom's truth."""
    try:
        points = {
            region: {disc["level"]: (disc["centre_px"], disc["anterior_px"]) for disc in part["discs"]}
            for region, part in document["regions"].items()
        }
        uid = document["study"]["study_instance_uid"]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"this {document['schema']} is incomplete or damaged ({error})") from error
    given_points(points)
    return uid, {region: levels for region, levels in points.items() if levels}


def _is_by_study(document: Any) -> bool:
    """Return whether the keys are studies: they look like UIDs, or their values have regions as keys."""
    keyed = [key for key, part in document.items() if _UID.fullmatch(key) or _has_regions(part)]
    if keyed and (plain := [key for key in document if key not in keyed]):
        raise ValueError(
            f"{keyed[0]!r} is keyed by study, {plain[0]!r} is not; put all points under the UIDs of their studies"
        )
    return bool(keyed)


def _has_regions(part: Any) -> bool:
    return isinstance(part, dict) and any(region in part for region in REGIONS)


def _points(name: str, document: Any) -> Points:
    try:
        points = {
            region: {level: _centre_and_anterior(pair) for level, pair in levels.items()}
            for region, levels in document.items()
        }
        given_points(points)  # the scorer's own check, before any radiograph is read
    except ValueError as error:
        raise ValueError(f"{name}{error}") from error
    return points


def _centre_and_anterior(points: Any) -> tuple[Any, Any]:
    if set(points.keys()) != {"centre_px", "anterior_px"}:
        raise ValueError(f"expected {_FORM}, found {', '.join(points) or 'nothing'}")
    return points["centre_px"], points["anterior_px"]


def _read_json(path: Path) -> Any:
    try:
        return read_json(path, any_number=True)  # `given_points` names the place of a wrong number
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        raise UsageError(f"{path} is not valid JSON ({error})") from error
