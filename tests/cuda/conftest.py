"""The driver double and the kernels compiled for the host, once for all tests of this folder."""

import double
import pytest

from helpers import host_build


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    """The driver double, and the kernels compiled for the host."""
    reason = double.unavailable() or host_build.unavailable()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("double")
    return double.build(folder), host_build.build(folder)
