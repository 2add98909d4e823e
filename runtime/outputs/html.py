"""The report as one self-contained page, for a screen in a dark room and for one sheet of A4.

The page loads nothing: pictures are embedded, and its content security policy allows only the style and the script
with the hashes that it names. Text from the input is escaped (`svg.clean`) and isolated, so that its writing direction
does not change the rest. Without scripts everything but dragging works. The page names the study by its instance UID
and date, and files by the names that the user gave them, as the JSON report does. It has nothing else of a header.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from string import Template

from spinescore.runtime.machine.packages import software_version
from spinescore.runtime.outputs.cornertable import corner_table, why_missing
from spinescore.runtime.outputs.corrections import BY_READER, STAR, changes_in_words, grades_before, has_marks, when
from spinescore.runtime.outputs.marks import MEANINGS, disc_marks, untrusted_marks
from spinescore.runtime.outputs.source import radiograph_of, study_of
from spinescore.runtime.outputs.svg import clean, embedded_picture, figure, symbol, symbols
from spinescore.runtime.outputs.words import REGION_MAX, STUDY_MAX
from spinescore.runtime.scoring.intake import StudyInput
from spinescore.runtime.scoring.report import BundleRules, CornerReport, RegionReport, StudyReport, TotalReport
from spinescore.runtime.study import Radiograph, Region, Study

__all__ = ["html"]

_FOLDER = Path(__file__).parent
_STAGES = ("read", "localize", "crop", "grade", "total")


def html(study: StudyInput, report: StudyReport) -> str:
    """Return the report as one page of HTML, with the radiographs in it.

    `study` is the study that was scored, as it was given to `Scorer.score`. Its pixels are needed, but no headers. The
    page loads nothing, and names the study by its UID and date. Nothing is written; save the page as UTF-8. Raises
    OutputError if the report belongs to another study.
    """
    scored_study = study_of(study, report)
    style, script, page = ((_FOLDER / f"report.{kind}").read_text("utf-8") for kind in ("css", "js", "html"))
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return Template(page).substitute(
        policy=policy,
        style=style,
        script=script,
        symbols=symbols(),
        study=_study(report),
        total=_total(report),
        intended_use=_foreign(report.bundle.intended_use),
        legend=_legend(report),
        regions="\n".join(_region(name, scored_study, report) for name in report.regions),
        corrections=_corrections(report),
        notes=_notes(report),
        origin=_origin(report),
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"


def _foreign(text: object) -> str:
    """Return text from the input as HTML, isolated from the page's own text."""
    return f"<bdi>{clean(text)}</bdi>"


def _facts(facts: dict[str, str]) -> str:
    """Return a list of terms with their descriptions (HTML)."""
    return f'<dl class="facts">{"".join(f"<dt>{term}</dt><dd>{text}</dd>" for term, text in facts.items())}</dl>'


def _study(report: StudyReport) -> str:
    date, uid, facts = report.study.study_date, report.study.study_instance_uid, {}
    if date:
        facts["Study date"] = clean(f"{date[:4]}-{date[4:6]}-{date[6:]}")
    if uid:
        facts["Study UID"] = f'<span class="code">{_foreign(uid)}</span>'
    return _facts(facts) if facts else ""


def _total(report: StudyReport) -> str:
    total, (low, high) = report.total, report.total.range
    sentence = {
        "complete": "All 24 corners were graded.",
        "imputed": f"{len(total.imputed_sites)} of 24 corners imputed with their region's mean; "
        f"the total lies between {low} and {high}.",
        "incomplete": f"Too many corners are missing; the total lies between {low} and {high}.",
    }[total.status]
    corrected = ' <a href="#corrections">Corrected by a reader.</a>' if report.corrections else ""
    value = '<div class="value none">No total</div>'
    if total.value is not None:
        value = f'<div class="value">{total.value:.4g} <span class="most">of {STUDY_MAX}</span></div>'
    return (
        f'<div class="total" role="group" aria-label="Total">{value}{_scale(total)}'
        f'<p class="said">{sentence}{corrected}{_expected(total, bool(report.corrections))}</p></div>'
    )


def _corrections(report: StudyReport) -> str:
    """Return the section of the corrections, or nothing: reader, time, each change, and the comment."""
    if not report.corrections:
        return ""
    entries = []
    for correction in report.corrections:
        lines = "<br>".join(map(_foreign, (correction.comment or "").splitlines()))
        comment = f"<blockquote>{lines}</blockquote>" if lines else ""
        changes = clean("; ".join(changes_in_words(correction)))
        entries.append(
            f"<li><strong>{_foreign(correction.reader)}</strong>, {when(correction)}: {changes}{comment}</li>"
        )
    return (
        '<section class="corrections" id="corrections" aria-labelledby="corrections-title">'
        f'<h2 id="corrections-title">Corrections by readers (marked {STAR})</h2><ul>{"".join(entries)}</ul></section>'
    )


def _scale(total: TotalReport) -> str:
    """Return an axis from 0 to 72 with the total (a triangle), its range (a bar) and the expected interval (a line)."""
    low, high = total.range

    def x(score: float) -> str:
        return f"{10 + 220 * score / STUDY_MAX:.1f}"

    def level(name: str, y: float, start: float, end: float) -> str:
        return f'<line class="{name}" x1="{x(start)}" x2="{x(end)}" y1="{y}" y2="{y}"/>'

    drawn = [level("axis", 16, 0, STUDY_MAX)]
    drawn += [
        f'<path class="axis" d="M{x(tick)} 16v5"/><text x="{x(tick)}" y="31">{tick}</text>'
        for tick in range(0, STUDY_MAX + 1, 12)
    ]
    if high > low:
        drawn.append(level("span", 16, low, high))
    if total.expected is not None:
        drawn.append(level("expected", 20, *total.expected.interval))
    if total.value is not None:
        drawn.append(f'<path class="mark" d="M{x(total.value)} 13l-5-9h10z"/>')
    return f'<svg class="scale" viewBox="0 0 240 34" aria-hidden="true">{"".join(drawn)}</svg>'


def _expected(total: TotalReport, corrected: bool) -> str:
    if total.expected is None:
        return ""
    low, high = total.expected.interval
    basis = "the readers' grades and the network's probabilities" if corrected else "the network's own probabilities"
    return f"<br>Expected by {basis}: {total.expected.mean:.1f}, 95 % interval {low} to {high}."


def _legend(report: StudyReport) -> str:
    entries = [f"<li>{symbol(grade)} {meaning}</li>" for grade, meaning in MEANINGS.items()]
    if has_marks(disc for region in report.regions.values() for disc in region.discs):
        entries.append(f"<li><strong>{STAR}</strong> {BY_READER}</li>")
    return f'<ul class="legend" aria-label="Grades">{"".join(entries)}</ul>'


def _region(name: Region, study: Study, report: StudyReport) -> str:
    region = report.regions[name]
    reject, parts = region.reject, [f'<article class="region" aria-labelledby="{name}-title">', _heading(name, region)]
    if region.status == "rejected" and reject is not None:
        distrust = " <strong>The points shown are not to be trusted.</strong>" if region.untrusted_points else ""
        message = f"{_foreign(reject.message)}{distrust}"
        parts.append(f'<p class="refusal"><strong>Rejected ({clean(reject.code)}).</strong> {message}</p>')
    radiograph = radiograph_of(region, study)
    if radiograph is None and reject is not None and reject.source:  # rejected before any network saw it
        radiograph = next((image for image in study.radiographs if image.source == reject.source), None)
    if radiograph is not None:
        parts.append(_figure(name, region, radiograph, report.bundle.rules))
    else:
        missing = f"Missing: the study holds no {name} radiograph."
        text = missing if region.status == "missing" else "There is no picture to show."
        parts.append(f'<div class="absent">{text}</div>')
    if region.discs:
        parts.append(corner_table(name, region, grades_before(report)))
    return "\n".join([*parts, "</article>"])


def _heading(name: Region, region: RegionReport) -> str:
    missing = f"range {region.range[0]}&ndash;{region.range[1]}, {region.missing} of 12"
    amount: str = region.status
    if amount == "scored" and region.total is not None:
        imputed = f" <small>{missing} imputed</small>" if region.missing else ""
        amount = f"{region.total:.4g} <small>of {REGION_MAX}</small>{imputed}"
    elif amount == "scored":
        amount = f"no total <small>{missing} missing</small>"
    return f'<h2 id="{name}-title">{name.capitalize()} <span class="amount">{amount}</span></h2>'


def _figure(name: Region, region: RegionReport, radiograph: Radiograph, rules: BundleRules | None) -> str:
    url, (rows, columns) = embedded_picture(radiograph)
    scored = region.status == "scored"
    alt = f"Lateral radiograph of the {name} spine" + (", with its corners' grades" if scored else ", not scored")
    discs = disc_marks(region, rules) if scored else untrusted_marks(region)
    spacing = "" if radiograph.spacing_mm is None else f" of {radiograph.spacing_mm[0]:.3g} mm"
    decoder = f", decoder {clean(radiograph.decoder)}" if radiograph.decoder != "none" else ""
    facing = "" if region.radiograph is None else f", facing {clean(region.radiograph.facing or 'unknown')}"
    caption = f"{radiograph.columns} &times; {radiograph.rows} pixels{spacing}, here {columns} &times; {rows}, 8 bit"
    return (
        f'<figure><div class="viewport" tabindex="0" role="region" aria-label="{name.capitalize()} radiograph">'
        f"{figure(radiograph, url, alt, discs)}</div>\n<figcaption>{caption}{facing}{decoder}</figcaption></figure>"
    )


def _notes(report: StudyReport) -> str:
    lines = [*_unscored(report), *_refused(report)]
    warnings = (finding for finding in report.findings if finding.severity == "warning")
    codes = {warning.message: f" ({clean(warning.code)})" for warning in warnings}
    lines += [f"<strong>Warning{codes.get(text, '')}:</strong> {_foreign(text)}" for text in report.warnings]
    if not lines:
        return "<p>Nothing: every corner was graded, and there was no warning.</p>"
    return f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"


def _refused(report: StudyReport) -> Iterator[str]:
    """Yield a line for each region without a score (its message stands in its column) and for each rejected file."""
    of_regions = [region.reject for region in report.regions.values() if region.reject]
    for name, region in report.regions.items():
        if region.status != "scored":
            why = "no radiograph of it" if region.reject is None else f"rejected, {clean(region.reject.code)}"
            yield f"<strong>{name.capitalize()}:</strong> {why}; its 12 corners have no grade"
    for reject in dict.fromkeys(reject for reject in report.rejects if reject not in of_regions):
        yield f"<strong>Rejected ({clean(reject.code)}):</strong> {_foreign(reject.message)}"


def _unscored(report: StudyReport) -> Iterator[str]:
    """Yield a line for each kind of missing corner: the sites, the reason, and what they count in the total."""
    rules = report.bundle.rules
    reasons = {
        "abstained": "no grade reached the bundle's minimum probability"
        + ("" if rules is None else f" of {rules.abstain_below:g}"),
        "unreadable": "their disc was not found, or its confidence is below the bundle's minimum"
        + ("" if rules is None else f" of {rules.min_confidence:g}"),
        "unreadable by a reader": "a reader said that they cannot be read",
    }
    for name, region in report.regions.items():
        missing = [corner for disc in region.discs for corner in disc.corners if corner.status != "scored"]
        for kind, reason in reasons.items():
            corners = [corner for corner in missing if _kind(corner) == kind]
            if corners:
                sites, mean = ", ".join(clean(corner.site) for corner in corners), corners[0].imputed
                counts = "" if mean is None else f"; each counts as the mean of its region, {mean:g}"
                yield f"<strong>{name.capitalize()}, {kind}:</strong> {sites} ({reason}{counts})"


def _kind(corner: CornerReport) -> str:
    return f"{why_missing(corner)}{' by a reader' if corner.grade_from == 'reader' else ''}"


def _origin(report: StudyReport) -> str:
    bundle, device = report.bundle, report.device
    alternative = f", localizer {_foreign(bundle.localizer)}" if bundle.localizer else ""
    facts = _facts(
        {
            "Bundle": f"{_foreign(bundle.name)} {_foreign(bundle.version)}{alternative}",
            "Bundle's SHA-256": f'<span class="code">{clean(bundle.sha256)}</span>',
            "Device": _foreign(f"{device.name} ({device.kind}), {device.engine}, {device.precision}"),
            "Software": f"spinescore {clean(software_version())}, {clean(report.schema)}",
        }
    )
    return f'<div class="columns">{facts}{_timings(report)}</div>'


def _timings(report: StudyReport) -> str:
    values = {stage: getattr(report.timings_ms, stage) for stage in _STAGES}
    heads = "".join(f'<th scope="col">{stage}</th>' for stage in values)
    cells = "".join(f"<td>{'&ndash;' if value is None else f'{value:.0f}'}</td>" for value in values.values())
    budget = ""
    if report.within_budget is not None:
        budget = f"; the budget of {report.budget_ms:g} ms was {'kept' if report.within_budget else 'not kept'}"
    return (
        f"<table><caption>Milliseconds from files to report{budget}</caption><thead><tr>{heads}</tr></thead>"
        f"<tbody><tr>{cells}</tr></tbody></table>"
    )
