"""Keeps the engines silent: `spinescore.runtime` imports this before anything else, and the other packages do as well.

Unasked, ONNX Runtime (1.32 on Linux) and OpenVINO look up their makers' hosts and write identifiers under the user's
home. Both decide that at their first import, and ONNX Runtime's `disable_telemetry_events` no longer changes it: an
application that imports onnxruntime before this package has to set ORT_DISABLE_TELEMETRY=1 itself.
"""

from __future__ import annotations

import os
import sys

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # worker processes inherit it
# Where this package cannot be imported, OpenVINO takes the stub that it ships.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
