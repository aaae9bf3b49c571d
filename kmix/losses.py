"""A cross-entropy for mixed labels."""

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from kmix import _backend, _checks
from kmix.label_forms import LabelForm, may_equal

__all__ = ["SoftLabelCrossentropy"]


@keras.saving.register_keras_serializable(package="kmix")
class SoftLabelCrossentropy(keras.losses.Loss):
    """Cross-entropy that accepts both soft labels and integer class ids.

    One compiled loss works for mixed training data and plain validation data. Labels with one axis fewer
    than the predictions, or with a last axis of 1, are class ids; labels with a last axis of 3 are pairs
    if there are more than 3 classes (see `kmix.targets.LabelPairs`). Neither is one-hot encoded.
    Everything is computed in float32. Predictions that a mask of Keras leaves out, such as padded tokens behind
    `Embedding(mask_zero=True)`, do not count, as in Keras' own losses.

    Like every cross-entropy, it is linear in `y_true` (with `subtract_entropy`, up to a term that does not
    depend on the predictions). The loss of a mixed label is therefore exactly the mix of the losses of its two
    labels, as in the paper. Keras' categorical and binary cross-entropies, `CategoricalFocalCrossentropy`
    and `Poisson` are linear as well; `KLDivergence` and `MeanSquaredError` are linear up to such a term, so
    their gradients are those of the pair. `BinaryFocalCrossentropy`, the hinge losses, `MeanAbsoluteError`,
    `Huber`, `LogCosh` and `CosineSimilarity` are not linear: with mixed labels, their values and
    gradients differ from those of the pair.

    Args:
        from_logits: Whether `y_pred` holds logits rather than probabilities. Defaults to `False`.
        label_smoothing: Share in [0, 1] of each label to spread evenly over the classes.
        multi_label: Whether the classes are independent: a binary cross-entropy for each, averaged. The
            loss then also accepts a sample weight for each class, 0 if a label is unknown.
        subtract_entropy: Whether to report the Kullback-Leibler divergence from the labels. Its
            minimum is 0 even for soft labels. The gradients are the same. Defaults to `False`.
        ignore_class: Id of the pixels (or samples) without a class, such as 255. They do not count, and the mean is
            over the others. In soft labels they are rows of zeros; a row with a sum below 1, mixed from a pixel that
            counts and one that does not, counts by its sum. Not with `multi_label`.
        reduction: `"sum_over_batch_size"` (the default), `"sum"`, `"mean"`,
            `"mean_with_sample_weight"` or `None`, as in Keras.
        name: Name of the loss.
        dtype: Accepted for Keras' config. The loss computes in float32 under any policy.

    Call arguments:
        y_true: Labels: soft `(..., C)`, class ids `(...)` or `(..., 1)`, or pairs `(..., 3)`.
        y_pred: Predictions `(..., C)`.
        sample_weight: Optional weights of the losses `(...)`, or of their leading axes: `(B,)` for images. With
            `multi_label`, also weights of the classes, `(..., C)`: the loss of a sample is the mean over the
            classes of weight times binary cross-entropy. Weights that are equal over the classes therefore
            act like weights `(...)`. A label of weight 0 is ignored and may be NaN.
            `reduction="mean_with_sample_weight"` divides the sum of these losses by the sum of the mean
            weights of the samples, which gives the weighted mean over all entries.

    Returns:
        float32: a scalar, or the losses of shape `(...)` with `reduction=None`. A class id that is
        not a whole number in `[0, C)` gives NaN.

    Raises:
        TypeError: if an argument is of another type, such as `from_logits="yes"` or `ignore_class=0.5`.
        ValueError: if `label_smoothing` is not in [0, 1]; if the shapes of `y_true` and `y_pred` do not match; if there
            is only one class and `multi_label` is not set; if there are weights of the classes and `multi_label` is not
            set; if `ignore_class` is given with `multi_label`.

    Reference:
        H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", https://arxiv.org/abs/1710.09412

    Example:
        >>> loss = kmix.losses.SoftLabelCrossentropy()
        >>> y_pred = np.array([[0.5, 0.25, 0.25]])
        >>> round(float(loss(np.array([[0.5, 0.5, 0.0]]), y_pred)), 4)
        1.0397
        >>> round(float(loss(np.array([0]), y_pred)), 4)
        0.6931
        >>> loss = kmix.losses.SoftLabelCrossentropy(multi_label=True)
        >>> unknown = np.array([[1.0, 1.0, 0.0]])
        >>> round(float(loss(np.array([[1.0, 0.0, -1.0]]), y_pred, sample_weight=unknown)), 4)
        0.3269
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        *,
        multi_label: bool = False,
        subtract_entropy: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str = "soft_label_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype="float32")
        self.from_logits: bool = _checks.boolean(from_logits, "from_logits")
        self.label_smoothing: float = _checks.real(label_smoothing, "label_smoothing", 0.0, 1.0)
        self.multi_label: bool = _checks.boolean(multi_label, "multi_label")
        self.subtract_entropy: bool = _checks.boolean(subtract_entropy, "subtract_entropy")
        self.ignore_class: int | None = check_ignore_class(ignore_class)
        if multi_label and ignore_class is not None:
            _checks.fail(
                "With `multi_label`, a row of zeros is a sample without any of the classes.",
                f"ignore_class={ignore_class}",
                "Leave it out, and pass weights of the classes, 0 where a label is unknown.",
            )

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        weights, class_weights = read_weights(sample_weight, y_pred, by_class=self.multi_label)
        losses: Any = self.call
        reduction = self.reduction
        by_weight = reduction == "mean_with_sample_weight"
        if class_weights is not None:
            if by_weight:
                # Keras multiplies the losses by these weights before it divides by their sum.
                weights = ops.mean(class_weights, axis=-1)
                class_weights = ops.divide_no_nan(class_weights, weights[..., None])
            losses = functools.partial(self.call, class_weights=class_weights)
        elif self.ignore_class is not None and reduction not in (None, "none", "sum"):
            # The mean is over what counts: Keras divides by the sum of the masses of the labels.
            mass = LabelForm.read(ops.convert_to_tensor(y_true), y_pred, self.ignore_class).mass
            weights = 1.0 if weights is None else weights
            factor, weights = (1.0, mass * weights) if by_weight else (weights, mass)
            reduction = "mean_with_sample_weight"
            losses = lambda y, p: factor * ops.divide_no_nan(self.call(y, p), mass)  # noqa: E731
        return ReducedByKeras(losses, reduction, self.name)(y_true, y_pred, weights)

    def call(self, y_true: Any, y_pred: Any, class_weights: Any = None) -> Any:
        """The losses `(...)` before reduction; with `multi_label`, also for weights of the classes `(..., C)`."""
        y_pred = ops.cast(y_pred, "float32")
        classes = y_pred.shape[-1]
        if classes == 1 and not self.multi_label:
            _checks.fail(
                "With a single output column, the softmax is always 1.",
                f"y_pred of shape {tuple(y_pred.shape)}",
                "For a binary cross-entropy, write `multi_label=True`.",
            )
        labels = LabelForm.read(ops.convert_to_tensor(y_true), y_pred, self.ignore_class)
        ids, y = labels.ids, labels.shares
        even = self.label_smoothing and self.label_smoothing * (0.5 if self.multi_label else 1.0 / classes)
        if self.ignore_class is not None:
            even = even and even * labels.mass[..., None]
        if class_weights is not None:
            known = class_weights != 0
            ids, y = None, ops.where(known, labels.dense(), 0.0)
        terms = self._terms(y * (1.0 - self.label_smoothing) + even, self._logs(y_pred, ids))
        if class_weights is not None:
            terms = ops.where(known, class_weights * terms, 0.0)
        total = ops.sum(terms, axis=-1)
        if self.ignore_class is not None and self.subtract_entropy:
            total = total + _entropy_terms(labels.mass)
        if ids is not None and (self.label_smoothing or self.multi_label):
            # All the other classes have the label `even`.
            rest = ops.sum(self._terms(even, self._logs(y_pred)), axis=-1)
            total = total + rest - ops.sum(self._terms(even, self._logs(y_pred, ids)), axis=-1)
        return -total / ops.cast(ops.shape(y_pred)[-1], "float32") if self.multi_label else -total

    def _logs(self, y_pred, ids=None):
        """Log-probabilities of the classes `ids` (`None`: all); for independent classes, of both yes and no."""
        some = y_pred if ids is None else _backend.namespace(y_pred).pick(y_pred, ids)
        epsilon = keras.config.epsilon()
        if self.multi_label and self.from_logits:
            return -ops.softplus(-some), -ops.softplus(some)
        if self.multi_label:
            return ops.log(ops.maximum(some, epsilon)), ops.log(ops.maximum(1.0 - some, epsilon))
        if not self.from_logits:
            return (ops.log(ops.maximum(some / ops.sum(y_pred, axis=-1, keepdims=True), epsilon)),)
        if ids is None:
            return (ops.log_softmax(y_pred, axis=-1),)
        # The softmax of the other classes is not needed. Subtracting the largest logit keeps the precision.
        largest = ops.stop_gradient(ops.max(y_pred, axis=-1, keepdims=True))
        return (some - largest - ops.log(ops.sum(ops.exp(y_pred - largest), axis=-1, keepdims=True)),)

    def _terms(self, y, logs):
        """The term of each class in the log-likelihood of labels `y`; with `subtract_entropy`, plus their entropy."""
        terms = [_product(share, log) for share, log in zip((y, 1.0 - y), logs, strict=False)]
        if self.subtract_entropy:
            terms += [-_entropy_terms(share) for share, _ in zip((y, 1.0 - y), logs, strict=False)]
        return sum(terms)

    def get_config(self) -> dict[str, Any]:
        settings = ("from_logits", "label_smoothing", "multi_label", "subtract_entropy", "ignore_class")
        return {**super().get_config(), **{name: getattr(self, name) for name in settings}}


class ReducedByKeras(keras.losses.Loss):
    """`function(y_true, y_pred)`, losses `(...)`, with Keras' masks, weights and reduction."""

    def __init__(
        self,
        function: Callable[..., Any],
        reduction: str | None,
        name: str = "reduced_by_keras",
        dtype: str = "float32",
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.call = function


def check_ignore_class(ignore_class: int | None) -> int | None:
    """Return `ignore_class` as an int or None, or raise."""
    return None if ignore_class is None else _checks.integer(ignore_class, "ignore_class", -(2**31))


def read_weights(sample_weight: Any, y_pred: Any, by_class: bool = False) -> tuple[Any, Any]:
    """Sample weights as weights of the predictions, or of their classes.

    Args:
        sample_weight: Weights of the predictions, `(...)`, `(..., 1)` or of their leading axes; weights of the classes
            `(..., C)`; or None.
        y_pred: Predictions `(..., C)`.
        by_class: Whether weights of the classes are allowed.

    Returns:
        float32 weights `(...)` and weights of the classes `(..., C)`. At least one of them is None.

    Raises:
        ValueError: if weights of the classes are not allowed, or do not have the shape of `y_pred`.

    Example:
        >>> from kmix.losses import read_weights
        >>> weights, by_class = read_weights(np.ones(2), np.zeros((2, 5, 3)))
        >>> tuple(weights.shape), by_class
        ((2, 5), None)
    """
    if sample_weight is None:
        return None, None
    sample_weight = ops.cast(ops.convert_to_tensor(sample_weight), "float32")
    given, prediction = _backend.static_shape(sample_weight), tuple(y_pred.shape)
    if given is not None and len(given) >= len(prediction) and given[-1] != 1:
        received = f"sample_weight of shape {given} and y_pred of shape {prediction}"
        if not by_class:
            _checks.fail(
                "Sample weights must have the shape of the losses: (...) for predictions of shape (..., C).",
                received,
                "Only `SoftLabelCrossentropy(multi_label=True)` accepts weights of the classes.",
            )
        if not may_equal(given, prediction):
            _checks.fail("Weights of the classes must have the shape of `y_pred`, (..., C).", received)
        return None, ops.broadcast_to(sample_weight, ops.shape(y_pred))
    if given is not None:
        missing = len(prediction) - 1 - len(given)
        # Of the weights (..., 1), one axis is too many.
        sample_weight = sample_weight[..., 0] if missing < 0 else sample_weight[(..., *(None,) * missing)]
    # A copy: on PyTorch, Keras multiplies weights by masks in place.
    return 1.0 * ops.broadcast_to(sample_weight, ops.shape(y_pred)[:-1]), None


def _product(y, log_p):
    """`y * log_p` with `0 * log 0 = 0`."""
    return ops.where(y == 0, 0.0, y * ops.where(y == 0, 0.0, log_p))


def _entropy_terms(y):
    """`y * log y` with `0 * log 0 = 0`."""
    return _product(y, ops.log(ops.where(y == 0, 1.0, y)))
