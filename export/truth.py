"""Compares a localizer with the true points of golden phantoms, and finds likely exchanges of files or outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spinescore.export.golden import GoldenView, locate
from spinescore.export.sessions import run_model
from spinescore.export.trial import Trial
from spinescore.runtime.manifest import Localizer
from spinescore.runtime.study import REGIONS

__all__ = ["PointError", "likely_exchange", "point_errors"]

_NEAR = 0.25  # of the disc spacing: a point farther off is not on its disc
_MUCH_LESS = 3

Heatmaps = NDArray[np.float32]


@dataclass(frozen=True)
class PointError:
    """Distances from the true points, in shares of the mean distance between neighbouring discs."""

    points: int
    median_of_spacing: float
    within_quarter: float  # share of the points


def point_errors(
    trials: Sequence[Trial], views: Sequence[GoldenView], localizer: Localizer
) -> dict[str, dict[str, PointError]]:
    """Return errors by network and region; empty without true points, and for random weights."""
    if any(view.points_px is None for view in views):
        return {}
    return {
        trial.network.stem: {
            region: _error(trial, views, region, localizer)
            for region in trial.network.regions
            if any(view.region == region for view in views)
        }
        for trial in trials
        if not trial.network.tensors
    }


def likely_exchange(
    trials: Sequence[Trial],
    views: Sequence[GoldenView],
    localizer: Localizer,
    errors: Mapping[str, Mapping[str, PointError]],
) -> list[str]:
    """Return a sentence for each likely exchange of regions, points or discs that would make the points fit."""
    own = [trial for trial in trials if not trial.network.alternative and trial.network.stem in errors]
    exchanges = list(_crossed(own, views, localizer, errors)) if len(own) > 1 else []
    for trial in [] if exchanges else own:
        for region, error in errors[trial.network.stem].items():
            for words, remedy, channels in _orders(localizer, region, trial.expected.shape[1]):
                other = _error(trial, views, region, localizer, trial.expected[:, channels])
                if _fits_rather(error, other):
                    exchanges.append(
                        _sentence(trial, f"{words} of the {region} spine are likely exchanged", error, other, remedy)
                    )
    return exchanges


def _crossed(
    trials: Sequence[Trial],
    views: Sequence[GoldenView],
    localizer: Localizer,
    errors: Mapping[str, Mapping[str, PointError]],
) -> list[str]:
    """Return a sentence if each region's localizer fits the other region's radiographs."""
    regions = [trial.network.regions[0] for trial in trials]
    before = [errors[trial.network.stem][region] for trial, region in zip(trials, regions, strict=True)]
    after = [
        _error(own, views, region, localizer, run_model(other.model, own.images))
        for own, other, region in zip(trials, trials[::-1], regions, strict=True)
    ]
    if not all(_fits_rather(one, other) for one, other in zip(before, after, strict=True)):
        return []
    files = {trial.network.role: trial.network.provenance["source"] for trial in trials}
    remedy = f"give --localizer cervical={files['lumbar']},lumbar={files['cervical']}"
    return [_sentence(trials[0], "the cervical and the lumbar file are likely exchanged", before[0], after[0], remedy)]


def _orders(localizer: Localizer, region: str, joints: int) -> list[tuple[str, str, list[int]]]:
    """Return possible exchanges: a description, the remedy, and the channels in the order after the exchange."""
    channels = np.array(localizer.channels())  # region, disc, centre or anterior
    row = 0 if region == REGIONS[0] else 1
    here = channels[row]
    choices = {"centre and anterior points": here[:, ::-1], "discs from above and from below": here[::-1]}
    if not set(here.flat) & set(channels[1 - row].flat) and joints >= 2 * here.size:
        choices["heatmaps of the two regions, those"] = channels[1 - row]
    orders = []
    for words, chosen in choices.items():
        order = np.arange(joints)
        order[here.ravel()] = chosen.ravel()
        orders.append((words, "state the order of the heatmaps in localizer.keypoints", order.tolist()))
    return orders


def _error(
    trial: Trial, views: Sequence[GoldenView], region: str, localizer: Localizer, heatmaps: Heatmaps | None = None
) -> PointError:
    """Return the error in one region of the network's own heatmaps, or of others for the same pictures."""
    shown = trial.regions == REGIONS.index(region)
    of_region = [view for view in views if view.region == region]
    unknown = [replace(view, points_px=None) for view in of_region]
    chosen = (trial.expected if heatmaps is None else heatmaps)[shown]
    points = locate(unknown, list(chosen), localizer)["xy"].astype(np.float64)
    true = np.array([view.points_px for view in of_region], np.float64)
    spacing = np.linalg.norm(np.diff(true[:, :, 0], axis=1), axis=-1).mean(axis=1)
    off = np.linalg.norm(points - true, axis=-1) / spacing[:, None, None]
    return PointError(off.size, float(np.median(off)), float((off <= _NEAR).mean()))


def _fits_rather(error: PointError, other: PointError) -> bool:
    better = other.median_of_spacing < min(_NEAR, error.median_of_spacing / _MUCH_LESS)
    return error.median_of_spacing > _NEAR and better


def _sentence(trial: Trial, what: str, error: PointError, other: PointError, remedy: str) -> str:
    return (
        f"{trial.network.stem}: {what}: on golden phantoms points are {100 * error.median_of_spacing:.0f} % of the "
        f"disc spacing off, and {100 * other.median_of_spacing:.1f} % if they are; {remedy}"
    )
