"""Golden files with bytes changed or cut off: every damage gives a Checkpoint or a CheckpointError."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.checkpoint_files import CHECKPOINTS
from spinescore.export import Checkpoint, read_checkpoint
from spinescore.runtime.errors import CheckpointError

CASES = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def read(folder, data: bytes) -> Checkpoint | None:
    path = folder / "weights"
    path.write_bytes(data)
    try:
        checkpoint = read_checkpoint(path)
    except CheckpointError:
        return None
    finally:
        assert [entry.name for entry in folder.iterdir()] == ["weights"]
    assert all(tensor.dtype == np.float32 and np.isfinite(tensor).all() for tensor in checkpoint.tensors.values())
    assert sum(tensor.nbytes for tensor in checkpoint.tensors.values()) <= 4 * len(data)
    return checkpoint


@pytest.mark.parametrize("name", sorted(CHECKPOINTS))
@CASES
@given(draw=st.data())
def test_changed_bytes(name: str, draw: st.DataObject, tmp_path) -> None:
    data = bytearray(CHECKPOINTS[name])
    front = draw.draw(st.sampled_from([len(data), min(2500, len(data))]))  # most of the structure stands in front
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, front - 1))] = draw.draw(st.integers(0, 255))
    read(tmp_path, bytes(data))


@pytest.mark.parametrize("name", sorted(CHECKPOINTS))
@CASES
@given(draw=st.data())
def test_cut_off(name: str, draw: st.DataObject, tmp_path) -> None:
    data = CHECKPOINTS[name]
    assert read(tmp_path, data[: draw.draw(st.integers(0, len(data) - 1))]) is None
