"""The grey table is applied once to a view, at however many scales the localizer sees it: to the same bits."""

import numpy as np
import pytest

from helpers import tiny
from spinescore.kernels.warp import Source, WarpSpec
from spinescore.runtime import Scorer
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices import host
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.scoring.geometry import whole_image

SIZES = ((64, 48), (96, 72), (32, 24))


def source_of(rows, columns, seed, dtype="uint16"):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (rows, columns)).astype(dtype)
    return Source(pixels, (rng.random(256, np.float32), rng.random(256, np.float32)))


def warped(device, source, spec):
    roi = whole_image(0, *source.pixels.shape, (spec.height, spec.width), "stretch", "left")
    out = device.allocate((1, 1, spec.height, spec.width), np.float32)
    device.warp(np.asarray(roi).reshape(1), spec, out)
    return out


def spec_of(size, table=0, antialias=2):
    return WarpSpec(*size, antialias, (0.4,), (0.3,), table)


@pytest.fixture
def tables_applied(monkeypatch):
    """The pixels of each application of a table, in order."""
    calls, lut = [], host.cv2.LUT

    def spy(pixels, *rest):
        calls.append(pixels.size)
        return lut(pixels, *rest)

    monkeypatch.setattr(host.cv2, "LUT", spy)
    return calls


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_the_same_bits_from_one_table(tables_applied, dtype):
    device = HostDevice(1)
    for number, shape in enumerate(((700, 500), (900, 1000), (300, 200), (700, 500))):
        source = source_of(*shape, number, dtype)
        device.upload(0, source)
        values = [warped(device, source, spec_of(size)) for size in SIZES]
        applied = list(tables_applied)
        for size, value in zip(SIZES, values, strict=True):
            alone = HostDevice(1)
            alone.upload(0, source)
            assert np.array_equal(value, warped(alone, source, spec_of(size)))
        tables_applied.clear()
        if number:  # the first study shows that there are several sizes
            assert applied == [source.pixels.size]


def test_one_size_takes_the_table_only_where_it_reads(tables_applied):
    device, source = HostDevice(1), source_of(2000, 1500, 1)
    device.upload(0, source)
    for _ in range(3):
        warped(device, source, spec_of(SIZES[0]))
        warped(device, source, spec_of(SIZES[0], table=1))
    assert len(tables_applied) > 6
    assert max(tables_applied) < source.pixels.size
    assert device._greys[0]._memory.size == 0


def test_another_table_and_another_image_are_not_taken_for_the_same():
    device = HostDevice(1)
    for seed in (5, 6):
        source = source_of(200, 150, seed)
        device.upload(0, source)
        for table in (0, 1, 0):
            for size in SIZES:
                alone = HostDevice(1)
                alone.upload(0, source)
                assert np.array_equal(
                    warped(device, source, spec_of(size, table)), warped(alone, source, spec_of(size, table))
                )


def test_a_study_with_scales_applies_the_localizers_table_once_to_a_view(tables_applied, tmp_path):
    tested = Bundle.open(
        tiny.write_bundle(tmp_path / "bundle", test_time=([1.0, 1.5, 0.5], False, False), **{"localizer.passes": 2})
    )
    study = {region: tiny.draw(region).radiograph for region in ("cervical", "lumbar")}
    with Scorer(tested, HostDevice(1)) as scorer:
        first = scorer.score(study)
        tables_applied.clear()
        again = scorer.score(study)
    assert tables_applied.count(study["lumbar"].pixels.size) == 2
    assert again.total == first.total
    assert again.regions["lumbar"].discs == first.regions["lumbar"].discs
