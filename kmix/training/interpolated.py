"""Any loss: the pair of losses of a mixed sample, in place of the loss of a mixed label."""

import keras
from keras import ops

from kmix import _backend, _checks
from kmix.layers.step import running
from kmix.targets.forms import Dense
from kmix.targets.labels import recognise
from kmix.targets.sample_weights import label_shares, mix_weights, multiply
from kmix.targets.spread import spread

tree = keras.tree


@keras.saving.register_keras_serializable(package="kmix")
class PairLoss(keras.losses.Loss):
    """`lam * loss(y_i, p) + (1 - lam) * loss(y_j, p)` in a training step on mixed inputs; elsewhere the loss itself.

    Sample weights are those of the samples before mixing: the loss is the weighted pair, `lam * w_i` and
    `(1 - lam) * w_j`.

    Args:
        loss: A Keras loss that gives one value for each sample (or more, `(B, ...)`).

    Example: outside a step.

    >>> loss = kmix.training.interpolated.PairLoss(keras.losses.MeanSquaredError())
    >>> round(float(loss(np.array([[1.0]]), np.array([[0.5]]))), 2)
    0.25
    """

    def __init__(self, loss):
        super().__init__(name=loss.name, reduction=loss.reduction, dtype=loss.dtype)
        self.loss = loss
        if getattr(loss, "ignore_class", None) is not None:
            _checks.fail(
                'With `interpolate="loss"` every sample has a class.',
                f"`ignore_class={loss.ignore_class}` of {loss.name}",
                'Leave it out, or write `interpolate="labels"` and a `SoftLabelCrossentropy(ignore_class=...)`.',
            )

    def __call__(self, y_true, y_pred, sample_weight=None):
        step = running()
        if step is None or step.label_plan is None:
            return self.loss(y_true, y_pred, sample_weight)
        plan = step.label_plan
        xp = _backend.namespace(ops.convert_to_tensor(tree.flatten(y_pred)[0]))
        weight = None if sample_weight is None else ops.convert_to_tensor(sample_weight)
        mixed = None if weight is None else mix_weights(xp, weight, plan)
        return _Pair(self.loss, plan, weight, xp)(y_true, y_pred, mixed)

    def call(self, y_true, y_pred):
        return self.loss.call(y_true, y_pred)

    def get_config(self):
        return {"loss": keras.saving.serialize_keras_object(self.loss)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["loss"]))


class _Pair(keras.losses.Loss):
    """The pair of losses of one batch. Keras reduces and masks it."""

    def __init__(self, loss, plan, weight, xp):
        super().__init__(name=loss.name, reduction=loss.reduction, dtype=loss.dtype)
        self.loss, self.plan, self.weight, self.xp = loss, plan, weight, xp

    def call(self, y_true, y_pred):
        xp, partner = self.xp, tree.map_structure(lambda y: self.xp.take(y, self.plan.permutation), y_true)
        own, other = (xp.cast(self.loss.call(y, y_pred), "float32") for y in (y_true, partner))
        if len(own.shape) == 0:
            _checks.fail(
                'With `interpolate="loss"` a loss must give one value for each sample.',
                f"a scalar from {self.loss.name}",
                "Reduce over the other axes alone: `keras.losses.Dice(axis=(1, 2, 3))`.",
            )
        keep, a, b = label_shares(xp, own, self.plan, self.weight)
        return xp.where(xp.along(keep, own), own, xp.along(a, own) * own + xp.along(b, own) * other)


@keras.saving.register_keras_serializable(package="kmix")
class FunctionLoss(keras.losses.Loss):
    """A loss from a function of `y_true` and `y_pred`.

    Args:
        function: Returns the losses of the samples.
        name: Name of the loss. Defaults to that of the function.

    Example:
    >>> loss = kmix.training.interpolated.FunctionLoss(lambda y, p: keras.ops.abs(y - p), name="distance")
    >>> float(loss(np.array([1.0]), np.array([0.5])))
    0.5
    """

    def __init__(self, function, name=None):
        name = name or getattr(function, "__name__", type(function).__name__)
        # The name of a lambda is none for TensorFlow.
        super().__init__(name=name.strip("<>"))
        self.function = function

    def call(self, y_true, y_pred):
        return self.function(y_true, y_pred)

    def get_config(self):
        return {"function": keras.saving.serialize_keras_object(self.function), "name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["function"]), config["name"])


def interpolated(loss, target):
    """The losses for `compile(loss=...)`, in which those of labels are `PairLoss`es.

    Args:
        loss: A loss, by name or not, or a structure of losses.
        target: The argument of the trainer: which of the losses compare with labels.

    Returns:
        The same structure.

    Raises:
        ValueError: if one loss stands for several kinds of targets.
    """
    if not isinstance(target, (dict, list, tuple)):
        wrap = _pair_loss if target in (None, "labels") else lambda loss: loss
        return tree.map_structure(wrap, loss)
    if not isinstance(loss, (dict, list, tuple)) or len(loss) != len(target):
        _checks.fail(
            'With `interpolate="loss"` and several kinds of targets, each output needs its own loss.',
            f"loss={loss!r} for target={target!r}",
            "Write a structure of losses that matches `target`.",
        )
    if isinstance(loss, dict):
        return {key: interpolated(part, target[key]) for key, part in loss.items()}
    return [interpolated(*pair) for pair in zip(loss, target, strict=True)]


def _pair_loss(loss):
    if loss is None or isinstance(loss, PairLoss):
        return loss
    loss = keras.losses.get(loss)
    return PairLoss(loss if isinstance(loss, keras.losses.Loss) else FunctionLoss(loss))


def unmixed(target):
    """`target` for a step that leaves labels to the loss: they stay as they are."""
    if isinstance(target, dict):
        return {key: unmixed(part) for key, part in target.items()}
    if isinstance(target, (list, tuple)):
        return [unmixed(part) for part in target]
    return "keep" if target in (None, "labels") else target


def shares_and_partners(y, plan):
    """A target mixed to what a loss must know of the plan."""
    return plan.lam, plan.permutation


def weigh(xp, y, classes, sample_weight, class_weight):
    """The sample weights of unmixed labels, times those of their classes."""
    if class_weight is None:
        return sample_weight
    form: Dense = recognise(y, classes)
    return multiply(xp, sample_weight, form.weigh_classes(xp, form.encode(xp, form.check(xp, y)), class_weight))


def dominant_labels(y, target, sample_weight):
    """In a training step, the labels of the partner with the larger share, and mixed weights, for metrics."""
    step = running()
    if step is None or step.label_plan is None:
        return y, sample_weight
    plan = step.label_plan

    def larger(leaf, kind):
        if kind not in (None, "labels"):
            return leaf
        xp = _backend.namespace(ops.convert_to_tensor(leaf))
        leaf = xp.asarray(leaf)
        return xp.where(xp.along(plan.lam >= 0.5, leaf), leaf, xp.take(leaf, plan.permutation))

    hard = [larger(*pair) for pair in zip(tree.flatten(y), spread(target, y, "target"), strict=True)]

    def mixed(weight):
        weight = None if weight is None else ops.convert_to_tensor(weight)
        return None if weight is None else mix_weights(_backend.namespace(weight), weight, plan)

    return tree.pack_sequence_as(y, hard), tree.map_structure(mixed, sample_weight)
