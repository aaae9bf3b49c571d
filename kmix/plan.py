"""The mix plan: everything random about one batch, drawn once. Only this module draws."""

from typing import Any, NamedTuple

from kmix import _backend, _checks, random

# First stream of each kind of draw: layers of different kinds with the same seed stay independent.
MIXUP, CUTMIX, EMBEDDING, CHOICE, PLACE = 0, 16, 32, 48, 64

_BETA, _RATE, _PERMUTATION, _CENTRE = range(4), 4, 5, 6


class MixPlan(NamedTuple):
    """What happens to the `B` samples of one batch.

    A plan is a pure function of (seed, step, alpha, batch size), the same on every framework. Two
    settings of a layer enter as well: `per` and `rate`.

    Attributes:
        lam: float32 `(B,)` in [0, 1]: the weight of the original sample. With a box it is the exact
            share of the pixels that are kept.
        permutation: int32 `(B,)`: the index of each sample's partner. Within a step of a `MixTrainer` that
            pairs by shard: `(shards, B / shards)`, counted within the shard.
        box: int32 `(B, 2 * k)` for the `k` spatial axes, CutMix only: half open, all starts, then all
            stops: `(y0, x0, y1, x1)` for images.
        choice: int32 scalar: the branch that `RandomChoice` took.
        place: int32 scalar: the place that Manifold Mixup took.

    Example: replay by hand what a step does to a batch.

    >>> plan = kmix.MixUp(0.2, seed=1).plan(step=0, batch_size=4)
    >>> x = np.arange(4.0)
    >>> mixed = plan.lam * x + (1 - plan.lam) * x[plan.permutation]
    """

    lam: Any
    permutation: Any
    box: Any = None
    choice: Any = None
    place: Any = None


def sample_mixup(
    seed, step, alpha, batch_size, *, per="sample", rate=1.0, replica=0, shards=1, stream=MIXUP, xp=_backend.NUMPY
):
    """Draw the plan of one Mixup batch: `lam ~ Beta(alpha, alpha)` and a permutation.

    Args:
        seed: Python int in `[0, 2**32)`.
        step: Number of the batch: int or integer scalar tensor.
        alpha: Parameter of the symmetric Beta distribution: float or float32 scalar tensor. 0 gives
            `lam = 1` exactly, the identity.
        batch_size: Number of samples `B`.
        per: `"sample"` draws one lam for each sample, `"batch"` one for all of them.
        rate: Probability that a sample (or the batch) is mixed at all, in [0, 1].
        replica: Index of the replica under data parallelism; replicas draw different plans.
        shards: Number of equal parts of the batch within which partners stay.
        stream: First of the streams of bits to draw from.
        xp: Array namespace of the result, from `kmix._backend`.

    Returns:
        A `MixPlan` with `lam` and `permutation`.

    Reference:
        H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", https://arxiv.org/abs/1710.09412

    Example:
    >>> from kmix.plan import sample_mixup
    >>> plan = sample_mixup(seed=1, step=0, alpha=0.4, batch_size=4)
    >>> plan.permutation
    array([2, 0, 3, 1], dtype=int32)
    """
    words, _, lam = _draw(xp, seed, step, alpha, batch_size, per, rate, replica, stream, _CENTRE)
    return MixPlan(lam, _permutation(xp, words, shards))


def sample_cutmix(
    seed,
    step,
    alpha,
    batch_size,
    spatial_shape,
    *,
    per="sample",
    rate=1.0,
    replica=0,
    shards=1,
    stream=CUTMIX,
    xp=_backend.NUMPY,
):
    """Draw the plan of one CutMix batch: a box for each sample, and the share of the pixels it leaves.

    The box has `(1 - lam)` of the area for `lam ~ Beta(alpha, alpha)` and a uniform centre, and is
    clipped at the borders; `lam` of the plan is then the share that is really kept.

    Args:
        spatial_shape: Sizes of the spatial axes, `(H, W)` for images, one to three of them.
        seed, step, alpha, batch_size, per, rate, replica, shards, stream, xp: As in `sample_mixup`.

    Returns:
        A `MixPlan` with `lam`, `permutation` and `box`.

    Reference:
        S. Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
        Features", https://arxiv.org/abs/1905.04899

    Example:
    >>> plan = sample_cutmix(seed=1, step=0, alpha=1.0, batch_size=2, spatial_shape=(8, 8))
    >>> plan.box.shape
    (2, 4)
    """
    axes = len(spatial_shape)
    words, u, lam = _draw(xp, seed, step, alpha, batch_size, per, rate, replica, stream, _CENTRE + axes)
    # A hair more, so that lam = 0 up to rounding cuts the whole image on every framework.
    edge = xp.power(1.0 - lam, 1.0 / axes) * (1.0 + 1e-6)
    starts, stops, removed = [], [], 1.0
    for axis, size in enumerate(spatial_shape):
        length = xp.cast(size, "float32")
        centre = xp.cast(xp.math.floor(u[_CENTRE + axis] * length), "int32")
        half = xp.cast(xp.math.floor(edge * length), "int32") // 2
        starts.append(xp.math.maximum(centre - half, 0))
        stops.append(xp.math.minimum(centre + half, xp.cast(size, "int32")))
        removed = removed * (xp.cast(stops[-1] - starts[-1], "float32") / length)
    return MixPlan(1.0 - removed, _permutation(xp, words, shards), xp.stack(starts + stops, axis=1))


def sample_choice(seed, step, weights, *, depth=1, stream=CHOICE, xp=_backend.NUMPY):
    """Draw the index of one of `len(weights)` branches with probabilities proportional to `weights`.

    Args:
        seed, step, stream, xp: As in `sample_mixup`.
        weights: Python numbers >= 0 with a positive sum.
        depth: Levels of choices, an int >= 1; each level draws from a stream of its own.

    Returns:
        int32 scalar.

    Example:
    >>> int(sample_choice(seed=1, step=0, weights=[0, 1]))
    1
    """
    u = random.uniform(xp, random.bits(xp, random.key(xp, seed, step), stream + depth - 1, 1, 1))[0, 0]
    total, below, index = sum(weights), 0.0, xp.cast(0, "int32")
    for weight in weights[:-1]:
        below = below + weight
        index = index + xp.cast(u > below / total, "int32")
    return index


def _permutation(xp, words, shards):
    """A permutation of the batch; with shards one of each shard, `(shards, B / shards)`."""
    words = words[_PERMUTATION]
    return xp.argsort(words if shards == 1 else xp.reshape(words, (shards, -1)))


def _draw(xp, seed, step, alpha, batch_size, per, rate, replica, stream, streams):
    """All bits of a plan in one call, their uniforms, and lam after `per` and `rate`."""
    seed = _checks.seed(seed)
    words = random.bits(xp, random.key(xp, seed, step), stream, streams, batch_size, replica)
    u = random.uniform(xp, words)
    if per == "batch":
        # The first sample's draw serves all.
        u = u[:, :1] + xp.cast(xp.words(batch_size) * 0, "float32")
    u = xp.unstack(u)
    lam = random.symmetric_beta(xp, u[: len(_BETA)], alpha)
    return words, u, lam if rate == 1.0 else xp.where(u[_RATE] < rate, lam, xp.cast(1.0, "float32"))
