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
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    both = predicted.keys() & reference.keys()
    same = 2 * sum(predicted[study] == reference[study] for study in both) >= len(both)
    sides = {"predicted": predicted, "reference": reference}.items()
    links = [(study, ("name" if same else side, name)) for side, names in sides for study, name in names.items()]
    ends = dict.fromkeys([*studies, *(end for link in links for end in link)])
    nodes = {end: number for number, end in enumerate(ends)}
    rows, columns = [nodes[study] for study, _ in links], [nodes[name] for _, name in links]
    graph = coo_array((np.ones(len(links)), (rows, columns)), (len(nodes), len(nodes)))
    group = connected_components(graph, directed=False)[1]
    labels: dict[int, set[tuple[str, str]]] = {}
    for study, name in links:
        labels.setdefault(group[nodes[study]], set()).add(name)
    torn = {one for one, names in labels.items() if len(names) > len({scheme for scheme, _ in names})}
    groups = [group[nodes[study]] for study in studies]
    numbers = {one: number for number, one in enumerate(dict.fromkeys(groups))}
    return Patients(
        np.array([numbers[one] for one in groups], np.intp),
        sum(study in predicted or study in reference for study in studies),
        frozenset(numbers[one] for one in torn if one in numbers),
    )
