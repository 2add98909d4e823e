"""The process that builds engines, on the driver double: KERNELS MODE FOLDER REQUEST. What builds is a double as well.

`install` makes a process take these engines for TensorRT's.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from pathlib import Path

import double
from engine_double import EngineDouble

from helpers.tensorrt_double import make_double

VERSION = "10.16.1.11"  # of the double
TARGET = f"tensorrt-{VERSION}-sm87"


class BuiltEngine(EngineDouble):
    """Runs the network that its engine was built from; file and machine are checked as the real one does.

    An engine that holds the word `wrong` swaps upper and lower heatmaps, and corners.
    """

    def __init__(self, path, onnx, queue):
        from spinescore.runtime.engines import gpu_of
        from spinescore.runtime.engines.sidecar import Sidecar

        sidecar = Sidecar.read(path)
        sidecar.check_files(path, onnx)
        sidecar.check_machine(path, "tensorrt", VERSION, gpu_of(queue))
        super().__init__(onnx, "fp16", queue, batches=(sidecar.least_batch, sidecar.most_batch))
        self.name, self.file, self.framework = path.name, path, f"tensorrt {VERSION}"
        self.wrong = b"wrong" in path.read_bytes()
        self.sizes = sidecar.sizes

    def run(self, inputs, outputs):
        from spinescore.runtime.errors import EngineError

        if self.sizes and inputs.shape[2:] not in self.sizes:
            raise EngineError(f"{self.name} was not built for {inputs.shape[2:]}")
        super().run(inputs, outputs)

    def infer(self, inputs, outputs):
        import ctypes

        import numpy as np

        super().infer(inputs, outputs)
        values = (ctypes.c_float * (outputs.nbytes // 4)).from_address(outputs.address)
        shaped = np.ctypeslib.as_array(values).reshape(outputs.shape)
        shaped[:] = np.roll(shaped, 2, axis=-1) if self.wrong else shaped


def install(kernels):
    import spinescore.runtime.devices.cuda as device
    from spinescore.runtime.acceptance import gate
    from spinescore.runtime.engines import tensorrt

    gate.can_start = lambda: False  # a new process would have no double
    device.codes = lambda source, capability: double.codes(kernels)
    sys.modules["tensorrt"] = make_double()
    tensorrt.TensorRTEngine = BuiltEngine


def build(bundle, options, say, content):
    """In place of `build_engines`: an engine for each network."""
    from spinescore.export.engineinputs import network_batches, network_sizes
    from spinescore.runtime.devices import first_gpu
    from spinescore.runtime.engines.places import engine_home, store_engine
    from spinescore.runtime.engines.sidecar import Sidecar, this_platform
    from spinescore.runtime.files import file_sha256

    assert (options.flavour, options.targets, options.precision) == ("tensorrt", (), "fp16")
    for name, batch in network_batches(bundle.manifest).items():
        say(f"building {name}")
        plan = f"{content} {name}".encode()
        sidecar = Sidecar(
            flavour="tensorrt",
            version=VERSION,
            precision="fp16",
            least_batch=batch,
            most_batch=batch,
            onnx=name,
            onnx_sha256=file_sha256(bundle.path(name)),
            engine_sha256=hashlib.sha256(plan).hexdigest(),
            compute_capabilities=("8.7",),
            hardware="this",
            version_compatible=False,
            gpu=first_gpu().name,
            multiprocessors=first_gpu().multiprocessors,
            driver="13.0",
            platform=this_platform(),
            build_seconds=1.0,
            sizes=network_sizes(bundle.manifest, name),
        )
        path = engine_home(bundle.folder) / TARGET / f"{name.split('.')[0]}.fp16.engine"
        store_engine(path, plan, sidecar)


def build_as(mode, folder):
    from spinescore.runtime.errors import EngineError

    def built(bundle, options, say):
        with (folder / "builds").open("a") as file:
            file.write(f"{mode}\n")
        if mode == "fails":
            raise EngineError("TensorRT could not build it: no memory.")
        if mode == "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        while mode == "waits" and not (folder / "go").exists():
            time.sleep(0.05)
        print("a library prints something")
        build(bundle, options, say, mode)

    return built


if __name__ == "__main__":
    from spinescore.export import engine
    from spinescore.runtime.opening import builder

    install(Path(sys.argv[1]))
    engine.build_engines = build_as(sys.argv[2], Path(sys.argv[3]))
    builder.main(sys.argv[4])
