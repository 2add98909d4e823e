"""The tiny bundle's scorer, and a whole study that it scored from DICOM files."""

from __future__ import annotations

import pytest

from helpers import dicom_results, tiny
from spinescore.runtime import Scorer


@pytest.fixture(scope="package")
def tiny_scorer(tmp_path_factory):
    with Scorer.open(tiny.write_bundle(tmp_path_factory.mktemp("bundle"))) as opened:
        yield opened


@pytest.fixture(scope="package")
def whole(tiny_scorer, tmp_path_factory) -> dicom_results.Case:
    return dicom_results.score(tmp_path_factory.mktemp("study"), tiny_scorer)
