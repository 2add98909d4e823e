"""Every class, method and argument of TensorRT that we use exists in each flavour and version that we support.

The uses are read from our sources: which variable holds which class stands below. Each flavour is imported in a process
of its own, and only its classes are looked at: making a runtime of some of them needs a driver. Flavours that are not
installed are looked for in `.flavours/python3.x/<import name>-<version>/` (`pip install --no-deps --target`). The full
library is not on PyPI, but its bindings are: `tensorrt_bindings-<version>`, with `tensorrt_libraries.c` as the library.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "tests" / "helpers" / "tensorrt_libraries.c"

HOLDS = {  # file -> variable or attribute -> class
    "runtime/engines/tensorrt.py": {
        "trt": "",
        "_trt": "",
        "modes": "TensorIOMode",
        "kinds": "DataType",
        "_runtime": "Runtime",
        "engine": "ICudaEngine",
        "_engine": "ICudaEngine",
        "context": "IExecutionContext",
        "config": "IRuntimeConfig",
        "cache": "IRuntimeCache",
        "_cache": "IRuntimeCache",
    },
    "runtime/engines/flavours.py": {"module": ""},
    "export/engine.py": {
        "trt": "",
        "flags": "BuilderFlag",
        "levels": "HardwareCompatibilityLevel",
        "builder": "Builder",
        "network": "INetworkDefinition",
        "parser": "OnnxParser",
        "config": "IBuilderConfig",
        "profile": "IOptimizationProfile",
        "image": "ITensor",
        "end": "ITensor",
        "fault": "ParserError",
        "monitor": "IProgressMonitor",
    },
}
ONLY_RTX = {  # asked for with `hasattr`, and used if they are there
    "ICudaEngine.create_runtime_config",
    "IExecutionContext.is_stream_capturable",
    "ComputeCapability",
    "BuilderFlag.REQUIRE_USER_ALLOCATION",
    "DynamicShapesKernelSpecializationStrategy",
    "IRuntimeConfig",
    "IRuntimeCache",
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
}
ONLY_LATER = {"HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY"}  # not in 10.3
RUNS, BUILDS = ("runtime/engines/tensorrt.py", "runtime/engines/flavours.py"), ("export/engine.py",)

CHECK = """
import importlib, json, re, sys
used = json.load(sys.stdin)
module = importlib.import_module(sys.argv[1])
missing = []
for name, calls in used.items():
    found = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        missing.append(name)
        continue
    text = found.__init__.__doc__ if isinstance(found, type) else found.__doc__
    leaf = "__init__" if isinstance(found, type) else name.split(".")[-1]
    shapes = re.findall(leaf + r"\\((self: .*?)\\) ->", text or "")
    shapes = [re.sub(r"<[^<>]*>", "0", shape) for shape in shapes]  # defaults, as <Strategy.STATIC: 0>
    split = [re.split(r", (?=\\w+: )", shape)[1:] for shape in shapes]
    parameters = [[(part.split(":")[0], " = " in part) for part in parts] for parts in split]
    for count, keywords in calls:
        fits = [
            p for p in parameters
            if set(keywords) <= {n for n, _ in p} and sum(not d for _, d in p) <= count + len(keywords) <= len(p)
        ]
        if not shapes or not fits:
            missing.append(f"{name} with {count} arguments and {keywords}: {shapes}")
print(json.dumps([module.__version__, missing]))
"""


def used_in(path: str) -> dict[str, list[tuple[int, list[str]]]]:
    """`Class.method` or `Enum.member` -> the calls: (positional arguments, keywords)."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    calls = {id(node.func): (len(node.args), node.keywords) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "start":
            calls[id(node.args[1])] = (len(node.args) - 1, [])  # with a logger behind its arguments
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found: dict[str, list[tuple[int, list[str]]]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (name := _name(node, HOLDS[path])) and id(node) not in inner:
            call = calls.get(id(node))
            found.setdefault(name, [])
            if call and (use := (call[0], [keyword.arg for keyword in call[1]])) not in found[name]:
                found[name].append(use)
    return {name: uses for name, uses in found.items() if not name.split(".")[-1].startswith("__")}


def _name(node: ast.expr, holds: dict[str, str]) -> str | None:
    """The dotted name below the module, None where the expression is nothing of TensorRT's."""
    if isinstance(node, ast.Name):
        return holds.get(node.id)
    if isinstance(node, ast.Attribute):
        outer = _name(node.value, holds)
        if outer is not None:
            return f"{outer}.{node.attr}" if outer else node.attr
        own = isinstance(node.value, ast.Name) and node.value.id in ("self", "bound")
        own |= isinstance(node.value, ast.Subscript)
        return holds.get(node.attr) if own else None
    return None


def look(flavour: str, used: dict, folder: Path | None = None, libraries: Path | None = None) -> tuple[str, list[str]]:
    done = run(CHECK, flavour, folder, libraries, json.dumps(used))
    version, missing = json.loads(done.splitlines()[-1])
    return version, missing


def run(code: str, flavour: str, folder: Path | None, libraries: Path | None, given: str = "") -> str:
    """Run a program in a process that imports the flavour from a folder; return its output."""
    environment = {**os.environ, "PYTHONPATH": str(folder or "")}
    if libraries is not None:
        environment["LD_LIBRARY_PATH"] = str(libraries)
    command = [sys.executable, "-c", code, flavour]
    done = subprocess.run(command, input=given, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def folders(flavour: str) -> list[Path | None]:
    found: list[Path | None] = [None] if importlib.util.find_spec(flavour) else []
    python = f"python{sys.version_info[0]}.{sys.version_info[1]}"  # their bindings are of one version of Python
    return found + sorted((ROOT / ".flavours" / python).glob(f"{flavour}-*"))


def uses(*paths: str) -> dict:
    found: dict[str, list[tuple[int, list[str]]]] = {}
    for path in paths:
        for name, calls in used_in(path).items():
            found[name] = [*found.get(name, []), *calls]
    return found


def without(names: dict, left_out: set[str]) -> dict:
    return {name: calls for name, calls in names.items() if name not in left_out and name.split(".")[0] not in left_out}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory) -> Path:
    """A folder with libraries that stand in for TensorRT's own."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("there is no C compiler for Linux")
    folder = tmp_path_factory.mktemp("libraries")
    for name in ("nvinfer", "nvinfer_lean", "nvonnxparser", "nvinfer_plugin"):
        for version in (10, 11):
            path = folder / f"lib{name}.so.{version}"
            command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{path.name}", "-o", str(path), str(SOURCE)]
            subprocess.run(command, check=True)
    return folder


def test_the_uses_are_found_in_the_sources():
    runs, builds = uses(*RUNS), uses(*BUILDS)
    assert {
        "DataType.HALF",
        "TensorIOMode.INPUT",
        "Runtime.deserialize_cuda_engine",
        "IExecutionContext.execute_async_v3",
        "IExecutionContext.set_tensor_address",
        "ICudaEngine.get_tensor_name",
        "ExecutionContextAllocationStrategy.USER_MANAGED",
        "IRuntimeCache.serialize",
    } <= set(runs)
    assert runs["IExecutionContext.set_device_memory"] == [(2, [])]
    assert runs["Runtime"] == [(1, [])]
    assert builds["OnnxParser"] == [(2, [])]
    assert builds["IBuilderConfig.set_timing_cache"] == [(1, ["ignore_mismatch"])]
    assert {"Builder.build_serialized_network", "OnnxParser.parse", "INetworkDefinition.get_input"} <= set(builds)


def test_tensorrt_rtx_runs_and_builds():
    if not folders("tensorrt_rtx"):
        pytest.skip('TensorRT-RTX is not installed: pip install "spinescore[tensorrt-rtx]"')
    for folder in folders("tensorrt_rtx"):
        version, missing = look("tensorrt_rtx", uses(*RUNS, *BUILDS), folder)
        assert not missing, version


def test_tensorrt_lean_runs():
    if not folders("tensorrt_lean"):
        pytest.skip('no lean runtime is installed: pip install "spinescore[tensorrt-lean]"')
    for folder in folders("tensorrt_lean"):
        version, missing = look("tensorrt_lean", without(uses(*RUNS), ONLY_RTX), folder)
        assert not missing, version


def bindings(flavour: str) -> list[Path]:
    found = [folder for folder in folders(flavour) if folder is not None]
    if not found:
        pytest.skip(f"no {flavour} in .flavours (.ci/run puts them there)")
    return found


def test_the_full_tensorrt_runs_and_builds(libraries):
    for folder in bindings("tensorrt_bindings"):
        left_out = ONLY_RTX | (ONLY_LATER if "-10.3" in folder.name else set())
        version, missing = look("tensorrt_bindings", without(uses(*RUNS, *BUILDS), left_out), folder, libraries)
        assert not missing, version


def test_the_lean_runtime_of_the_oldest_version_runs(libraries):
    for folder in bindings("tensorrt_lean_bindings"):
        version, missing = look("tensorrt_lean_bindings", without(uses(*RUNS), ONLY_RTX), folder, libraries)
        assert not missing, version


START = """
import importlib, sys
from spinescore.runtime.engines.flavours import start
from spinescore.runtime.errors import EngineError
module = importlib.import_module(sys.argv[1])
for kind in (module.Runtime, module.Builder):
    try:
        start(module, kind)
    except EngineError as error:
        print(error)
"""


def test_bindings_that_cannot_start_raise_an_engine_error(libraries):
    """Their TypeError, with the line that the library gave to the logger."""
    for folder in bindings("tensorrt_bindings"):
        lines = run(START, "tensorrt_bindings", folder, libraries).splitlines()
        assert len(lines) == 2
        logged = "-10." in folder.name
        reason = "CUDA initialization failure with error: 35" if logged else "pybind11::init(): factory function"
        for kind, line in zip(("Runtime", "Builder"), lines, strict=True):
            assert f"could not start its {kind}: {reason}" in line


def test_a_name_that_does_not_exist_is_noticed():
    if not folders("tensorrt_rtx"):
        pytest.skip('TensorRT-RTX is not installed: pip install "spinescore[tensorrt-rtx]"')
    wrong = {
        "Runtime.no_such_method": [],
        "IExecutionContext.set_device_memory": [(1, [])],
        "IBuilderConfig.set_timing_cache": [(1, ["mismatch"])],
        "BuilderFlag.FP16": [],
    }
    _, missing = look("tensorrt_rtx", wrong, folders("tensorrt_rtx")[0])
    assert [line.split()[0] for line in missing] == list(wrong)
