"""The forms of labels: soft labels, class ids, multi-hot labels, and pairs of class ids."""

from kmix import _backend, _checks
from kmix.mixing import combine
from kmix.targets.sample_weights import label_shares, mix_views, views_of


class Dense:
    """Float labels: soft, multi-hot, or values to regress.

    Args:
        classes: Number of classes, or None.
        guarded: Whether the values must look like shares.
    """

    def __init__(self, classes=None, guarded=False):
        self.classes, self.guarded = classes, guarded

    def check(self, xp, y):
        shape = _backend.static_shape(y)
        if self.classes is not None and shape is not None and len(shape) == 2 and shape[1] is None:
            xp.require(xp.asarray(xp.size(y, 1) != 1), FLOAT_IDS)
        y = xp.cast(y, "float32")
        if self.guarded and shape is not None and len(shape) > 2:
            xp.require((y >= 0) & (y <= 1), NO_SHARES)
        return y

    def encode(self, xp, y):
        return y

    def mix(self, xp, y, plan, weight):
        views = views_of(xp, plan)
        if views:
            return mix_views(xp, y, views, weight)
        keep, a, b = label_shares(xp, y, plan, weight)
        return combine(xp, keep, a, b, y, plan.permutation)

    def shape(self, shape):
        """The static shape whose leading axes sample weights have."""
        return shape

    def mixed_shape(self, shape):
        return shape

    def weigh_classes(self, xp, y, class_weight):
        shape = _backend.static_shape(y)
        if shape is None or len(shape) != 2 or shape[1] in (1, None):
            _checks.fail(
                "`class_weight` needs class ids, or soft labels (B, C).",
                f"labels of shape {shape}",
                "Leave it out, or pass sample weights.",
            )
        table = _table(xp, class_weight, shape[1])
        # A sum, not a matrix product, which may have lower precision on an accelerator.
        return xp.sum(y * table, axis=1)


class ClassIds(Dense):
    """Class ids, one-hot encoded before they are mixed."""

    def __init__(self, classes):
        super().__init__(classes)

    def check(self, xp, y):
        ids = xp.cast(xp.reshape(y, (-1,)), xp.integer)
        xp.require(
            (ids >= 0) & (ids < self.classes),
            f"Class ids must lie in [0, num_classes) with num_classes={self.classes}. Received: ids outside it. Check "
            "`num_classes`, and that the first class is 0. There is no `ignore_class` yet for ids to ignore, such as "
            "255 or -1: give those samples any valid id and a sample weight of 0.",
        )
        return ids

    def encode(self, xp, y):
        one_hot = xp.cast(y[:, None] == xp.cast(xp.arange(self.classes), xp.integer), "float32")
        return or_nan(xp, y, one_hot, ((y >= 0) & (y < self.classes))[:, None])

    def shape(self, shape):
        return (*shape[:1], self.classes)

    mixed_shape = shape


class MultiHot(Dense):
    """Columns of zeros and ones."""

    def check(self, xp, y):
        numbers = xp.cast(y, xp.integer)
        xp.require(
            (numbers == 0) | (numbers == 1),
            "Integer labels (B, C) with C > 1 are read as multi-hot, so every value must be 0 or 1. Received: other "
            "values. Cast them to float to blend them (regression), or pass one column of class ids.",
        )
        return numbers

    def encode(self, xp, y):
        return or_nan(xp, y, xp.cast(y, "float32"), (y == 0) | (y == 1))


class Pairs(ClassIds):
    """Class ids mixed to pairs `(B, 3)`: the class of the sample, the class of its partner, and the first share."""

    def encode(self, xp, y):
        return y

    def mix(self, xp, y, plan, weight):
        keep, share, _ = map(xp.asarray, label_shares(xp, y, plan, weight))
        # A kept sample is its own partner, whatever the class of the other sample.
        pair = y, xp.where(keep, y, xp.take(y, xp.asarray(plan.permutation))), xp.where(keep, 1.0, share)
        return xp.stack([xp.cast(column, "float32") for column in pair], axis=1)

    def shape(self, shape):
        return shape

    def mixed_shape(self, shape):
        return (*shape[:1], 3)

    def weigh_classes(self, xp, y, class_weight):
        return xp.take(_table(xp, class_weight, self.classes), y)


def _table(xp, class_weight, classes):
    """The weight of each class, by default 1."""
    beyond = [number for number in class_weight if number >= classes]
    if beyond:
        _checks.fail(
            "`class_weight` maps class numbers to weights.", f"class {beyond[0]} of {classes} classes", "Remove it."
        )
    weights = [class_weight.get(number, 1.0) for number in range(classes)]
    return xp.asarray(_backend.NUMPY.cast(weights, "float32"))


def or_nan(xp, y, encoded, valid):
    """Labels with NaN where they are not valid: a compiled step cannot raise, so the loss must show the error."""
    if _backend.on_host(y):
        return encoded
    return xp.where(valid, encoded, xp.cast(float("nan"), "float32"))


FLOAT_IDS_HINT = (
    "Pass integers. Keras' own preprocessing layers cast labels to float in tf.data. Give them the inputs alone, "
    "`lambda x, y: (augment(x), y)`, map kmix before them, or one-hot encode the labels in the data set. For "
    "probabilities or values to regress, leave out `num_classes`; with several labels, list only those that are class "
    'ids: `num_classes={"name": 10}`.'
)
FLOAT_IDS = f"With `num_classes`, labels (B, 1) must be integer class ids. Received: float labels. {FLOAT_IDS_HINT}"
NO_SHARES = (
    "Float labels with three or more axes must lie in [0, 1], like shares. Received: values outside it, which may not "
    'be labels. Say what they are with `target=`: `target="labels"` blends them, `target="keep"` leaves them '
    "unchanged, and a callable `(y, plan) -> y` mixes them your way."
)
