"""The code tables against DICOM's own, and against the rules for codes."""

from __future__ import annotations

import pytest
from pydicom.sr._concepts_dict import concepts

from spinescore.runtime.errors import REJECT_CODES
from spinescore.runtime.outputs import codes
from spinescore.runtime.study import LEVELS, SITES, sites_of

STANDARD = [codes.SPINE, codes.ANTERIOR, *codes.REGION_SITES.values(), *codes.DISCS.values(),
            *codes.VERTEBRAE.values(), *codes.ENDPLATES.values()]  # fmt: skip


@pytest.mark.parametrize("triple", STANDARD, ids=lambda triple: triple[2])
def test_standard_codes_are_those_of_dicom(triple):
    value, scheme, meaning = triple
    assert any(value in found and found[value][0] == meaning for found in concepts[scheme].values())


def test_no_two_standard_codes_are_the_same():
    assert len({value for value, _, _ in STANDARD}) == len(STANDARD)


def test_every_level_and_site_is_coded():
    assert list(codes.DISCS) == [level for levels in LEVELS.values() for level in levels]
    for level in codes.DISCS:
        upper, lower = (codes.corner_site(site) for site in sites_of(level))
        assert codes.DISCS[level][2].startswith(f"{level} ")
        assert (upper[1], lower[1]) == (codes.ENDPLATES["inferior"], codes.ENDPLATES["superior"])
    found = {codes.corner_site(site) for sites in SITES.values() for site in sites}
    assert len(found) == 24


def test_private_codes_fit_their_elements_and_are_documented():
    """Code Value and Coding Scheme Designator hold 16 characters, Code Meaning 64 (PS3.3 8.1)."""
    assert len(codes.PRIVATE_SCHEME) <= 16
    assert codes.PRIVATE_SCHEME.startswith("99")
    assert len(set(codes.PRIVATE.values())) == len(codes.PRIVATE)
    for value, meaning in codes.PRIVATE.items():
        assert value == value.upper()
        assert len(value) <= 16
        assert len(meaning) <= 64
        assert value in codes.__doc__ or value in ("P1", "P2")


@pytest.mark.parametrize("code", REJECT_CODES)
def test_rejects_have_codes(code):
    value, scheme, meaning = codes.reject_code(code)
    assert (value, scheme, meaning.replace(" ", "-")) == (code, codes.PRIVATE_SCHEME, code)
    assert len(meaning) <= 64
