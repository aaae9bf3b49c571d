"""What models answer: predictions for inputs in any form, and for inputs after an attack."""

import contextlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from kmix import _backend, _checks
from kmix._backend.gradients import input_gradient
from kmix.diagnostics.scores import probabilities
from kmix.training.trainer import MixTrainer

tree = keras.tree


def probabilities_of(
    models: dict[str, list[Any]],
    x: Any = None,
    *,
    from_logits: bool,
    batch_size: int,
    move: Callable[[Any, Any], Any] | None = None,
) -> dict[str, list[Any]]:
    """The probabilities of models for inputs, or of predictions, as `{name: [one for each seed]}`.

    Args:
        models: Models or predictions in that form.
        x: Inputs of the models. None for predictions.
        from_logits: Whether they are logits.
        batch_size: Number of samples to predict at once.
        move: A function of a model and `x` that returns the inputs for it.
    """

    def of(one):
        return one if x is None else predict(one, move(one, x) if move else x, batch_size)

    found = {name: [probabilities(of(one), name, from_logits) for one in seeds] for name, seeds in models.items()}
    if len({p.shape for seeds in found.values() for p in seeds}) > 1:
        received = ", ".join(f"{name!r}: {seeds[0].shape}" for name, seeds in found.items())
        _checks.fail("All models must have predictions of one shape (B, C).", received)
    return found


def predict(model: Any, x: Any, batch_size: int) -> Any:
    """The outputs of a model, whole or in batches."""
    model = bare(model)
    if isinstance(model, keras.Model):
        return model.predict(x, batch_size=batch_size, verbose=0)
    if hasattr(model, "predict"):
        return model.predict(x)
    parts = [_call(model)(part) for part in batches(x, batch_size)]
    # Several outputs are refused where probabilities are read.
    return parts[0] if tree.is_nested(parts[0]) else np.concatenate(list(map(_backend.values, parts)))


def bare(model: Any) -> Any:
    """The model itself, without its trainer."""
    return model.model if isinstance(model, MixTrainer) else model


def attack(
    model: Any, x: Any, classes: np.ndarray, eps: float, *, bounds: Any, from_logits: bool, batch_size: int
) -> Any:
    """The inputs, each moved by `eps` along the sign of the gradient of its loss (FGSM), as float arrays.

    The cross-entropy is computed on logits. A confident model has a gradient too small for float32 there; that of the
    margin, `log sum exp(z_j, j != y) - z_y`, differs from it by the factor `1 - p_y > 0` alone, and never vanishes.

    Args:
        model: A model of Keras operations.
        x: An array or a structure of them. Floats and uint8 move, other integers do not.
        classes: Class ids `(B,)`.
        eps: How far to go, in units of `x`.
        bounds: The smallest and the largest value of `x`, or None.
        from_logits: Whether the model returns logits.
        batch_size: Number of samples to take the gradient of at once.

    Example:
        >>> from kmix.diagnostics.models import attack
        >>> x, classes = np.array([[0.25, -0.375]], "float32"), np.array([1])
        >>> settings = {"bounds": (-0.5, 1.0), "from_logits": False, "batch_size": 32}
        >>> attack(keras.layers.Softmax(), x, classes, 0.25, **settings).tolist()
        [[0.5, -0.5]]
    """
    model, moved, stuck = bare(model), [], 0
    floats = lambda leaf: leaf.astype("float32") if leaf.dtype.kind == "f" or leaf.dtype == "uint8" else leaf  # noqa: E731
    x = tree.map_structure(floats, x)
    with _logits(model, x, from_logits) as (call, is_logits):
        gradient_of = input_gradient(lambda part, own: _margin(call(part), own, is_logits), variables(model))
        for part, own in batches((x, classes), batch_size):
            gradient = tree.map_structure(lambda g: None if g is None else _backend.values(g), gradient_of(part, own))
            leaves = [np.any(g.reshape(len(own), -1), axis=1) for g in tree.flatten(gradient) if g is not None]
            stuck += len(own) - int(np.any(leaves, axis=0).sum())
            moved.append(tree.map_structure(lambda leaf, g: _moved(leaf, g, eps, bounds), part, gradient))
    if stuck == len(classes):
        _checks.fail(
            "FGSM needs models whose outputs have a gradient with respect to `x`.",
            f"a {type(model).__name__} where it is 0 everywhere, or an `x` of integers other than uint8",
        )
    if stuck:
        _checks.warn(
            f"FGSM could not move {stuck} of {len(classes)} samples: there the gradient of the model is 0. "
            "If its probabilities are rounded to 0 and 1, pass models that return logits, with `from_logits=True`."
        )
    return tree.map_structure(lambda *parts: np.concatenate(parts), *moved)


def _moved(x, gradient, eps, bounds):
    if gradient is None:
        return x
    x = x + np.float32(eps) * np.sign(gradient)
    return x if bounds is None else np.clip(x, *bounds)


def variables(model: keras.Model) -> Any:
    """The variables of a model that `predict` compiles, else None."""
    compiles = isinstance(model, keras.Model) and model.built and model.jit_compile and not model.run_eagerly
    return model.variables if compiles else None


def _call(model):
    return (lambda x: model(x, training=False)) if isinstance(model, keras.layers.Layer) else model


def batches(x: Any, size: int) -> list[Any]:
    """An array or a structure of them, cut into parts of so many samples."""
    count = len(tree.flatten(x)[0])
    return [tree.map_structure(lambda leaf: leaf[i : i + size], x) for i in range(0, count, size)]  # noqa: B023


def two_columns(outputs: Any, are_logits: bool) -> Any:
    """A single column of outputs as those of two classes; others unchanged."""
    if outputs.shape[-1] > 1:
        return outputs
    return ops.concatenate([ops.zeros_like(outputs) if are_logits else 1.0 - outputs, outputs], axis=-1)


def _margin(outputs, classes, is_logits):
    """The sum over samples of how far the other classes are ahead."""
    z = ops.cast(outputs, "float32")
    z = two_columns(z, is_logits)
    if not is_logits:
        z = ops.log(ops.maximum(z, 1e-37))
    own = ops.one_hot(classes, z.shape[-1], dtype="bool")
    others = ops.logsumexp(ops.where(own, -1e30, z), axis=-1)
    return ops.sum(others) - ops.sum(ops.where(own, z, 0.0))


@contextlib.contextmanager
def _logits(model, x, from_logits):
    """How to call the model for its logits, and whether it is logits that come.

    A softmax or sigmoid that is the activation of the last layer is taken off meanwhile: very confident probabilities
    are rounded to 0 and 1, and have no gradient.
    """
    call, layer = _call(model), model
    while getattr(layer, "layers", None):
        layer = layer.layers[-1]
    activation = getattr(layer, "activation", None)
    if from_logits or activation not in (keras.activations.softmax, keras.activations.sigmoid):
        yield call, from_logits
        return
    first = tree.map_structure(ops.convert_to_tensor, batches(x, 8)[0])
    outputs = _backend.values(call(first))
    layer.activation = keras.activations.linear
    try:
        # Whether that layer was the last one shows in what comes without it.
        last = np.allclose(_backend.values(activation(call(first))), outputs, atol=1e-3)
        if last:
            yield call, True
    finally:
        layer.activation = activation
    if not last:
        yield call, False
