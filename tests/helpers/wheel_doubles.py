"""Small wheels in the place of the packages of a release, so that one is made and installed without a network."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from spinescore.runtime.appliance.shipping import minisign, release
from spinescore.runtime.appliance.shipping.wheels import Target, here, parse_target

KEY = minisign.SecretKey(b"\1\2\3\4\5\6\7\x08", bytes(range(32)))

# What `spinescore` does in a release of doubles. DOUBLE_FAILS and DOUBLE_BLOCKS name a verb that fails or never ends.
PROGRAM = """
import json, os, sys, time
from pathlib import Path

def main():
    verb = sys.argv[1]
    if os.environ.get("DOUBLE_BLOCKS") == verb:
        Path(os.environ["DOUBLE_STARTED"]).touch()
        time.sleep(600)
    if os.environ.get("DOUBLE_FAILS") == verb:
        print("the double fails")
        return 4
    if verb == "serve":
        results = Path("appliance-demo/results/1.2.3/revision-1")
        results.mkdir(parents=True)
        (results / os.environ.get("DOUBLE_RESULT", "report.json")).touch()
    if verb == "study":
        print(json.dumps([{"state": os.environ.get("DOUBLE_STATE", "delivered")}]))
    return 0
"""


def write_wheel(folder: Path, name: str, version: str, files: dict[str, str], *lines: str, tag="py3-none-any") -> Path:
    """Write a wheel with these modules. `lines` go to its metadata."""
    about = f"{name}-{version}.dist-info"
    head = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", "License-Expression: MIT", *lines]
    files = {
        **files,
        f"{about}/METADATA": "\n".join(head) + "\n",
        f"{about}/WHEEL": f"Wheel-Version: 1.0\nGenerator: doubles\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    if name == "spinescore":
        files[f"{about}/entry_points.txt"] = "[console_scripts]\nspinescore = spinescore.program:main\n"
    record = "".join(f"{path},sha256={digest(text)},{len(text)}\n" for path, text in files.items())
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in {**files, f"{about}/RECORD": f"{record}{about}/RECORD,,\n"}.items():
            archive.writestr(member, text)
    return path


def digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def write_own(folder: Path, version: str = "1.0") -> Path:
    """The double of our own wheel, which needs `tinydep`, and has a network in it."""
    files = {
        "spinescore/program.py": PROGRAM,
        "spinescore/runtime/bundles/phantom/a.onnx": "a network",
    }
    lines = ("Provides-Extra: appliance", "Requires-Dist: tinydep>=1; extra == 'appliance'")
    return write_wheel(folder, "spinescore", version, files, *lines)


def write_pip(folder: Path) -> Path:
    """A wheel of the pip that is installed here."""
    about = metadata.distribution("pip")
    path = folder / f"pip-{about.version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in about.files or ():
            if file.parts[0].startswith("pip") and file.suffix != ".pyc":
                archive.write(file.locate(), file.as_posix())
    return path


def pin(wheel: Path, marker: str = "") -> str:
    name, version = wheel.name.split("-")[:2]
    return f"{name}=={version} {marker} \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


def offer(folder: Path, monkeypatch) -> None:
    """Write doubles for pip into a folder, and pins for them; no index is asked from now on."""
    shelf, pins = folder / "shelf", folder / "requirements"
    for path in (shelf, pins):
        path.mkdir()
    tinydep = write_wheel(shelf, "tinydep", "1.5", {"tinydep.py": ""})
    other = pin(tinydep, "; python_full_version < '3.4' or platform_machine == 's390x'").replace("1.5", "0.1")
    (pins / "appliance.txt").write_text(f"# pins\n{other}{pin(tinydep)}", encoding="utf-8")
    (pins / "installer.txt").write_text(pin(write_pip(shelf)), encoding="utf-8")
    monkeypatch.setattr(release, "REQUIREMENTS", pins)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))


def target_here() -> Target:
    """This machine's Python on this machine, with a C library that any machine has."""
    platform, python = here()
    return parse_target(platform.replace("_35_", "_17_"), python)


def write_public(folder: Path, key: minisign.SecretKey = KEY) -> Path:
    path = folder / "release.pub"
    path.write_text(f"untrusted comment: a key\n{key.public}\n", encoding="utf-8")
    return path


def sign_again(folder: Path, key: minisign.SecretKey = KEY) -> None:
    """Write the list of hashes and its signature anew, for what a folder has now."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    sums = "".join(
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in names
        if not name.startswith(release.MANIFEST)
    )
    (folder / release.MANIFEST).write_text(sums, encoding="utf-8")
    (folder / release.SIGNATURE).write_text(minisign.sign(sums.encode(), key, "signed again"), encoding="utf-8")


def needs_pip() -> None:
    """Skip a module's tests without pip. It is not imported: setuptools could build nothing in this process then."""
    try:
        metadata.distribution("pip")
    except metadata.PackageNotFoundError:
        pytest.skip("needs pip, which gets the packages", allow_module_level=True)
