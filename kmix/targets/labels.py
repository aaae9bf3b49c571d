"""Labels: class ids, multi-hot, soft, or values to regress, weighted by the shares of the partners."""

import keras

from kmix import _backend, _checks
from kmix.mixing import combine
from kmix.targets.sample_weights import label_shares
from kmix.targets.spread import spread
from kmix.targets.target import Target, register

tree = keras.tree


@register("labels")
class Labels(Target):
    """Labels that are weighted by the shares of the partners, in float32.

    Args:
        y: Labels, or a structure of labels. Of an integer dtype: class ids `(B,)` or `(B, 1)`, or multi-hot
            `(B, C)`. Float: soft labels, or values to regress.
        num_classes: Number of classes of class ids, or a structure of such numbers that matches `y`.
        labels: `"dense"`, or `"pair"` for labels `(B, 3)`, see `kmix.MixUp`.
        guarded: Whether what may be something else than labels raises: `target="labels"` is not written out.
        pasted: As for `Target`.
    """

    settings = ("num_classes", "labels")

    def __init__(self, y, *, num_classes=None, labels="dense", guarded=False, pasted=None):
        super().__init__(y, pasted=pasted)
        classes = spread(num_classes, y, "num_classes")
        self.forms = [
            recognise(leaf, count, labels, guarded, pasted)
            for leaf, count in zip(tree.flatten(y), classes, strict=True)
        ]

    def _map(self, method, y, *others):
        return tree.pack_sequence_as(y, list(map(method, self.forms, tree.flatten(y), *others)))

    def check(self, xp, y):
        return self._map(lambda form, leaf: form.check(xp, xp.asarray(leaf)), y)

    def encode(self, xp, y):
        return self._map(lambda form, leaf: form.encode(xp, leaf), y)

    def mix(self, xp, y, plan, weights):
        return self._map(lambda form, leaf, weight: form.mix(xp, leaf, plan, weight), y, weights)

    def spec(self, y):
        return self._map(lambda form, leaf: keras.KerasTensor(form.mixed_shape(leaf.shape), dtype="float32"), y)

    def shapes(self, y):
        return [form.shape(_backend.static_shape(leaf)) for form, leaf in zip(self.forms, tree.flatten(y), strict=True)]

    def weigh_classes(self, xp, y, class_weight):
        return self.forms[0].weigh_classes(xp, y, class_weight)


class Dense:
    """Float labels: soft, multi-hot, or values to regress.

    Args:
        classes: Number of classes, None where there are none.
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
                "`class_weight` weighs classes, which needs class ids, or soft labels (B, C).",
                f"labels of shape {shape}",
                "Leave it out, or pass sample weights.",
            )
        table = _table(xp, class_weight, shape[1])
        # Summed without a matrix product, which may be of lower precision on an accelerator.
        return xp.sum(y * table, axis=1)


class ClassIds(Dense):
    """Class ids, one-hot encoded before they are mixed."""

    def __init__(self, classes):
        super().__init__(classes)

    def check(self, xp, y):
        ids = xp.cast(xp.reshape(y, (-1,)), xp.integer)
        xp.require(
            (ids >= 0) & (ids < self.classes),
            f"Class ids must lie in [0, num_classes) with num_classes={self.classes}. Received ids outside it. Check "
            "`num_classes`, and that the first class is 0. Ids to ignore, such as 255 or -1, have no `ignore_class` "
            "yet: give those samples any valid id and a sample weight of 0.",
        )
        return ids

    def encode(self, xp, y):
        one_hot = xp.cast(y[:, None] == xp.cast(xp.arange(self.classes), xp.integer), "float32")
        return _or_nan(xp, y, one_hot, ((y >= 0) & (y < self.classes))[:, None])

    def shape(self, shape):
        return (*shape[:1], self.classes)

    mixed_shape = shape


class MultiHot(Dense):
    """Columns of zeros and ones."""

    def check(self, xp, y):
        numbers = xp.cast(y, xp.integer)
        xp.require(
            (numbers == 0) | (numbers == 1),
            "Integer labels (B, C) with C > 1 are read as multi-hot, so every value must be 0 or 1. Received other "
            "values: cast to float to have them interpolated (regression), or pass one column of class ids.",
        )
        return numbers

    def encode(self, xp, y):
        return _or_nan(xp, y, xp.cast(y, "float32"), (y == 0) | (y == 1))


class Pairs(ClassIds):
    """Class ids that are mixed to pairs `(B, 3)`: the class of the sample, that of its partner, the first share."""

    def encode(self, xp, y):
        return y

    def mix(self, xp, y, plan, weight):
        keep, share, _ = label_shares(xp, y, plan, weight)
        # A sample that is kept is its own partner, whatever class the other one has.
        pair = y, xp.where(keep, y, xp.take(y, plan.permutation)), xp.where(keep, 1.0, share)
        return xp.stack([xp.cast(column, "float32") for column in pair], axis=1)

    def shape(self, shape):
        return shape

    def mixed_shape(self, shape):
        return (*shape[:1], 3)

    def weigh_classes(self, xp, y, class_weight):
        return xp.take(_table(xp, class_weight, self.classes), y)


def _table(xp, class_weight, classes):
    """The weight of each class, 1 where none was given."""
    beyond = [number for number in class_weight if number >= classes]
    if beyond:
        _checks.fail(
            "`class_weight` maps class numbers to weights.", f"class {beyond[0]} of {classes} classes", "Leave it out."
        )
    weights = [class_weight.get(number, 1.0) for number in range(classes)]
    return xp.asarray(_backend.NUMPY.cast(weights, "float32"))


def _or_nan(xp, y, encoded, valid):
    """Labels that are NaN where they are not valid: in a compiled step nothing can raise, and the loss must show it."""
    if _backend.on_host(y):
        return encoded
    return xp.where(valid, encoded, xp.cast(float("nan"), "float32"))


def check_form(labels, num_classes):
    """Return `labels`, the form of mixed labels, if labels of `num_classes` (None: not known yet) can have it."""
    _checks.one_of(labels, "labels", ("dense", "pair"))
    for classes in tree.flatten(num_classes):
        if labels == "pair" and classes is not None and not 3 < classes <= 2**24:
            _checks.fail(
                '`labels="pair"` needs more than 3 classes, since (B, 3) labels are dense with 3, and at most 2**24, '
                "up to which float32 holds class ids exactly.",
                f"num_classes={classes}",
                'Write `labels="dense"`.',
            )
    return labels


def recognise(y, classes, labels="dense", guarded=False, pasted=None):
    """The form of one array of labels, by its static shape and dtype. Raises for what labels cannot be.

    Args:
        y: An array of labels, of which the shape and dtype count.
        classes: Number of classes, or None.
        labels: `"dense"` or `"pair"`.
        guarded: Whether what may be something else than labels raises.
        pasted: Static sizes of the spatial axes of the inputs where they are pasted.

    Returns:
        A `Dense`, `ClassIds`, `MultiHot` or `Pairs`.
    """
    shape, dtype = _backend.static_shape(y), _backend.dtype(y)
    received = f"labels of shape {shape} and dtype {dtype}"
    ids_like = shape is None or (len(shape) < 3 and shape[1:] in ((), (1,), (None,)))
    if check_form(labels, classes) == "pair" and ("int" not in dtype or not ids_like):
        _checks.fail(
            'With `labels="pair"` labels must be class ids (B,) or (B, 1) of an integer dtype.',
            received,
            'Write `labels="dense"` for soft or multi-hot labels, and for regression.',
        )
    if pasted is not None and shape is not None and _has_spatial_axes(shape, pasted):
        _checks.fail(
            "The mixer pastes regions of the inputs, so a target with their spatial axes would have to be pasted, too, "
            "which labels are not: they are weighted by the share of the pixels.",
            received,
            'Say what it is with `target=`: `target="keep"` leaves it as it is, a callable `(y, plan) -> y` mixes it '
            "your way; segmentation masks are not mixed yet. MixUp blends such targets.",
        )
    if "float" in dtype:
        return _recognise_float(shape, classes, guarded, received)
    if not ("int" in dtype or dtype == "bool"):
        _checks.fail("Labels must be float or integer.", f"dtype {dtype}")
    return _recognise_integer(shape, classes, labels, received)


def _recognise_float(shape, classes, guarded, received):
    if classes is not None and shape is not None and (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
        _checks.fail(
            "With `num_classes` labels (B,) and (B, 1) are class ids of an integer dtype.", received, FLOAT_IDS_HINT
        )
    return Dense(classes, guarded)


def _recognise_integer(shape, classes, labels, received):
    if shape is None:
        _checks.fail(
            "The rank of integer labels must be known, to tell class ids from multi-hot labels.",
            "labels of unknown rank",
            "Call `y.set_shape([None])` on them first.",
        )
    if len(shape) >= 3:
        _checks.fail(
            "Integer labels must be class ids (B,) or (B, 1), or multi-hot (B, C).",
            received,
            "Labels for each step are one-hot encoded as float to be blended. For anything else say what it is with "
            "`target=`.",
        )
    if len(shape) == 2 and shape[1] is None:
        _checks.fail(
            "The last dimension of integer labels must be known, to tell class ids (B, 1) from multi-hot (B, C).",
            received,
            "Call `y.set_shape([None, 1])` on them first.",
        )
    if len(shape) == 2 and shape[1] != 1:
        return MultiHot()
    if classes is None:
        _checks.fail(
            "Integer labels are class ids and are one-hot encoded before mixing, which needs `num_classes`.",
            f"{received} with num_classes=None",
            "Pass `num_classes=`. Cast the labels to float if this is regression, or if they are binary labels 0 and 1 "
            "for a single sigmoid output.",
        )
    return Pairs(classes) if labels == "pair" else ClassIds(classes)


def _has_spatial_axes(shape, spatial):
    """Whether labels of a static shape have the spatial axes of the inputs, next to each other."""

    def agree(size, other):
        return size == other if None not in (size, other) else 1 not in (size, other)

    count = len(spatial)
    starts = range(1, len(shape) - count + 1) if len(shape) > 2 else ()
    return any(all(map(agree, shape[start : start + count], spatial)) for start in starts)


FLOAT_IDS_HINT = (
    "Give integers: Keras' own preprocessing layers cast labels to float in tf.data, so map kmix before them, or "
    "one-hot encode the labels in the data set. If these are probabilities or values to regress, leave out "
    '`num_classes`, or with several labels write `num_classes={"name": 10}` for those that are class ids.'
)
FLOAT_IDS = (
    f"With `num_classes` labels (B, 1) are class ids of an integer dtype. Received: float labels. {FLOAT_IDS_HINT}"
)
NO_SHARES = (
    "Float labels with three or more axes must lie in [0, 1], as shares do. Received values outside it, which may be "
    'no labels at all. Say what they are with `target=`: `target="labels"` blends them, `target="keep"` leaves them as '
    "they are, a callable `(y, plan) -> y` mixes them your way."
)
