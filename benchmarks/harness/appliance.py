"""The appliance as measurements run it: its configuration, with an archive, and its processes by role."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

__all__ = ["ROLES", "processes_of", "write_config"]

ROLES = ("receive", "send", "web", "work")
_CONFIG = """\
[node]
host = "127.0.0.1"
port = {port}
[[peer]]
ae_title = "MODALITY"
host = "127.0.0.1"
[spool]
path = "{spool}"
reserve_gb = 0.1
objects_h = {objects_h}
[score]
bundle = "{bundle}"
device = "cpu"
[study]
quiet_s = {quiet_s}
quiet_complete_s = {quiet_complete_s}
[[destination]]
name = "archive"
kind = "dicom"
host = "127.0.0.1"
port = {archive}
ae_title = "ARCHIVE"
"""


def write_config(
    folder: Path,
    port: int,
    archive_port: int,
    bundle: str,
    *,
    quiet_s: float,
    quiet_complete_s: float,
    spool: Path | str = "spool",
    objects_h: float = 24.0,
) -> Path:
    """Write the configuration of a node on a port of the loopback interface; its archive is on another one."""
    text = _CONFIG.format(port=port, archive=archive_port, bundle=bundle, spool=spool, objects_h=objects_h,
                          quiet_s=quiet_s, quiet_complete_s=quiet_complete_s)  # fmt: skip
    path = folder / "appliance.toml"
    path.write_text(text, encoding="utf-8")
    return path


def processes_of(supervisor: int) -> dict[str, int]:
    """Return the process ids of a service by role, without processes that just begin or end."""
    ids = {}
    for children in Path(f"/proc/{supervisor}/task").glob("*/children"):
        with suppress(OSError):
            for word in children.read_text().split():
                if (role := _role(int(word))) is not None:
                    ids[role] = int(word)
    return ids


def _role(pid: int) -> str | None:
    """Return the role of a process of the service by its command line; None if it has none."""
    with suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        if "appliance.work.workerprocess" in command:
            return "work"
        return next((role for role in ROLES if f'"role": "{role}"' in command), None)
    return None
