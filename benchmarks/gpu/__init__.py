"""Every check and every figure that needs a GPU, in one command.

    python -m spinescore.benchmarks.gpu --out gpu.json --minutes 8

Where it runs nothing is fetched and no checkout is needed. What it takes there:

1. On a machine with a network, into one folder: `pip wheel --no-deps .` of this repository (with nvcc on PATH the wheel
   holds the compiled kernels, else they are compiled at first use where nvcc is there), the source of pycuda (`pip
   download --no-deps --no-build-isolation --no-binary pycuda pycuda`), and the wheels of what the GPU machine lacks,
   for its Python and platform (`pip download --python-version .. --platform .. --only-binary=:all:`): onnxruntime-gpu
   or a TensorRT as the engine, opencv-python-headless >= 5, pydicom, pycuda's own needs (pytools, mako, platformdirs,
   siphash24), onnx and tqdm for the full-size bundle.
2. On the GPU machine: `pip install --no-index --no-deps FOLDER/*.whl`; then pycuda, which is built in about 80 seconds:
   unpack it, and in its folder `python configure.py --cuda-root=/usr/local/cuda --no-cuda-enable-curand
   --cudadrv-lib-dir=/usr/local/cuda/lib64/stubs && pip install --no-build-isolation --no-deps .`
3. `python -m spinescore.benchmarks.gpu --out gpu.json --minutes 8`

Nothing but numpy, the driver and pycuda is needed for the kernels; what is missing for the rest is skipped with the
reason. Each part (`PARTS` of `__main__`) runs in a process of its own, so that a crash, a lost GPU or a part that takes
too long costs that part alone, and every check is in the file as soon as it is done. `--quick` runs all of it in small.

machine     what the machine is, and a few calls of its driver
kernels     the kernels against their references, on `warpcases` and `decodecases` (which the tests use too)
networks    bundles, and the engines that run them here
pipelines   host against GPU, graphs against launches, sizes, memory, `faults`; on a `rig`, studies of `inputs`
timing      kernels, uploads, networks and whole studies
acceptance  the acceptance gate for every engine that there is
peers       the same steps in PyTorch and in ONNX Runtime used plainly
record      the file
"""
