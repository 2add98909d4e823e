"""The parts that all measurements share.

`record` has a measurement's command line and its record, `environment` the machine and its software, `subject` bundles
and phantoms, `studies` many of them, `timing` turns and percentiles, `child` processes that answer in JSON, `processes`
their descendants, processor time and memory. Importing the package loads nothing, since processes whose start is timed
import it.
"""
