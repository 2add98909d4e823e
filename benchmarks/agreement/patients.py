"""Groups studies by patient, from the names that both sides give the patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Patients", "link_patients"]


@dataclass(frozen=True, eq=False)
class Patients:
    """The patient of each study, numbered from 0 (`cluster`).

    `named` studies name a patient; each other study is its own cluster. `contradictory` clusters are one patient on one
    side and several on the other. They are kept as one, so that intervals do not become too narrow; no change is taken
    from them.
    """

    cluster: NDArray[np.intp]
    named: int
    contradictory: frozenset[int]


def link_patients(studies: Sequence[str], predicted: Mapping[str, str], reference: Mapping[str, str]) -> Patients:
    """Link studies by every name that either side gives their patient.

    The sides may name patients differently (a hash and a number): studies that share a name on one side belong to one
    patient. The sides use the same names if at least half of the studies with a name on both sides agree, or if there
    is no such study; then a name of one side alone also links studies of both.
    """
    both = predicted.keys() & reference.keys()
    same = 2 * sum(predicted[study] == reference[study] for study in both) >= len(both)
    sides = {"predicted": predicted, "reference": reference}
    links = _Links()
    labels: dict[object, set[tuple[str, str]]] = {}
    for side, names in sides.items():
        for study, name in names.items():
            links.join(("study", study), ("name" if same else side, name))
    for side, names in sides.items():
        for study, name in names.items():
            labels.setdefault(links.root(("study", study)), set()).add(("name" if same else side, name))
    torn = {root for root, names in labels.items() if len(names) > len({scheme for scheme, _ in names})}
    roots = [links.root(("study", study)) for study in studies]
    numbers = {root: i for i, root in enumerate(dict.fromkeys(roots))}
    return Patients(
        np.array([numbers[root] for root in roots], np.intp),
        sum(study in predicted or study in reference for study in studies),
        frozenset(numbers[root] for root in torn if root in numbers),
    )


class _Links:
    """Groups of nodes that were joined directly or through others (disjoint sets)."""

    def __init__(self) -> None:
        self._above: dict[tuple[str, str], tuple[str, str]] = {}

    def root(self, node: tuple[str, str]) -> tuple[str, str]:
        while (above := self._above.setdefault(node, node)) != node:
            self._above[node] = self._above[above]  # halves the way for the next search
            node = above
        return node

    def join(self, one: tuple[str, str], other: tuple[str, str]) -> None:
        self._above[self.root(one)] = self.root(other)
