"""`python -m spinescore.benchmarks.gpu` on the driver double: gpu_on_double.py KERNELS FAULT ARGUMENTS..

Parts are started by this script again, so that each runs on a double of its own. FAULT is what is wrong with the GPU
(`none`, or a key of `FAULTS`).
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import double
from engine_double import EngineDouble

from spinescore.benchmarks.gpu import __main__ as command
from spinescore.benchmarks.gpu import networks, pipelines, timing
from spinescore.kernels import launch
from spinescore.runtime.acceptance import gate
from spinescore.runtime.devices import cuda
from spinescore.runtime.engines import flavours
from spinescore.runtime.errors import EngineError

KERNELS, FAULT = Path(sys.argv[1]), sys.argv[2]


def wrong_warp():
    """The warp's output is a thousandth off."""
    real = launch.warp_launch

    def warp_launch(*arguments):
        made = real(*arguments)
        made.args["mean"] += 0.001
        return made

    launch.warp_launch = warp_launch


def lost_gpu():
    """A replay fails, and every call after it."""
    double.Control().fail(8, 719, for_good=True, name="cuGraphLaunch")


def crash():
    """The first replay of a graph ends the process."""
    cuda.Recording.replay = lambda recording: os.kill(os.getpid(), 9)


def hang():
    """The first replay of a graph never ends."""
    cuda.Recording.replay = lambda recording: time.sleep(600)


def hang_in_timing():
    """The part `timing` never ends; its process is written down."""

    def hanging(record, options):
        pid = record.path.with_name("pid")
        pid.with_suffix(".new").write_text(str(os.getpid()), encoding="ascii")
        pid.with_suffix(".new").rename(pid)
        time.sleep(600)

    timing.run = hanging


def no_engine():
    """Nothing runs networks on this GPU."""

    def refuse(choice, path, precision, queue):
        raise EngineError("no engine here.")

    cuda.open_on_gpu = refuse


def unknown_gpu():
    """A TensorRT-RTX is installed that does not build for this GPU."""
    capabilities = SimpleNamespace(SM86=1)
    sys.modules["tensorrt_rtx"] = SimpleNamespace(__version__="1.7", Builder=None, ComputeCapability=capabilities)
    flavours.installed_flavours = lambda: ("tensorrt_rtx",)


def pytorch():
    """No fault: PyTorch is the only engine."""
    from torch_double import CudaDouble

    from spinescore.benchmarks.gpu.torchengine import TorchEngine

    no_engine()
    pipelines._GROWTH_BYTES = 2**28  # on a CPU PyTorch's memory is the process's own
    networks.stand_in = lambda: lambda path, precision, queue: TorchEngine(path, CudaDouble(queue))


FAULTS = {
    "unknown-gpu": unknown_gpu,
    "wrong-warp": wrong_warp,
    "lost-gpu": lost_gpu,
    "crash": crash,
    "hang": hang,
    "hang-in-timing": hang_in_timing,
    "no-engine": no_engine,
    "pytorch": pytorch,
}

if __name__ == "__main__":
    gate.can_start = lambda: False  # a new process would have no double
    cuda.codes = lambda source, capability: double.codes(KERNELS)
    cuda.open_on_gpu = lambda choice, path, precision, queue: (EngineDouble(path, precision, queue), "")
    flavours.installed_flavours = lambda: ()
    if FAULT in FAULTS:
        FAULTS[FAULT]()
    sys.exit(command.main(sys.argv[3:], [sys.executable, __file__, str(KERNELS), FAULT]))
