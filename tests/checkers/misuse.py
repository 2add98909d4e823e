"""Wrong use of the public door: each line with a mark is an error to mypy, of the kind named first, and to pyright, of
the kind named second; no other line is. Never run."""

from __future__ import annotations

import numpy as np

from spinescore.export import export_bundel  # wrong: attr-defined reportAttributeAccessIssue
from spinescore.runtime import (
    Facing,
    Radiograph,
    Region,
    Scorer,
    Study,
    StudyReport,
    load_radiograph,
    load_study,
    radiograph_from_array,
)
from spinescore.runtime.followup import compair  # wrong: attr-defined reportAttributeAccessIssue

# isort: split
from spinescore.runtime import Scorrer  # wrong: attr-defined reportAttributeAccessIssue

pixels = np.zeros((300, 300), np.uint16)
floats = np.zeros((300, 300), np.float32)


def options() -> None:
    Scorer.open(device="gpu")  # wrong: arg-type reportArgumentType
    Scorer.open(engine="onnx")  # wrong: arg-type reportArgumentType
    Scorer.open(precision="fp-32")  # wrong: arg-type reportArgumentType
    Scorer.open(build="yes")  # wrong: arg-type reportArgumentType
    Scorer.open(thread=2)  # wrong: call-arg reportCallIssue
    Scorer.open("phantom-reference", "cpu", 2)  # wrong: call-arg reportCallIssue
    Scorer.open(threads="2")  # wrong: arg-type reportArgumentType


def scoring(scorer: Scorer, study: Study, images: list[Radiograph]) -> None:
    scorer.score("demo/study")  # wrong: arg-type reportArgumentType
    scorer.score(pixels)  # wrong: arg-type reportArgumentType
    scorer.score({"cervical": floats})  # wrong: arg-type reportArgumentType
    scorer.score({"cervical": "neck.dcm"})  # wrong: arg-type reportArgumentType
    scorer.score(images, budget="250")  # wrong: call-arg reportCallIssue
    scorer.score(study, None, None, True)  # wrong: call-arg reportCallIssue
    scorer.score(study, keypoints={"C2/C3": [[1.0, 2.0], [3.0, 4.0]]})  # wrong: arg-type reportArgumentType
    scorer.scores(study)  # wrong: attr-defined reportAttributeAccessIssue
    scorer.try_score(study).to_json()  # wrong: union-attr reportOptionalMemberAccess


def arrays() -> None:
    radiograph_from_array(pixels, region="thoracic")  # wrong: arg-type reportArgumentType
    radiograph_from_array(pixels, facing="L")  # wrong: arg-type reportArgumentType
    radiograph_from_array(floats)  # wrong: arg-type reportArgumentType
    radiograph_from_array(pixels, "cervical")  # wrong: call-arg reportCallIssue
    radiograph_from_array(pixels, spacing_mm="0.15")  # wrong: arg-type reportArgumentType


def reading() -> None:
    load_study(["neck.dcm", "back.dcm"])  # wrong: arg-type reportArgumentType
    load_radiograph("neck.dcm", region="cervical")  # wrong: call-arg reportCallIssue


def results(report: StudyReport, image: Radiograph) -> None:
    side: Facing = "up"  # wrong: assignment reportAssignmentType
    region: Region = "thoracic"  # wrong: assignment reportAssignmentType
    report.regions["thoracic"]  # wrong: index reportArgumentType
    report.totals  # wrong: attr-defined reportAttributeAccessIssue
    report.total.value + 1  # wrong: operator reportOptionalOperand
    report.regions["lumbar"].radiograph.facing  # wrong: union-attr reportOptionalMemberAccess
    image.region = region  # wrong: misc reportAttributeAccessIssue
    print(side)
