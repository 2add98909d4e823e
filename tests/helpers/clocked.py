"""Devices whose steps take exactly as long as the test says, and a scorer that reads their clock."""

from __future__ import annotations

from helpers.scoring import CERVICAL, LUMBAR
from spinescore.runtime import Scorer
from spinescore.runtime.devices.host import HostDevice

STUDY = (CERVICAL.radiograph, LUMBAR.radiograph)
NETWORK_MS = {"localizer": 10, "grader": 20}
WHOLE, ONE_PASS, PLAIN = 76, 50, 32  # 2 x (4 x 4 + 10) + 2 x 2 + 20; without a pass; and with one sample a pixel
ASK = 26


class Clock:
    """Seconds, which pass when the device says so."""

    def __init__(self):
        self.ms, self.factor = 0.0, 1.0

    def __call__(self):
        return self.ms / 1e3

    def passes(self, ms):
        self.ms += ms * self.factor


class Steps(HostDevice):
    """A host device by that clock: a warp takes n x n milliseconds, a network its own; steps run one by one."""

    def __init__(self):
        super().__init__(1)
        self.clock, self.times, self.before = Clock(), {}, lambda network: None

    def warp(self, rois, spec, out):
        super().warp(rois, spec, out)
        self.clock.passes(spec.antialias**2)

    def run(self, engine, inputs, outputs):
        self.before(engine.name)
        super().run(engine, inputs, outputs)
        self.clock.passes(NETWORK_MS[engine.name.split(".")[0].split("-")[0]])

    def mark(self, stage):
        self.times[stage] = self.clock.ms

    def marks_ms(self):
        return {stage: at - self.times["start"] for stage, at in self.times.items()}

    def capture(self, steps):
        steps(slice(0, 2))
        return steps


class Graph(Steps):
    """As a GPU has it: steps are recorded once, and replayed for both views as one unit."""

    recording = None

    def capture(self, steps):
        steps(slice(0, 2))
        self.recording = kept = []
        steps(slice(0, 2))
        self.recording = None

        def replay(views):
            for verb, arguments in kept:
                getattr(self, verb)(*arguments)

        return replay


def _recorded(verb):
    def call(self, *arguments):
        if self.recording is None:
            getattr(Steps, verb)(self, *arguments)
        else:
            self.recording.append((verb, arguments))

    return call


for name in ("warp", "decode", "boxes", "crops", "run", "mark", "mirror", "average"):
    setattr(Graph, name, _recorded(name))


def opened(bundle, kind=Steps, budget_ms=1e6, **options):
    device = kind()
    return Scorer(bundle, device, budget_ms=budget_ms, clock=device.clock, **options), device
