"""Any loss: the pair of losses of a mixed sample, in place of the loss of a mixed label."""

from typing import Any

import keras
from keras import ops

from kmix import _backend, _checks
from kmix.batch import targets_of
from kmix.layers.training_step import current_step
from kmix.losses import ReducedByKeras
from kmix.plan import MixPlan
from kmix.targets.base import BatchInfo
from kmix.targets.labels import Labels
from kmix.targets.sample_weights import mix_weight, pair_shares

tree = keras.tree


class PairedLoss(keras.losses.Loss):
    """`lam * loss(y_i, p) + (1 - lam) * loss(y_j, p)` in a training step on mixed inputs; elsewhere the loss itself.

    Sample weights are those of the samples before mixing: the loss is the weighted pair, `lam * w_i` and
    `(1 - lam) * w_j`.

    Args:
        loss: A Keras loss or a function that gives one value for each sample (or more, `(B, ...)`).

    Example:
        Outside a step.

        >>> loss = kmix.training.paired_loss.PairedLoss(keras.losses.MeanSquaredError())
        >>> round(float(loss(np.array([[1.0]]), np.array([[0.5]]))), 2)
        0.25
    """

    def __init__(self, loss: keras.losses.Loss) -> None:
        loss = loss if isinstance(loss, keras.losses.Loss) else _Function(loss)
        super().__init__(name=loss.name, reduction=loss.reduction, dtype=loss.dtype)
        self.loss = loss
        ignored = getattr(loss, "ignore_class", None)
        if ignored is None and isinstance(loss, keras.losses.SparseCategoricalCrossentropy):
            # Keras 3.16 has it in the config alone.
            ignored = loss.get_config()["ignore_class"]
        if ignored is not None:
            _checks.fail(
                "With `mix_losses=True` every sample has a class.",
                f"`ignore_class={ignored}` of {loss.name}",
                "Leave out `mix_losses`, and write `SoftLabelCrossentropy(ignore_class=...)`.",
            )

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        plan = _label_plan()
        if plan is None:
            return self.loss(y_true, y_pred, sample_weight)
        xp = _backend.namespace(ops.convert_to_tensor(tree.flatten(y_pred)[0]))
        weight = None if sample_weight is None else ops.convert_to_tensor(sample_weight)
        # A copy (that of `copy` would be serialized) to call: a loss may do something of its own when it is called.
        each = object.__new__(type(self.loss))
        each.__dict__.update(vars(self.loss), reduction=None)

        def paired(y_true, y_pred):
            partner = tree.map_structure(lambda y: xp.take(y, plan.permutation), y_true)
            own, other = (xp.cast(each(y, y_pred), "float32") for y in (y_true, partner))
            if len(own.shape) == 0:
                _checks.fail(
                    "With `mix_losses=True` a loss must give one value for each sample.",
                    f"a scalar from {self.name}",
                    "Reduce over the other axes alone: `keras.losses.Dice(axis=(1, 2, 3))`.",
                )
            keep, a, b = pair_shares(xp, own, weight, plan)
            return xp.where(xp.along(keep, own), own, xp.along(a, own) * own + xp.along(b, own) * other)

        mixed = None if weight is None else mix_weight(xp, weight, plan)
        # Keras masks and reduces the pairs as it would the losses.
        return ReducedByKeras(paired, self.reduction, self.name, self.dtype)(y_true, y_pred, mixed)


def _label_plan():
    """The plan by which the losses of the running step mix; None outside a step."""
    step = current_step()
    return None if step is None else step.label_plan


class _Function(keras.losses.Loss):
    """A function as a loss, called with labels and predictions of one rank, as Keras calls it."""

    def __init__(self, function):
        # The name of a lambda is none for TensorFlow.
        super().__init__(getattr(function, "__name__", type(function).__name__).strip("<>"))
        self.function = function

    def call(self, y_true, y_pred):
        if not tree.is_nested(y_true):
            y_true, y_pred = _align(y_true, y_pred)
            y_pred, y_true = _align(y_pred, y_true)
        return self.function(y_true, y_pred)


def _align(first, second):
    """Two arrays, brought to one rank if the second has a last axis of size 1 that the first lacks."""
    if len(second.shape) != len(first.shape) + 1 or second.shape[-1] != 1:
        return first, second
    return (ops.expand_dims(first, -1), second) if len(first.shape) == 1 else (first, ops.squeeze(second, -1))


def paired(loss: Any, target: Any) -> Any:
    """A loss for `compile`, as a `PairedLoss` if it compares with labels.

    Args:
        loss: A loss, by name or not, or None.
        target: What it compares with.

    Raises:
        ValueError: if one loss stands for several kinds of targets.
    """
    if isinstance(target, (dict, list, tuple)):
        _checks.fail(
            "With `mix_losses=True` and several kinds of targets, each output needs its own loss.",
            f"loss={loss!r} for target={target!r}",
            "Write a structure of losses that matches `target`.",
        )
    if loss is None or not isinstance(target, Labels) or isinstance(loss, PairedLoss):
        return loss
    return PairedLoss(keras.losses.get(loss))


def shares_and_partners(y: Any, plan: MixPlan) -> tuple[Any, Any]:
    """A target mixed to what a loss must know of the plan."""
    return plan.lam, plan.permutation


def class_weighted(xp: _backend.Namespace, y: Any, target: Any, info: BatchInfo, sample_weight: Any) -> Any:
    """The sample weights of labels that stay unmixed, times those of their classes.

    Raises where labels to mix would raise: losses may be mixed, but that does not tell what these are.

    Args:
        xp: Array namespace.
        y: Labels.
        target: A `Target`, or a structure of targets.
        info: The `BatchInfo`.
        sample_weight: Sample weights, or None.
    """
    for leaf, kind in zip(tree.flatten(y), tree.flatten(targets_of(target, y)), strict=True):
        shape, dtype = _backend.static_shape(leaf), _backend.dtype(leaf)
        if not isinstance(kind, Labels):
            continue
        if "float" not in dtype and shape is not None and len(shape) < 3 and kind.class_weight is None:
            # Codes, which only the loss reads.
            kind.check_positions(leaf, info)
        else:
            kind.check(leaf, info)
            kind.check_values(xp, xp.asarray(leaf), info)
            if kind.class_weight is not None:
                _, sample_weight = kind.encode(xp, xp.asarray(leaf), sample_weight, info)
    return sample_weight


def larger_share(y: Any, target: Any, sample_weight: Any) -> tuple[Any, Any]:
    """In a training step, the labels of the partner with the larger share, and mixed weights, for metrics."""
    plan = _label_plan()
    if plan is None:
        return y, sample_weight

    def larger(leaf, kind):
        if not isinstance(kind, Labels):
            return leaf
        xp = _backend.namespace(leaf := ops.convert_to_tensor(leaf))
        return xp.where(xp.along(plan.lam >= 0.5, leaf), leaf, xp.take(leaf, plan.permutation))

    def mixed(weight):
        if weight is None:
            return None
        return mix_weight(_backend.namespace(weight := ops.convert_to_tensor(weight)), weight, plan)

    hard = [larger(*pair) for pair in zip(tree.flatten(y), tree.flatten(targets_of(target, y)), strict=True)]
    return tree.pack_sequence_as(y, hard), tree.map_structure(mixed, sample_weight)
