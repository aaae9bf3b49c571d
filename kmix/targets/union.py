"""Tags, such as sounds heard together: the mixed sample has the tags of both partners, whatever their shares."""

import functools

import keras

from kmix import _backend, _checks
from kmix.targets.sample_weights import views_of
from kmix.targets.target import Target, register

tree = keras.tree


@register("union")
class Union(Target):
    """Multi-hot labels or probabilities `(B, C)`, such as audio tags: the larger value of the partners, in float32.

    A partner without a share (`lam` of 0 or 1) adds no tags. Sample weights do not affect the labels.

    Example:
    >>> mixup = kmix.MixUp(1.0, target="union", seed=6)
    >>> _, y = mixup(np.zeros((2, 8), "float32"), np.array([[1, 0, 0], [0, 1, 0]]))
    >>> y
    array([[1., 1., 0.],
           [1., 1., 0.]], dtype=float32)
    """

    is_key = False
    mixes_views = True

    def __init__(self, y, *, pasted=None):
        super().__init__(y, pasted=pasted)
        for leaf in tree.flatten(y):
            shape, dtype = _backend.static_shape(leaf), _backend.dtype(leaf)
            numeric = "float" in dtype or "int" in dtype or dtype == "bool"
            if not numeric or shape is None or len(shape) != 2:
                _checks.fail(f"{EXPECTED}.", f"labels of shape {shape} and dtype {dtype}", HINT)

    def check(self, xp, y):
        return tree.map_structure(lambda leaf: self._check(xp, xp.cast(xp.asarray(leaf), "float32")), y)

    def _check(self, xp, y):
        xp.require((y >= 0) & (y <= 1), f"{EXPECTED} in [0, 1]. Received: values outside it. {HINT}")
        return y

    def encode(self, xp, y):
        # A compiled step cannot raise, so the loss must show the error.
        return tree.map_structure(lambda leaf: xp.where((leaf >= 0) & (leaf <= 1), leaf, float("nan")), y)

    def mix(self, xp, y, plan, weights):
        views = views_of(xp, plan)

        def larger(leaf):
            if views:
                heard = [xp.where(xp.along(view.share, leaf) > 0, xp.take(leaf, view.source), 0.0) for view in views]
                return functools.reduce(xp.math.maximum, heard)
            lam, partners = xp.along(plan.lam, leaf), xp.take(leaf, plan.permutation)
            return xp.math.maximum(xp.where(lam > 0, leaf, 0.0), xp.where(lam < 1, partners, 0.0))

        return tree.map_structure(larger, y)

    def spec(self, y):
        return tree.map_structure(lambda leaf: keras.KerasTensor(leaf.shape, dtype="float32"), y)


EXPECTED = '`target="union"` takes multi-hot labels, 0 or 1, or probabilities (B, C)'
HINT = (
    "One-hot encode class ids. If the rank is unknown, call `y.set_shape([None, C])`. For values to regress, write "
    '`target="labels"`.'
)
