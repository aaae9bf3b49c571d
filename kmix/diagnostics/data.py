"""What diagnostics are given, read in one place and checked before anything is computed: data, models, predictions."""

import itertools
import math
import operator
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from kmix import _backend, _checks
from kmix.batch import INPUTS, LABELS, WEIGHTS, Reading
from kmix.diagnostics.scores import label_shares

tree = keras.tree

# Data that does not tell its length may have no end.
MOST_SAMPLES = 1_000_000


class Samples(NamedTuple):
    """Inputs, labels of one class a sample, and sample weights `(B,)` or None, as NumPy arrays."""

    x: Any
    y: np.ndarray
    weights: np.ndarray | None


def read_batch(batch: Any, inputs_key: Any = INPUTS) -> tuple[Any, dict[str, np.ndarray], Any]:
    """Inputs, targets by name, and sample weights of a labelled batch of any framework, as NumPy arrays.

    Args:
        batch: `(x, y)`, `(x, y, sample_weight)` or a dictionary.
        inputs_key: The key of the inputs in a dictionary; a tuple of keys for several inputs.

    Raises:
        ValueError: if there are no labels, or an array is a single sample.

    Example:
        >>> from kmix.diagnostics.data import read_batch
        >>> list(read_batch((np.ones((2, 3)), {"a": np.ones(2), "b": np.ones(2)}))[1])
        ['a', 'b']
    """
    batch, x, y, weights = tuple(batch) if isinstance(batch, list) else batch, None, {}, None
    keys = Reading(inputs_key=inputs_key).input_keys()
    if isinstance(batch, Mapping) and all(key in batch for key in keys):
        x = {key: batch[key] for key in keys} if isinstance(inputs_key, tuple) else batch[inputs_key]
        weights = batch.get(WEIGHTS)
        y = {name: value for name, value in batch.items() if name not in (*keys, WEIGHTS) and value is not None}
    elif isinstance(batch, tuple) and len(batch) in (2, 3) and batch[1] is not None:
        x, y, weights = (*batch, None)[:3]
    x, y, weights = tree.map_structure(lambda leaf: None if leaf is None else _backend.values(leaf), (x, y, weights))
    y = y if isinstance(y, Mapping) else {LABELS: y}
    targets = {"/".join(map(str, path)): leaf for path, leaf in tree.flatten_with_path(y)}
    if not targets:
        _checks.fail(
            "The data must give labelled batches: (x, y), (x, y, sample_weight), or a dictionary with "
            f"{' and '.join(map(repr, keys))}.",
            f"a batch of type {type(batch).__name__}" + (f" of {len(batch)}" if isinstance(batch, tuple) else ""),
            "Choose its parts in a map: `ds.map(lambda batch: (batch[...], batch[...]))`.",
        )
    if any(np.ndim(leaf) == 0 for leaf in (*tree.flatten(x), *targets.values())):
        _checks.fail("The data must give batches.", "single samples", "Batch it first: `ds.batch(128)`.")
    return x, targets, weights


def is_loader(x: Any) -> bool:
    """Whether `x` yields batches: a `tf.data.Dataset`, a `PyDataset`, a loader of PyTorch or Grain."""
    iterates = hasattr(x, "__iter__") and not hasattr(x, "shape") and not isinstance(x, (dict, list, tuple, str))
    return iterates or isinstance(x, keras.utils.PyDataset)


def batch_count(data: Any) -> float | None:
    """How many batches there are: infinity for data without end, None if the data does not tell.

    Example:
        >>> from kmix.diagnostics.data import batch_count
        >>> batch_count([1, 2]), batch_count(iter([1, 2])), batch_count(i for i in "ab")
        (2, 2, None)
    """
    if isinstance(data, keras.utils.PyDataset):
        return math.inf if data.num_batches is None else data.num_batches
    # TensorFlow has numbers of its own for data without end and for data that does not tell.
    count = int(data.cardinality()) if _backend.is_dataset(data) else operator.length_hint(data, -2)
    return {-1: math.inf, sys.maxsize: math.inf, -2: None}.get(count, count)


def batches_of(data: Any) -> Iterator[Any]:
    """An iterator over the batches of a data set or a loader."""
    if hasattr(data, "__iter__") or not isinstance(data, keras.utils.PyDataset):
        return iter(data)
    count = data.num_batches
    return map(data.__getitem__, itertools.count() if count is None else range(count))


def samples(x: Any, y: Any = None, sample_weight: Any = None, *, inputs_key: Any = INPUTS) -> Samples:
    """All samples of arrays, or of a data set that brings its own labels and weights. Raises for others."""
    if x is None:
        _checks.fail("Models need inputs `x`.", "x=None", "Or pass their predictions (B, C) in place of the models.")
    if is_loader(x):
        if y is not None or sample_weight is not None:
            _checks.fail("A data set brings its own labels and weights.", "others with it", "Leave these out.")
        x, y, sample_weight = _gathered(x, inputs_key)
    x, count = inputs(x, "x")
    return Samples(x, *labels(y, sample_weight, count))


def labels(y: Any, sample_weight: Any = None, count: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """Labels of one class a sample and sample weights as arrays. Raises for others, or if they are not `count`."""
    if y is None or isinstance(y, dict) or (tree.is_nested(y) and any(map(np.ndim, tree.flatten(y)))):
        _checks.fail(
            "`y` must hold the labels of one output, in one array.",
            "y=None" if y is None else f"{len(tree.flatten(y))} arrays in a {type(y).__name__}",
            "Write `x, y`, or a data set of `(x, y)`. Look at several outputs one by one: `keras.Model(model.inputs, "
            "model.outputs[0])`.",
        )
    y = np.asarray(_backend.values(y))
    if count is not None and y.shape[:1] != (count,):
        _checks.fail("`y` must hold a label for each input.", f"y of shape {y.shape} and {count} inputs")
    y = label_shares(y)
    if sample_weight is None:
        return y, None
    weights = np.asarray(_backend.values(np.nan if isinstance(sample_weight, dict) else sample_weight), "float64")
    if weights.shape != y.shape[:1] or not np.isfinite(weights).all() or weights.min() < 0 or not weights.any():
        received = f"weights of shape {weights.shape}, such as {weights.ravel()[:3].tolist()}"
        _checks.fail("`sample_weight` must hold a weight >= 0 for each sample, (B,), and not all 0.", received)
    return y, weights


def inputs(x: Any, name: str) -> tuple[Any, int]:
    """An array, or a structure of them, as NumPy arrays and the number of samples. Raises for others."""
    x = tree.map_structure(_backend.values, _gathered(x)[0] if is_loader(x) else x)
    shapes = [leaf.shape for leaf in tree.flatten(x)]
    if len({shape[:1] for shape in shapes}) != 1 or shapes[0][:1] in ((), (0,)):
        expected = f"`{name}` must be an array (B, ...), or a structure of them, of at least 1 sample."
        _checks.fail(expected, ", ".join(map(str, shapes)))
    return x, shapes[0][0]


def _gathered(batches, inputs_key=INPUTS):
    """The inputs, labels and weights of all batches of a data set."""
    count, found, size = batch_count(batches), [], 0
    if count == math.inf:
        _checks.fail("A data set must have an end.", "one that repeats", "Take a part of it: `ds.take(100)`.")
    for batch in batches_of(batches):
        x, targets, weights = read_batch(batch, inputs_key)
        if list(targets) != [LABELS]:
            _checks.fail("A data set must give the labels of one output, in one array.", f"labels {sorted(targets)}")
        found.append([x, targets[LABELS]] + ([] if weights is None else [weights]))
        sizes = {len(leaf) for leaf in tree.flatten(found[-1])}
        if len(sizes) > 1:
            _checks.fail(
                "All arrays of a batch must have one size.", f"{sorted(sizes)}", "Batch the data: `ds.batch(128)`."
            )
        size += sizes.pop()
        if count is None and size > MOST_SAMPLES:
            expected = "Data that does not tell its length must have an end."
            _checks.fail(expected, f"more than {MOST_SAMPLES} samples", "Pass a part of it as arrays.")
    if not found:
        _checks.fail("`x` must hold samples.", "a data set without batches")
    layouts = {str([leaf.shape[1:] for leaf in tree.flatten(parts)]) for parts in found}
    if len(layouts) > 1:
        _checks.fail(
            "All batches must hold the same arrays, of one shape but for the first axis.",
            f"rows of shapes {' and '.join(sorted(layouts))}",
            "Pad sequences to one length.",
        )
    return (*tree.map_structure(lambda *parts: np.concatenate(parts), *found), None)[:3]


def model_runs(models: Any, name: str = "models") -> dict[str, list[Any]]:
    """`{name: [one for each seed]}` from a dictionary of models or predictions, or of lists of them. Raises for others.

    Example:
        >>> from kmix.diagnostics.data import model_runs
        >>> runs = model_runs({"a": np.ones((2, 1)), "b": [np.ones((2, 1))]})
        >>> {name: len(seeds) for name, seeds in runs.items()}
        {'a': 1, 'b': 1}
    """
    hint = "For example, `{'plain': model_a, 'mixup': model_b}`, or lists of models, one for each seed."
    expected = f"`{name}` must be a dictionary of models, or of lists of models."
    if not isinstance(models, dict):
        _checks.fail(expected, f"a {type(models).__name__}", hint, TypeError)
    if len(models) < 2:
        _checks.fail("A comparison needs at least two models.", f"{len(models)}: {', '.join(map(repr, models))}", hint)
    found = {key: list(one) if isinstance(one, (list, tuple)) else [one] for key, one in models.items()}
    for key, seeds in found.items():
        wrong = next((one for one in seeds if not (is_model(one) or hasattr(one, "shape"))), None)
        if wrong is not None:
            _checks.fail(expected, f"a {type(wrong).__name__} for {key!r}", hint, TypeError)
    lengths = {key: len(seeds) for key, seeds in found.items()}
    if len(set(lengths.values())) > 1 or not all(lengths.values()):
        received = ", ".join(f"{length} for {key!r}" for key, length in lengths.items())
        _checks.fail(f"Each list of `{name}` must hold one for each seed, as many as the others.", received)
    return found


def predictions_like(models: dict[str, list[Any]], x_out: Any) -> dict[str, list[Any]]:
    """Predictions for inputs from elsewhere, of the same names and seeds as those of the models."""
    expected = "With predictions in place of models, `x_out` must hold predictions of the same names and seeds."
    if not isinstance(x_out, dict):
        _checks.fail(expected, f"a {type(x_out).__name__}", "Write `x_out={name: predictions}`, or pass models.")
    found = model_runs(x_out, "x_out")
    shape, other = ({key: len(seeds) for key, seeds in part.items()} for part in (models, found))
    if shape != other or are_models(found):
        _checks.fail(expected, f"{other} for {shape}")
    return {key: found[key] for key in models}


def is_model(one: Any) -> bool:
    """Whether it can be asked, and is no array."""
    return hasattr(one, "predict") or (callable(one) and not hasattr(one, "shape"))


def are_models(runs: dict[str, list[Any]]) -> bool:
    """Whether these are models, and not predictions. Raises for some of each."""
    found = {is_model(one) for seeds in runs.values() for one in seeds}
    if len(found) > 1:
        _checks.fail("`models` must hold models or predictions.", "some of each", "Pass `model.predict(x)` for all.")
    return found.pop()


def interval(bounds: Any, name: str) -> tuple[float, float] | None:
    """None, or a pair of numbers in order."""
    if bounds is None:
        return None
    pair = _checks.sequence(bounds, name)
    if len(pair) != 2 or not float(pair[0]) < float(pair[1]):
        _checks.fail(f"`{name}` must be the smallest and the largest value of `x`.", f"{name}={bounds!r}")
    return float(pair[0]), float(pair[1])
