"""Plans for whole batches: lam, permutation and box, drawn together."""

from kmix import _backend, _checks
from kmix import prng as random
from kmix.plan import pairing, regions, streams
from kmix.plan.lam import sample_numbers
from kmix.plan.record import MixPlan


def sample_mixup(
    seed,
    step,
    alpha,
    batch_size,
    *,
    per="sample",
    rate=1.0,
    replica=0,
    shards=1,
    dominant=False,
    stream=streams.MIXUP,
    xp=_backend.NUMPY,
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
        dominant: Whether to take `max(lam, 1 - lam)` for lam.
        stream: First of the streams of bits to draw from; `kmix.plan.reserve` returns it.
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
    settings = {"per": per, "rate": rate, "replica": replica, "stream": stream, "xp": xp, "dominant": dominant}
    numbers = sample_numbers(seed, step, alpha, batch_size, **settings)
    return MixPlan(numbers.lam, pairing.uniform(xp, numbers.pairing, shards), bijective=True)


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
    dominant=False,
    cut=None,
    stream=streams.CUTMIX,
    xp=_backend.NUMPY,
):
    """Draw the plan of one CutMix batch: a box for each sample, and the share of the pixels it keeps.

    The box has `(1 - lam)` of the area for `lam ~ Beta(alpha, alpha)` and a uniform centre, and is
    clipped at the borders. The `lam` of the plan is the share of the pixels kept after clipping.

    Args:
        spatial_shape: Sizes of one to three spatial axes, `(H, W)` for images.
        cut: Indices of the spatial axes to cut, such as `(0,)` for the height; a box spans the others. None for all.
        seed, step, alpha, batch_size, per, rate, replica, shards, dominant, stream, xp: As in `sample_mixup`.

    Returns:
        A `MixPlan` with `lam`, `permutation` and `box`.

    Reference:
        S. Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
        Features", https://arxiv.org/abs/1905.04899

    Example:
    >>> from kmix.plan import sample_cutmix
    >>> plan = sample_cutmix(seed=1, step=0, alpha=1.0, batch_size=2, spatial_shape=(8, 8))
    >>> plan.box.shape
    (2, 4)
    """
    settings = {"per": per, "rate": rate, "replica": replica, "stream": stream, "xp": xp, "dominant": dominant}
    numbers = sample_numbers(seed, step, alpha, batch_size, others=len(spatial_shape), **settings)
    box, kept = regions.boxes(xp, numbers.lam, numbers.uniforms, spatial_shape, cut)
    return MixPlan(kept, pairing.uniform(xp, numbers.pairing, shards), box, bijective=True)


def sample_mosaic(
    seed, step, batch_size, spatial_shape, *, rate=1.0, replica=0, shards=1, stream=streams.MOSAIC, xp=_backend.NUMPY
):
    """Draw the plan of one Mosaic batch: a centre and three partners for each sample.

    Args:
        seed, step, batch_size, rate, replica, shards, stream, xp: As in `sample_mixup`.
        spatial_shape: Height and width.

    Returns:
        A `MixPlan`. Its `region` is the centre, int32 `(B, 2)`, and the partners, int32 `(3, B)`; its `lam` is the
        share of the sample, and its `permutation` the first partner. The centre is `(H, W)` where `rate` leaves a
        sample as it is.

    Raises:
        ValueError: if the seed is negative or too large.
        TypeError: if the seed is not an integer.

    Reference:
        A. Bochkovskiy, C.-Y. Wang, H.-Y. M. Liao, "YOLOv4: Optimal Speed and Accuracy of Object Detection",
        https://arxiv.org/abs/2004.10934

    Example:
    >>> from kmix.plan import sample_mosaic
    >>> centre, partners = sample_mosaic(seed=1, step=0, batch_size=2, spatial_shape=(8, 8)).region
    >>> centre.shape, partners.shape
    ((2, 2), (3, 2))
    """
    _ROWS, _COLUMNS, _RATE, _PARTNERS = 0, 1, 2, range(3, 6)
    streams.check(stream, _PARTNERS.stop)
    words = random.bits(xp, random.key(xp, _checks.seed(seed), step), stream, _PARTNERS.stop, batch_size, replica)
    u = xp.unstack(random.uniform(xp, words))
    centre = [regions.centre(xp, u[axis], size) for axis, size in zip((_ROWS, _COLUMNS), spatial_shape, strict=True)]
    if rate < 1.0:
        sizes = [xp.cast(size, "int32") for size in spatial_shape]
        centre = [xp.where(u[_RATE] < rate, at, size) for at, size in zip(centre, sizes, strict=True)]
    partners = [pairing.uniform(xp, words[i], shards) for i in _PARTNERS]
    area = xp.cast(spatial_shape[0] * spatial_shape[1], "float32")
    share = regions.portion(xp, xp.cast(centre[0] * centre[1], "float32"), area)
    return MixPlan(share, partners[0], region=(xp.stack(centre, axis=1), xp.stack(partners)))


def sample_choice(seed, step, weights, *, depth=1, stream=streams.CHOICE, xp=_backend.NUMPY):
    """Draw the index of one of `len(weights)` branches with probabilities proportional to `weights`.

    Args:
        seed, step, stream, xp: As in `sample_mixup`.
        weights: Python numbers >= 0 with a positive sum.
        depth: Level of nested choices, an int >= 1. Each level draws from its own stream.

    Returns:
        int32 scalar.

    Example:
    >>> from kmix.plan import sample_choice
    >>> int(sample_choice(seed=1, step=0, weights=[0, 1]))
    1
    """
    streams.check(stream, depth)
    u = random.uniform(xp, random.bits(xp, random.key(xp, seed, step), stream + depth - 1, 1, 1))[0, 0]
    total, below, index = sum(weights), 0.0, xp.cast(0, "int32")
    for weight in weights[:-1]:
        below = below + weight
        index = index + xp.cast(u > below / total, "int32")
    return index
