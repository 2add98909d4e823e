"""The kernels compiled for the host: once per change of their sources, kept in pytest's cache; and a double of nvcc."""

import pytest

from helpers import host_build
from helpers.nvcc_double import FakeNvcc


@pytest.fixture(scope="session")
def kernels(pytestconfig):
    reason = host_build.unavailable()
    if reason:
        pytest.skip(reason)
    return host_build.HostKernels(host_build.build(pytestconfig.cache.mkdir("kernels")))


@pytest.fixture
def nvcc(monkeypatch, tmp_path):
    return FakeNvcc(monkeypatch, tmp_path)
