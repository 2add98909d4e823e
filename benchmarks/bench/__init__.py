"""Latency of whole studies on this machine, by a fixed protocol (`spinescore bench`, `spinescore.latency/2`).

`verb` has the command's options, `measure` the parts: `rounds` (steady state, with the networks alone and the peers),
`starts` (cold and warm, memory), `images` (sizes and transfer syntaxes), `load` (many studies at once), `energy`. The
record's schema stands beside this file; `render` and `plots` show a record, `compare` holds two against each other.
Importing the package loads nothing: the processes whose start is timed come by here.
"""
