"""The page's table of a region's corners; an asterisk in a note marks a reader's grade, with the grade before."""

from __future__ import annotations

from collections.abc import Mapping

from spinescore.runtime.outputs.corrections import STAR, star_of
from spinescore.runtime.outputs.svg import clean, symbol
from spinescore.runtime.outputs.words import grade_digit
from spinescore.runtime.scoring.msasss import MAX_GRADE
from spinescore.runtime.scoring.report import CornerReport, DiscReport, RegionReport
from spinescore.runtime.study import Region

__all__ = ["corner_table", "why_missing"]


def corner_table(name: Region, region: RegionReport, before: Mapping[str, int | None]) -> str:
    """Return a scored region's table (HTML); `before` has the grades before a reader's correction, by site."""
    heads = "".join(f'<th scope="col" class="p">p({grade})</th>' for grade in range(MAX_GRADE + 1))
    return (
        f"<table><caption>Corners of the {name} spine; probabilities of the grades in percent</caption>\n"
        '<thead><tr><th scope="col" class="disc">Disc</th><th scope="col" class="corner">Corner</th>'
        f'<th scope="col" class="grade">Grade</th>{heads}<th scope="col" class="sum">Sum</th>'
        '<th scope="col" class="note"><span class="unseen">Note</span></th></tr></thead>\n'
        f"{''.join(_disc(disc, before) for disc in region.discs)}</table>"
    )


def _disc(disc: DiscReport, before: Mapping[str, int | None]) -> str:
    upper, lower = disc.corners
    given = f"{STAR}<br><small>points given</small>" if disc.points == "given" else ""
    level = f'<th scope="rowgroup" rowspan="2">{clean(disc.level)}{given}</th>'
    span = "&ndash;".join(map(str, dict.fromkeys(disc.range or ())))
    total = f'<td class="sum" rowspan="2">{span}</td>'
    return f"<tbody>{_corner(disc, upper, before, level, total)}{_corner(disc, lower, before)}</tbody>\n"


def _corner(
    disc: DiscReport, corner: CornerReport, before: Mapping[str, int | None], level: str = "", total: str = ""
) -> str:
    """Return a row; `level` and `total` are the cells that both rows of a disc share."""
    site, grade = clean(corner.site), grade_digit(corner.grade)
    linked = f'<a href="#mark-{site}">{site}</a>' if disc.confidence > 0 else site
    computed = None if star_of(corner) else corner.grade
    bars = "".join(_bar(p, number == computed) for number, p in enumerate(corner.probabilities or ()))
    bars = bars or '<td class="p" colspan="4">&ndash;</td>'
    return (
        f'<tr id="row-{site}">{level}<th scope="row">{linked}</th><td class="grade">{symbol(corner.grade)}'
        f'<span class="unseen">{grade}</span></td>{bars}{total}<td class="note">{_note(corner, before)}</td></tr>'
    )


def _bar(p: float, best: bool) -> str:
    return (
        f'<td class="p{" best" if best else ""}">{100 * p:.0f}<svg viewBox="0 0 100 4" preserveAspectRatio="none" '
        f'aria-hidden="true"><rect class="track" width="100" height="4"/><rect class="bar" width="{100 * p:.1f}" '
        'height="4"/></svg></td>'
    )


def _note(corner: CornerReport, before: Mapping[str, int | None]) -> str:
    if corner.status != "scored":
        reason = why_missing(corner) if corner.imputed is None else f"imputed {corner.imputed:.3g}"
        return f"{star_of(corner)} {reason}".strip()
    return f"{STAR} was {grade_digit(before.get(corner.site))}" if star_of(corner) else ""


def why_missing(corner: CornerReport) -> str:
    """Return why a corner has no grade of its own; in older reports one that abstained has probabilities."""
    return corner.missing_because or ("unreadable" if corner.probabilities is None else "abstained")
