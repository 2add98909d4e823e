"""On the driver double: uploads, slots, contexts and buffers: what is copied, and when memory grows."""

from __future__ import annotations

import numpy as np
import pytest
from on_double import CONTROL, assert_everything_freed, assert_same, bundle, opened, run, study, untimed

from spinescore.kernels.warp import ROI, Source, WarpSpec, warp
from spinescore.runtime import DeviceError, Scorer
from spinescore.runtime.devices.host import HostDevice
from spinescore.runtime.scoring import views

SENT = 2 + 2 * 3  # ROIs and views; of each view its pixels, tables and record


def case_integrated():
    """An integrated GPU gives the same report, and reads radiographs in host memory only if it caches that."""
    CONTROL.set("integrated", 1)
    views.is_doubtful = lambda *_: False  # else a picture may be asked how it stands, which writes more of them
    tested = bundle()
    for coherent, first, again in ((0, SENT, SENT - 2), (1, 2, 2)):
        CONTROL.set("coherent", coherent)
        with Scorer(tested, opened()) as cuda, Scorer(tested, HostDevice(1)) as host:
            assert CONTROL.calls("cuMemHostGetDevicePointer_v2") == 5 * coherent
            for one, sent in ((study(), first), (study(rows=512, dtype="uint16"), first), (study(), first)):
                copies = CONTROL.calls("cuMemcpyHtoDAsync_v2")
                assert_same(cuda.score(one), host.score(one))
                assert CONTROL.calls("cuMemcpyHtoDAsync_v2") - copies == sent
            copies = CONTROL.calls("cuMemcpyHtoDAsync_v2")
            assert_same(cuda.score(one), host.score(one))
            assert CONTROL.calls("cuMemcpyHtoDAsync_v2") - copies == again  # the tables are there
        assert_everything_freed()


def case_larger_than_the_slot():
    """A slot grows for a larger radiograph; the graph is the same, and so is the next report. Or memory is short."""
    tested = bundle()
    larger, usual = study(rows=1200, dtype="uint16"), study()
    with Scorer(tested, opened()) as cuda, Scorer(tested, HostDevice(1)) as host:
        first = untimed(cuda.score(usual))
        graphs = CONTROL.calls("cuGraphInstantiateWithFlags")
        CONTROL.set("memory", 1_000_000)
        with pytest.raises(DeviceError, match="out of memory"):
            cuda.score(larger)
        CONTROL.set("memory", 1 << 40)
        assert untimed(cuda.score(usual)) == first
        blocks = CONTROL.live()
        assert_same(cuda.score(larger), host.score(larger))
        assert untimed(cuda.score(usual)) == first
        assert CONTROL.live() == blocks
        assert CONTROL.calls("cuGraphInstantiateWithFlags") == graphs
    assert_everything_freed()


def case_larger_than_the_slot_of_a_coherent_gpu():
    CONTROL.set("integrated", 1)
    CONTROL.set("coherent", 1)
    case_larger_than_the_slot()


def case_upload_in_pieces():
    """Strided, byte-swapped and signed pixels arrive whole, each piece by one copy; equal tables are sent once."""
    rng = np.random.default_rng(3)
    plain = rng.integers(0, 4096, (1500, 1400)).astype(np.int16)
    table = np.linspace(0, 1, 4096, dtype=np.float32)
    spec = WarpSpec(64, 64, 2, (0.0,), (1.0,))
    roi = np.zeros(1, ROI)
    roi["origin"], roi["matrix"] = (500, 300), [[6, 1, 0], [-1, 15, 0]]
    outputs = []
    for pixels in (plain, plain.astype(">i2"), np.asfortranarray(plain), plain[::-1][::-1], plain.repeat(2, 1)[:, ::2]):
        device = opened(largest_image_px=1)
        rois, out = device.allocate((1,), ROI), device.allocate((1, 1, 64, 64), np.float32)
        device.write(rois, roi)
        copies = CONTROL.calls("cuMemcpyHtoDAsync_v2")
        device.upload(0, Source(pixels, (table, table * 0.5)))
        assert CONTROL.calls("cuMemcpyHtoDAsync_v2") - copies == 5 + 2  # 4.2 MB in rows that make up to 1 MB
        device.upload(0, Source(pixels, (table.copy(), table * 0.5)))
        assert CONTROL.calls("cuMemcpyHtoDAsync_v2") - copies == 2 * 5 + 3
        device.upload(0, Source(pixels, (table, table)))
        assert CONTROL.calls("cuMemcpyHtoDAsync_v2") - copies == 3 * 5 + 5
        device.warp(rois, spec, out)
        outputs.append(device.read(out))
        device.close()
    assert np.abs(outputs[0] - warp([Source(plain, (table,))], roi, spec)).max() < 1e-4
    assert outputs[0].std() > 0.1
    assert all(np.array_equal(output, outputs[0]) for output in outputs)
    assert_everything_freed()


def case_outputs_are_fetched_in_the_graph():
    """After a replay points and logits are on the host: neither a copy nor a second wait follows."""
    views.is_doubtful = lambda *_: False  # else a picture may be asked how it stands
    with Scorer(bundle(**{"grader.head": "bridge+grades"}), opened()) as cuda:
        copies = CONTROL.calls("cuMemcpyDtoHAsync_v2")
        cuda.score(study())
        assert CONTROL.calls("cuMemcpyDtoHAsync_v2") == copies
    device = opened()
    values, doubled = device.allocate((2, 4), np.float32), device.allocate((2, 4), np.float32)

    def steps(views):
        device.mirror(values[views], doubled[views])
        device.fetch(doubled[views])

    replay = device.capture(steps)
    for number in range(3):
        device.write(values, np.arange(8, dtype=np.float32).reshape(2, 4) + number)
        replay(slice(0, 2))
        copies = CONTROL.calls("cuMemcpyDtoHAsync_v2")
        assert device.read(doubled[1:]).tolist() == [[7 + number, 6 + number, 5 + number, 4 + number]]
        assert device.read(doubled)[0].tolist() == [3 + number, 2 + number, 1 + number, 0 + number]
        assert CONTROL.calls("cuMemcpyDtoHAsync_v2") == copies
    device.write(doubled[:1], np.ones((1, 4), np.float32))
    assert device.read(doubled)[:, 0].tolist() == [1, 9]
    assert CONTROL.calls("cuMemcpyDtoHAsync_v2") == copies + 1
    device.mirror(values, doubled)
    assert device.read(doubled)[0].tolist() == [5, 4, 3, 2]
    device.close()
    assert_everything_freed()


def case_contexts():
    """Another library's context, current on this thread, is current again after each verb and after close."""
    import pycuda.driver as drv

    drv.init()
    theirs = drv.Device(0).retain_primary_context()
    theirs.push()
    device = opened()
    assert CONTROL.live()["current"] == 1
    device.allocate((2, 2), np.float32)
    device.close()
    assert CONTROL.live() == {"context": 1, "current": 1}
    drv.Context.pop()
    assert CONTROL.live() == {"context": 1}
    two = opened()
    three = opened()
    two.close()
    three.synchronise()
    three.close()
    assert CONTROL.live() == {"context": 1}
    theirs.detach()
    assert CONTROL.live().get("context") is None


def case_buffers():
    device = opened()
    buffer = device.allocate((4, 2), np.int32)
    assert device.read(buffer).tolist() == [[0, 0]] * 4
    device.write(buffer[1:3], np.array([[1, 2], [3, 4]], np.int32))
    device.write(buffer[3:], np.array([[5, 6]], np.int32))
    copy = device.read(buffer)
    assert copy.tolist() == [[0, 0], [1, 2], [3, 4], [5, 6]]
    device.write(buffer, np.zeros((4, 2), np.int32))
    assert copy[3].tolist() == [5, 6]
    assert device.read(buffer[1:2][0:1]).tolist() == [[0, 0]]
    with pytest.raises(ValueError, match="got"):
        device.write(buffer, np.zeros((4, 2), np.int64))
    with pytest.raises(ValueError, match="steps of 1"):
        buffer[::2]
    device.close()
    with pytest.raises(DeviceError, match="closed"):
        device.read(buffer)
    assert_everything_freed()


if __name__ == "__main__":
    run(globals())
