"""A whole service withstands a clock that jumps, silent and old TLS clients, strangers, crowds of associations."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.namespaces import cases_of, run_case

pytestmark = pytest.mark.slow

FILE = Path(__file__).parent / "cases_trials.py"
CASES = cases_of(FILE)


@pytest.mark.parametrize("case", CASES)
def test_on_the_loopback_interface(tmp_path, case):
    pytest.importorskip("pynetdicom")
    run_case(FILE, case, CASES[case], tmp_path)
