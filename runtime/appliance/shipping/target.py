"""The platform and the Python that a release is for."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from packaging import tags

from spinescore.runtime.errors import SpineScoreError

__all__ = ["Target", "here", "parse_target"]

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
