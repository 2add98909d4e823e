"""A double of OpenVINO that computes with ONNX Runtime, and wrongly where it is told to.

The environment variable OPENVINO_DOUBLE says where: `right`, `stream` (each second request, and so one of the two views
of a study), `process:FILE` (each second process that loads a network; the file counts them) or `later` (from the third
run of a request on).
"""

import os
import threading
from pathlib import Path

import numpy as np
import onnxruntime

__version__ = "2999.1.0-double"

KINDS = {"tensor(float)": "f32", "tensor(float16)": "f16"}


def this_process_is_wrong() -> bool:
    mode, _, name = os.environ["OPENVINO_DOUBLE"].partition(":")
    if mode != "process":
        return False
    with Path(name).open("a+", encoding="utf-8") as file:
        file.write("x")
        return file.tell() % 2 == 0


ASKING = threading.Lock()
WRONG: list[bool] = []  # whether this process is wrong, once that was asked


class Size:
    def __init__(self, size):
        self.is_dynamic = not isinstance(size, int)
        self.get_length = lambda: size


class End:
    def __init__(self, end):
        self.partial_shape = [Size(size) for size in end.shape]
        self.element_type = self
        self.get_type_name = lambda: KINDS[end.type]
        self.get_any_name = lambda: end.name


class Tensor:
    def __init__(self, array, shared_memory):
        assert shared_memory
        self.array = array


class Request:
    def __init__(self, model, number):
        self.session, self.rows, self.number, self.runs = model.session, model.rows, number, 0

    def set_input_tensor(self, tensor):
        assert self.rows in (None, len(tensor.array))
        self.inputs = tensor.array

    def set_output_tensor(self, tensor):
        self.outputs = tensor.array

    def infer(self):
        (self.outputs[...],) = self.session.run(None, {self.session.get_inputs()[0].name: self.inputs})
        self.runs += 1
        mode = os.environ["OPENVINO_DOUBLE"]
        if WRONG[0] or (mode == "stream" and self.number % 2) or (mode == "later" and self.runs > 2):
            self.outputs[...] = np.roll(self.outputs, 1, axis=1) + 3


class Model:
    requests = 0

    def __init__(self, path):
        self.path, self.rows = path, None
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.inputs = [End(end) for end in self.session.get_inputs()]
        self.outputs = [End(end) for end in self.session.get_outputs()]

    def reshape(self, shapes):
        ((self.rows, *_),) = shapes.values()

    def export_model(self, stream):
        stream.write(f"{self.rows} {self.path}".encode())

    def get_runtime_model(self):
        return self

    def get_ordered_ops(self):
        return []

    def create_infer_request(self):
        Model.requests += 1
        return Request(self, Model.requests - 1)


class Core:
    def get_property(self, device, name):
        return ["FP32", "INT8"] if name == "OPTIMIZATION_CAPABILITIES" else "a double"

    def read_model(self, path):
        return Model(path)

    def import_model(self, exported, device, settings):
        rows, _, path = exported.decode().partition(" ")
        model = Model(path)
        model.rows = int(rows)
        return self.compile_model(model, device, settings)

    def compile_model(self, model, device, settings):
        with ASKING:  # networks are loaded by several threads, and a process counts once
            if not WRONG:
                WRONG.append(this_process_is_wrong())
        return Model(model) if isinstance(model, str) else model
