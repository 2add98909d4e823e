"""A disk that is really full: a small file system in a mount namespace of its own."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2]


def in_namespace(command: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", command], cwd=TESTS, capture_output=True, encoding="utf-8", check=False
    )


@pytest.fixture
def mount(tmp_path):
    """The command that mounts 6 MB of memory at a folder."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare (util-linux) is not installed")
    disk = tmp_path / "disk"
    disk.mkdir()
    command = f"mount -t tmpfs -o size=6m tmpfs {shlex.quote(str(disk))}"
    if in_namespace(command).returncode:
        pytest.skip("this user may not mount a file system in a namespace of its own")
    return command, disk


def test_a_full_disk_takes_nothing_in_and_goes_on_when_there_is_room(mount, bundle):
    command, disk = mount
    words = [sys.executable, "-m", "helpers.appliance_full_disk", str(disk), str(bundle)]
    done = in_namespace(f"{command} && {shlex.join(words)}")
    assert (done.returncode, done.stdout.strip()) == (0, "done"), done.stderr
    assert list(disk.iterdir()) == []  # it was seen in the namespace alone
