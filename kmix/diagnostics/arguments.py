"""The arguments of a comparison, read and checked: models with their seeds, inputs, labels."""

import keras
import numpy as np

from kmix import _backend, _checks
from kmix.diagnostics.scores import label_shares

tree = keras.tree


def runs(models, name="models"):
    """`{name: [one for each seed]}` from a dictionary of models or predictions, or of lists of them. Raises for others.

    Example:
    >>> from kmix.diagnostics.arguments import runs
    >>> {name: len(seeds) for name, seeds in runs({"a": np.ones((2, 1)), "b": [np.ones((2, 1))]}).items()}
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
        for one in seeds:
            if not (is_model(one) or hasattr(one, "shape")):
                _checks.fail(expected, f"a {type(one).__name__} for {key!r}", hint, TypeError)
    lengths = {key: len(seeds) for key, seeds in found.items()}
    if len(set(lengths.values())) > 1 or not all(lengths.values()):
        _checks.fail(
            f"Each list of `{name}` must hold one for each seed, as many as the others.",
            ", ".join(f"{length} for {key!r}" for key, length in lengths.items()),
            "They are paired by position.",
        )
    return found


def runs_like(models, x_out):
    """Predictions for inputs from elsewhere, of the same names and seeds as those of the models."""
    expected = "With predictions in place of models, `x_out` must hold predictions of the same names and seeds."
    if not isinstance(x_out, dict):
        _checks.fail(expected, f"a {type(x_out).__name__}", "Write `x_out={name: predictions}`, or pass models.")
    found = runs(x_out, "x_out")
    shape, other = ({key: len(seeds) for key, seeds in part.items()} for part in (models, found))
    if shape != other or are_models(found):
        _checks.fail(expected, f"{other} for {shape}")
    return {key: found[key] for key in models}


def is_model(one):
    """Whether it can be asked, and is no array."""
    return hasattr(one, "predict") or (callable(one) and not hasattr(one, "shape"))


def are_models(runs):
    """Whether these are models, and not predictions. Raises for some of each."""
    kinds = {is_model(one) for seeds in runs.values() for one in seeds}
    if len(kinds) > 1:
        _checks.fail("`models` must hold models or predictions.", "some of each", "Pass `model.predict(x)` for all.")
    return kinds.pop()


def samples(x, y):
    """Inputs and labels as NumPy arrays, also from a loader of `(x, y)`."""
    if x is None:
        _checks.fail("Models need inputs `x`.", "x=None", "Or pass their predictions (B, C) in place of the models.")
    if is_loader(x):
        if y is not None:
            _checks.fail("A data set brings its own labels.", "`y` beside a data set `x`", "Leave out `y`.")
        x, y = gathered(x)
    x, count = inputs(x, "x")
    if y is not None and np.shape(y)[:1] != (count,):
        _checks.fail("`y` must hold a label for each input.", f"y of shape {np.shape(y)} and {count} inputs")
    return x, y


def labels(y, found):
    """Labels as shares `(B, C)` for the probabilities of each model, which must all have that shape."""
    shapes = {p.shape for seeds in found.values() for p in seeds}
    if len(shapes) > 1:
        received = ", ".join(f"{name!r}: {seeds[0].shape}" for name, seeds in found.items())
        _checks.fail("All models must have predictions of one shape (B, C).", received)
    count, classes = shapes.pop()
    y = label_shares(y, classes)
    if len(y) != count:
        _checks.fail("`y` must hold a label for each prediction.", f"{len(y)} labels and {count} predictions")
    return y


def interval(bounds, name):
    """None, or a pair of numbers in order."""
    if bounds is None:
        return None
    pair = _checks.sequence(bounds, name)
    if len(pair) != 2 or not float(pair[0]) < float(pair[1]):
        _checks.fail(f"`{name}` must be the smallest and the largest value of `x`.", f"{name}={bounds!r}")
    return float(pair[0]), float(pair[1])


def is_loader(x):
    """Whether `x` yields batches: a `tf.data.Dataset`, a `PyDataset`, a loader of PyTorch or Grain."""
    return isinstance(x, keras.utils.PyDataset) or (
        hasattr(x, "__iter__") and not hasattr(x, "shape") and not isinstance(x, (dict, list, tuple, str))
    )


def gathered(batches):
    """All `(x, y)` of a loader, each as NumPy arrays."""
    numbered = isinstance(batches, keras.utils.PyDataset)
    found = []
    for batch in map(batches.__getitem__, range(batches.num_batches or 0)) if numbered else batches:
        if not isinstance(batch, (list, tuple)) or len(batch) < 2:
            _checks.fail("A data set must yield `(x, y)`.", f"a {type(batch).__name__}", "Or pass arrays `x, y`.")
        found.append(tuple(tree.map_structure(_backend.values, part) for part in batch[:2]))
    if not found:
        _checks.fail("`x` must hold samples.", "a data set without batches")
    return tree.map_structure(lambda *parts: np.concatenate(parts), *found)


def inputs(x, name):
    """An array, or a structure of them, as NumPy arrays and the number of samples. Raises for others."""
    if is_loader(x):
        x = gathered(x)[0]
    x = tree.map_structure(_backend.values, x)
    sizes = {leaf.shape[0] if leaf.ndim else None for leaf in tree.flatten(x)}
    if len(sizes) != 1 or not next(iter(sizes)):
        shapes = ", ".join(str(leaf.shape) for leaf in tree.flatten(x))
        _checks.fail(f"`{name}` must be an array (B, ...), or a structure of them, of at least 1 sample.", shapes)
    return x, sizes.pop()
