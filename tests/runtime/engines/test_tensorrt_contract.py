"""Every class, method and argument that we use of TensorRT exists in each flavour that installs without a GPU.

What is used is read from our sources: which variable holds which class stands below. Each flavour is imported in a
process of its own, and only its classes are looked at: making a runtime of some of them needs a driver. Those that are
not installed are looked for in `.flavours/python3.x/<import name>-<version>/` (`pip install --no-deps --target`).
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

HOLDS = {  # file -> variable or attribute -> class
    "runtime/engines/tensorrt.py": {
        "module": "",
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
FEATURES = {  # asked for with `hasattr`, and used where they are
    "ICudaEngine.create_runtime_config",
    "IExecutionContext.is_stream_capturable",
}
ONLY_RTX = ("IRuntimeConfig", "IRuntimeCache")

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
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found: dict[str, list[tuple[int, list[str]]]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (name := _name(node, HOLDS[path])) and id(node) not in inner:
            call = calls.get(id(node))
            found.setdefault(name, [])
            if call and (len(call.args), [k.arg for k in call.keywords]) not in found[name]:
                found[name].append((len(call.args), [k.arg for k in call.keywords]))
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


def look(flavour: str, used: dict, folder: Path | None = None) -> tuple[str, list[str]]:
    environment = dict(os.environ)
    if folder is not None:
        environment["PYTHONPATH"] = str(folder)
    command = [sys.executable, "-c", CHECK, flavour]
    done = subprocess.run(command, input=json.dumps(used), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    version, missing = json.loads(done.stdout.splitlines()[-1])
    return version, missing


def folders(flavour: str) -> list[Path | None]:
    found: list[Path | None] = [None] if importlib.util.find_spec(flavour) else []
    python = f"python{sys.version_info[0]}.{sys.version_info[1]}"  # their bindings are of one version of Python
    return found + sorted((ROOT / ".flavours" / python).glob(f"{flavour}-*"))


@pytest.fixture(scope="module")
def used() -> dict:
    return used_in("runtime/engines/tensorrt.py")


def test_what_is_used_is_found_in_the_sources(used):
    assert {
        "DataType.HALF",
        "TensorIOMode.INPUT",
        "Runtime.deserialize_cuda_engine",
        "IExecutionContext.execute_async_v3",
        "IExecutionContext.set_tensor_address",
        "ICudaEngine.get_tensor_name",
        "ExecutionContextAllocationStrategy.USER_MANAGED",
        "IRuntimeCache.serialize",
    } <= set(used)
    assert used["IExecutionContext.set_device_memory"] == [(2, [])]
    built = used_in("export/engine.py")
    assert built["IBuilderConfig.set_timing_cache"] == [(1, ["ignore_mismatch"])]
    assert {"Builder.build_serialized_network", "OnnxParser.parse", "INetworkDefinition.get_input"} <= set(built)


def test_tensorrt_rtx_runs_and_builds(used):
    if not folders("tensorrt_rtx"):
        pytest.skip('TensorRT-RTX is not installed: pip install "spinescore[tensorrt-rtx]"')
    for folder in folders("tensorrt_rtx"):
        for names in (used, used_in("export/engine.py")):
            version, missing = look("tensorrt_rtx", names, folder)
            assert not missing, version


def test_tensorrt_lean_runs(used):
    if not folders("tensorrt_lean"):
        pytest.skip('no lean runtime is installed: pip install "spinescore[tensorrt-lean]"')
    needed = {name: calls for name, calls in used.items() if name not in FEATURES and not name.startswith(ONLY_RTX)}
    for folder in folders("tensorrt_lean"):
        version, missing = look("tensorrt_lean", needed, folder)
        assert not missing, version


def test_what_does_not_exist_is_noticed(used):
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
