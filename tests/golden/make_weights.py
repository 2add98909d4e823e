"""Writes `weights.tar.xz`: what trainings leave around the network's own tensors, from PyTorch itself.

    cd tests && python -m golden.make_weights      # PyTorch 2.13

Every tensor's values follow from its official name and shape (`values` and `two_values` of make_checkpoints),
so that the tests know what each file must give. mmengine is not needed: its HistoryBuffer stands here as a class of
the same name, as a pickle keeps no more of it than name and state.
"""

from __future__ import annotations

import collections
import enum
import functools
import sys
import tempfile
import types
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden.make_checkpoints import TORCH_SHAPES, two_values, values
from golden.packing import pack
from torch import nn

from spinescore.benchmarks.phantom.networks import HRNet

State = dict[str, torch.Tensor]


class HistoryBuffer:
    def __init__(self) -> None:
        self._log_history, self._count_history = np.arange(3.0), np.ones(3)
        self._statistics_methods = {"mean": HistoryBuffer.mean}

    def mean(self) -> float:
        return float(self._log_history.mean())


def pretend(module: str, *classes: type) -> None:
    """The classes as those of `module`, which need not be installed."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:end]), types.ModuleType(".".join(parts[:end])))
    for kind in classes:
        kind.__module__ = module
        setattr(sys.modules[module], kind.__name__, kind)


class Colour(enum.Enum):
    RED = 1


class DictConfig(dict):  # type: ignore[type-arg]
    """As OmegaConf's and other trainers' settings: a class that behaves as a dictionary."""


def hrnet(offset: float = 0.0) -> State:
    """A complete HRNet, as thin as can be; `offset` is added to its last layer."""
    state = HRNet(1, 12, stem=1, modules=(1, 1, 1)).state_dict()
    return {
        name: torch.from_numpy(two_values(name, tuple(tensor.shape)) + np.float32(offset * ("final" in name)))
        if tensor.ndim
        else torch.tensor(7)
        for name, tensor in state.items()
    }


def openmmlab(state: State, head: str) -> State:
    return collections.OrderedDict(
        (f"{head}.{name}" if name.startswith("final_layer") else f"backbone.{name}", tensor)
        for name, tensor in state.items()
    )


def beside() -> dict[str, Any]:
    """All kinds of things that stand beside a network."""
    return {
        "defaults": collections.defaultdict(int, epoch=3),
        "settings": DictConfig(lr=0.1, inner=DictConfig(colour=Colour.RED)),
        "queue": collections.deque([1.0, 2.0], maxlen=5),
        "arguments": Namespace(lr=0.1, out=Path("runs")),
        "numbers": [np.float64(0.5), np.int64(3), np.bool_(True), np.arange(3), 1j],
        "generators": [torch.get_rng_state(), np.random.RandomState(0), np.random.default_rng(0), torch.Generator()],
        "names": [int, len, range(3), slice(1), functools.partial(int, base=2), torch.float32, torch.device("cpu")],
        "quantised": torch.quantize_per_tensor(torch.eye(2), 0.1, 0, torch.qint8),
        "sparse": torch.eye(2).to_sparse(),
        "eight_bits": torch.ones(2).to(torch.float8_e4m3fn),
        "storage": torch.ones(2).untyped_storage(),
        "model": nn.Linear(2, 2),
    }


def views(small: State) -> State:
    """Names that share a storage, stride 0, overlapping windows, a tensor with an attribute of its own."""
    kernel = torch.from_numpy(values("conv1.weight", (4, 1, 3, 3)))
    line = torch.from_numpy(values("line", (6,)))
    tagged = small["final_layer.weight"].clone()
    tagged.tag = "a"  # type: ignore[attr-defined]
    return {
        "conv1.weight": kernel.expand(4, 3, 3, 3),
        "bn1.weight": small["bn1.weight"],
        "bn1.running_var": small["bn1.weight"],
        "bn1.bias": line[:4],
        "bn1.running_mean": line[2:],
        "windows": line.unfold(0, 4, 1),
        "final_layer.weight": tagged,
        "final_layer.bias": torch.tensor([0.5]).expand(2),
    }


def make(folder: Path) -> None:
    pretend("mmengine.logging.history_buffer", HistoryBuffer)
    pretend("omegaconf.dictconfig", DictConfig)
    pretend("trainer.colours", Colour)
    small = {name: torch.from_numpy(values(name, shape)) for name, shape in TORCH_SHAPES.items()}
    network, averaged = hrnet(), hrnet(0.25)
    mmpose = {
        "meta": {"epoch": 210, "cfg": "model = dict()", "dataset_meta": {"flip_indices": [0, 1]}},
        "state_dict": openmmlab(network, "head"),
        "message_hub": {"log_scalars": collections.OrderedDict({"train/loss": HistoryBuffer()}), "runtime_info": {}},
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2, 2)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
    }
    torch.save(mmpose, folder / "mmpose1.pth")
    torch.save({"meta": {}, "state_dict": openmmlab(network, "keypoint_head")}, folder / "mmpose0.pth")
    compiled = {f"_orig_mod.module.{name}": tensor for name, tensor in network.items()}
    torch.save({"epoch": 3, "state_dict": compiled}, folder / "compiled.pth")
    torch.save({"state_dict": network, "state_dict_ema": averaged}, folder / "averaged.pth")
    torch.save(network, folder / "thin.pth")
    for protocol in (2, 4):
        torch.save({**beside(), "state_dict": small}, folder / f"beside{protocol}.pth", pickle_protocol=protocol)
    without_source = {name: value for name, value in beside().items() if name != "model"}
    legacy = {**without_source, "state_dict": small}
    torch.save(legacy, folder / "beside.legacy", _use_new_zipfile_serialization=False)
    torch.save(views(small), folder / "views.pth")
    torch.save(views(small), folder / "views.legacy", _use_new_zipfile_serialization=False)
    last = "final_layer.weight"
    torch.save({**small, last: small[last].flatten(1).to_sparse()}, folder / "sparse.pth")
    torch.save({**small, last: torch.quantize_per_tensor(small[last], 0.1, 0, torch.qint8)}, folder / "quantised.pth")
    torch.save({**small, last: small[last].to(torch.float8_e4m3fn)}, folder / "float8.pth")
    torch.save({**small, last: small[last].numpy()}, folder / "numpy.pth")
    torch.save({**small, last: torch.empty(2, 4, 1, 1, device="meta")}, folder / "meta.pth")


if __name__ == "__main__":
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as temporary:
        make(Path(temporary))
        pack("weights", Path(temporary))
