"""Memory for pixels is reused only if no array refers to it, and only if it fits."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from helpers.dicom_files import radiograph_dataset, write
from spinescore.runtime import load_radiograph
from spinescore.runtime.reading import memory

ROWS, COLUMNS = 1200, 1000


@pytest.fixture(autouse=True)
def nothing_kept():
    memory._kept.clear()
    yield
    memory._kept.clear()


def address(array):
    return array.__array_interface__["data"][0]


def test_is_a_writeable_array_of_the_shape_and_type():
    array = memory.pixel_array((ROWS, COLUMNS), np.uint16)
    array[...] = 7
    assert (array.shape, array.dtype, array.flags.c_contiguous) == ((ROWS, COLUMNS), np.uint16, True)
    assert array.sum() == 7 * ROWS * COLUMNS


def test_memory_is_used_again_when_its_last_array_is_gone():
    first = memory.pixel_array((ROWS, COLUMNS), np.uint16)
    place = address(first)
    part = first.view(np.int16)[100:200].T
    del first
    gc.collect()
    second = memory.pixel_array((ROWS, COLUMNS), np.uint16)
    assert address(second) != place, "a view of a view still refers to it"
    del part
    assert address(memory.pixel_array((ROWS, COLUMNS), np.int16)) == place


def test_what_is_in_use_is_never_given_twice():
    held = [memory.pixel_array((ROWS, COLUMNS), np.uint16) for _ in range(6)]
    for number, array in enumerate(held):
        array[...] = number
    assert [int(array.max()) for array in held] == [int(array.min()) for array in held] == list(range(6))
    del array, held
    assert len(memory._kept) == 4


def test_threads_get_memory_of_their_own():
    def fill(number):
        for _ in range(20):
            array = memory.pixel_array((ROWS, COLUMNS), np.uint16)
            array[...] = number
            if not (array == number).all():
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(fill, range(4)))


@pytest.mark.parametrize(("rows", "again"), [(ROWS, True), (ROWS - 200, True), (ROWS - 300, False), (ROWS + 1, False)])
def test_an_array_gets_memory_that_is_large_enough_and_little_larger(rows, again):
    first = memory.pixel_array((ROWS, COLUMNS), np.uint16)
    block = _block(first)
    del first
    assert [one is block for one in memory._kept] == [True]
    second = memory.pixel_array((rows, COLUMNS), np.uint16)
    assert (_block(second) is block) is again
    assert not memory._kept, "what does not fit is let go"


def _block(array):
    """The whole block that the array's memory is part of."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array._block


def test_small_and_huge_arrays_are_not_kept():
    for shape in ((10, 10), (4100, 4100)):
        array = memory.pixel_array(shape, np.uint16)
        assert array.shape == shape
        del array
    assert not memory._kept


def test_a_radiograph_that_is_held_keeps_its_pixels(tmp_path):
    rng = np.random.default_rng(3)
    pictures = [rng.integers(0, 4096, (ROWS, COLUMNS), dtype=np.uint16) for _ in range(3)]
    paths = [write(radiograph_dataset(picture), tmp_path / f"{n}.dcm") for n, picture in enumerate(pictures)]
    held = load_radiograph(paths[0])
    place = address(load_radiograph(paths[1]).pixels)  # read, and let go
    third = load_radiograph(paths[2])
    assert address(third.pixels) == place
    assert np.array_equal(held.pixels, pictures[0])
    assert np.array_equal(third.pixels, pictures[2])
