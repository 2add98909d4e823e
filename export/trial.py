"""Runs networks on golden inputs in FP32, and compares half precision and INT8 with the outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray

from spinescore.export.ends import in_groups
from spinescore.export.golden import GoldenView, crop_pictures, localizer_pictures, locate, normalised
from spinescore.export.rounding import HalfResult, PreparedHalf, prepare_half, try_half
from spinescore.export.sensitivity import Int8Result, make_int8
from spinescore.export.sessions import Images, run_model, scaled_images, workers
from spinescore.export.sources import Network
from spinescore.runtime.acceptance.comparison import (
    GradeAgreement,
    PointAgreement,
    compare_grades,
    compare_points,
    corner_grades,
)
from spinescore.runtime.engines.half import store_half
from spinescore.runtime.errors import BundleError, CheckpointError
from spinescore.runtime.manifest import Grader, Localizer
from spinescore.runtime.manifest.tolerances import Tolerances
from spinescore.runtime.scoring.networks import FLIPS
from spinescore.runtime.study import REGIONS

__all__ = [
    "Options",
    "Trial",
    "agreement_of_alternatives",
    "agreement_of_grader",
    "agreement_of_localizer",
    "one_grade",
    "try_graders",
    "try_localizers",
]

_ROUNDING = 1e-6  # of the largest output: answers that differ less are the same

Save = Callable[[str, onnx.ModelProto], None]  # begins to write a finished graph under a file's name


@dataclass(frozen=True)
class Options:
    """Whether the FP32 graph stores its weights as half, and whether FP16 and INT8 graphs are made too.

    `bounds` are the limits for an INT8 graph.
    """

    stored_half: bool
    fp16: bool
    int8: bool = False
    bounds: Tolerances = field(default_factory=Tolerances)


@dataclass(frozen=True, eq=False)
class Trial:
    """One network: its final FP32 graph, its golden pictures (N, H, W), the outputs, and its FP16 and INT8 graphs.

    `images` are the normalised pictures that it ran on, `expected` its FP32 outputs. `regions` (N) are those of a
    localizer's pictures: 0 cervical, 1 lumbar. `scaled` are its pictures at other scales; its outputs are then the mean
    of all runs.
    """

    network: Network
    model: onnx.ModelProto
    images: Images
    pictures: NDArray[np.uint8]
    expected: NDArray[np.float32]
    half: HalfResult | None
    regions: NDArray[np.uint8]
    int8: Int8Result | None = None
    scaled: Mapping[float, NDArray[np.uint8]] = field(default_factory=dict)

    @property
    def rounded(self) -> NDArray[np.float32]:
        """The outputs in half precision; in FP32 if there is no FP16 graph."""
        return self.expected if self.half is None or self.half.output is None else self.half.output

    @property
    def shows_one_picture(self) -> bool:
        """Whether there are several golden pictures, and all are the same."""
        return len(self.pictures) > 1 and not np.ptp(self.pictures, axis=0).any()


def try_localizers(
    networks: Sequence[Network],
    views: Sequence[GoldenView],
    localizer: Localizer,
    options: Options,
    save: Save,
) -> tuple[list[Trial], NDArray[np.void]]:
    """Try every localizer on the radiographs of its regions; return the trials, and the points (N, 6, 2) of all views.

    The points come from the bundle's own localizer, not from its alternatives.
    """
    scales = {1.0: None, **dict.fromkeys(localizer.averaging.scales)}
    pictures = {scale: localizer_pictures(views, localizer, scale) for scale in scales}
    regions = np.array([REGIONS.index(view.region) for view in views], np.uint8)
    heatmaps: dict[int, NDArray[np.float32]] = {}
    trials = []
    for network in networks:
        served = [REGIONS.index(region) for region in network.regions]
        mine = np.flatnonzero(np.isin(regions, served))
        if not len(mine):
            raise BundleError(f"no golden radiograph shows the {network.role} spine; give some of both regions")
        shown = {scale: whole[mine] for scale, whole in pictures.items()}
        images = scaled_images([normalised(part, localizer.input) for part in shown.values()], localizer)
        trial = _try(network, shown.pop(1.0), images, options, regions[mine], save)
        trial = replace(trial, scaled=shown)
        if options.int8:
            trial = _quantized(trial, options.bounds, partial(agreement_of_localizer, trial, localizer), save)
        if not network.alternative:
            heatmaps.update(zip(mine.tolist(), trial.expected, strict=True))
        trials.append(trial)
    return trials, locate(views, [heatmaps[number] for number in range(len(views))], localizer)


def try_graders(
    networks: Sequence[Network],
    views: Sequence[GoldenView],
    points: NDArray[np.void],
    grader: Grader,
    options: Options,
    save: Save,
) -> list[Trial]:
    """Try every network of the grader on the crops around `points`."""
    trials = []
    for network in networks:
        flips = FLIPS[network.outputs]
        pictures = crop_pictures(views, points, grader, flips)
        images = normalised(pictures, grader.input)
        trials.append(_try(network, pictures, images, options, np.zeros(0, np.uint8), save))

    def judge(role: str, output: NDArray[np.float32]) -> GradeAgreement:
        return agreement_of_grader(trials, grader, {role: output})

    if not options.int8:
        return trials
    return [_quantized(trial, options.bounds, partial(judge, trial.network.role), save) for trial in trials]


def agreement_of_localizer(
    trial: Trial, localizer: Localizer, output: NDArray[np.float32] | None = None
) -> PointAgreement:
    """Return how far the points move with `output`; without it, in half precision."""
    return compare_points(trial.expected, trial.rounded if output is None else output, localizer, trial.regions)


def agreement_of_alternatives(trials: Sequence[Trial], localizer: Localizer) -> dict[str, PointAgreement]:
    """Return how far each alternative's points are from the bundle's own localizer's, by the name of its files."""
    own = {trial.network.role: trial for trial in trials if not trial.network.alternative}
    return {
        trial.network.stem: agreement_of_localizer(own[trial.network.role], localizer, trial.expected)
        for trial in trials
        if trial.network.alternative
    }


def agreement_of_grader(
    trials: Sequence[Trial], grader: Grader, outputs: Mapping[str, NDArray[np.float32]] | None = None
) -> GradeAgreement:
    """Return how the grades change if networks give `outputs`, by role; without these, in half precision."""
    expected = {trial.network.role: trial.expected for trial in trials}
    rounded = {trial.network.role: trial.rounded for trial in trials}
    return compare_grades(expected, {**expected, **(rounded if outputs is None else outputs)}, grader)


def one_grade(trials: Sequence[Trial], grader: Grader) -> list[str]:
    """Return a warning if all corners of the golden pictures have one grade. Random weights are left out."""
    grades = corner_grades({trial.network.role: trial.expected for trial in trials}, grader)
    if any(trial.network.tensors for trial in trials) or len(np.unique(grades)) > 1:
        return []
    return [
        f"grader: all {grades.size} corners of the golden radiographs have grade {grades.flat[0]}; unless that is true "
        "of them, the network is not trained, or its input (mean and std, crop, contrast) is not that of its training"
    ]


def _quantized(
    trial: Trial,
    bounds: Tolerances,
    judge: Callable[[NDArray[np.float32]], PointAgreement | GradeAgreement],
    save: Save,
) -> Trial:
    plain, stem = trial.network.fit(trial.images), trial.network.stem
    result = make_int8(plain, trial.images, trial.expected, judge, bounds, stem)
    if result.model is not None:
        save(f"{stem}.int8.onnx", result.model)
    return replace(trial, int8=result)


def _is_constant(outputs: NDArray[np.float32], *, grader: bool) -> bool:
    """Return whether the outputs for all pictures are the same but for rounding.

    Of a grader's logits only their differences within a group count, because a softmax follows.
    """
    answers = outputs.astype(np.float64)
    if grader:
        answers = in_groups(answers)
        answers = answers - answers.mean(axis=-1, keepdims=True)
    return len(answers) > 1 and float(np.ptp(answers, axis=0).max()) <= _ROUNDING * float(np.abs(outputs).max())


def _try(
    network: Network,
    pictures: NDArray[np.uint8],
    images: Images,
    options: Options,
    regions: NDArray[np.uint8],
    save: Save,
) -> Trial:
    model = network.fit(images)
    if options.stored_half:
        model = store_half(model)
    with workers(1) as beside:
        prepared = beside.submit(prepare_half, model, images) if options.fp16 else None
        expected = run_model(model, images, f"{network.stem}: FP32")
    if not np.isfinite(expected).all():
        raise CheckpointError(
            f"{network.provenance['source']}: gives NaN or infinity on golden inputs; are mean and std of its input "
            "those that it was trained with?"
        )
    trial = Trial(network, model, images, pictures, expected, None, regions)
    if not trial.shows_one_picture and _is_constant(expected, grader=network.kind == "grader"):
        raise CheckpointError(
            f"{network.provenance['source']}: gives the same answer for all {len(expected)} golden pictures, so it "
            "does not look at them; are its weights those after training, and its mean and std right?"
        )
    save(f"{network.stem}.fp32.onnx", model)
    half = prepared.result() if prepared else None
    if isinstance(half, PreparedHalf):
        half = try_half(half, model, images, expected, network.stem)
    if half is not None and half.model is not None:
        save(f"{network.stem}.fp16.onnx", half.model)
    return replace(trial, half=half)
