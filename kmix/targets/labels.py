"""Labels: class ids, multi-hot or soft labels, or values to regress, weighted by the shares of the partners."""

import keras

from kmix import _backend, _checks
from kmix.targets.forms import FLOAT_IDS_HINT, ClassIds, Dense, MultiHot, Pairs
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
        missing: `"nan"` if NaN stands for a value that is not known, see `kmix.MixUp`.
        guarded: Whether to raise for `y` that may not be labels: if the user did not write `target="labels"`.
        pasted: As for `Target`.
    """

    arguments = {"missing": None}
    settings = ("num_classes", "labels")
    mixes_views = True
    takes_drawn_plan = True

    def __init__(self, y, *, num_classes=None, labels="dense", missing=None, guarded=False, pasted=None):
        super().__init__(y, pasted=pasted)
        classes = spread(num_classes, y, "num_classes")
        self.forms = [
            recognise(leaf, count, labels, guarded, pasted)
            for leaf, count in zip(tree.flatten(y), classes, strict=True)
        ]

    @classmethod
    def check_arguments(cls, given):
        _checks.one_of(given["missing"], "missing", (None, "nan"))
        return given

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
            'Say what it is with `target=`: `"segmentation_masks"` pastes it with the inputs, `"keep"` leaves it '
            "unchanged, and a callable `(y, plan) -> y` mixes it your way.",
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
