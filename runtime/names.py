"""The names that options take, as types. A misspelt name is a type checker's error, and a `ValueError` at run time."""

from __future__ import annotations

from typing import Literal

__all__ = ["BuildMode", "DeviceName", "EngineName", "PrecisionName"]

DeviceName = Literal["auto", "cpu", "cuda"]
EngineName = Literal["onnxruntime", "openvino", "tensorrt"]
PrecisionName = Literal["fp32", "bf16", "fp16", "int8"]
BuildMode = Literal["auto", "no", "now", "background"]  # auto: a GPU's engines now, a CPU's check in the background
