"""Labels: class ids, multi-hot or soft labels, or values to regress, weighted by the shares of the partners."""

import keras

from kmix import _backend, _checks
from kmix.mixing import combine
from kmix.targets.sample_weights import label_shares
from kmix.targets.spread import spread
from kmix.targets.target import Target, register

tree = keras.tree


@register("labels")
class Labels(Target):
    """Labels weighted by the shares of the partners, in float32.

    Args:
        y: Labels, or a structure of labels. Integers are class ids `(B,)` or `(B, 1)`, or multi-hot labels
            `(B, C)`. Floats are soft labels, or values to regress.
        num_classes: Number of classes of class ids, or a structure of such numbers that matches `y`.
        labels: `"dense"`, or `"pair"` for labels `(B, 3)`, see `kmix.MixUp`.
        guarded: Whether to raise for `y` that may not be labels: if the user did not write `target="labels"`.
        pasted: As for `Target`.
    """

    settings = ("num_classes", "labels")
    takes_drawn_plan = True

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
            "Integer labels (B, C) with C > 1 are read as multi-hot, so every value must be 0 or 1. Received: other "
            "values. Cast them to float to blend them (regression), or pass one column of class ids.",
        )
        return numbers

    def encode(self, xp, y):
        return _or_nan(xp, y, xp.cast(y, "float32"), (y == 0) | (y == 1))


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


def _or_nan(xp, y, encoded, valid):
    """Labels with NaN where they are not valid: a compiled step cannot raise, so the loss must show the error."""
    if _backend.on_host(y):
        return encoded
    return xp.where(valid, encoded, xp.cast(float("nan"), "float32"))


def check_form(labels, num_classes):
    """Return `labels`, the form of mixed labels, if `num_classes` (None: not known yet) allows it, or raise."""
    _checks.one_of(labels, "labels", ("dense", "pair"))
    for classes in tree.flatten(num_classes):
        if labels == "pair" and classes is not None and not 3 < classes <= 2**24:
            _checks.fail(
                '`labels="pair"` needs more than 3 classes, since with 3 classes labels (B, 3) are dense, and at most '
                "2**24, since float32 holds class ids exactly only up to there.",
                f"num_classes={classes}",
                'Write `labels="dense"`.',
            )
    return labels


def recognise(y, classes, labels="dense", guarded=False, pasted=None):
    """The form of one array of labels, from its static shape and dtype. Raises if it cannot hold labels.

    Args:
        y: An array of labels. Only its shape and dtype matter.
        classes: Number of classes, or None.
        labels: `"dense"` or `"pair"`.
        guarded: Whether to raise for `y` that may not be labels.
        pasted: Static sizes of the spatial axes of the inputs if the mixer pastes, else None.

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
            'For soft or multi-hot labels, and for regression, write `labels="dense"`.',
        )
    if pasted is not None and shape is not None and _has_spatial_axes(shape, pasted):
        _checks.fail(
            "This mixer pastes parts of the inputs. A target with the same spatial axes would have to be pasted as "
            "well, but labels are weighted by the share of the pixels.",
            received,
            'Say what it is with `target=`: `target="keep"` leaves it unchanged, and a callable `(y, plan) -> y` mixes '
            "it your way. Segmentation masks are not mixed yet. MixUp blends such targets.",
        )
    if "float" in dtype:
        return _recognise_float(shape, classes, guarded, received)
    if not ("int" in dtype or dtype == "bool"):
        _checks.fail("Labels must be float or integer.", f"dtype {dtype}")
    return _recognise_integer(shape, classes, labels, received)


def _recognise_float(shape, classes, guarded, received):
    if classes is not None and shape is not None and (len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)):
        _checks.fail("With `num_classes`, labels (B,) and (B, 1) must be integer class ids.", received, FLOAT_IDS_HINT)
    return Dense(classes, guarded)


def _recognise_integer(shape, classes, labels, received):
    if shape is None:
        _checks.fail(
            "The rank of integer labels must be known, to tell class ids from multi-hot labels.",
            "labels of unknown rank",
            "First call `y.set_shape([None])` on them.",
        )
    if len(shape) >= 3:
        _checks.fail(
            "Integer labels must be class ids (B,) or (B, 1), or multi-hot (B, C).",
            received,
            "To blend labels for each time step, one-hot encode them as float. For anything else, say what it is with "
            "`target=`.",
        )
    if len(shape) == 2 and shape[1] is None:
        _checks.fail(
            "The last dimension of integer labels must be known, to tell class ids (B, 1) from multi-hot (B, C).",
            received,
            "First call `y.set_shape([None, 1])` on them.",
        )
    if len(shape) == 2 and shape[1] != 1:
        return MultiHot()
    if classes is None:
        _checks.fail(
            "Integer labels are class ids and are one-hot encoded before mixing, which needs `num_classes`.",
            f"{received} with num_classes=None",
            "Pass `num_classes=`. For regression, or for binary labels 0 and 1 with a single sigmoid output, cast the "
            "labels to float.",
        )
    return Pairs(classes) if labels == "pair" else ClassIds(classes)


def _has_spatial_axes(shape, spatial):
    """Whether labels of a static shape contain the spatial axes of the inputs, next to each other."""

    def agree(size, other):
        return size == other if None not in (size, other) else 1 not in (size, other)

    count = len(spatial)
    starts = range(1, len(shape) - count + 1) if len(shape) > 2 else ()
    return any(all(map(agree, shape[start : start + count], spatial)) for start in starts)


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
