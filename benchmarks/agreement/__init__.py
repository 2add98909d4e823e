"""Agreement of grades with a reader's: confusion, ROC, kappa, ICC, Bland-Altman, smallest detectable change.

`evaluate(predicted, reference)` compares two `Readings`; `read_readings` reads them from CSV files and reports. The
command is `spinescore evaluate`.
"""

from spinescore.benchmarks.agreement.changes import Rules
from spinescore.benchmarks.agreement.evaluate import SCHEMA, agreement_schema, evaluate
from spinescore.benchmarks.agreement.pairs import NothingToCompare
from spinescore.runtime.followup.readings import Reading, Readings, ReadingsError, read_readings

__all__ = [
    "SCHEMA",
    "NothingToCompare",
    "Reading",
    "Readings",
    "ReadingsError",
    "Rules",
    "agreement_schema",
    "evaluate",
    "read_readings",
]
