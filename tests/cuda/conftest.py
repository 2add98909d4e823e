"""The driver double and the kernels compiled for the host, once for all tests of this folder."""

import double
import pytest

from helpers import host_build


@pytest.fixture(scope="session")
def libraries(tmp_path_factory, pytestconfig):
    """The driver double, and the kernels compiled for the host, which pytest's cache keeps."""
    reason = double.unavailable() or host_build.unavailable()
    if reason:
        pytest.skip(reason)
    return double.build(tmp_path_factory.mktemp("double")), host_build.build(pytestconfig.cache.mkdir("kernels"))
