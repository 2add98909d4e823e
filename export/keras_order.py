"""Names the layers of a Keras ResNet whose file only numbers them.

Keras lists a functional model's layers by depth, so that the shortcut of a stage's first block (`_0_`) stands after the
block's second convolution and before its third (keras/src/applications/resnet.py, keras/src/models/functional.py):
conv1, then per block 1, 2, [0,] 3. A shortcut can have the shape of the third convolution beside it, but what follows a
block takes four times its width, and no shortcut's neighbour does; so the shapes tell the blocks apart, at any depth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from spinescore.runtime.errors import CheckpointError

__all__ = ["resnet_names"]

# Place in the file, class, number within the class, shape of the first variable.
Slot = tuple[str, str, int, tuple[int, ...]]


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
