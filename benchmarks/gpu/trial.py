"""`python -m spinescore.benchmarks.gpu.trial BUNDLE`: opens a bundle's TensorRT engines and runs them once.

It is a process of its own, since an engine that does not suit the GPU may end it.
"""

from __future__ import annotations

import sys

from spinescore.runtime.bundle import Bundle
from spinescore.runtime.devices.cuda import CudaDevice
from spinescore.runtime.engines.tensorrt import open_on_gpu
from spinescore.runtime.scoring.pipeline import Pipeline


def main(folder: str) -> None:
    device = CudaDevice(largest_image_px=2**16, open_engine=open_on_gpu)
    try:
        pipeline = Pipeline(Bundle.open(folder), device)
        device.synchronise()
        print(pipeline.framework, pipeline.precision)
    finally:
        device.close()


if __name__ == "__main__":
    main(sys.argv[1])
