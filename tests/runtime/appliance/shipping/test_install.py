"""install.sh on releases of doubles: what is verified before anything is installed, and when `current` changes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest

pytest.importorskip("nacl", reason="needs PyNaCl, of the extra appliance")

from helpers import wheel_doubles as doubles
from spinescore.runtime.appliance.shipping import minisign
from spinescore.runtime.appliance.shipping.release import write_release

doubles.needs_pip()

DATE = datetime(2026, 1, 5, 10, 0, tzinfo=timezone.utc)
WAIT_S = 60

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("flock") is None or shutil.which("sha256sum") is None,
    reason="releases are installed on Linux",
)
needs_verifier = pytest.mark.skipif(
    shutil.which("minisign") is None and shutil.which("openssl") is None, reason="needs minisign or openssl"
)


@pytest.fixture(scope="module")
def shelf(module_folder):
    """Signed releases of the versions 1.0 to 1.3 with a public key, and a prefix into which 1.0 is installed."""
    folder = module_folder
    with pytest.MonkeyPatch.context() as patch:
        doubles.offer(folder, patch)
        first = folder / "1.0"
        write_release(first, doubles.target_here(), own=doubles.write_own(folder), key=doubles.KEY, date=DATE)
    for version in ("1.1", "1.2", "1.3"):
        other = folder / version
        shutil.copytree(first, other)
        (other / "wheels" / "spinescore-1.0-py3-none-any.whl").unlink()
        own = doubles.write_own(other / "wheels", version)
        lines = (other / "requirements.txt").read_text(encoding="utf-8").splitlines()
        lines[0] = doubles.pin(own).replace("\\\n", " ").replace("spinescore==", "spinescore[appliance]==").strip()
        (other / "requirements.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        about = (other / "release").read_text(encoding="utf-8")
        (other / "release").write_text(about.replace("version=1.0", f"version={version}"), encoding="utf-8")
        doubles.sign_again(other)
    doubles.write_public(folder)
    for path in sorted(first.rglob("*"), reverse=True):  # as if it was unpacked with another umask
        path.chmod(0o700 if path.is_dir() else 0o666)
    ended = install(folder, "1.0", "--unsigned")
    assert ended.returncode == 0, ended.stderr
    return folder


def command(shelf: Path, release: Path | str, *words: str) -> list[str]:
    script = str(shelf / release / "install.sh")
    return ["sh", script, "--prefix", str(shelf / "opt"), "--python", sys.executable, *words]


def install(shelf: Path, release: Path | str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    options = words or ("--key", str(shelf / "release.pub"))
    everything = {**os.environ, **environment}
    line = command(shelf, release, *options)
    return subprocess.run(line, env=everything, capture_output=True, text=True, timeout=WAIT_S)


def current(shelf: Path) -> str:
    return str((shelf / "opt" / "current").readlink())


def refused(shelf: Path, release: Path | str, *words: str, **environment: str) -> str:
    """Install a release, which must not become the current one; return the messages."""
    before = current(shelf)
    ended = install(shelf, release, *words, **environment)
    assert ended.returncode == 1, ended.stderr
    assert current(shelf) == before
    assert "current was not changed" in ended.stderr
    assert not list((shelf / "opt").glob(".install.*"))
    return ended.stderr


@pytest.fixture
def copied(shelf, tmp_path):
    return Path(shutil.copytree(shelf / "1.1", tmp_path / "release"))


def test_a_release_is_installed_with_its_unit_and_its_list(shelf):
    installed = shelf / "opt" / "1.0"
    assert (installed / "bin" / "spinescore").is_file()
    there = {path.name for path in (installed / "release").iterdir()}
    assert there >= {"install.sh", "systemd", "appliance.toml", "sbom.cdx.json", "SHA256SUMS", "SHA256SUMS.minisig"}
    assert not (installed / "previous").exists()
    assert current(shelf)
    for path in (installed / "release", *(installed / "release").rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)


FULL = """
mount -t tmpfs -o size=$1k tmpfs "$2" && mkdir "$2/0.9" && ln -s 0.9 "$2/current" || exit 77
shift 2
"$@"; status=$?
ls -A "$OPT" >&2
readlink "$OPT/current" >&2
exit $status
"""


@pytest.mark.parametrize(
    ("releases", "message"),
    [(0, "the release could not be copied; free space in"), (2, "MiB free, and the release needs about")],
)
def test_a_disk_without_room_is_named_and_nothing_is_left(shelf, tmp_path, releases, message):
    opt = tmp_path / "opt"
    opt.mkdir()
    size = sum(path.stat().st_size for path in (shelf / "1.1").rglob("*") if path.is_file())
    words = ["unshare", "-rm", "sh", "-c", FULL, "sh", str(64 + size * releases // 1024), str(opt)]
    line = ["sh", str(shelf / "1.1" / "install.sh"), "--prefix", str(opt), "--python", sys.executable, "--unsigned"]
    ended = subprocess.run([*words, *line], env={**os.environ, "OPT": str(opt)}, capture_output=True, text=True)
    if ended.returncode == 77 or "unshare" in ended.stderr:
        pytest.skip("needs mount namespaces")
    assert ended.returncode == 1
    assert message in ended.stderr
    assert ended.stderr.splitlines()[-4:] == [".lock", "0.9", "current", "0.9"]


@needs_verifier
def test_the_next_release_takes_over_and_goes_back(shelf):
    before = current(shelf)
    ended = install(shelf, "1.2")
    assert ended.returncode == 0, ended.stderr
    assert "the signature is that of" in ended.stderr
    assert (current(shelf), (shelf / "opt" / "1.2" / "previous").read_text().strip()) == ("1.2", before)
    assert install(shelf, "1.2").returncode == 0  # once more, to no effect
    assert (shelf / "opt" / "1.2" / "previous").read_text().strip() == before
    own = shelf / "opt" / "current" / "release" / "install.sh"
    ended = install(shelf, own.parent, "--back")
    assert ended.returncode == 0, ended.stderr
    assert f"spinescore {before} is current again; before: 1.2" in ended.stderr
    assert current(shelf) == before
    assert "there is no release before 1.0" in refused(shelf, "1.0", "--back")


@needs_verifier
@pytest.mark.parametrize("name", ["release", "wheels/tinydep-1.5-py3-none-any.whl", "install.sh"])
def test_a_changed_file_is_not_installed(shelf, copied, name):
    with (copied / name).open("ab") as file:
        file.write(b"\n")
    assert f"{name}: FAILED" in refused(shelf, copied)
    assert not (shelf / "opt" / "1.1").exists()


@needs_verifier
def test_files_that_lack_or_were_added_are_not_installed(shelf, copied):
    wheel = copied / "wheels" / "tinydep-1.5-py3-none-any.whl"
    kept = wheel.read_bytes()
    wheel.unlink()
    assert "tinydep-1.5-py3-none-any.whl: FAILED" in refused(shelf, copied)
    wheel.write_bytes(kept)
    (copied / "wheels" / "tinydep-1.6-py3-none-any.whl").touch()
    assert "has files that its list lacks" in refused(shelf, copied)
    (copied / "wheels" / "tinydep-1.6-py3-none-any.whl").unlink()
    (copied / "link").symlink_to("/etc/passwd")
    assert "links or devices" in refused(shelf, copied)


@needs_verifier
def test_another_key_does_not_do(shelf, copied, tmp_path):
    doubles.sign_again(copied, minisign.SecretKey(b"another!", bytes(32)))
    assert "the signature of the release is not that of" in refused(shelf, copied)
    doubles.sign_again(copied, minisign.SecretKey(doubles.KEY.key_id, bytes(32)))
    assert "the signature of the release is not that of" in refused(shelf, copied)
    assert "there is no key" in refused(shelf, "1.1", "--key", str(tmp_path / "none"))
    (copied / "SHA256SUMS.minisig").unlink()
    assert "the release is not signed" in refused(shelf, copied)


def test_openssl_verifies_where_minisign_is_missing(shelf, copied, tmp_path):
    version = (
        subprocess.run(["openssl", "version"], capture_output=True, text=True).stdout if shutil.which("openssl") else ""
    )
    if not version.startswith(("OpenSSL 3", "OpenSSL 4")):
        pytest.skip("needs OpenSSL 3")
    programs = tmp_path / "bin"
    programs.mkdir()
    for folder in os.environ["PATH"].split(os.pathsep):
        for path in Path(folder).glob("*"):
            if path.name != "minisign" and not os.path.lexists(programs / path.name):
                (programs / path.name).symlink_to(path)
    no_python = ("--key", str(shelf / "release.pub"), "--python", "/nonexistent")
    verified = refused(shelf, "1.1", *no_python, PATH=str(programs))
    assert "the signature is that of" in verified
    assert "/nonexistent is not that" in verified
    signature = copied / "SHA256SUMS.minisig"
    text = signature.read_text(encoding="utf-8")
    sums = (copied / "SHA256SUMS").read_text(encoding="utf-8")
    for changed, listed in (
        (text.replace("signed again", "signed AGAIN"), sums),
        (text, sums.replace("a", "b", 1)),
        ("", sums),
    ):
        signature.write_text(changed, encoding="utf-8")
        (copied / "SHA256SUMS").write_text(listed, encoding="utf-8")
        assert "the signature of the release is not that of" in refused(shelf, copied, *no_python, PATH=str(programs))
    (programs / "openssl").unlink()
    assert "neither minisign nor OpenSSL 3" in refused(shelf, "1.1", *no_python, PATH=str(programs))


def test_another_python_or_platform_is_named(shelf, copied):
    about = (copied / "release").read_text(encoding="utf-8")
    for old, new, message in (
        ("python=3.", "python=3.1", "the release needs Python 3.1"),
        ("manylinux_2_17", "manylinux_2_999", "the release is for manylinux_2_999"),
        ("_x86_64" if "_x86_64" in about else "_aarch64", "_s390x", "_s390x, but this is"),
    ):
        (copied / "release").write_text(about.replace(old, new), encoding="utf-8")
        doubles.sign_again(copied)
        assert message in refused(shelf, copied, "--unsigned")


def test_a_wheel_that_the_release_lacks_is_named(shelf, copied):
    (copied / "wheels" / "tinydep-1.5-py3-none-any.whl").unlink()
    doubles.sign_again(copied)
    text = refused(shelf, copied, "--unsigned")
    assert "No matching distribution found for tinydep==1.5" in text
    assert "the packages could not be installed" in text
    assert not (shelf / "opt" / "1.1").exists()


def test_a_release_that_fails_its_trial_is_not_used(shelf):
    for version, step in (("1.1", "bundle"), ("1.0", "serve")):
        text = refused(shelf, version, "--unsigned", DOUBLE_FAILS=step)
        assert "the double fails" in text
        assert f"spinescore {step} " in text
    for name, value in (("DOUBLE_STATE", "parked"), ("DOUBLE_RESULT", "not-scored.json")):
        text = refused(shelf, "1.0", "--unsigned", **{name: value})
        assert "the synthetic study was not scored and delivered, so 1.0 is not used" in text
    assert (shelf / "opt" / "1.0" / "installed").exists()  # as before
    assert not (shelf / "opt" / "1.1").exists()


def test_another_build_of_an_installed_version_is_refused(shelf, copied):
    about = (copied / "release").read_text(encoding="utf-8")
    (copied / "release").write_text(about.replace("version=1.1", "version=1.0"), encoding="utf-8")
    doubles.sign_again(copied)
    assert "another build of 1.0 is installed" in refused(shelf, copied, "--unsigned")


def test_only_one_installation_at_a_time(shelf):
    with subprocess.Popen(["flock", str(shelf / "opt" / ".lock"), "sh", "-c", "echo held; read line"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:  # fmt: skip
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try:
            ended = install(shelf, "1.1")
        finally:
            holder.communicate(b"\n")
    assert ended.returncode == 1
    assert "another installation" in ended.stderr


def test_an_installation_that_is_stopped_leaves_nothing(shelf):
    before, release = current(shelf), shelf / "opt" / "1.3"
    running = subprocess.Popen(command(shelf, "1.3", "--unsigned"), stderr=subprocess.PIPE, text=True,
                               start_new_session=True)  # fmt: skip
    give_up = time.monotonic() + WAIT_S
    while not release.exists():
        assert time.monotonic() < give_up
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGTERM)
    _, text = running.communicate(timeout=WAIT_S)
    assert running.returncode != 0
    assert f"current is {before}" in text or "current was not changed" in text
    assert not release.exists()
    assert not list((shelf / "opt").glob(".install.*"))


def test_a_killed_installation_changes_nothing_and_is_repeated(shelf, tmp_path):
    before, started, release = current(shelf), tmp_path / "started", shelf / "opt" / "1.3"
    lock = str(shelf / "opt" / ".lock")
    environment = {**os.environ, "DOUBLE_BLOCKS": "serve", "DOUBLE_STARTED": str(started)}
    for reached in (lambda: release.exists(), started.exists):
        running = subprocess.Popen(
            command(shelf, "1.3", "--unsigned"), env=environment, stderr=subprocess.PIPE, start_new_session=True
        )
        give_up = time.monotonic() + WAIT_S
        while not reached():
            assert time.monotonic() < give_up
            assert running.poll() is None
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGKILL)
        running.communicate(timeout=WAIT_S)
        subprocess.run(["flock", "-w", str(WAIT_S), lock, "true"], check=True)  # its last child has ended, too
        assert current(shelf) == before
        assert not (release / "installed").exists()
    ended = install(shelf, "1.3", "--unsigned")
    assert ended.returncode == 0, ended.stderr
    assert current(shelf) == "1.3"
    assert not list((shelf / "opt").glob(".install.*"))
    assert install(shelf, "1.3", "--back").returncode == 0
    assert current(shelf) == before


@pytest.mark.parametrize("words", [["--no-such-option"], ["--key"]])
def test_wrong_options_are_named(shelf, words):
    ended = install(shelf, "1.1", *words)
    assert ended.returncode == 2
    assert words[0] in ended.stderr
    assert "usage:" in ended.stderr
