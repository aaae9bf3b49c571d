"""The mix plan: everything random about one batch, as a small value."""

from typing import Any, NamedTuple


class View(NamedTuple):
    """A part of a mixed image, which shows one image of the batch, shifted.

    Attributes:
        source: int `(B,)`: the index of the image that it shows.
        shift: int `(B, k)` for the `k` spatial axes: how far the image is moved, in pixels.
        window: int `(B, 2 * k)`: the part, half open: all starts, then all stops.
        share: float32 `(B,)`: the share of the part in the image.

    Example: the right half of one image of 4 x 4 pixels, which shows the left half of image 2.

    >>> view = kmix.plan.View(np.array([2]), np.array([[0, 2]]), np.array([[0, 2, 4, 4]]), np.array([0.5], "float32"))
    >>> view.share
    array([0.5], dtype=float32)
    """

    source: Any
    shift: Any
    window: Any
    share: Any


class MixPlan(NamedTuple):
    """What happens to the `B` samples of one batch.

    A plan is a pure function of (seed, step, alpha, batch size), the same on every framework. It also
    depends on the settings of the layer, such as `per` and `rate`, and on the labels with `pairing="label"`.

    Attributes:
        lam: float32 `(B,)` in [0, 1]: the weight of the original sample. With a box, it is the exact
            share of the pixels kept. Exactly 1 if nothing of the partner enters; exactly 0 if only the partner
            enters.
        permutation: int32 `(B,)`: the index of each sample's partner. In a step of a `MixTrainer` that
            pairs by shard, `(shards, B / shards)`, counted within the shard.
        box: int32 `(B, 2 * k)` for the `k` spatial axes, CutMix only. Half open: all starts, then all
            stops, `(y0, x0, y1, x1)` for images.
        choice: int32 scalar: index of the layer that `RandomChoice` drew.
        place: int32 scalar: index of the place that Manifold Mixup drew.
        region: What to paste, where a box does not say it: a value with a method `paste(xp, x, permutation, axes)`,
            which returns `x` with parts of the partners pasted in. `axes` are the spatial axes of `x`, and `xp` is the
            array namespace of `x`. Its arrays have one row for each sample. A region of several partners also has a
            method `views(xp)`, which returns a `View` for each, and then nothing reads `lam`.
        bijective: Whether `permutation` is known to hold each index once, as in every plan that kmix samples without
            `pairing="label"`. The gradient of a blend can then gather instead of scatter.

    Example: repeat by hand what a step does to a batch.

    >>> plan = kmix.MixUp(0.2, seed=1).plan(step=0, batch_size=4)
    >>> x = np.arange(4.0)
    >>> mixed = plan.lam * x + (1 - plan.lam) * x[plan.permutation]
    """

    lam: Any
    permutation: Any
    box: Any = None
    choice: Any = None
    place: Any = None
    region: Any = None
    bijective: bool = False
