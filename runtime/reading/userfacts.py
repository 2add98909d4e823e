"""Facts that the user states for radiographs whose headers do not: by options, or in a list of files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from spinescore.runtime.notices import Notice, notice
from spinescore.runtime.reading.vetting import vet
from spinescore.runtime.study import Facing, Radiograph, Region, Study

__all__ = ["stated", "with_facts"]


def stated(study: Study, region: Region | None, facing: Facing | None) -> Study:
    """Return the study with the user's region and facing for radiographs whose headers state none.

    Radiographs that are refused anyway (`vet`) are left unchanged. Raises ValueError if a header states something else,
    or if one region would be given to several radiographs without a region.
    """
    radiographs = [image for image in study.radiographs if vet(image) is None]
    for field, fact in (("region", region), ("facing", facing)):
        for image in radiographs:
            header = getattr(image, field)
            if fact is not None and header not in (None, fact):
                raise ValueError(
                    f"the header of {image.source} states the {field} {header}, --{field} states {fact}: leave "
                    f"--{field} out, or name only the files that it applies to"
                )
    without_region = [image.source for image in radiographs if image.region is None]
    if region is not None and len(without_region) > 1:
        raise ValueError(
            f"{', '.join(without_region)} of one study state no region, and --region {region} would apply to all of "
            "them: score one file at a time"
        )
    return replace(study, radiographs=tuple(_stated(image, region, facing) for image in study.radiographs))


def _stated(image: Radiograph, region: Region | None, facing: Facing | None) -> Radiograph:
    facts: dict[str, Any] = {
        field: fact
        for field, fact in (("region", region), ("facing", facing))
        if fact is not None and getattr(image, field) is None
    }
    if not facts or vet(image) is not None:
        return image
    words = " and ".join(f"the {field} {fact}" for field, fact in facts.items())
    sentence = f"{image.source or 'The radiograph'}: {words} was stated by the user; nothing in the file states it."
    return with_facts(image, facts, sentence, image.region or region)


def with_facts(image: Radiograph, facts: Mapping[str, Any], sentence: str, region: Region | None) -> Radiograph:
    """Return the radiograph with the user's facts (by field) and a warning, `sentence`, that names them."""
    warning: Notice = notice("stated-by-user", sentence, region, image.source, fields=list(facts))
    origin: dict[str, Any] = {"facing_from": "user"} if "facing" in facts else {}
    return replace(image, **facts, **origin, warnings=(*image.warnings, warning))
