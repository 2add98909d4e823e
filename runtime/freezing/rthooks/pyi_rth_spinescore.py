# Runs before the frozen program: a worker process of spinescore does its work here, and ends.
from spinescore.runtime.machine.processes import freeze_support

freeze_support()
