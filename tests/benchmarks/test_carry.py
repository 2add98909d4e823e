"""The folder for a GPU machine without a network: its links, refusals, and the whole command with a double of pip."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from spinescore.benchmarks.gpu import carry
from spinescore.runtime.machine.packages import software_version

CHECKOUT = Path(__file__).parents[2]
PYTHON = f"""#!{sys.executable}
import pathlib, sys
words = sys.argv[1:]
with open({{log!r}}, "a") as log:
    print(*words, file=log)
if words[:2] == ["-m", "venv"]:
    python = pathlib.Path(words[2]) / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to({{own!r}})
elif "wheel" in words and "pydicom>=3.0.1" in words:
    folder = pathlib.Path(words[words.index("-w") + 1])
    folder.mkdir()
    for name in ("pycuda-2026.1-cp312.whl", "pydicom-3.0.2.whl", "numpy-2.4.whl", "pytools-2026.whl"):
        (folder / name).write_bytes(b"0" * 1000)
elif {{broken}} and "install" in words:
    sys.exit("no network")
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder like a checkout, with a package in each room; it is the working directory."""
    root = tmp_path / "checkout"
    for name in carry.FOLDERS:
        (root / name).mkdir(parents=True)
        (root / name / "__init__.py").write_text(f"room = {name!r}\n", encoding="utf-8")
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def headers(tmp_path):
    folder = tmp_path / "include"
    folder.mkdir()
    (folder / "cuda.h").touch()
    return str(folder)


def interpreter(folder, broken=False):
    path, log = folder / "python3.99", folder / "python.log"
    text = PYTHON.format(log=str(log), own=str(path), broken=broken)
    path.write_text(text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return str(path), log


def test_links_stand_for_an_installation(checkout):
    carry.link_checkout(checkout, checkout / "gpu")
    moved = checkout.rename(checkout.with_name("elsewhere"))  # links are relative: the whole tree is carried
    code = (
        "import importlib.metadata as m, spinescore.runtime, spinescore.benchmarks as b;"
        "print(m.version('spinescore'), spinescore.runtime.room, b.room)"
    )
    environment = {**os.environ, "PYTHONPATH": str(moved / "gpu")}
    words = [sys.executable, "-S", "-c", code]
    printed = subprocess.run(words, cwd=moved, env=environment, capture_output=True, text=True, check=True).stdout
    assert printed.split() == [software_version(), "runtime", "benchmarks"]


def test_every_room_of_the_package_is_linked():
    rooms = {path.parent.name for path in CHECKOUT.glob("*/py.typed")}
    assert rooms <= set(carry.FOLDERS)
    assert all((CHECKOUT / name / "__init__.py").is_file() for name in carry.FOLDERS)


def test_the_folder_and_the_line_that_runs_it(checkout, headers, tmp_path, monkeypatch, capsys):
    python, log = interpreter(tmp_path)
    wheel = tmp_path / "pycuda.whl"
    monkeypatch.setattr(carry, "build_pycuda", lambda own, include, folder: wheel)
    monkeypatch.setattr(carry.shutil, "which", lambda name: name)
    arguments = ["gpu", "--python", python, "--cuda-headers", headers]
    for _ in range(2):  # its own folder is replaced
        assert carry.main(arguments) == 0
    names = sorted(path.name for path in (checkout / "gpu").iterdir())
    version = software_version()
    assert names == [
        "pycuda-2026.1-cp312.whl", "pydicom-3.0.2.whl", "pytools-2026.whl", "spinescore",
        f"spinescore-{version}.dist-info",
    ]  # fmt: skip
    assert f"{wheel} pydicom>=3.0.1" in log.read_text(encoding="utf-8")
    told, line = capsys.readouterr().out.splitlines()[-2:]
    assert told.startswith("gpu holds 0.0 MiB; carry it")
    assert line == (
        "python3 -m pip install -q --no-index --no-deps --target /tmp/spinescore-site gpu/*.whl && "
        'PYTHONPATH=gpu:/tmp/spinescore-site python3 -m spinescore.benchmarks.gpu --out "$OUT/gpu.json" --minutes 8'
    )


def test_a_step_that_fails_is_told_with_its_words(checkout, headers, tmp_path, monkeypatch, capsys):
    python, _ = interpreter(tmp_path, broken=True)
    monkeypatch.setattr(carry.shutil, "which", lambda name: name)
    assert carry.main(["gpu", "--python", python, "--cuda-headers", headers]) == 1
    assert capsys.readouterr().err.endswith("failed:\nno network\n")
    assert not (checkout / "gpu").exists()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"folder": "/elsewhere"}, "/elsewhere lies outside of the checkout"),
        ({"folder": "runtime"}, "runtime exists and this command did not write it"),
        ({"python": "python9.9"}, "There is no interpreter python9.9; name one with --python."),
        ({"headers": "/nowhere"}, "/nowhere has no cuda.h; name the folder of CUDA's headers with --cuda-headers."),
        ({"missing": "g++"}, "g++ was not found; install it to build pycuda."),
        ({"checkout": "/"}, "/ is not the root of a checkout: it has no runtime, export, kernels, benchmarks"),
    ],
)
def test_wrong_usage_changes_nothing(checkout, headers, monkeypatch, capsys, change, fault):
    monkeypatch.chdir(change.get("checkout", checkout))
    missing = {change.get("missing"), "python9.9"}
    monkeypatch.setattr(carry.shutil, "which", lambda name: None if name in missing else name)
    arguments = [change.get("folder", "gpu"), "--python", change.get("python", "python3")]
    assert carry.main([*arguments, "--cuda-headers", change.get("headers", headers)]) == 2
    assert fault in capsys.readouterr().err
    assert sorted(path.name for path in checkout.iterdir()) == sorted(carry.FOLDERS)
