"""A cross-entropy for mixed labels."""

import keras
from keras import ops

from kmix import _backend, _checks
from kmix.targets.label_forms import class_weights, expand_weights, label_mass, read_labels, spread_shares

__all__ = ["SoftLabelCrossentropy"]


@keras.saving.register_keras_serializable(package="kmix")
class SoftLabelCrossentropy(keras.losses.Loss):
    """Cross-entropy that accepts both soft labels and integer class ids.

    One compiled loss works for mixed training data and plain validation data. Labels with one axis fewer
    than the predictions, or with a last axis of 1, are class ids; labels with a last axis of 3 are pairs
    if there are more than 3 classes (see `labels="pair"` of the layers). Neither is one-hot encoded.
    Everything is computed in float32.

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
        ValueError: if the shapes of `y_true` and `y_pred` do not match; if there is only one class and
            `multi_label` is not set; if there are weights of the classes and `multi_label` is not set; if
            `ignore_class` is given with `multi_label`.

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
        from_logits=False,
        label_smoothing=0.0,
        multi_label=False,
        subtract_entropy=False,
        ignore_class=None,
        reduction="sum_over_batch_size",
        name="soft_label_crossentropy",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype="float32")
        self.from_logits = from_logits
        self.label_smoothing = _checks.real(label_smoothing, "label_smoothing", 0.0, 1.0)
        self.multi_label = multi_label
        self.subtract_entropy = subtract_entropy
        self.ignore_class = None if ignore_class is None else _checks.integer(ignore_class, "ignore_class", -(2**31))
        if multi_label and ignore_class is not None:
            _checks.fail(
                "With `multi_label`, a row of zeros is a sample without any of the classes.",
                f"ignore_class={ignore_class}",
                "Leave it out, and pass weights of the classes, 0 where a label is unknown.",
            )

    def __call__(self, y_true, y_pred, sample_weight=None):
        if self.ignore_class is not None:
            return self._ignoring(y_true, y_pred, sample_weight)
        if sample_weight is not None:
            sample_weight = expand_weights(sample_weight, len(y_pred.shape) - 1)
        weights = class_weights(sample_weight, y_pred, allowed=self.multi_label)
        if weights is None:
            return super().__call__(y_true, y_pred, sample_weight)
        sample_weight = None
        if self.reduction == "mean_with_sample_weight":
            # Keras multiplies the losses by these weights before it divides by their sum.
            sample_weight = ops.mean(weights, axis=-1)
            weights = ops.divide_no_nan(weights, ops.expand_dims(sample_weight, -1))
        return _WithClassWeights(self, weights)(y_true, y_pred, sample_weight)

    def _ignoring(self, y_true, y_pred, sample_weight):
        """The loss where some rows of labels count less than others. Keras' own reduction counts all alike."""
        class_weights(sample_weight, y_pred)
        # The product has no Keras mask, which counts here.
        mask, y_pred = getattr(y_pred, "_keras_mask", None), ops.cast(y_pred, "float32") * 1.0
        values, known = self.call(y_true, y_pred), label_mass(y_true, y_pred, self.ignore_class)
        if mask is not None:
            mask = ops.cast(mask, "float32")
            values, known = values * mask, known * mask
        weight = expand_weights(sample_weight, len(known.shape))
        weighted = values if weight is None else values * weight
        if self.reduction in (None, "none"):
            return weighted
        if self.reduction == "sum":
            return ops.sum(weighted)
        by_weight = self.reduction == "mean_with_sample_weight" and weight is not None
        return ops.divide_no_nan(ops.sum(weighted), ops.sum(known * weight if by_weight else known))

    def call(self, y_true, y_pred, class_weights=None):
        """The losses `(...)` before reduction; with `multi_label`, also for weights of the classes `(..., C)`."""
        y_pred = ops.cast(y_pred, "float32")
        classes = y_pred.shape[-1]
        if classes == 1 and not self.multi_label:
            _checks.fail(
                "With a single output column, the softmax is always 1.",
                f"y_pred of shape {tuple(y_pred.shape)}",
                "For a binary cross-entropy, write `multi_label=True`.",
            )
        ids, y = read_labels(y_true, y_pred, self.ignore_class)
        even = self.label_smoothing and self.label_smoothing * (0.5 if self.multi_label else 1.0 / classes)
        if self.ignore_class is not None:
            mass = ops.sum(y, axis=-1, keepdims=True)
            even = even and even * mass
        if class_weights is not None:
            known = class_weights != 0
            y = ops.where(known, y if ids is None else spread_shares(classes, ids, y), 0.0)
            terms = self._terms(y * (1.0 - self.label_smoothing) + even, self._logs(y_pred))
            return -ops.mean(ops.where(known, class_weights * terms, 0.0), axis=-1)
        y = y * (1.0 - self.label_smoothing) + even
        total = ops.sum(self._terms(y, self._logs(y_pred, ids)), axis=-1)
        if self.ignore_class is not None and self.subtract_entropy:
            total = total + ops.squeeze(_entropy_terms(mass), -1)
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

    def get_config(self):
        return {
            **super().get_config(),
            "from_logits": self.from_logits,
            "label_smoothing": self.label_smoothing,
            "multi_label": self.multi_label,
            "subtract_entropy": self.subtract_entropy,
            "ignore_class": self.ignore_class,
        }


class _WithClassWeights(keras.losses.Loss):
    """A `SoftLabelCrossentropy` for one batch with weights of the classes. Keras reduces and masks it."""

    def __init__(self, loss, weights):
        super().__init__(name=loss.name, reduction=loss.reduction, dtype=loss.dtype)
        self.loss, self.weights = loss, weights

    def call(self, y_true, y_pred):
        return self.loss.call(y_true, y_pred, self.weights)


def _product(y, log_p):
    """`y * log_p` with `0 * log 0 = 0`."""
    return ops.where(y == 0, 0.0, y * ops.where(y == 0, 0.0, log_p))


def _entropy_terms(y):
    """`y * log y` with `0 * log 0 = 0`."""
    return _product(y, ops.log(ops.where(y == 0, 1.0, y)))
