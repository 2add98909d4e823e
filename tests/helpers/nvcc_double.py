"""A double of nvcc for the tests of building kernels: it compiles nothing, and counts the compilations."""

from __future__ import annotations

import subprocess
from pathlib import Path

from spinescore.kernels import build
from spinescore.kernels import compiled as policy
from spinescore.kernels.build import KernelBuildError

FATBIN = (0xBA55ED50).to_bytes(4, "little") + b"\x01\x00\x10\x00" + (5).to_bytes(8, "little") + b"code!"
PTX = """//
// Cuda compilation tools, release 13.0, V13.0.88
.version 9.0
.target sm_75
.visible .entry warp_f16() {
	.pragma "used_bytes_mask 15";
	.pragma "nounroll";
	ret;
}
"""


class FakeNvcc:
    """Stands for running nvcc: knows some architectures, writes what it is told to, counts the compilations."""

    def __init__(self, monkeypatch, tmp_path):
        self.known, self.writes, self.fails, self.compiled = (75, 90), FATBIN, None, []
        monkeypatch.setattr(build.subprocess, "run", self.run)
        self.is_at = monkeypatch
        self.is_there(True)
        monkeypatch.setattr(policy, "shipped_name", lambda source, suffix=".fatbin": f"not-shipped-{source}{suffix}")
        monkeypatch.setattr(policy, "compile_ptx_by_nvrtc", self.nvrtc)
        monkeypatch.setenv("SPINESCORE_CACHE", str(tmp_path / "cache"))

    def is_there(self, there):
        for module in (build, policy):
            self.is_at.setattr(module, "find_nvcc", lambda: Path("/cuda/nvcc") if there else None)

    def nvrtc(self, source):
        self.compiled.append("nvrtc")
        raise KernelBuildError(f"Kernel {source}: NVRTC was not found.")

    def run(self, command, **options):
        if self.fails:
            return subprocess.CompletedProcess(command, 1, "", self.fails)
        if "--list-gpu-code" in command:
            return subprocess.CompletedProcess(command, 0, "".join(f"sm_{code}\n" for code in self.known), "")
        target = Path(command[command.index("-o") + 1])
        if "--fatbin" in command:
            self.compiled.append([part.split(",code=")[1] for part in command if part.startswith("-gencode")])
            target.write_bytes(self.writes)
        else:
            self.compiled.append(next(part for part in command if part in ("--ptx", "--cubin")))
            target.write_text(PTX)
        return subprocess.CompletedProcess(command, 0, "", "")
