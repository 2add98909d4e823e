"""Next steps for Keras models that are not read. Each line was run with TensorFlow 2.21, Keras 3.15 and tf_keras."""

from __future__ import annotations

__all__ = ["SAVE_WHOLE", "TO_FUNCTIONAL", "TO_ONNX", "from_checkpoint", "from_saved_model"]

_STATE = "give the .onnx file, with the normalisation of its input stated in the manifest"

TO_ONNX = (
    "Export the model as it is to ONNX where TensorFlow and tf2onnx are installed: model.export('net') in Python "
    "(tf.keras before 2.13: model.save('net')), then python -m tf2onnx.convert --saved-model net --output net.onnx "
    f"--opset 17; {_STATE}"
)

SAVE_WHOLE = (
    "Give the whole model, which says it: model.save('grader.keras') (before Keras 2.13: model.save('grader.h5'))"
)

TO_FUNCTIONAL = (
    "Save the layers that it calls as a model of their own and give that file: image = keras.Input((224, 224, 3)); "
    "keras.Model(image, model.call(image)).save('grader.keras'), with the size that it was trained on"
)


def from_saved_model(folder: str, name: str) -> str:
    """Return the next step for the SavedModel `folder`, whichever Keras wrote it."""
    return (
        "Convert it where TensorFlow and tf2onnx are installed: "
        f"python -m tf2onnx.convert --saved-model '{folder}' --output '{name}.onnx' --opset 17; {_STATE}"
    )


def from_checkpoint(stem: str, name: str, index: bytes) -> str:
    """Return the next step for the TensorFlow checkpoint `stem`; `index` is the content of its .index file."""
    old = (
        "set TF_USE_LEGACY_KERAS=1 before TensorFlow is imported (TensorFlow 2.16 and later also need the package "
        f"tf_keras), then: model.load_weights('{stem}').expect_partial(); model.save('{name}.h5')"
    )
    new = f"tf.train.Checkpoint(model=model).restore('{stem}').expect_partial(); model.save('{name}.keras')"
    if b"layer_with_weights-" in index:
        line = f"In the script that builds the model with tf.keras, {old}"
    elif b"_operations/" in index:
        line = f"In the script that builds the model with Keras 3, run: {new}"
    else:
        line = f"In the script that builds the model, under Keras 3 run: {new}. Under Keras 2 {old}"
    return f"{line}. Give the new file"
