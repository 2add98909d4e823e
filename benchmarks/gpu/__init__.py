"""All checks and figures that need a GPU, in one command.

    python -m spinescore.benchmarks.gpu --out gpu.json --minutes 8

The most useful checks come first: correct answers, then times of whole studies, then of kernels and networks, then
peers and tools. FILE has each check as soon as it is done, so that a run that is cut off after half of its minutes has
the first two. The exit status is 0 if no check failed, 1 if one did, 2 for wrong usage, and 3 if no check of the
kernels could run.

The kernels need only NumPy, the driver and pycuda. Other checks are skipped with the reason if a package is missing.
Networks run on TensorRT or ONNX Runtime's CUDA provider; if neither is installed, PyTorch with CUDA stands in, in these
checks only. Each part (`PARTS` of `__main__`) runs in a process of its own, so that a crash, a lost GPU or a slow part
costs only that part. `--quick` runs all of it in small.

The GPU machine needs no network and no installation of this package. In a checkout on a machine with a network,

    python -m spinescore.benchmarks.gpu.carry DIR

writes the missing packages to DIR and prints the command to run beside the carried checkout. Carried wheels of
onnxruntime-gpu or TensorRT and of opencv-python-headless >= 5 are used as well. With an older OpenCV the float64
reference stands in for the CPU's warp.

machine     the GPU and a few calls of its driver
kernels     the kernels against their references, on `warpcases`, `decodecases`, `averagecases` (shared with the tests)
networks    bundles, and the engines that run them here; `torchengine` is PyTorch as an engine
pipelines   host against GPU, graphs against launches, sizes, memory, errors; on a `rig`, with studies of `inputs`
study       whole studies by the clock
timing      kernels, uploads and networks
acceptance  golden inputs: the acceptance gate for every engine
peers       the same steps in PyTorch (`torchpeer`) and in plain ONNX Runtime
tools       compute-sanitizer and ncu on the kernels; ncu watches `launches`
record      the file
"""
