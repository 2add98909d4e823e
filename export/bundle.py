"""The export as one function: from trained networks to a bundle."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Literal

from spinescore.export.defaults import contract, named_in_faults, read_overrides
from spinescore.export.folder import check_target, replaced_folder, write_synced
from spinescore.export.golden import draw_phantoms, phantom_views, read_views
from spinescore.export.networks import in_bundle_order, open_alternatives, open_graders, open_localizers
from spinescore.export.proof import Kind, prove
from spinescore.export.sensitivity import Int8Result
from spinescore.export.sessions import thread_count, workers
from spinescore.export.sources import Network
from spinescore.export.trial import (
    Options,
    Trial,
    agreement_of_alternatives,
    agreement_of_grader,
    agreement_of_localizer,
    one_grade,
    try_graders,
    try_localizers,
)
from spinescore.export.truth import PointError, likely_exchange, point_errors
from spinescore.export.writing import GOLDEN, BundleFiles, file_entry, network_records
from spinescore.runtime.acceptance.comparison import GradeAgreement, PointAgreement
from spinescore.runtime.bundle import MANIFEST_NAME, Bundle, manifest_sha256
from spinescore.runtime.bundle.networkcheck import check_networks
from spinescore.runtime.errors import BundleError, CheckpointError
from spinescore.runtime.manifest import CLASSES, HEAD_OUTPUTS, PRECISIONS, SCHEMA, Manifest
from spinescore.runtime.manifest.tolerances import Tolerances
from spinescore.runtime.study import REGIONS

__all__ = ["ExportReport", "export_bundle"]

_WRITERS = 2  # threads; each holds one file in memory

Document = dict[str, Any]


@dataclass(frozen=True)
class ExportReport:
    """The bundle that an export wrote, and how half precision and INT8 agree with FP32 on the golden inputs.

    `points` are by localizer; without FP16 files it is empty, and `grades` is None. `int8`, by network, has every
    choice that was tried; it is empty if INT8 was not requested. `alternatives`, by network, has the distance of each
    one's points from the localizer's, both in FP32. `errors`, by localizer and region, has the distance from the true
    points of golden phantoms, if they have any. `notes` are choices and changes by network, `warnings` possible faults.
    """

    folder: Path
    manifest: Manifest
    points: Mapping[str, PointAgreement]
    grades: GradeAgreement | None
    warnings: tuple[str, ...]
    int8: Mapping[str, Int8Result]
    alternatives: Mapping[str, PointAgreement]
    errors: Mapping[str, Mapping[str, PointError]]
    notes: tuple[str, ...] = ()


def export_bundle(
    localizer: str,
    grader: str,
    out: Path,
    *,
    alternatives: Sequence[str] = (),
    manifest: Path | None = None,
    name: str | None = None,
    version: str | None = None,
    golden: Sequence[Path] = (),
    golden_studies: int = 9,
    precisions: Sequence[Literal["fp32", "fp16"]] = ("fp32", "fp16"),
    weights: Literal["single", "half"] = "single",
    int8: bool = False,
    strict: bool = False,
    check_localizer: str | None = None,
    check_grader: str | None = None,
    check_kind: Kind | None = None,
    bridge_class: Literal[0, 1] | None = None,
) -> ExportReport:
    """Write the bundle `out` from trained networks, and check half precision against FP32 on golden inputs.

    `localizer` is a checkpoint, an ONNX file or `synthetic:hrnet-w32`, or two as `cervical=F,lumbar=F`; `grader` is the
    same, or `bridge=F,grades=F`. `alternatives` are other localizers, the most accurate first, each `NAME=F` with `F`
    as for the localizer. `manifest` is a TOML or JSON file that sets any field of the manifest. `golden` are
    radiographs to check on; without them, phantoms of `golden_studies` studies are drawn (216 corners at 9).
    `weights="half"` stores the FP32 graphs' weights in half precision, and `precisions=("fp32",)` omits the FP16 files.
    `int8` adds INT8 files, calibrated on the golden inputs, with as many layers in FP32 as the manifest's tolerances
    require.

    `check_localizer` and `check_grader` are files of pictures with the outputs of the owner's code (see `proof`), one,
    or two as the networks; `check_kind` is the kind of a grader's outputs if the file does not state it. `bridge_class`
    is the output of a 2-class network that means bridge, if `manifest` does not state it.

    A network that overflows in half precision, or that has no INT8 graph within the tolerances, is written without that
    file, with a warning; with `strict` this is an error.
    Raises `CheckpointError` for networks and `BundleError` for the manifest or `out`; then `out` stays as it was.
    """
    if "fp32" not in precisions or golden_studies < 1:
        raise ValueError(f"precisions {precisions} must hold fp32, golden_studies {golden_studies} be at least 1")
    check_target(out)
    overrides = read_overrides(manifest)
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch,
        workers(thread_count()) as drawing,
    ):
        drawn = None if golden else draw_phantoms(drawing, Path(scratch), golden_studies)  # while networks are read
        first = open_localizers(localizer, overrides)
        localizers = [*first, *open_alternatives(alternatives, first, overrides)]
        head, graders = open_graders(grader, overrides)
        graders = in_bundle_order(graders, overrides, bridge_class)
        networks = [*localizers, *graders]
        by_region: dict[str, Network] = {region: network for network in first for region in network.regions}
        document = contract(by_region, head, graders[0], overrides)
        document["grader"]["classes"] = {network.role: list(CLASSES[network.outputs]) for network in graders}
        document["name"] = name or document.get("name") or out.absolute().name
        document["version"] = version or document["version"]
        with named_in_faults(manifest):
            paths = [*(f"{network.stem}.fp32.onnx" for network in networks), *GOLDEN.values()]
            draft = _manifest(document, networks, {path: file_entry(path, b"") for path in paths})
        prove(first, check_localizer, draft.localizer.input, None, weights == "half")
        prove(graders, check_grader, draft.grader.input, check_kind, weights == "half")
        options = Options(weights == "half", "fp16" in precisions, int8, draft.bounds)
        views = phantom_views(drawn, golden_studies) if drawn else read_views(golden)
        with replaced_folder(out) as folder, workers(_WRITERS) as writer:
            files = BundleFiles(folder, writer)
            located, points = try_localizers(localizers, views, draft.localizer, options, files.save_graph)
            files.save_golden(located)
            graded = try_graders(graders, views, points, draft.grader, options, files.save_graph)
            files.save_golden(graded)
            moved = {trial.network.stem: agreement_of_localizer(trial, draft.localizer) for trial in located}
            changed = agreement_of_grader(graded, draft.grader)
            beside = agreement_of_alternatives(located, draft.localizer)
            errors = point_errors(located, views, draft.localizer)
            warnings = _warnings([*located, *graded], strict) + one_grade(graded, draft.grader)
            warnings += likely_exchange(located, views, draft.localizer, errors)
            if options.fp16:
                warnings += _out_of_bounds(moved, changed, draft.bounds)
            document["provenance"] = {
                **document["provenance"],
                "exporter": f"spinescore {installed_version('spinescore')}",
                "stored_weights": "float16" if weights == "half" else "float32",
                "golden_inputs": "radiographs given at export" if golden else "phantoms",
                "networks": network_records([*located, *graded], beside, document, overrides),
            }
            written = _manifest(document, networks, files.entries([network.stem for network in networks]))
            warnings += _costly(folder, written)
            text = json.dumps(written.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
            write_synced(folder / MANIFEST_NAME, text.encode())
    Bundle(out, written, manifest_sha256(written)).trust_networks()  # they have just run on this machine
    notes = tuple(f"{network.stem}: {note}" for network in networks for note in network.notes)
    quantized = {trial.network.stem: trial.int8 for trial in (*located, *graded) if trial.int8 is not None}
    return ExportReport(
        out, written, moved if options.fp16 else {}, changed if options.fp16 else None, tuple(warnings), quantized,
        beside, errors, notes,
    )  # fmt: skip


def _manifest(document: Document, networks: Sequence[Network], files: Mapping[str, Document]) -> Manifest:
    """Return the manifest over `files`, checked like any bundle's. Raises `BundleError` that names a wrong field."""
    paths: dict[str, dict[str, dict[str, str]]] = {}  # by alternative, then by region or role
    for network in networks:
        possible = {precision: f"{network.stem}.{precision}.onnx" for precision in PRECISIONS}
        present = {precision: path for precision, path in possible.items() if path in files}
        keys = network.regions if network.kind == "localizer" else (network.role,)
        paths.setdefault(network.alternative, {}).update(dict.fromkeys(keys, present))
    own = paths.pop("")
    alternatives = [{"name": name, "files": by_region} for name, by_region in paths.items()]
    others = {"alternatives": alternatives} if alternatives else {}
    return Manifest.from_dict(
        {
            **document,
            "schema": SCHEMA,
            "localizer": {**document["localizer"], "files": {region: own[region] for region in REGIONS}, **others},
            "grader": {
                **document["grader"],
                "files": {role: own[role] for role in HEAD_OUTPUTS[document["grader"]["head"]]},
            },
            "golden": GOLDEN,
            "files": files,
        }
    )


def _warnings(trials: Sequence[Trial], strict: bool) -> list[str]:
    warnings = []
    for trial in trials:
        stem, half = trial.network.stem, trial.half
        warnings += [f"{stem}: {warning}" for warning in trial.network.warnings]
        if trial.shows_one_picture:
            warnings.append(
                f"{stem}: its {len(trial.pictures)} golden pictures are all alike, so half precision and engines are "
                "checked on hardly anything; give --golden radiographs on which the localizer finds the spine"
            )
        if trial.int8 is not None and trial.int8.fault:
            if strict:
                raise CheckpointError(f"{stem}: no INT8: {trial.int8.fault}; export without strict, or without INT8")
            warnings.append(f"{stem}: written without INT8: {trial.int8.fault}")
        if half is not None and half.fault:
            if strict:
                raise CheckpointError(f"{stem}: no half precision: {half.fault}; export without strict for FP32 alone")
            warnings.append(f"{stem}: written in FP32 alone: {half.fault}")
        if half is not None and half.weights is not None and (flushed := half.weights.flushed):
            worst = max(flushed, key=lambda layer: layer.count / layer.total)
            count = sum(layer.count for layer in flushed)
            warnings.append(
                f"{stem}: {count} weights become zero in half precision, most in {worst.layer} "
                f"({worst.count} of {worst.total})"
            )
    return warnings


def _costly(folder: Path, manifest: Manifest) -> list[str]:
    """Return a warning if other machines will refuse the networks because of their costs."""
    try:
        check_networks(folder, manifest)
    except BundleError as error:
        fault = error.__cause__ or error
        return [f"other computers refuse this bundle until `spinescore bundle trust` is run there: {fault}"]
    return []


def _out_of_bounds(points: Mapping[str, PointAgreement], grades: GradeAgreement, bounds: Tolerances) -> list[str]:
    warnings = [
        f"{stem}: half precision moves points by {agreement.median_shift_px:.3f} heatmap pixels in the median; "
        f"{bounds.median_shift_px:g} is the bound"
        for stem, agreement in points.items()
        if not agreement.moves_little(bounds)
    ]
    if not grades.keeps_grades(bounds):
        warnings.append(
            f"grader: half precision changes {grades.flips} of {grades.corners} grades; {bounds.grade_flips:.1%} is "
            "the bound"
        )
    return warnings
