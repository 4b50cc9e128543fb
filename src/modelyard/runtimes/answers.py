"""What the runtimes of live objects share: the outputs that a model has, and its answers as columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from modelyard.errors import ModelFailed, ModelyardError
from modelyard.interfaces import ModelFacts, Predict
from modelyard.schema import Array, Columns, Field, Layout, Signature

#: From a call's columns to (prediction, probabilities or None) as the model gives them.
Answers = Callable[[Columns], tuple[Any, Any]]


def output_fields(facts: ModelFacts) -> tuple[Field, ...]:
    """The outputs of a model: ``prediction``, and ``probabilities`` where a classifier has them."""
    if facts.task != "classification" or facts.classes is None:
        shape = (facts.targets,) if facts.targets > 1 else ()
        dtype = "float64" if facts.task == "regression" else "int64"
        return (Field(name="prediction", dtype=dtype, shape=shape),)
    shape = (facts.targets,) if facts.targets > 1 else ()
    prediction = Field(name="prediction", dtype=label_dtype(facts.classes), shape=shape)
    if not facts.has_probabilities:
        return (prediction,)
    labels = tuple(str(label) for label in facts.classes)
    return prediction, Field(name="probabilities", dtype="float64", shape=(len(labels),), categories=labels)


def label_dtype(classes: tuple[Any, ...]) -> str:
    """The dtype of class labels in their own type: string, bool, int64 or float64."""
    if all(isinstance(label, bool) for label in classes):
        return "bool"
    if all(isinstance(label, int) for label in classes):
        return "int64"
    return "float64" if all(isinstance(label, (int, float)) for label in classes) else "string"


def predict_with_answers(answers: Answers, signature: Signature) -> Predict:
    """``answers`` as a prediction function; whatever it raises becomes ModelFailed with the original text."""
    expected, layout = signature.input_layout, signature.output_layout
    names = [field.name for field in signature.outputs]

    def predict(columns: Columns) -> Columns:
        if columns.layout is not expected and columns.layout.fields != expected.fields:
            columns = expected.from_arrays(columns)
        if not columns.rows:
            return layout.from_tuples([])  # scikit-learn refuses to predict nothing
        try:
            found = dict(zip(("prediction", "probabilities"), answers(columns), strict=True))
            arrays = {name: _stored(found[name], name, signature, columns.rows) for name in names}
        except ModelyardError:
            raise
        except Exception as error:
            raise ModelFailed(f"the model failed: {type(error).__name__}: {error}") from error
        return _assemble(layout, arrays, columns.rows)

    return predict


def _stored(values: Any, name: str, signature: Signature, rows: int) -> Array:
    """``values`` of the output ``name`` in its storage and shape."""
    field = next(field for field in signature.outputs if field.name == name)
    array = np.asarray(values)
    if array.ndim == 2 and not field.shape and array.shape[1] == 1:
        array = array[:, 0]
    wanted = (rows, *field.shape)
    if array.shape != wanted:
        raise ModelFailed(f"the model's {name} has shape {list(array.shape)}: expected {list(wanted)}")
    if field.storage == "object":
        texts = [value if value is None else str(value) for value in array.ravel().tolist()]
        return np.array([*texts, None], dtype=object)[:-1].reshape(wanted)
    if array.dtype.kind == "f" and not field.storage.startswith("float"):
        wrong = ~np.isfinite(array) | (array != np.floor(array))
        if wrong.any():
            raise ModelFailed(f"the model's {name} is not {field.describe()}: {array[wrong][0]}")
    return array.astype(field.storage)


def _assemble(layout: Layout, arrays: dict[str, Array], rows: int) -> Columns:
    blocks = []
    for block in layout.blocks:
        if not block.is_scalar:
            blocks.append(arrays[block.names[0]])
        elif len(block.names) == 1:
            blocks.append(arrays[block.names[0]][:, None])
        else:
            blocks.append(np.stack([arrays[name] for name in block.names], axis=1))
    return Columns(layout, blocks, rows)


def matrix(columns: Columns, names: tuple[str, ...], dtype: str) -> Array:
    """Scalar columns side by side, or the single column that has a shape, as a new array of ``dtype``."""
    if len(names) == 1 and columns[names[0]].ndim > 1:
        return np.array(columns[names[0]], dtype=dtype)
    block = columns.blocks[0]
    if len(columns.blocks) == 1 and columns.layout.blocks[0].names == names:
        return np.array(block, dtype=dtype)
    out = np.empty((columns.rows, len(names)), dtype=dtype)
    for i, name in enumerate(names):
        out[:, i] = columns[name]
    return out


def plain_labels(classes: Any) -> tuple[Any, ...]:
    """Class labels as Python values: whole numbers, texts, booleans or floats."""
    return tuple(
        label if isinstance(label, (bool, int, float)) else str(label) for label in np.asarray(classes).tolist()
    )
