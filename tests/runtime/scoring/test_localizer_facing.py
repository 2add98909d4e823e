"""What a localizer is shown of films that face left and right, by `localizer.facing`; points are right for each."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.scoring import OTHER_GRADES, assert_found, checked
from helpers.spy_device import Spy
from helpers.tiny import draw, listed, manifest, write_bundle
from spinescore.export.golden import GoldenView, localizer_pictures
from spinescore.runtime import Scorer
from spinescore.runtime.bundle import Bundle, manifest_sha256
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.manifest import Manifest
from spinescore.runtime.scoring.geometry import is_mirrored
from spinescore.runtime.scoring.views import Views


def scored(tmp_path, facing, film, **changes):
    """The localizer's inputs, pass by pass, for two films that face `film`; their points and grades are right."""
    spy = Spy()
    changes = {**changes, **({} if facing is None else {"localizer.facing": facing})}
    with Scorer(Bundle.open(write_bundle(tmp_path / f"{facing}-{film}", **changes)), spy) as scorer:
        spy.inputs.clear()
        drawn = draw("cervical", facing=film), draw("lumbar", OTHER_GRADES, facing=film)
        report = checked(scorer.score([one.radiograph for one in drawn]))
    for region, one in zip(("cervical", "lumbar"), drawn, strict=True):
        assert_found(report.regions[region], one)
        assert report.regions[region].radiograph.facing == film
    return spy.inputs


@pytest.mark.parametrize("passes", [1, 2])
def test_points_are_right_and_films_are_shown_as_stated(tmp_path, passes):
    changes = {"localizer.passes": passes}
    usual = scored(tmp_path, None, "left", **changes)
    mirrored = [picture[..., ::-1] for picture in usual]
    assert np.abs(usual[0] - mirrored[0]).max() > 0.3
    for facing, film, shown in (
        ("left", "left", usual),
        ("left", "right", usual),
        ("right", "left", mirrored),
        ("right", "right", mirrored),
        ("as-is", "left", usual),
        ("as-is", "right", mirrored),
    ):
        for found, expected in zip(scored(tmp_path, facing, film, **changes), shown, strict=True):
            assert np.mean(np.abs(found - expected) > 0.02) < 0.01, (facing, film)


def test_evidence_of_the_facing_goes_by_what_the_localizer_is_shown(tmp_path):
    film = draw("cervical", tagged=False).radiograph
    found = {}
    for facing in ("left", "right", "as-is"):
        folder = write_bundle(tmp_path / facing, prefers_left=True, **{"localizer.facing": facing})
        views = Views(Bundle.open(folder), HostDevice(1))
        found[facing] = views.evidence(film)
        views.device.close()
    left, right = found["left"]
    assert left[0] > right[0] + 0.1
    np.testing.assert_allclose(found["right"], found["left"][::-1], atol=0.02)
    np.testing.assert_allclose(found["as-is"], [left, left], atol=0.02)  # flips tell nothing


def test_an_export_shows_the_same(tmp_path, monkeypatch):
    films = {side: draw("cervical", facing=side).radiograph for side in ("left", "right")}
    monkeypatch.setattr("spinescore.export.golden.load_radiograph", films.__getitem__)
    views = [GoldenView(side, "cervical", side == "right", (film.rows, film.columns)) for side, film in films.items()]
    shown = {}
    for facing in ("left", "right", "as-is"):
        document = listed(manifest())
        document["localizer"]["facing"] = facing
        shown[facing] = localizer_pictures(views, Manifest.from_dict(document).localizer).astype(int)
    assert np.abs(shown["left"][0] - shown["left"][1]).max() <= 1
    assert np.abs(shown["right"] - shown["left"][..., ::-1]).max() <= 1
    assert np.array_equal(shown["as-is"][0], shown["left"][0])
    assert np.array_equal(shown["as-is"][1], shown["right"][1])


def test_the_field_is_left_out_where_it_is_left():
    plain, stated = listed(manifest()), listed(manifest())
    stated["localizer"]["facing"] = "left"
    read = Manifest.from_dict(plain)
    assert Manifest.from_dict(stated).to_dict() == read.to_dict() == plain
    stated["localizer"]["facing"] = "as-is"
    other = Manifest.from_dict(stated)
    assert other.to_dict() == stated
    assert manifest_sha256(other) != manifest_sha256(read)


def test_which_films_are_mirrored():
    assert [is_mirrored(film, shown) for shown in ("left", "right", "as-is") for film in ("left", "right")] == [
        False, True, True, False, False, False,
    ]  # fmt: skip
