"""All checks and figures that need a GPU, in one command.

    python -m spinescore.benchmarks.gpu --out gpu.json --minutes 8

The GPU machine needs no network and no checkout. To prepare it:

1. On a machine with a network, collect in one folder: the wheel of this repository (`pip wheel --no-deps .`; with nvcc
   on PATH it holds the compiled kernels, otherwise they are compiled at first use if nvcc is there); the source of
   pycuda (`pip download --no-deps --no-build-isolation --no-binary pycuda pycuda`); and wheels of the packages that the
   GPU machine lacks, for its Python and platform (`pip download --python-version .. --platform ..
   --only-binary=:all:`): onnxruntime-gpu or a TensorRT as the engine, opencv-python-headless >= 5, pydicom, pycuda's
   requirements (pytools, mako, platformdirs, siphash24), and onnx and tqdm for the full-size bundle.
2. On the GPU machine: `pip install --no-index --no-deps FOLDER/*.whl`. Then build pycuda, which takes about 80 seconds:
   unpack it, and in its folder run `python configure.py --cuda-root=/usr/local/cuda --no-cuda-enable-curand
   --cudadrv-lib-dir=/usr/local/cuda/lib64/stubs && pip install --no-build-isolation --no-deps .`
3. Run the command above.

The kernels need only numpy, the driver and pycuda; other checks are skipped with the reason if a package is missing.
Each part (`PARTS` of `__main__`) runs in a process of its own, so that a crash, a lost GPU or a slow part costs only
that part, and each check is in the file as soon as it is done. `--quick` runs all of it in small.

machine     the GPU and a few calls of its driver
kernels     the kernels against their references, on `warpcases`, `decodecases`, `averagecases` (shared with the tests)
networks    bundles, and the engines that run them here
pipelines   host against GPU, graphs against launches, sizes, memory, `faults`; on a `rig`, with studies of `inputs`
timing      kernels, uploads, networks and whole studies
acceptance  the acceptance gate for every engine
peers       the same steps in PyTorch and in plain ONNX Runtime
record      the file
"""
