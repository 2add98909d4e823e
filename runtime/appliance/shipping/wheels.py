"""The platform of a release, and its pinned packages: chosen for it, downloaded as wheels, and read."""

from __future__ import annotations

import email
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.message import Message
from functools import cached_property
from pathlib import Path

from packaging import tags
from packaging.markers import UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from spinescore.runtime.errors import SpineScoreError
from spinescore.runtime.files import file_sha256
from spinescore.runtime.text import brief, one_line

__all__ = ["EXTRAS", "REQUIREMENTS", "Target", "Wheel", "build_own", "download", "here", "needs_of", "parse_target",
           "pins_for", "read_wheel"]  # fmt: skip

_PLATFORM = re.compile(r"manylinux_2_(\d{1,3})_(x86_64|aarch64)")
_OLDEST = {"x86_64": 5, "aarch64": 17}  # the first manylinux of each machine
_OLD_NAMES = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}
_GLIBC = 35  # what requirements/appliance.txt needs


@dataclass(frozen=True)
class Target:
    """A machine with glibc 2.`glibc` or later, and a version of CPython as (3, 11)."""

    glibc: int
    machine: str
    python: tuple[int, int]

    @property
    def platform(self) -> str:
        return f"manylinux_2_{self.glibc}_{self.machine}"

    @property
    def python_text(self) -> str:
        return ".".join(map(str, self.python))

    @cached_property
    def platforms(self) -> list[str]:
        return list(self._platforms())

    def _platforms(self) -> Iterator[str]:
        for minor in range(self.glibc, _OLDEST[self.machine] - 1, -1):
            yield f"manylinux_2_{minor}_{self.machine}"
            if minor in _OLD_NAMES:
                yield f"{_OLD_NAMES[minor]}_{self.machine}"

    @cached_property
    def tags(self) -> frozenset[tags.Tag]:
        own = tags.cpython_tags(self.python, platforms=self.platforms)
        interpreter = "cp{}{}".format(*self.python)
        built_here = tags.Tag("py3", "none", f"linux_{self.machine}")  # our own wheel: no index takes one of this tag
        return frozenset([built_here, *own, *tags.compatible_tags(self.python, interpreter, self.platforms)])

    @property
    def environment(self) -> dict[str, str]:
        """The variables of markers (PEP 508) there. The micro version and the kernel's are not known."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python_text}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python_text}.0",
            "python_version": self.python_text,
            "sys_platform": "linux",
        }


def parse_target(platform: str, python: str) -> Target:
    """Return the target of two options such as `manylinux_2_35_x86_64` and `3.11`. Raises SpineScoreError."""
    parts = _PLATFORM.fullmatch(platform)
    if parts is None or int(parts[1]) < _OLDEST[parts[2]]:
        raise SpineScoreError(
            f"{platform!r} is no platform of a release; name one like manylinux_2_35_x86_64, or _aarch64"
        )
    version = re.fullmatch(r"3\.(\d{1,2})", python)
    if version is None:
        raise SpineScoreError(f"{python!r} is no version of Python for a release; name one like 3.11")
    return Target(int(parts[1]), parts[2], (3, int(version[1])))


def here() -> tuple[str, str]:
    machine = "aarch64" if platform.machine() in ("aarch64", "arm64") else "x86_64"
    return f"manylinux_2_{_GLIBC}_{machine}", "{}.{}".format(*sys.version_info[:2])


EXTRAS = ("appliance", "dicom", "openvino", "results")  # those of requirements/appliance.txt
REQUIREMENTS = Path(__file__).parents[3] / "requirements"  # beside runtime in the tree and in the installed package

_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
_SOURCE = Path(__file__).parents[3]
_BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE", "benchmarks", "export", "kernels", "requirements", "runtime")


@dataclass(frozen=True)
class Wheel:
    """A wheel in a folder, with what it says of itself."""

    path: Path
    name: str
    version: str
    metadata: Message

    @cached_property
    def sha256(self) -> str:
        return file_sha256(self.path)

    @property
    def requirements(self) -> Iterator[Requirement]:
        return (Requirement(line) for line in self.metadata.get_all("Requires-Dist") or ())


def pins_for(text: str, target: Target) -> dict[str, str]:
    """Return the lines, with version and hashes, of those requirements whose markers hold for a target, by name."""
    pins: dict[str, str] = {}
    for line in re.sub(r"\\\n", " ", text).splitlines():
        stated, hashes = line.split("--hash", 1)[0].partition("#")[0].strip(), _HASH.findall(line)
        if not stated:
            continue
        requirement = Requirement(stated)
        if requirement.marker is None or requirement.marker.evaluate(target.environment):
            pins[canonicalize_name(requirement.name)] = f"{requirement.name}{requirement.specifier} {' '.join(hashes)}"
    return pins


def download(pins: dict[str, str], target: Target, folder: Path) -> list[Wheel]:
    """Download a wheel for each pin into a folder, by pip. Raises SpineScoreError with pip's last words."""
    with tempfile.TemporaryDirectory(prefix="spinescore-") as temporary:
        listed = Path(temporary) / "requirements.txt"
        listed.write_text("".join(f"{line}\n" for line in pins.values()), encoding="utf-8")
        options = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--dest", str(folder), "-r", str(listed)]
        options += [word for platform in target.platforms for word in ("--platform", platform)]
        options += ["--python-version", target.python_text, "--implementation", "cp"]
        options += ["--abi", "cp{}{}".format(*target.python), "--abi", "abi3", "--abi", "none"]
        _pip("download", options, "the packages could not be downloaded")
    wheels = [read_wheel(path, target) for path in sorted(folder.glob("*.whl"))]
    if missing := pins.keys() - {wheel.name for wheel in wheels}:
        raise SpineScoreError(f"pip downloaded no wheel of {', '.join(sorted(missing))}")
    return wheels


def build_own(folder: Path, target: Target) -> Path:
    """Build the wheel of spinescore from the source that runs, in a folder, and return it. Raises SpineScoreError."""
    if not (_SOURCE / "pyproject.toml").is_file():
        raise SpineScoreError("spinescore does not run from its source here; name its wheel with --wheel")
    with tempfile.TemporaryDirectory(prefix="spinescore-") as temporary:
        tree = Path(temporary) / "spinescore"  # a copy: an old folder build/ would get into the wheel
        tree.mkdir()
        for name in _BUILT_FROM:  # and nothing else that lies in a checkout, such as the spool of a demo
            if (_SOURCE / name).is_dir():
                shutil.copytree(_SOURCE / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(_SOURCE / name, tree)
        tag = f"--config-settings=--build-option=--plat-name=linux_{target.machine}"
        words = ["--no-deps", "--wheel-dir", temporary, tag, str(tree)]
        _pip("wheel", words, "the wheel of spinescore could not be built")
        (built,) = Path(temporary).glob("*.whl")
        return Path(shutil.copy(built, folder))


def _pip(command: str, options: Sequence[str], fault: str) -> None:
    words = [sys.executable, "-m", "pip", command, "--quiet", "--disable-pip-version-check", "--no-input", *options]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        lines = [line for line in ended.stderr.splitlines() if line.strip()]
        last = next(
            (line for line in reversed(lines) if line.startswith("ERROR:")), lines[-1] if lines else "no reason"
        )
        raise SpineScoreError(f"{fault}: {one_line(last.removeprefix('ERROR: '))}")


def read_wheel(path: Path, target: Target) -> Wheel:
    """Return a wheel with its metadata. Raises SpineScoreError if it is none, or does not run on the target."""
    try:
        name, version, _, tags = parse_wheel_filename(path.name)
        with zipfile.ZipFile(path) as archive:
            (member,) = (one for one in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", one))
            metadata = email.message_from_string(archive.read(member).decode("utf-8", "replace"))
    except (InvalidWheelFilename, OSError, ValueError, zipfile.BadZipFile) as error:
        raise SpineScoreError(f"{path} is no wheel ({brief(error)})") from error
    if not tags & target.tags:
        raise SpineScoreError(f"{path.name} does not run on {target.platform} with Python {target.python_text}")
    return Wheel(path, name, str(version), metadata)


def needs_of(wheels: Iterable[Wheel], root: str, target: Target) -> dict[str, set[str]]:
    """Return the names of the packages that each one needs on the target, from `root` with the extras down.

    Raises SpineScoreError for a requirement that no wheel of the given ones meets.
    """
    there = {wheel.name: wheel for wheel in wheels}
    needs: dict[str, set[str]] = {}
    seen: set[tuple[str, str]] = set()
    pending = [(root, extra) for extra in ("", *EXTRAS)]
    while pending:
        name, extra = pending.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for requirement in _requirements(there[name], extra, target):
            other = canonicalize_name(requirement.name)
            if other not in there or not requirement.specifier.contains(there[other].version, prereleases=True):
                raise SpineScoreError(f"{name} needs {requirement}, which requirements/appliance.txt lacks")
            needs.setdefault(name, set()).add(other)
            pending += [(other, asked) for asked in ("", *requirement.extras)]
    return needs


def _requirements(wheel: Wheel, extra: str, target: Target) -> Iterator[Requirement]:
    environment = {**target.environment, "extra": extra}
    try:
        for requirement in wheel.requirements:
            if requirement.marker is None or requirement.marker.evaluate(environment):
                yield requirement
    except (InvalidRequirement, UndefinedEnvironmentName) as error:
        raise SpineScoreError(f"{wheel.path.name} requires what cannot be read ({brief(error)})") from error
