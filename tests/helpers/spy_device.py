"""A device that shows what the localizer of the tiny bundle is given."""

from __future__ import annotations

import numpy as np

from helpers.tiny import HEIGHT, WIDTH
from spinescore.runtime.devices.host import HostDevice


class Spy(HostDevice):
    """A host device that keeps every input of the localizer."""

    def __init__(self):
        super().__init__(1)
        self.inputs = []

    def run(self, engine, inputs, outputs):
        if inputs.shape[-2:] == (HEIGHT, WIDTH):
            self.inputs.append(np.array(inputs))
        super().run(engine, inputs, outputs)
