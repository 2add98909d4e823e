"""Builds TensorRT engines of a bundle's networks: for this machine's GPU or, with TensorRT-RTX, for chosen GPUs.

Every network is strongly typed: the ONNX graph states the precision (TensorRT 11 has no other way). A network that the
bundle has in FP32 alone is converted to FP16 first, and an INT8 file to TensorRT's form. Each network becomes one
engine with the pipeline's batch, and with a profile for each scale of the localizer.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from spinescore.export.engineinputs import (
    Gpu,
    Size,
    engine_model,
    engine_precision,
    first_gpu,
    network_batches,
    network_sizes,
)
from spinescore.export.folder import write_synced
from spinescore.kernels.signing import sign, signed_bytes
from spinescore.runtime.bundle import Bundle
from spinescore.runtime.engines.flavours import import_flavour, lines_of, start
from spinescore.runtime.engines.places import engine_home, store_engine, target_name
from spinescore.runtime.engines.sidecar import SUFFIX, Sidecar, this_platform
from spinescore.runtime.errors import BundleError, EngineError
from spinescore.runtime.files import file_sha256

__all__ = ["BuildOptions", "build_engine", "build_engines", "define_network", "sort_targets"]

_TIMING_CACHE = "timing.cache"
_SAY_EVERY_S = 1.0
_SHARED_WORKSPACE = 1 << 30  # bytes; without a limit a build may take all memory that GPU and host share


@dataclass(frozen=True)
class BuildOptions:
    """How engines are built.

    `targets` are compute capabilities as `8.6` (TensorRT-RTX alone; if empty, this GPU's). `precision` is `fp16`, or
    `int8` for the networks that the bundle has in INT8 and FP16 for the others. With `any_batch` an engine serves 1 up
    to the pipeline's batch. `version_compatible` engines run on later TensorRT of the same major number and on the lean
    runtime; `hardware` chooses the GPUs that an engine runs on (both for the full TensorRT alone).
    """

    flavour: str
    targets: tuple[str, ...] = ()
    any_batch: bool = False
    version_compatible: bool = False
    hardware: str = "this"
    precision: str = "fp16"


def build_engines(bundle: Bundle, options: BuildOptions, say: Callable[[str], None] = lambda line: None) -> list[Path]:
    """Build every network of the bundle into `engines/<target>/`; return the engines' paths. `say` gets progress.

    If the bundle's folder cannot be written, they go into the user's cache folder, which is searched too. An existing
    engine is replaced. Raises `EngineError` if the flavour cannot build here, or a network cannot be built, and
    `BundleError` if neither folder can be written.
    """
    trt = import_flavour(options.flavour)
    gpu = first_gpu()
    _check_options(trt, options, gpu)
    compatible = options.version_compatible or options.hardware != "this"
    target = target_name(options.flavour, trt.__version__, options.targets or _capabilities(gpu), compatible)
    folder = engine_home(bundle.folder) / target
    batches, paths = network_batches(bundle.manifest, options.precision), []
    if options.precision == "int8" and not any(engine_precision(name) == "int8" for name in batches):
        raise EngineError(
            f"Bundle {bundle.manifest.name} has no network in INT8; make them: spinescore export .. --int8"
        )
    for number, (name, batch) in enumerate(batches.items(), 1):
        say(f"building {name} for {folder.name}, batch {batch} ({number} of {len(batches)})")
        precision = engine_precision(name)
        path = folder / f"{name.removesuffix('.onnx').rpartition('.')[0]}.{precision}{SUFFIX}"
        sizes = network_sizes(bundle.manifest, name)
        began = time.perf_counter()
        model = engine_model(bundle.path(name), precision)
        workspace = _SHARED_WORKSPACE if gpu and gpu.integrated else None
        plan = build_engine(trt, model, name, batch, options, folder / _TIMING_CACHE, say, sizes, workspace=workspace)
        seconds = time.perf_counter() - began
        sidecar = replace(_describe(trt, plan, bundle.path(name), batch, options, gpu, seconds), sizes=sizes)
        try:
            store_engine(path, plan, sidecar)
        except OSError as error:
            raise BundleError(f"{path} cannot be written ({error.strerror}); copy the bundle elsewhere") from error
        paths.append(path)
        say(f"  {path}: {len(plan) / 1e6:.1f} MB in {seconds:.1f} s")
    return paths


def _describe(
    trt: Any, plan: bytes, source: Path, batch: int, options: BuildOptions, gpu: Gpu | None, seconds: float
) -> Sidecar:
    here = None if options.targets else gpu  # an engine for chosen targets is not this GPU's
    return Sidecar(
        flavour=options.flavour,
        version=trt.__version__,
        precision=engine_precision(source.name),
        least_batch=1 if options.any_batch else batch,
        most_batch=batch,
        onnx=source.name,
        onnx_sha256=file_sha256(source),
        engine_sha256=hashlib.sha256(plan).hexdigest(),
        compute_capabilities=options.targets or _capabilities(gpu),
        hardware=options.hardware,
        version_compatible=options.version_compatible,
        gpu=here.name if here else None,
        multiprocessors=here.multiprocessors if here else None,
        driver=here.driver if here else None,
        platform=this_platform(),
        build_seconds=round(seconds, 3),
    )


def build_engine(
    trt: Any,
    model: onnx.ModelProto,
    name: str,
    batch: int,
    options: BuildOptions,
    timing_cache: Path,
    say: Callable[[str], None] = lambda line: None,
    sizes: Sequence[Size] = (),
    *,
    workspace: int | None = None,
) -> bytes:
    """Return the serialized engine of a network whose ends are FP16; `say` gets progress.

    `sizes` are the heights and widths of the profiles of a network of free size. `workspace` limits the memory of a
    layer, in bytes. Raises `EngineError` with the lines that TensorRT logged.
    """
    builder = start(trt, trt.Builder)
    network, _parser = define_network(trt, builder, model, name)
    if not options.any_batch:
        image = network.get_input(0)
        image.shape = (batch, *tuple(image.shape)[1:])
    config = _checked(builder.create_builder_config(), trt, f"configure the build of {name}")
    for size in sizes or (None,):
        _add_profile(builder, config, network, batch, options.any_batch, size)
    if workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    cache = _configure(trt, config, options, timing_cache)
    config.progress_monitor = monitor = _monitor(trt, name, say)
    plan = _checked(builder.build_serialized_network(network, config), trt, f"build {name}")
    del monitor  # TensorRT holds no reference of its own to it
    if cache is not None:
        with suppress(OSError):  # it only makes the next build faster
            data = bytes(config.get_timing_cache().serialize())
            sign(_timings(timing_cache), hashlib.sha256(data).hexdigest())
            write_synced(timing_cache, data)
    return bytes(plan)


def _monitor(trt: Any, name: str, say: Callable[[str], None]) -> Any:
    """Return a monitor that reports the build's progress once a second. A full TensorRT can try kernels for minutes."""

    class Progress(trt.IProgressMonitor):  # type: ignore[misc]  # the base is known when the flavour is imported
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}
            self._said = time.monotonic()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            if time.monotonic() - self._said >= _SAY_EVERY_S:
                self._said = time.monotonic()
                say(f"  {name}: {phase_name}, step {step + 1} of {self._steps.get(phase_name, step + 1)}")
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Progress()


def define_network(trt: Any, builder: Any, model: onnx.ModelProto, name: str) -> tuple[Any, Any]:
    """Return the network definition and its parser, which keeps the weights alive.

    Raises `EngineError` if TensorRT cannot read the network, or if its input and output are not half.
    """
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = start(trt, trt.OnnxParser, _checked(network, trt, f"define {name}"))
    if not parser.parse(model.SerializeToString()):
        faults = [parser.get_error(number) for number in range(parser.num_errors)]
        reasons = "; ".join(f"{fault.node_operator()} {fault.node_name()}: {fault.desc()}" for fault in faults)
        raise EngineError(f"{trt.__name__} cannot read the network {name}: {reasons}. Export it again.")
    if (network.num_inputs, network.num_outputs) != (1, 1):
        raise EngineError(
            f"Network {name} has {network.num_inputs} inputs and {network.num_outputs} outputs, one of each is needed; "
            "export it again."
        )
    for end in (network.get_input(0), network.get_output(0)):
        if end.dtype != trt.DataType.HALF:
            raise EngineError(f"Network {name}: tensor {end.name} is {end.dtype}, not half; export it again.")
    return network, parser


def _add_profile(builder: Any, config: Any, network: Any, batch: int, any_batch: bool, size: Size | None) -> None:
    image = network.get_input(0)
    profile = builder.create_optimization_profile()
    shape = tuple(image.shape)[1:] if size is None else (image.shape[1], *size)
    least, most = ((count, *shape) for count in (1 if any_batch else batch, batch))
    profile.set_shape(image.name, least, most, most)
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(f"TensorRT refused {image.name} of {least} to {most}; export the bundle again.")


def _configure(trt: Any, config: Any, options: BuildOptions, timing_cache: Path) -> Any:
    """Set options that only some flavours and versions have; return the timing cache, if one is used."""
    flags = trt.BuilderFlag
    if options.version_compatible:
        config.set_flag(flags.VERSION_COMPATIBLE)
    if options.hardware != "this":
        levels = trt.HardwareCompatibilityLevel
        same = options.hardware == "same-compute-capability"
        config.hardware_compatibility_level = levels.SAME_COMPUTE_CAPABILITY if same else levels.AMPERE_PLUS
    if hasattr(flags, "REQUIRE_USER_ALLOCATION"):  # else TensorRT-RTX may allocate, and cannot be captured
        config.set_flag(flags.REQUIRE_USER_ALLOCATION)
    if hasattr(config, "num_compute_capabilities"):
        capabilities = [_capability(trt, target) for target in options.targets]
        config.num_compute_capabilities = max(len(capabilities), 1)
        for number, capability in enumerate(capabilities or [trt.ComputeCapability.CURRENT]):
            if not config.set_compute_capability(capability, number):
                raise EngineError(f"{trt.__name__} refused the target {options.targets[number]}; leave it out.")
        return None  # a timing cache has no effect there, and makes the build ask for a GPU
    data = signed_bytes(_timings(timing_cache), timing_cache.read_bytes() if timing_cache.is_file() else b"")
    cache = config.create_timing_cache(data or b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = config.create_timing_cache(b"")  # of another version or GPU: start anew
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _timings(timing_cache: Path) -> str:
    """Return the name under which the timing cache is signed. A cache that came with a bundle is not read."""
    return f"timing cache {timing_cache.absolute()}"


def _capability(trt: Any, target: str) -> Any:
    capability = getattr(trt.ComputeCapability, f"SM{target.replace('.', '')}", None)
    if capability is None or "." not in target:
        names = [name[2:] for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
        targets = ", ".join(f"{name[:-1]}.{name[-1]}" for name in names)
        raise EngineError(f"{trt.__name__} {trt.__version__} has no target {target}; it builds for {targets}.")
    return capability


def _check_options(trt: Any, options: BuildOptions, gpu: Gpu | None) -> None:
    if not hasattr(trt, "Builder"):
        raise EngineError(f"{options.flavour} only runs engines; build them with tensorrt, --version-compatible.")
    rtx = hasattr(trt, "ComputeCapability")
    if options.targets and not rtx:
        raise EngineError(f"{options.flavour} builds for the GPU that it runs on; --target is for TensorRT-RTX.")
    if rtx and (options.version_compatible or options.hardware != "this"):
        raise EngineError("TensorRT-RTX engines are built for targets; leave the compatibility options out.")
    if gpu is None and not options.targets:
        way = "name the GPU's compute capability, as --target 8.6" if rtx else "build on the machine that has it"
        raise EngineError(f"{options.flavour} finds no GPU and driver on this machine; {way}.")
    for target in options.targets or (_capabilities(gpu) if rtx else ()):
        _capability(trt, target)
    levels = trt.HardwareCompatibilityLevel
    if options.hardware == "same-compute-capability" and not hasattr(levels, "SAME_COMPUTE_CAPABILITY"):
        raise EngineError(
            f"{options.flavour} {trt.__version__} cannot build for all GPUs of one compute capability, "
            "as later versions do; leave --hardware same-compute-capability out, or update TensorRT."
        )


def _capabilities(gpu: Gpu | None) -> tuple[str, ...]:
    return () if gpu is None else (f"{gpu.compute_capability[0]}.{gpu.compute_capability[1]}",)


def _checked(handle: Any, trt: Any, action: str) -> Any:
    if handle is None:
        raise EngineError(f"TensorRT could not {action}: {lines_of(trt)}. Check the GPU's driver and its free memory.")
    return handle


def sort_targets(targets: Sequence[str]) -> tuple[str, ...]:
    """Return the targets without repetition, in ascending order."""
    return tuple(sorted(set(targets), key=lambda text: [int(part) for part in text.split(".") if part.isdecimal()]))
