"""Measurements of spinescore. Most are commands: `python -m spinescore.benchmarks.NAME --help`.

harness           the parts that all measurements share: command line, record, machine, subject, turns, child processes
results           the records that README and docs quote

Speed and memory
bench             latency of whole studies (`spinescore bench`); peers: the same study by other means
embedding         cost of a scorer for the program around it; resultcost: of a study's results; exporting: of an export
testtime          cost of averaging at test time
decode            decoders of compressed pixels
manystudies       memory of one call with many studies
gpu               all checks and figures that need a GPU
kernels           registers and memory of the CUDA kernels

Results
agreement         agreement with a reader (`spinescore evaluate`)
phantom           training of the shipped bundle; phantom.evaluate: its points, grades and totals on other phantoms
quality           quality findings on sound and on `spoiled` phantoms
change            the change between two visits of phantoms
association       coverage of the intervals of `spinescore associate`

Robustness
fuzz              hostile files; fuzz.documents: hostile documents and networks
processes         one study in many new processes
freezing          a program frozen by PyInstaller
"""

from spinescore.runtime import silence  # noqa: F401  # before any engine is imported
