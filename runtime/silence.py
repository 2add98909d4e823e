"""Keep the engines and pydicom silent. `spinescore.runtime` and the other packages import this before anything else.

By default ONNX Runtime (1.32 on Linux) and OpenVINO look up their makers' hosts and write identifiers under the user's
home. Both decide that at their first import; later, ONNX Runtime's `disable_telemetry_events` has no effect. An
application that imports onnxruntime before this package has to set ORT_DISABLE_TELEMETRY=1 itself.

pydicom imports requests, if that is installed, for downloads of its test data. That takes longer than all of pydicom,
and urllib3 below it opens a socket to see whether there is IPv6. Without requests pydicom downloads with urllib.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["NoDownloads"]

_DOWNLOADS, _LIBRARY = "pydicom.data.download", "requests"


class NoDownloads:
    """A finder of imports that hides requests from the one module of pydicom that downloads, and from no other."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return None, so that the other finders look. Raises ModuleNotFoundError if pydicom asks for requests."""
        if name == _LIBRARY and _importer() == _DOWNLOADS:
            raise ModuleNotFoundError(f"{_DOWNLOADS} does without {_LIBRARY}", name=name)
        return None


def _importer() -> str:
    """Return the name of the module whose import statement runs now."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("importlib."):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", ""))


os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # worker processes inherit it
# If this package cannot be imported, OpenVINO uses the stub that it ships.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
if not any(isinstance(finder, NoDownloads) for finder in sys.meta_path):
    sys.meta_path.insert(0, NoDownloads())  # `importlib.abc`, whose class it need not have, takes 6 ms to import
