"""Names and checks the layers of Keras weights without the model's configuration.

The files list every layer, also those without variables: `.weights.h5` by class ("layers/zero_padding2d_1"), the older
`.h5` by name. A list with more layers than a ResNet (v1) and its head, or with fewer, is refused, because the file does
not tell what the other layers compute. Settings, activations of Dense layers and operators cannot be checked.

A file may number its layers and not name them. Keras lists a functional model's layers by depth, so that the shortcut
of a stage's first block (`_0_`) stands after the block's second convolution and before its third
(keras/src/applications/resnet.py, keras/src/models/functional.py): conv1, then per block 1, 2, [0,] 3. A shortcut can
have the shape of the third convolution beside it, but what follows a block takes four times its width, and no
shortcut's neighbour does; so the shapes tell the blocks apart, at any depth.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from spinescore.export.keras_advice import SAVE_WHOLE
from spinescore.export.keras_check import IDLE_LAYERS
from spinescore.export.keras_config import slot_class
from spinescore.runtime.errors import CheckpointError

__all__ = ["check_classes", "check_names", "resnet_names"]

# Place in the file, class, number within the class, shape of the first variable.
Slot = tuple[str, str, int, tuple[int, ...]]

_BACKBONE = re.compile(
    r"conv1_(pad|conv|bn|relu)|pool1_(pad|pool)|conv\d+_block\d+_(\d_(conv|bn|relu)|add|out)", re.ASCII
)
_INPUT = re.compile(r"input(_layer)?(_\d+)?", re.ASCII)
_MEAN = re.compile(r"avg_pool|global_average_pooling2d(_\d+)?", re.ASCII)


_IDLE = {slot_class(kind) for kind in (*IDLE_LAYERS, "Flatten", "Reshape")}
_IDLE_NAMES = re.compile(rf"({'|'.join(sorted(_IDLE))})(_\d+)?", re.ASCII)


def check_classes(classes: Sequence[str], names: Iterable[str]) -> None:
    """Check the number of layers of each class against the network of the tensors `names`.

    A file that lists only layers with variables is not checked. Raises `CheckpointError` for too many or too few.
    """
    names = set(names)
    counts = Counter(classes)
    blocks = sum(name.endswith("_3_conv/kernel") for name in names)
    expected = {
        "activation": 1 + 3 * blocks, "add": blocks, "zero_padding2d": 2, "max_pooling2d": 1,
        "global_average_pooling2d": 1,
    }  # fmt: skip
    with_variables = ("conv2d", "batch_normalization", "dense")
    models = ("functional", "model", "sequential")
    if "conv1_conv/kernel" not in names or set(counts) <= {*with_variables, *models}:
        return
    most = {**expected, "input_layer": 1 + sum(counts[kind] for kind in models)}
    for kind, count in counts.items():
        if kind not in most and kind not in (*with_variables, *models) and kind not in _IDLE:
            raise _unknown(f"a layer of class {kind!r}")
        if count > most.get(kind, count):
            raise _unknown(f"{count} layers of class {kind!r}, {count - most[kind]} more than the network has")
    for kind, count in expected.items():
        if counts[kind] < count:
            raise _unknown(f"{counts[kind]} of the {count} layers of class {kind!r} that the network has")


def check_names(layers: Sequence[str], weighted: Iterable[str], names: Iterable[str]) -> None:
    """Check that every one of `layers` without weights has a name that a ResNet's layers have.

    `layers` are in the model's order, `weighted` are those with weights, `names` are the tensors. Files of other
    networks than a ResNet are not checked. Raises `CheckpointError` for an unknown name.
    """
    weighted = set(weighted)
    if "conv1_conv/kernel" not in names:
        return
    flat = "conv1_conv" in weighted
    plain = [name for name in layers if name not in weighted]
    for name in plain:
        first = flat and name == layers[0] and layers[1:2] == ["conv1_pad"]
        usual = (_BACKBONE, _INPUT, _MEAN, _IDLE_NAMES)
        if not first and not any(pattern.fullmatch(name) for pattern in usual):
            raise _unknown(f"the layer {name!r}, which has no weights")
        if _MEAN.fullmatch(name):
            early = [other for other in layers[: layers.index(name)] if other in weighted]
            dense = [other for other in early if flat and not _BACKBONE.fullmatch(other)]
            if dense:
                raise _unknown(f"the layer {dense[0]!r} before the pooling")
    means = sum(_MEAN.fullmatch(name) is not None for name in plain)
    if means != 1:
        raise _unknown(f"{means} layers that are known as the mean over the picture (avg_pool)")


def _unknown(what: str) -> CheckpointError:
    return CheckpointError(
        f"the file of weights lists {what}, and without the model's configuration nothing says what is computed. "
        f"{SAVE_WHOLE}"
    )


def resnet_names(slots: Sequence[Slot]) -> dict[str, str]:
    """Return the layer names of `keras.applications` by place. Raises CheckpointError if the shapes fit none."""
    if not slots:
        return {}
    by_kind: dict[str, list[Slot]] = {"conv2d": [], "batch_normalization": [], "dense": []}
    for slot in slots:
        if slot[1] not in by_kind:
            raise _ambiguous(f"{slot[0]!r} is no layer of a ResNet")
        by_kind[slot[1]].append(slot)
    convolutions, norms, heads = (sorted(group, key=lambda slot: slot[2]) for group in by_kind.values())
    for group in (convolutions, norms):
        if len({slot[0].rpartition("/")[0] for slot in group}) > 1:
            raise _ambiguous("its layers are spread over several submodels")
    names = list(_blocks([slot[3] for slot in convolutions]))
    if len(norms) != len(convolutions) or any(n[3] != c[3][-1:] for n, c in zip(norms, convolutions, strict=True)):
        raise _ambiguous("each convolution needs a batch normalisation of its width")
    if len(heads) > 1:
        raise _ambiguous("it has more than one Dense layer")
    result = {slot[0]: f"{name}_conv" for slot, name in zip(convolutions, names, strict=True)}
    result |= {slot[0]: f"{name}_bn" for slot, name in zip(norms, names, strict=True)}
    return result | {slot[0]: "predictions" for slot in heads}


def _blocks(shapes: list[tuple[int, ...]]) -> Iterator[str]:
    """Yield the convolutions' names, from the kernels' shapes (height, width, inputs, outputs)."""
    if not shapes or len(shapes[0]) != 4 or shapes[0][:2] != (7, 7):
        raise _ambiguous("the first convolution is not 7x7")
    yield "conv1"
    inputs, stage, block, position = shapes[0][3], 1, 0, 1
    while position < len(shapes):
        width = shapes[position][-1]
        plain = [(1, 1, inputs, width), (3, 3, width, width), (1, 1, width, 4 * width)]
        shortcut = [*plain[:2], (1, 1, inputs, 4 * width), plain[2]]
        first = shapes[position : position + 4] == shortcut
        if not first and (block == 0 or shapes[position : position + 3] != plain):
            raise _ambiguous(f"convolution {position} does not continue a ResNet of bottleneck blocks")
        stage, block = (stage + 1, 1) if first else (stage, block + 1)
        for part in (1, 2, 0, 3) if first else (1, 2, 3):
            yield f"conv{stage}_block{block}_{part}"
        inputs, position = 4 * width, position + (4 if first else 3)


def _ambiguous(why: str) -> CheckpointError:
    return CheckpointError(
        "the file numbers its variables and says neither the layers' names nor the model's configuration, and the "
        f"order cannot be told from the shapes ({why}); save the whole model instead: model.save('grader.keras')"
    )
