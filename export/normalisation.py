"""How grey [0, 1] becomes a network's input: the usual normalisations, and the statement in a manifest file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from spinescore.runtime.errors import BundleError, CheckpointError
from spinescore.runtime.fields import near_name

__all__ = ["USUAL", "Preprocessing", "mean_and_std", "not_stated", "stated_preprocessing"]

Preprocessing = Literal["imagenet", "caffe", "none", "stated"]  # stated: the manifest file has mean and std

# Per channel, in grey [0, 1]. ImageNet as in torchvision and the official HRNet; 'caffe' as in Keras' preprocess_input:
# blue, green, red of 0 .. 255 minus the mean, without scaling. A radiograph's one grey stands in every channel.
USUAL: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "caffe": (tuple(mean / 255 for mean in (103.939, 116.779, 123.68)), (1 / 255,) * 3),
    "none": ((0.0,) * 3, (1.0,) * 3),
}


def stated_preprocessing(fields: Mapping[str, Any], kind: str) -> Preprocessing | None:
    """Return the preprocessing that the manifest file's `fields` of `kind`.input state; None if they state none.

    Raises `BundleError` for an unknown short form, and for one beside mean or std.
    """
    name = fields.get("preprocessing")
    parts = [part for part in ("mean", "std") if part in fields]
    for part in parts:
        if isinstance(fields[part], str):
            raise BundleError(
                f"{kind}.input.{part} is {fields[part]!r}, but it is a list of numbers, per channel; "
                f"{_instead(fields[part])}"
            )
    if name is None:
        return "stated" if len(parts) == 2 else None
    if not isinstance(name, str) or name not in USUAL:
        near = near_name(name, USUAL) if isinstance(name, str) else ""
        raise BundleError(
            f"{kind}.input.preprocessing is {name!r}; known are {', '.join(USUAL)}{near}. For another give mean and "
            "std, per channel in grey 0-1"
        )
    if parts:
        raise BundleError(
            f"{kind}.input has preprocessing and {parts[0]}; preprocessing stands for both, leave one out"
        )
    choice: Preprocessing = next(choice for choice in get_args(Preprocessing) if choice == name)
    return choice


def _instead(name: str) -> str:
    """Return the advice for a short form that stands in place of numbers."""
    if name in USUAL:
        return f'write preprocessing = "{name}" instead of mean and std'
    return f"give numbers, or preprocessing instead of mean and std; known are {', '.join(USUAL)}"


def mean_and_std(preprocessing: Preprocessing, channels: int) -> dict[str, list[float]]:
    """Return `mean` and `std` for the manifest; for one channel, the average of three. Empty if there is no rule."""
    if preprocessing == "none":
        return {"mean": [0.0] * channels, "std": [1.0] * channels}
    if preprocessing == "stated":
        return {}
    mean, std = USUAL[preprocessing]
    if channels == 1:
        mean, std = (sum(mean) / 3,), (sum(std) / 3,)
    elif channels != 3:
        mean, std = (), ()  # the manifest's own check asks for them
    return {"mean": list(mean), "std": list(std)}


def not_stated(source: str, kind: str, channels: int) -> CheckpointError:
    """Return the error for an ONNX file whose normalisation is not stated, with the lines that state it."""
    scale = f"mean = {[0.0] * channels} and std = {[round(1 / 255, 10)] * channels}"
    return CheckpointError(
        f"{source}: an ONNX file does not say how its input is normalised, and nothing is assumed. State it in the "
        f'file that --manifest names, in the table [{kind}.input], with one of these lines: preprocessing = "imagenet" '
        '(grey 0-1 minus mean, by standard deviation, as torchvision trains), preprocessing = "caffe" (0-255 minus '
        'mean, as preprocess_input of keras.applications\' ResNet gives), preprocessing = "none" (grey 0-1 as it is, '
        f"as ToTensor alone gives). Or mean and std per channel, as {scale} for a network that takes 0-255 and "
        "rescales it inside"
    )
