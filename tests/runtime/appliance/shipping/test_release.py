"""The folder that installs the appliance: chosen packages, what is in it, its bill of materials, its verification."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import pytest

pytest.importorskip("nacl", reason="needs PyNaCl, of the extra appliance")

from helpers import wheel_doubles as doubles
from helpers.documentation import ROOT
from spinescore.runtime import cli
from spinescore.runtime.appliance.shipping import release, sbom, wheels
from spinescore.runtime.appliance.shipping.wheels import parse_target
from spinescore.runtime.errors import SpineScoreError

doubles.needs_pip()

DATE = datetime(2026, 1, 5, 10, 0, tzinfo=timezone.utc)
SHIPPED = Path(release.__file__).parent

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="releases are made on Linux")


@pytest.fixture(scope="module")
def signed_release(module_folder):
    """A signed release of doubles."""
    folder = module_folder
    with pytest.MonkeyPatch.context() as patch:
        doubles.offer(folder, patch)
        own = doubles.write_own(folder)
        release.write_release(folder / "release", doubles.target_here(), own=own, key=doubles.KEY, date=DATE)
    return folder / "release"


@pytest.fixture
def copied(signed_release, tmp_path):
    return Path(shutil.copytree(signed_release, tmp_path / "release"))


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.13"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_each_package_is_pinned_once_for_a_target(machine, python):
    target = parse_target(f"manylinux_2_35_{machine}", python)
    pins = wheels.pins_for((wheels.REQUIREMENTS / "appliance.txt").read_text(encoding="utf-8"), target)
    assert {"numpy", "pynacl", "cffi", "starlette"} <= pins.keys()
    assert ("tomli" in pins) == (python == "3.10")
    assert "pyreadline3" not in pins
    assert all(line.count("==") == 1 and "--hash=sha256:" in line and ";" not in line for line in pins.values())


def test_older_wheels_run_on_a_newer_platform():
    target = parse_target("manylinux_2_35_x86_64", "3.11")
    tags = {str(tag) for tag in target.tags}
    assert {"cp311-cp311-manylinux_2_35_x86_64", "cp38-abi3-manylinux2014_x86_64", "py3-none-any"} <= tags
    assert "py3-none-linux_x86_64" in tags  # our own wheel, with kernels
    assert not {"cp311-cp311-manylinux_2_36_x86_64", "cp312-cp312-manylinux_2_17_x86_64"} & tags
    assert not {"cp311-cp311-linux_x86_64", "py3-none-linux_aarch64"} & tags
    assert "manylinux_2_5_aarch64" not in parse_target("manylinux_2_35_aarch64", "3.11").platforms


@pytest.mark.parametrize(
    ("platform", "python"),
    [("win_amd64", "3.11"), ("manylinux_2_35_arm", "3.11"), ("manylinux_2_4_x86_64", "3.11"),
     ("manylinux_2_35_x86_64", "3"), ("manylinux_2_35_x86_64", "2.7"), ("manylinux_2_35_x86_64", "3.11.2")],
)  # fmt: skip
def test_other_targets_are_refused(platform, python):
    with pytest.raises(SpineScoreError, match="name one like"):
        parse_target(platform, python)


def test_a_release_has_all_that_installs_it(signed_release):
    names = {path.relative_to(signed_release).as_posix() for path in signed_release.rglob("*") if path.is_file()}
    (pip,) = (name for name in names if name.startswith("pip/"))
    assert names == {
        "Containerfile", "SHA256SUMS", "SHA256SUMS.minisig", "appliance.toml", "install.sh", pip, "release",
        "requirements.txt", "sbom.cdx.json", "systemd/gpu.conf", "systemd/spinescore.service",
        "wheels/spinescore-1.0-py3-none-any.whl", "wheels/tinydep-1.5-py3-none-any.whl",
    }  # fmt: skip
    lines = (signed_release / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split(" --hash=sha256:")[0] for line in lines] == [
        "spinescore[appliance,dicom,openvino,results]==1.0",
        "tinydep==1.5",
    ]


def test_a_release_is_verified(signed_release):
    target = doubles.target_here()
    verified = release.verify_release(signed_release, doubles.KEY.public)
    assert verified == release.Release("1.0", target.platform, target.python_text, 11, verified.comment)
    assert verified.comment == f"spinescore 1.0 {target.platform} Python {target.python_text} 2026-01-05"
    assert release.verify_release(signed_release, None).comment is None


def test_other_programs_verify_it_too(signed_release, tmp_path):
    subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=signed_release, check=True, capture_output=True
    )
    if shutil.which("minisign") is None:
        pytest.skip("needs minisign")
    words = ["minisign", "-V", "-H", "-m", signed_release / "SHA256SUMS", "-p", doubles.write_public(tmp_path)]
    subprocess.run(words, check=True, capture_output=True)


@pytest.mark.parametrize("name", ["install.sh", "wheels/tinydep-1.5-py3-none-any.whl", "release", "sbom.cdx.json"])
def test_a_changed_file_is_named(copied, name):
    with (copied / name).open("ab") as file:
        file.write(b"\n")
    with pytest.raises(SpineScoreError, match=f"{name} in .* was changed"):
        release.verify_release(copied, doubles.KEY.public)


def test_other_faults_of_a_release_are_named(copied, tmp_path):
    def fault(folder=copied):
        with pytest.raises(SpineScoreError) as caught:
            release.verify_release(folder, doubles.KEY.public)
        return str(caught.value)

    (copied / "wheels" / "added.whl").touch()
    assert "has what its list lacks, wheels/added.whl" in fault()
    (copied / "wheels" / "added.whl").unlink()
    (copied / "link").symlink_to("/etc/passwd")
    assert "link in" in fault()
    (copied / "link").unlink()
    (copied / "appliance.toml").unlink()
    assert "lacks appliance.toml" in fault()
    sums = copied / release.MANIFEST
    kept = sums.read_bytes()
    sums.write_bytes(kept + b"0" * 64 + b"  ../../etc/passwd\n")
    assert "does not fit" in fault()
    doubles.sign_again(copied)
    (copied / release.SIGNATURE).unlink()
    assert "SHA256SUMS.minisig cannot be read" in fault()
    assert "cannot be read" in fault(tmp_path / "none")


def test_a_list_with_paths_that_lead_elsewhere_is_refused(copied):
    text = "0" * 64 + "  ../release\n"
    (copied / release.MANIFEST).write_text(text, encoding="utf-8")
    with pytest.raises(SpineScoreError, match="no list of hashes"):
        release.verify_release(copied, None)


def test_the_bill_of_materials_is_valid_and_whole(signed_release):
    validation = pytest.importorskip("cyclonedx.validation.json", reason="needs cyclonedx-python-lib")
    from cyclonedx.schema import SchemaVersion

    text = (signed_release / "sbom.cdx.json").read_text(encoding="utf-8")
    strict = validation.JsonStrictValidator(SchemaVersion.V1_6)
    assert strict.validate_str(text) is None
    bill = json.loads(text)
    assert strict.validate_str(json.dumps({**bill, "components": [{"name": "x"}]})) is not None
    assert bill["metadata"]["component"]["purl"] == "pkg:pypi/spinescore@1.0"
    kinds = {part["name"]: (part["type"], part.get("scope")) for part in bill["components"]}
    assert kinds == {
        "tinydep": ("library", None), "pip": ("library", "excluded"), "phantom/a.onnx": ("machine-learning-model", None)
    }  # fmt: skip
    assert bill["dependencies"] == [
        {"ref": "pkg:pypi/spinescore@1.0", "dependsOn": ["pkg:pypi/tinydep@1.5"]},
        {"ref": "pkg:pypi/tinydep@1.5", "dependsOn": []},
    ]
    sums = (signed_release / "SHA256SUMS").read_text(encoding="utf-8")
    assert bill["components"][0]["hashes"][0]["content"] in sums
    assert bill["components"][0]["licenses"] == [{"expression": "MIT"}]


def test_a_requirement_that_is_not_pinned_is_named(tmp_path):
    target = doubles.target_here()
    own = wheels.read_wheel(doubles.write_own(tmp_path), target)
    old = wheels.read_wheel(doubles.write_wheel(tmp_path, "tinydep", "0.9", {}), target)
    for others in ([], [old]):
        with pytest.raises(SpineScoreError, match="spinescore needs tinydep>=1"):
            sbom.bill_of_materials(own, others, old, target, "2026-01-05T10:00:00+00:00")


def test_a_wheel_for_another_platform_is_refused(tmp_path):
    path = doubles.write_wheel(tmp_path, "tinydep", "1.5", {}, tag="cp311-cp311-win_amd64")
    with pytest.raises(SpineScoreError, match="does not run on manylinux_2_17"):
        wheels.read_wheel(path, doubles.target_here())
    (tmp_path / "tinydep-1.5-py3-none-any.whl").write_bytes(b"no zip file")
    with pytest.raises(SpineScoreError, match="is no wheel"):
        wheels.read_wheel(tmp_path / "tinydep-1.5-py3-none-any.whl", doubles.target_here())


def test_the_wheel_is_built_from_the_packages_alone(tmp_path, monkeypatch):
    """A checkout also has other things, such as the spool of a demo, whose socket cannot be copied."""
    source, copied = tmp_path / "checkout", []
    for name in wheels._BUILT_FROM:
        path = source / name
        path.parent.mkdir(exist_ok=True)
        path.mkdir() if (ROOT / name).is_dir() else path.touch()
    with socket.socket(socket.AF_UNIX) as spool:
        monkeypatch.chdir(source)  # a socket's path is short
        spool.bind("http.sock")
        monkeypatch.setattr(wheels, "_SOURCE", source)

        def build(_command, options, _fault):
            copied.extend(path.name for path in Path(options[-1]).iterdir())
            doubles.write_own(Path(options[2]))

        monkeypatch.setattr(wheels, "_pip", build)
        assert wheels.build_own(tmp_path, doubles.target_here()).is_file()
    assert sorted(copied) == sorted(wheels._BUILT_FROM)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert set(re.findall(r'^"spinescore\.[a-z]+" = "([a-z]+)"$', project, re.MULTILINE)) < set(wheels._BUILT_FROM)


def test_the_verbs_make_and_verify_a_release(tmp_path, monkeypatch, capsys):
    doubles.offer(tmp_path, monkeypatch)
    own, target = doubles.write_own(tmp_path), doubles.target_here()
    words = ["appliance", "bundle", str(tmp_path / "release"), "--platform", target.platform, "--wheel", str(own)]
    assert cli.main([*words, "--no-sign"]) == 0
    assert "NOT SIGNED" in capsys.readouterr().out
    assert cli.main(["appliance", "verify", str(tmp_path / "release"), "--unsigned"]) == 0
    assert "NOT checked" in capsys.readouterr().out
    public = str(doubles.write_public(tmp_path))
    assert cli.main(["appliance", "verify", str(tmp_path / "release"), "--key", public]) == 4
    assert "SHA256SUMS.minisig cannot be read" in capsys.readouterr().err
    assert cli.main([*words, "--no-sign"]) == 4
    assert "is not empty" in capsys.readouterr().err
    doubles.sign_again(tmp_path / "release")
    assert cli.main(["appliance", "verify", str(tmp_path / "release"), "--key", public]) == 0
    assert "signed: signed again" in capsys.readouterr().out


def test_what_cannot_be_downloaded_leaves_no_folder(tmp_path, monkeypatch, capsys):
    doubles.offer(tmp_path, monkeypatch)
    monkeypatch.delenv("PIP_FIND_LINKS")
    own, target = doubles.write_own(tmp_path), doubles.target_here()
    before = set(tmp_path.iterdir())
    words = ["appliance", "bundle", str(tmp_path / "release"), "--platform", target.platform, "--wheel", str(own)]
    assert cli.main([*words, "--no-sign"]) == 4
    assert "could not be downloaded: No matching distribution found for tinydep==1.5" in capsys.readouterr().err
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("words", [["bundle", "x"], ["bundle", "x", "--sign", "k", "--no-sign"], ["verify", "x"]])
def test_signing_is_decided_by_hand(words):
    with pytest.raises(SystemExit) as ended:
        cli.main(["appliance", *words])
    assert ended.value.code == 2
