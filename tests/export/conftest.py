"""Exports without radiographs of their own check themselves on phantoms, the same ones each time."""

import functools

import pytest

from spinescore.runtime.phantom import study


@pytest.fixture(autouse=True, scope="package")
def _each_phantom_is_drawn_once():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(study, "draw_view", functools.cache(study.draw_view))
        yield
