"""The parts that all measurements share.

`record` has a measurement's command line and its record, `environment` the machine and its software, `subject` bundles
and phantoms, `timing` turns and percentiles, `child` processes that answer in JSON. Importing the package loads
nothing, since processes whose start is timed import it.
"""
