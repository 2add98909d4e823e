"""Change over time: comparisons of two studies of a patient, and tidy tables of many studies.

from spinescore.runtime.followup import compare

comparison = compare(StudyReport.from_json(before), StudyReport.from_json(now))
comparison.total.change, comparison.units.new_syndesmophytes, comparison.to_json()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spinescore.runtime.followup.change import compare
    from spinescore.runtime.followup.cohort import Cohort, read_cohort
    from spinescore.runtime.followup.comparison import Comparison, Rules, comparison_schema
    from spinescore.runtime.followup.readerfiles import read_csv
    from spinescore.runtime.followup.tables import tables_of

__all__ = ["Cohort", "Comparison", "Rules", "compare", "comparison_schema", "read_cohort", "read_csv", "tables_of"]

_HOMES = {
    "Cohort": "cohort",
    "compare": "change",
    "read_cohort": "cohort",
    "read_csv": "readerfiles",
    "tables_of": "tables",
}

if not TYPE_CHECKING:  # to a type checker a name that is not in `__all__` is an error

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'comparison')}"), name)
