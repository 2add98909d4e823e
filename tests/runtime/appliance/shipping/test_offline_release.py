"""A release with the real packages, made with a network, installed and run without one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nacl", reason="needs PyNaCl, of the extra appliance")

from helpers import wheel_doubles as doubles
from spinescore.runtime import cli
from spinescore.runtime.appliance.shipping import wheels
from spinescore.runtime.appliance.shipping.wheels import here
from spinescore.runtime.errors import SpineScoreError

doubles.needs_pip()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="releases are installed on Linux"),
]
WAIT_S = 900  # far above what it takes


def without_network() -> list[str]:
    """The words before a command that take the network from it; none where that needs more rights."""
    words = ["unshare", "--map-root-user", "--net"]
    works = shutil.which("unshare") and subprocess.run([*words, "true"], capture_output=True).returncode == 0
    return words if works else []


def run(*words: object, cwd: Path) -> str:
    ended = subprocess.run(
        [*without_network(), *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=WAIT_S
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A release for this machine with the pinned packages, not signed."""
    folder = tmp_path_factory.mktemp("offline")
    target = doubles.target_here()
    try:
        pins = (wheels.REQUIREMENTS / "installer.txt").read_text(encoding="utf-8")
        wheels.download(wheels.pins_for(pins, target), target, folder)
    except SpineScoreError as error:
        pytest.skip(f"needs a network: {error}")
    assert cli.main(["appliance", "bundle", str(folder / "release"), "--platform", here()[0], "--no-sign"]) == 0
    doubles.sign_again(folder / "release")
    return folder / "release"


def test_the_bill_of_materials_of_the_real_packages_is_valid(release):
    validation = pytest.importorskip("cyclonedx.validation.json", reason="needs cyclonedx-python-lib")
    from cyclonedx.schema import SchemaVersion

    text = (release / "sbom.cdx.json").read_text(encoding="utf-8")
    assert validation.JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    for part in ("pkg:pypi/numpy@", "pkg:pypi/pynetdicom@", "machine-learning-model"):
        assert part in text


def test_it_installs_and_serves_without_a_network(release, tmp_path):
    key = doubles.write_public(tmp_path)
    install = ["sh", release / "install.sh", "--prefix", "opt", "--python", sys.executable]
    text = run(*install, "--key", key, cwd=tmp_path)
    assert "is current now; before: none" in text
    program = tmp_path / "opt" / "current" / "bin" / "spinescore"
    assert "signed: signed again" in run(program, "appliance", "verify", release, "--key", key, cwd=tmp_path)
    run(program, "serve", "--demo", "--until-idle", cwd=tmp_path)
    assert list((tmp_path / "appliance-demo" / "results").rglob("report.json"))
