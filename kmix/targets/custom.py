"""Targets mixed by a function of the user."""

import keras

from kmix import _checks
from kmix.targets.target import Target

tree = keras.tree


class Custom(Target):
    """A target mixed by `function(y, plan)`, which gets tensors of the framework of the batch.

    Example: keep the keypoints `(B, N, 2)` of the partner with the larger share.

    >>> def stronger(points, plan):
    ...     return np.where(plan.lam[:, None, None] < 0.5, points[plan.permutation], points)
    >>> layer = kmix.CutMix(1.0, target=stronger, data_format="channels_last", seed=1)
    >>> _, points = layer(np.zeros((4, 8, 8, 1), "float32"), np.arange(16.0).reshape(4, 2, 2))
    >>> points.shape
    (4, 2, 2)
    """

    mixes_views = True

    def __init__(self, y, function, *, pasted=None):
        super().__init__(y, pasted=pasted)
        self.function = function

    def mix(self, xp, y, plan, weights):
        mixed = self.function(y, plan)
        if mixed is None:
            _checks.fail(
                "A callable `target` must return the mixed target.", f"None from {self.function!r}", "Return it."
            )
        return tree.map_structure(xp.asarray, mixed)
