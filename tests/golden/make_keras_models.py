"""Writes `keras-models.json.xz`: configurations of Keras models that are, and that are nearly, a ResNet (v1) grader.

    cd tests && python -m golden.make_keras_models      # TensorFlow 2.21 with Keras 3.15 and tf_keras

Per framework ("keras3", "keras2") and case: the model's configuration as its files hold it, the names of its weights,
and the classes of its layers. `CASES` says of each one whether it computes what keras.applications' ResNet does
("same") or something else; beside it stands what a refusal must name. `check(folder)` saves every model in every format
and runs it, so that what is said of a case can be held against the framework.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SIZE = 64
DEPTHS = (1, 2, 1, 1)

# Case: what a refusal must name, or "" where the model is a ResNet.
CASES = {
    "plain": "", "softmax": "", "transfer": "", "nested": "", "sequence": "", "hidden": "", "relu_layers": "",
    "augmented": "", "two_square_dense": "", "softmax_layer": "", "softmax_corners": "", "frozen": "", "mixed": "",
    "pooling_avg": "", "dropout_in_backbone": "", "reshaped": "", "keepdims": "", "no_bias": "",
    "nested_twice": "", "sequence_in_model": "",
    "divided": "TrueDivide|truediv", "multiplied": "Multiply|multiply", "subtracted": "Subtract|subtract",
    "reversed": "GetItem|getitem", "stacked": "GetItem|Stack", "rescaled": "Rescaling", "normalised": "Normalization",
    "resized": "Resizing", "cropped": "CenterCrop", "random_crop": "RandomCrop", "preprocessed": "GetItem|TFOpLambda",
    "rescaled_in_sequence": "Rescaling", "tanh": "applies tanh", "tanh_head": "tanh", "relu6": "max_value 6",
    "leaky_relu_slope": "negative_slope 0.1", "threshold": "threshold 1", "leaky_relu": "LeakyReLU",
    "dense_gelu": "gelu", "dense_sigmoid": "sigmoid", "dense_linear_twice": "comes nothing",
    "softmax_inside": "softmax",
    "softmax_axis": "axis 1", "max_pooling": "GlobalMaxPooling2D", "pooling_max": "GlobalMaxPooling2D",
    "average_pooling": "AveragePooling2D", "flattened": "Flatten", "norm_in_head": "BatchNormalization",
    "layer_norm_in_head": "LayerNormalization", "unit_norm": "UnitNormalization", "two_inputs": "2 inputs",
    "two_outputs": "2 outputs", "epsilon": "epsilon 0.001", "no_scale": "scale False", "strides": "strides",
    "dilation": "dilation_rate", "padding": "padding", "conv_activation": "activation relu",
    "backbone_sigmoid": "activation sigmoid", "branch": "Concatenate", "residual_head": "Add",
    "shared": "2 times", "training_call": "training=True", "first_dropout_active": "training=True",
    "pool_strides": "strides", "average_stem": "AveragePooling2D", "squeeze_excite": "Multiply",
    "no_final_relu": "stands",
    "extra_relu": "applies relu", "global_and_max": "Concatenate|Average", "clipped": "Minimum|minimum",
    "permuted": "Permute", "grade_major": "groups of 4", "wrong_order": "stands",
    "gaussian_before": "", "grayscale": "RandomGrayscale", "own_layer": "Doubled",
}  # fmt: skip


def stem(keras: Any, x: Any, how: dict[str, Any]) -> Any:
    layers = keras.layers
    x = layers.ZeroPadding2D(how.get("pad", 3), name="conv1_pad")(x)
    x = unit(keras, x, 4, 7, "conv1", how, stride=2)
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    if how.get("average_stem"):
        return layers.AveragePooling2D(3, strides=2, name="pool1_pool")(x)
    return layers.MaxPooling2D(3, strides=how.get("pool", 2), name="pool1_pool")(x)


def unit(
    keras: Any, x: Any, width: int, size: int, name: str, how: dict[str, Any], *, stride: int = 1, relu: bool = True
) -> Any:
    layers = keras.layers
    mine = name == "conv3_block2_2"
    settings = how.get("conv", {}) if mine else {}
    settings = {"strides": stride, "padding": "same" if size == 3 else "valid", **how.get("convs", {}), **settings}
    x = layers.Conv2D(width, size, name=f"{name}_conv", **settings)(x)
    norm = {"epsilon": 1.001e-5, **(how.get("norm", {}) if mine else {})}
    x = layers.BatchNormalization(name=f"{name}_bn", **norm)(x)
    if not relu:
        return x
    kind = how.get("relu", "relu") if mine else "relu"
    return (
        layers.ReLU(name=f"{name}_relu")(x)
        if how.get("relu_layer")
        else layers.Activation(kind, name=f"{name}_relu")(x)
    )


def features(keras: Any, x: Any, **how: Any) -> Any:
    """The network's features, with one thing changed by `how`; (1, 2, 1, 1) blocks of 4 to 32 features."""
    layers = keras.layers
    x = stem(keras, x, how)
    for stage, depth in enumerate(DEPTHS, start=2):
        for block in range(1, depth + 1):
            name, width = f"conv{stage}_block{block}", 2 << (stage - 2)
            stride = 2 if block == 1 and stage > 2 else 1
            strides = (1, stride) if how.get("stride_in_3x3") else (stride, 1)
            shortcut = unit(keras, x, 4 * width, 1, f"{name}_0", how, stride=stride, relu=False) if block == 1 else x
            y = unit(keras, x, width, 1, f"{name}_1", how, stride=strides[0])
            y = unit(keras, y, width, 3, f"{name}_2", how, stride=strides[1])
            y = unit(keras, y, 4 * width, 1, f"{name}_3", how, relu=False)
            if how.get("squeeze"):
                y = layers.Multiply(name=f"{name}_scale")([y, y])
            if how.get("dropout"):
                y = layers.Dropout(0.2, name=f"{name}_drop")(y)
            x = layers.Add(name=f"{name}_add")([shortcut, y])
            if not (how.get("no_final_relu") and stage == 5):
                x = layers.Activation("relu", name=f"{name}_out")(x)
    return x


def headed(keras: Any, image: Any, x: Any, head: Callable[[Any], Any] | None = None, classes: int = 8) -> Any:
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return keras.Model(image, head(x) if head else keras.layers.Dense(classes, name="grade")(x), name="grader")


def models(keras: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every case that this framework can build, with what builds it."""
    layers, is_3 = keras.layers, hasattr(keras, "ops")

    def image(**settings: Any) -> Any:
        return keras.Input((SIZE, SIZE, 3), **settings)

    def changed(**how: Any) -> Callable[[], Any]:
        def build() -> Any:
            x = image()
            return headed(keras, x, features(keras, x, **how))

        return build

    def before(change: Callable[[Any], Any], **settings: Any) -> Callable[[], Any]:
        def build() -> Any:
            x = image(**settings)
            return headed(keras, x, features(keras, change(x)))

        return build

    def head(build_head: Callable[[Any], Any]) -> Callable[[], Any]:
        def build() -> Any:
            x = image()
            return headed(keras, x, features(keras, x), build_head)

        return build

    def instead(pool: Callable[[Any], Any]) -> Callable[[], Any]:
        def build() -> Any:
            x = image()
            return keras.Model(x, layers.Dense(8, name="grade")(pool(features(keras, x))))

        return build

    def between(*middle: Any) -> Callable[[Any], Any]:
        def build_head(x: Any) -> Any:
            x = layers.Dense(16, name="inner")(x)
            for layer in middle:
                x = layer(x)
            return layers.Dense(8, name="grade")(x)

        return build_head

    def ended(last: Callable[[Any], Any], **settings: Any) -> Callable[[Any], Any]:
        return lambda x: last(layers.Dense(8, name="grade", **settings)(x))

    yield "plain", changed()
    yield "softmax", head(lambda x: layers.Dense(4, activation="softmax", name="grade")(x))
    yield "hidden", head(lambda x: layers.Dense(8, name="grade")(layers.Dense(16, "relu", name="inner")(x)))
    yield (
        "two_square_dense",
        head(
            lambda x: layers.Dense(8, name="a")(
                layers.Dense(64, "relu", name="c")(layers.Dense(64, "relu", name="b")(x))
            )
        ),
    )
    yield "relu_layers", head(between(layers.ReLU()))
    yield "softmax_layer", head(ended(layers.Softmax()))
    yield "softmax_corners", head(ended(lambda x: layers.Softmax()(layers.Reshape((2, 4))(x))))
    yield "softmax_axis", head(ended(lambda x: layers.Softmax(axis=1)(layers.Reshape((2, 4))(x))))
    yield "grade_major", head(ended(layers.Reshape((4, 2))))
    yield "permuted", head(ended(lambda x: layers.Flatten()(layers.Permute((2, 1))(layers.Reshape((2, 4))(x)))))
    yield "reshaped", head(lambda x: layers.Dense(8, name="grade")(layers.Flatten()(layers.Reshape((1, 1, 64))(x))))
    yield "keepdims", instead(lambda x: layers.Flatten()(layers.GlobalAveragePooling2D(keepdims=True)(x)))
    yield "no_bias", changed(convs={"use_bias": False})
    yield "dropout_in_backbone", changed(dropout=True)
    yield "gaussian_before", before(layers.GaussianNoise(0.1))
    yield "tanh", head(lambda x: layers.Dense(8, name="grade")(layers.Activation("tanh")(x)))
    yield "extra_relu", head(lambda x: layers.Dense(8, name="grade")(layers.Activation("relu")(x)))
    yield "tanh_head", head(between(layers.Activation("tanh")))
    yield "relu6", head(between(layers.ReLU(max_value=6)))
    yield "leaky_relu_slope", head(between(layers.ReLU(negative_slope=0.1)))
    yield "threshold", head(between(layers.ReLU(threshold=1.0)))
    yield "leaky_relu", head(between(layers.LeakyReLU()))
    yield "dense_gelu", head(lambda x: layers.Dense(8, name="grade")(layers.Dense(16, "gelu", name="inner")(x)))
    yield "dense_sigmoid", head(lambda x: layers.Dense(8, "sigmoid", name="grade")(x))
    yield "dense_linear_twice", head(between())
    yield "softmax_inside", head(between(layers.Softmax()))
    yield "norm_in_head", head(between(layers.BatchNormalization(name="head_bn"), layers.ReLU()))
    yield "layer_norm_in_head", head(between(layers.LayerNormalization(name="head_ln"), layers.ReLU()))
    yield "unit_norm", head(between(layers.UnitNormalization(), layers.ReLU()))
    yield (
        "residual_head",
        head(lambda x: layers.Dense(8, name="grade")(layers.Add()([x, layers.Dense(64, "relu", name="inner")(x)]))),
    )
    yield "max_pooling", instead(layers.GlobalMaxPooling2D(name="avg_pool"))
    yield "average_pooling", instead(lambda x: layers.Flatten()(layers.AveragePooling2D(2)(x)))
    yield "flattened", instead(layers.Flatten())
    yield (
        "global_and_max",
        instead(lambda x: layers.Average()([layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)])),
    )
    yield (
        "branch",
        instead(lambda x: layers.Concatenate()([layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)])),
    )
    yield "epsilon", changed(norm={"epsilon": 1e-3})
    yield "no_scale", changed(norm={"scale": False})
    yield "strides", changed(stride_in_3x3=True)
    yield "dilation", changed(conv={"dilation_rate": 2})
    yield "padding", changed(pad=2)
    yield "conv_activation", changed(conv={"activation": "relu"})
    yield "backbone_sigmoid", changed(relu="sigmoid")
    yield "pool_strides", changed(pool=1)
    yield "average_stem", changed(average_stem=True)
    yield "squeeze_excite", changed(squeeze=True)
    yield "no_final_relu", changed(no_final_relu=True)
    yield "divided", before(lambda x: x / 255.0)
    yield "multiplied", before(lambda x: x * (1 / 127.5))
    yield "subtracted", before(lambda x: x - 127.5)
    yield "reversed", before(lambda x: x[..., ::-1])
    yield "rescaled", before(layers.Rescaling(1 / 255))
    yield "resized", before(layers.Resizing(48, 48))
    yield "cropped", before(layers.CenterCrop(48, 48))
    yield "random_crop", before(layers.RandomCrop(48, 48))
    yield "normalised", before(lambda x: layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0])(x))
    yield "rescaled_in_sequence", before(lambda x: keras.Sequential([layers.Rescaling(1 / 255)], name="prep")(x))
    yield (
        "preprocessed",
        before(
            (lambda x: keras.applications.resnet.preprocess_input(x))
            if is_3
            else (lambda x: x[..., ::-1] - [1.0, 2.0, 3.0])
        ),
    )
    augmented = [layers.RandomFlip("horizontal"), layers.RandomRotation(0.1), layers.RandomZoom(0.1)]
    augmented += [layers.RandomTranslation(0.1, 0.1), layers.RandomContrast(0.1), layers.RandomBrightness(0.1)]
    yield "augmented", before(lambda x: keras.Sequential(augmented, name="augment")(x))
    yield "wrong_order", lambda: _wrong_order(keras, image())
    yield "first_dropout_active", before(lambda x: layers.Dropout(0.1)(x, training=True))
    yield "two_inputs", lambda: _two_inputs(keras, image(), keras.Input((3,)))
    yield "two_outputs", lambda: _two_outputs(keras, image())
    yield "shared", head(lambda x: _shared(keras, x))
    yield "own_layer", before(_own(keras))
    if is_3:
        yield "stacked", before(lambda x: keras.ops.stack([x[..., 0], x[..., 1], x[..., 2]], axis=-1))
        yield "clipped", before(lambda x: keras.ops.minimum(x, 255.0))
        yield "grayscale", before(layers.RandomGrayscale(1.0))
    yield from nested_models(keras)


def nested_models(keras: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Cases in which the backbone is a model of its own."""
    layers = keras.layers

    def backbone(**how: Any) -> Any:
        x = keras.Input((SIZE, SIZE, 3))
        return keras.Model(x, features(keras, x, **how), name="resnet152")

    def pooled(kind: Any) -> Any:
        inner = backbone()
        return keras.Model(inner.input, kind(inner.output), name="resnet152")

    def transfer(inner: Any, pool: Any = layers.GlobalAveragePooling2D, **call: Any) -> Any:
        x = keras.Input((SIZE, SIZE, 3))
        y = inner(x, **call)
        return keras.Model(x, layers.Dense(8, "softmax", name="grade")(layers.Dropout(0.5)(pool()(y) if pool else y)))

    def frozen() -> Any:
        inner = backbone()
        inner.trainable = False
        return transfer(inner, training=False)

    def mixed() -> Any:
        policy = keras.mixed_precision
        policy.set_global_policy("mixed_float16")
        try:
            return transfer(backbone())
        finally:
            policy.set_global_policy("float32")

    def sequence() -> Any:
        return keras.Sequential([backbone(), layers.GlobalAveragePooling2D(), layers.Dense(4, "softmax", name="grade")])

    def twice() -> Any:
        outer = keras.Input((SIZE, SIZE, 3))
        return transfer(keras.Model(outer, backbone()(outer), name="wrapped"))

    def in_model() -> Any:
        x = keras.Input((SIZE, SIZE, 3))
        top = keras.Sequential([layers.GlobalAveragePooling2D(), layers.Dense(8, name="grade")], name="top")
        return keras.Model(x, top(backbone()(x)))

    yield "nested", lambda: transfer(backbone())
    yield "frozen", frozen
    yield "mixed", mixed
    yield "nested_twice", twice
    yield "sequence_in_model", in_model
    yield "sequence", sequence
    yield "training_call", lambda: transfer(backbone(), training=True)
    yield "pooling_avg", lambda: transfer(pooled(layers.GlobalAveragePooling2D(name="avg_pool")), None)
    yield "pooling_max", lambda: transfer(pooled(layers.GlobalMaxPooling2D(name="max_pool")), None)
    yield "transfer", lambda: _extended(keras, backbone())


def _extended(keras: Any, inner: Any) -> Any:
    x = keras.layers.GlobalAveragePooling2D()(inner.output)
    return keras.Model(inner.input, keras.layers.Dense(3, name="grade")(x))


def _wrong_order(keras: Any, image: Any) -> Any:
    x = keras.layers.Dense(16, "relu", name="inner")(features(keras, image))
    return keras.Model(image, keras.layers.Dense(8, name="grade")(keras.layers.GlobalAveragePooling2D()(x)))


def _two_inputs(keras: Any, image: Any, other: Any) -> Any:
    x = keras.layers.GlobalAveragePooling2D()(features(keras, image))
    return keras.Model([image, other], keras.layers.Dense(8, name="grade")(keras.layers.Concatenate()([x, other])))


def _two_outputs(keras: Any, image: Any) -> Any:
    x = keras.layers.GlobalAveragePooling2D()(features(keras, image))
    return keras.Model(image, [keras.layers.Dense(8, name="grade")(x), keras.layers.Dense(2, name="bridge")(x)])


def _shared(keras: Any, x: Any) -> Any:
    inner = keras.layers.Dense(64, "relu", name="inner")
    return keras.layers.Dense(8, name="grade")(inner(inner(x)))


def _own(keras: Any) -> Callable[[Any], Any]:
    @keras.utils.register_keras_serializable("mine")
    class Doubled(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, x: Any) -> Any:
            return 2 * x

    return lambda x: Doubled()(x)


def fill(model: Any, seed: int = 0) -> Any:
    """The model with weights that let every layer be seen in its answer."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        kind, shape = variable.name.split("/")[-1].split(":")[0], tuple(variable.shape)
        if not shape or "seed" in kind or "count" in kind:
            continue
        if kind == "kernel":
            value = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
        elif kind in ("moving_variance", "gamma", "variance"):
            value = rng.uniform(0.5, 1.5, shape)
        else:
            value = rng.normal(0, 0.3, shape)
        variable.assign(value.astype(np.float32))
    return model


def built(name: str) -> Iterator[tuple[str, Any, Any]]:
    """Every case of `keras3` or `keras2`, built and filled: its name, the model, the framework."""
    if name == "keras3":
        import keras
    else:
        import tf_keras as keras
    for case, build in models(keras):
        keras.backend.clear_session()
        yield case, fill(build()), keras


if __name__ == "__main__":
    found = {
        name: {case: json.loads(model.to_json()) for case, model, _ in built(name)} for name in ("keras3", "keras2")
    }
    text = json.dumps(found, sort_keys=True, separators=(",", ":"))
    packed = lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME)
    (Path(__file__).parent / "keras-models.json.xz").write_bytes(packed)
    print({name: len(cases) for name, cases in found.items()}, len(text), len(packed))
