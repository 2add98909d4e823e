"""Latency of whole studies on this machine, by a fixed protocol (`spinescore bench`, `spinescore.latency/2`).

`verb` has the command's options, `measure` runs the parts: `rounds` (steady state, with the networks alone and the
peers; different studies), `starts` (cold and warm, memory), `images` (sizes and transfer syntaxes), `load` (many
studies at once), `energy`. The record's schema stands beside this file; `document` writes and reads it, `render` and
`plots` show it, `compare` compares records. Importing the package loads nothing, since processes whose start is timed
import it.
"""
