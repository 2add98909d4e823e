"""Reports and bundles as text for a terminal (ASCII, so that every console can show it)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from spinescore.runtime.bundle import Bundle
from spinescore.runtime.bundle.provenance import trust_lines
from spinescore.runtime.manifest import Alternative, Contrast, Grader, Localizer, Manifest, NetworkInput
from spinescore.runtime.outputs.corrections import BY_READER
from spinescore.runtime.outputs.words import REGION_MAX, STUDY_MAX
from spinescore.runtime.scoring.report import CornerReport, RegionReport, StudyReport
from spinescore.runtime.text import lines, one_line, table

if TYPE_CHECKING:
    from spinescore.export.bundle import ExportReport
    from spinescore.export.sensitivity import Int8Result
    from spinescore.export.truth import PointError
    from spinescore.export.verify import VerifyReport
    from spinescore.runtime.acceptance.comparison import GradeAgreement, PointAgreement

__all__ = ["alternatives", "bundle_summary", "export_summary", "study_summary", "verify_summary"]


def study_summary(report: StudyReport, truth: Mapping[str, int] | None = None) -> str:
    """Return the 24 sites with their grades, the totals, and the rejects. `truth` (site -> grade) is shown beside."""
    rows = [_row(corner, truth) for corner in _corners(report)]
    parts = []
    if rows:
        header = ["site", "grade", *(["truth"] if truth is not None else []), "probability", "status"]
        parts.append(table(rows, header))
    parts.append(lines([*_totals(report, truth), *_quality(report)]))
    bundle = report.bundle
    alternative = f", localizer {bundle.localizer}" if bundle.localizer else ""
    parts.append(one_line(f"Bundle {bundle.name} {bundle.version}{alternative}: {bundle.intended_use}"))
    return "\n\n".join(parts)


def _corners(report: StudyReport) -> Iterator[CornerReport]:
    for region in report.regions.values():
        for disc in region.discs:
            yield from disc.corners


def _row(corner: CornerReport, truth: Mapping[str, int] | None) -> list[object]:
    grade: object = "-" if corner.grade is None else corner.grade
    if corner.grade is None or corner.probabilities is None:
        probability = ""
    else:
        probability = f"{corner.probabilities[corner.grade]:.2f}"
    true_grade = [] if truth is None else [truth.get(corner.site, "-")]
    if corner.grade_from == "reader":  # the probability is the network's
        return [corner.site, grade, *true_grade, "", f"{corner.status}, {BY_READER}"]
    return [corner.site, grade, *true_grade, probability, corner.status]


def _totals(report: StudyReport, truth: Mapping[str, int] | None) -> Iterator[str]:
    for name, region in report.regions.items():
        yield f"{name:<9} {_region(region)}"
    total = report.total
    true_total = "" if truth is None else f" (truth {sum(truth.values())})"
    yield f"{'mSASSS':<9} {_amount(total.value, total.range, STUDY_MAX)}{true_total}"
    if total.imputed_sites:
        yield f"{'':<9} with the region's mean for {', '.join(total.imputed_sites)}"
    if (expected := total.expected) is not None:
        low, high = expected.interval
        yield f"{'expected':<9} {expected.mean:.1f} by the network's own probabilities, 95 % interval {low} to {high}"
    if truth is not None:
        pairs = [(corner.grade, truth[corner.site]) for corner in _corners(report) if corner.site in truth]
        yield f"{'':<9} {sum(grade == true for grade, true in pairs)} of {len(truth)} corners agree with the truth"
    if given := [disc.level for region in report.regions.values() for disc in region.discs if disc.points == "given"]:
        yield f"{'points':<9} given for {', '.join(given)}"
    if report.within_budget is not None:
        kept = "kept" if report.within_budget else "not kept"
        yield f"{'time':<9} {report.timings_ms.total or 0:.0f} ms, budget {report.budget_ms:g} ms {kept}"
    elif report.timings_ms.total is not None:
        yield f"{'time':<9} {report.timings_ms.total:.0f} ms"


def _quality(report: StudyReport) -> Iterator[str]:
    """Yield the codes of warnings about the radiographs; the sentences go to standard error."""
    warnings = (finding for finding in report.findings if finding.severity == "warning")
    if codes := dict.fromkeys(f"{warning.code} ({warning.region or 'both'})" for warning in warnings):
        yield f"{'quality':<9} {', '.join(codes)}"


def _region(region: RegionReport) -> str:
    if region.status == "scored":
        return _amount(region.total, region.range, REGION_MAX)
    if region.reject is not None:
        return f"rejected ({region.reject.code}): {region.reject.message}"
    return "missing: the study holds no radiograph of it"


def _amount(value: float | None, bounds: tuple[int, int], most: int) -> str:
    if value is None:
        return f"no total; between {bounds[0]} and {bounds[1]} of {most}"
    return f"{value:g} of {most}" if bounds[0] == bounds[1] else f"{value:.1f} of {most}, range {bounds[0]}-{bounds[1]}"


def bundle_summary(bundle: Bundle) -> str:
    """Return the facts of a bundle: its manifest, its files, and whether they count on this machine."""
    facts = _manifest_facts(bundle.manifest, str(bundle.folder))
    trust = "".join(f"\n{one_line(line)}" for line in ["", *trust_lines(bundle.manifest)])
    return f"{facts}\n{'sha256':<13} {bundle.sha256}\n\n{_files(bundle.manifest)}{trust.rstrip()}"


def export_summary(report: ExportReport) -> str:
    """Return the facts of a new bundle, and how half precision and INT8 agree with FP32 on the golden inputs."""
    agreement = lines([*_agreement(report.points, report.grades), *_quantization(report.int8), *_errors(report.errors)])
    return f"{_manifest_facts(report.manifest, str(report.folder))}\n\n{_files(report.manifest)}\n\n{agreement}"


def verify_summary(report: VerifyReport) -> str:
    """Return the results of a bundle's golden inputs on this machine."""
    parts = [f"Bundle {report.bundle}: the files are as exported."]
    parts += [f"{name}: FP32 is within {off:.1e} of the export's range" for name, off in report.fp32_difference.items()]
    parts += [f"{name}: the FP16 file is within {off:.1e} of FP32's range" for name, off in report.fp16_files.items()]
    parts += [f"{name}: {_off(one.median_shift_px, one.p99_shift_px)}" for name, one in report.alternatives.items()]
    parts += _agreement(report.points, report.grades)
    parts += report.trust
    return lines([*parts, "passed" if report.passed else "NOT passed: export the bundle again, or use FP32"])


def _agreement(points: Mapping[str, PointAgreement], grades: GradeAgreement | None) -> Iterator[str]:
    for name, shift in points.items():
        yield (
            f"half precision against FP32, {name}: {shift.points} points, median shift {shift.median_shift_px:.3f} "
            f"heatmap pixels, 99th percentile {shift.p99_shift_px:.3f}"
        )
    if grades is not None:
        share = 100 * grades.flip_share
        yield f"half precision against FP32, grades: {grades.flips} of {grades.corners} flip ({share:.2f} %)"


def _quantization(int8: Mapping[str, Int8Result]) -> Iterator[str]:
    for name, result in int8.items():
        yield from (f"INT8, {name}: {step}" for step in result.steps)


def _errors(errors: Mapping[str, Mapping[str, PointError]]) -> Iterator[str]:
    for name, regions in errors.items():
        for region, error in regions.items():
            yield (
                f"on golden phantoms (drawn), {name}, {region}: the median error of points is "
                f"{100 * error.median_of_spacing:.1f} % of the disc spacing, and {100 * error.within_quarter:.0f} % of "
                "points are within a quarter of it"
            )


def _manifest_facts(manifest: Manifest, folder: str) -> str:
    localizer, grader = manifest.localizer, manifest.grader
    passes = "1 pass" if localizer.passes == 1 else f"{localizer.passes} passes"
    facts = {
        "name": one_line(f"{manifest.name} {manifest.version}"),
        "intended use": one_line(manifest.intended_use),
        "folder": one_line(folder),
        "localizer": f"{_input(localizer.input)}, {passes}, decode {localizer.decode}, align {localizer.align}, "
        f"facing {localizer.facing}",
        "test time": _test_time(localizer),
        "grader": f"{_input(grader.input)}, head {grader.head}, crop {grader.crop.extent:g} x {grader.crop.unit}",
    }
    parts: dict[str, Localizer | Grader] = {"localizer": localizer, "grader": grader}
    inputs = [f"{name}: {_grey(part.input)}" for name, part in parts.items()]
    facts["normalised"] = _indented([*inputs, *_normalised(manifest.provenance)])
    facts["contrast"] = _indented(
        f"{name}: {_contrast(part.contrast)}{_levels(part.input)}" for name, part in parts.items()
    )
    if grader.classes is not None:
        facts["outputs"] = _indented(f"{network}: {', '.join(classes)}" for network, classes in grader.classes.items())
    if localizer.alternatives:
        facts["alternatives"] = _indented(alternatives(manifest))
    return "\n".join(f"{name:<13} {value}" for name, value in facts.items())


def _test_time(localizer: Localizer) -> str:
    """Return how often the localizer runs in each pass, and how its heatmaps are averaged."""
    averaging = localizer.averaging
    if averaging.runs == 1:
        return "1 run for each pass"
    sizes = [localizer.input_at(scale) for scale in averaging.scales]
    shown = ", ".join(
        f"{scale:g} ({size.height}x{size.width})" for scale, size in zip(averaging.scales, sizes, strict=True)
    )
    shift = ", shifted by one pixel" if averaging.flip_shift else ""
    flip = f", each as it is and flipped{shift}" if averaging.flip else ""
    scales = "scale" if len(sizes) == 1 else "scales"
    return f"mean heatmaps of {averaging.runs} runs: {scales} {shown}{flip}"


def _indented(parts: Iterable[str]) -> str:
    return f"\n{'':<14}".join(map(one_line, parts))


def _normalised(provenance: Mapping[str, Any]) -> list[str]:
    """Return how each network's input is normalised, if the export recorded it, and whether that was assumed."""
    networks = provenance.get("networks")
    entries = networks.items() if isinstance(networks, dict) else ()
    texts = {name: entry.get("normalisation") for name, entry in entries if isinstance(entry, dict)}
    return [f"{name}: {text}" for name, text in texts.items() if isinstance(text, str)]


def alternatives(manifest: Manifest) -> list[str]:
    """Return a line for each alternative localizer: its name, and its shift against the bundle's own if recorded."""
    return [_alternative(one, manifest.provenance) for one in manifest.localizer.alternatives]


def _alternative(alternative: Alternative, provenance: Mapping[str, Any]) -> str:
    networks = {path.rsplit(".", 2)[0] for files in alternative.files.values() for path in files.values()}
    try:
        beside = [provenance["networks"][name]["beside_localizer"] for name in networks]
        median, high = (max(one[name] for one in beside) for name in ("median_shift_px", "p99_shift_px"))
        return f"{alternative.name}: {_off(median, high)}"
    except (KeyError, TypeError, ValueError):
        return alternative.name


def _off(median_px: float, high_px: float) -> str:
    return (
        f"median distance of points to the bundle's own {median_px:.3f} heatmap pixels, 99th percentile {high_px:.3f}"
    )


def _files(manifest: Manifest) -> str:
    rows = [[path, entry.precision or "-", entry.bytes, entry.sha256[:16]] for path, entry in manifest.files.items()]
    return table(rows, ["file", "precision", "bytes", "sha256 (first 16)"])


def _grey(network: NetworkInput) -> str:
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (network.mean, network.std))
    return f"mean {mean}, std {std} of grey 0-1"


def _contrast(contrast: Contrast) -> str:
    if contrast.mode == "dicom":
        return "dicom (the header's window)"
    field = "exposed field" if contrast.over == "exposed" else "whole picture"
    return f"percentile, {contrast.low:g} to {contrast.high:g} % of the {field}"


def _levels(network: NetworkInput) -> str:
    return "" if network.levels is None else f", grey in {network.levels} steps"


def _input(network: NetworkInput) -> str:
    return f"{network.height}x{network.width}x{network.channels}"
