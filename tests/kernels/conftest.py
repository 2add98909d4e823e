"""The kernels compiled for the host: once per change of their sources, kept in pytest's cache."""

import pytest

from helpers import host_build


@pytest.fixture(scope="session")
def kernels(pytestconfig):
    reason = host_build.unavailable()
    if reason:
        pytest.skip(reason)
    return host_build.HostKernels(host_build.build(pytestconfig.cache.mkdir("kernels")))
