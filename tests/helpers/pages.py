"""Studies for pages, and a parser that checks HTML's rules and keeps the page's text."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from html.parser import HTMLParser

import numpy as np

from helpers import tiny
from spinescore.runtime import Study, StudyReport

GRADES = ((0, 1), (2, 0), (3, 3), (1, 1), (0, 2), (0, 0))
VOID = {"meta", "input", "br", "link", "img", "hr"}
SELF_CLOSED = {"image", "rect", "circle", "line", "path", "polygon", "use"}


def complete() -> Study:
    drawn = (tiny.draw(region, GRADES).radiograph for region in ("cervical", "lumbar"))
    return Study(tuple(drawn), study_instance_uid="1.2.3.4", study_date="20260105")


def rejected() -> Study:
    """The cervical radiograph shows no spine, and more files were skipped than usual."""
    cervical, lumbar = complete().radiographs
    pixels = np.zeros_like(cervical.pixels)
    pixels[:, 300:450] = 100
    bar = replace(cervical, pixels=pixels)
    skipped = tuple(f"skipped: a/folder/of/names/that/are/long/notes-{n}.txt is no DICOM file" for n in range(10))
    return replace(complete(), radiographs=(bar, lumbar), warnings=skipped)


def one_view() -> Study:
    return replace(complete(), radiographs=complete().radiographs[1:])


def abstained(report: StudyReport, count: int = 2) -> StudyReport:
    """The report as if the grader had not been sure of the first lumbar corners, which are imputed."""
    lumbar = report.regions["lumbar"]
    discs, sites = list(lumbar.discs), []
    for number in range(count):
        corners = list(discs[number].corners)
        corners[0] = replace(corners[0], grade=None, status="imputed", imputed=0.9)
        sites.append(corners[0].site)
        discs[number] = replace(discs[number], corners=tuple(corners), range=(0, 3))
    region = replace(lumbar, discs=tuple(discs), total=12.8, range=(10, 16), missing=count)
    total = replace(report.total, value=25.8, range=(24, 30), status="imputed", imputed_sites=tuple(sites))
    return replace(report, regions={**report.regions, "lumbar": region}, total=total)


@dataclass
class Element:
    name: str
    attributes: dict[str, str]
    inside: tuple[str, ...]  # the open elements, outermost first
    text: str = ""


@dataclass
class Page(HTMLParser):
    """`elements` in order; an element that is not closed where it should be is an AssertionError."""

    elements: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[Element] = []

    @classmethod
    def of(cls, text: str) -> Page:
        page = cls()
        page.feed(text)
        page.close()
        assert not page._open, f"not closed: {[element.name for element in page._open]}"
        return page

    def handle_starttag(self, tag, attrs):
        assert tag not in SELF_CLOSED, f"<{tag}> is not closed"
        self._add(tag, attrs)
        if tag not in VOID:
            self._open.append(self.elements[-1])

    def handle_startendtag(self, tag, attrs):
        assert tag in SELF_CLOSED, f"<{tag}/> is no element that closes itself"
        self._add(tag, attrs)

    def handle_endtag(self, tag):
        assert self._open.pop().name == tag

    def handle_data(self, data):
        for element in self._open:
            element.text += data

    def _add(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice"
        self.elements.append(Element(tag, dict(attrs), tuple(element.name for element in self._open)))

    def named(self, name: str, **attributes: str) -> list[Element]:
        wanted = {key.rstrip("_"): value for key, value in attributes.items()}
        return [e for e in self.elements if e.name == name and wanted.items() <= e.attributes.items()]

    @property
    def text(self) -> str:
        return self.named("body")[0].text
