"""Keep the engines silent. `spinescore.runtime` and the other packages import this before anything else.

By default ONNX Runtime (1.32 on Linux) and OpenVINO look up their makers' hosts and write identifiers under the user's
home. Both decide that at their first import; later, ONNX Runtime's `disable_telemetry_events` has no effect. An
application that imports onnxruntime before this package has to set ORT_DISABLE_TELEMETRY=1 itself.
"""

from __future__ import annotations

import os
import sys

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # worker processes inherit it
# If this package cannot be imported, OpenVINO uses the stub that it ships.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
