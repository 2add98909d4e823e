"""An Orthanc on the loopback interface as an archive: it is asked for its instances, and notes what arrives."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from spinescore.benchmarks.harness.ports import free_port, listens, wait_until

__all__ = ["Orthanc"]

_RECORD = """\
function ReceivedInstanceFilter(dicom, origin)
  local file = io.open({path}, "a")
  file:write(dicom.SOPInstanceUID .. "\\n")
  file:close()
  return true
end
"""


class Orthanc:
    """An Orthanc with its database in a folder. It answers C-STORE and C-FIND, and its REST. Close it."""

    def __init__(self, folder: Path) -> None:
        """Start it. Raises `FileNotFoundError` if Orthanc is not installed, as by Debian's package `orthanc`."""
        program = shutil.which("Orthanc")
        if program is None:
            raise FileNotFoundError("Orthanc is not installed; install Debian's package orthanc")
        folder.mkdir(parents=True)
        self.port, self._web = free_port(), free_port()
        self._record, script, settings = folder / "arrivals", folder / "arrivals.lua", folder / "orthanc.json"
        script.write_text(_RECORD.format(path=json.dumps(str(self._record))), encoding="utf-8")
        text = {
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "Plugins": [],
            "HttpPort": self._web,
            "DicomPort": self.port,
            "DicomAet": "ARCHIVE",
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "LuaScripts": [str(script)],
        }
        settings.write_text(json.dumps(text), encoding="utf-8")
        self._command = [program, str(settings)]
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def wait(self) -> None:
        """Wait until it answers. Raises `TimeoutError`."""
        wait_until(lambda: listens(self.port) and listens(self._web), "Orthanc listening")

    def kill(self) -> None:
        """Kill it, and start it again."""
        self.close()
        self._process = self._start()

    def close(self) -> None:
        """End it at once; its database has all that it acknowledged."""
        self._process.kill()
        self._process.wait()

    def studies(self) -> dict[str, str]:
        """Return the Study Instance UID of each instance that it has, by its SOP Instance UID."""
        instances, studies = self._ask("instances?expand"), self._ask("studies?expand")
        series = {one: study["MainDicomTags"]["StudyInstanceUID"] for study in studies for one in study["Series"]}
        return {one["MainDicomTags"]["SOPInstanceUID"]: series[one["ParentSeries"]] for one in instances}

    def arrivals(self) -> Counter[str]:
        """Return how often each instance arrived, by its SOP Instance UID, whether Orthanc had it already or not."""
        return Counter(self._record.read_text(encoding="utf-8").split()) if self._record.exists() else Counter()

    def _ask(self, path: str) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._web}/{path}", timeout=60) as answer:
            documents: list[dict[str, Any]] = json.load(answer)
        return documents
