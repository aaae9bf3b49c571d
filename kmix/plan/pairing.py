"""Who mixes with whom."""

from kmix import prng as random
from kmix.plan import streams


def uniform(xp, words, shards=1):
    """A permutation of the batch from sorting random words; with shards, one for each shard, `(shards, B / shards)`."""
    return xp.argsort(words if shards == 1 else xp.reshape(words, (shards, -1)))


def derange(xp, permutation):
    """Turn a random permutation `(..., n)` into one that has no fixed point: the cycle through all its entries."""
    following = (xp.argsort(permutation) + 1) % xp.size(permutation, -1)
    return xp.pick(permutation, following)


def by_label(xp, seed, step, labels, bandwidth, *, replica=0, others=False):
    """Partners with similar labels: `j` for `i` with a probability proportional to a Gaussian of their distance.

    Args:
        xp: Array namespace of the labels.
        seed, step, replica: As in `kmix.plan.sample_mixup`.
        labels: float `(B,)` or `(B, C)`.
        bandwidth: Standard deviation of the Gaussian, in standard deviations of each column of the labels. A column
            that is constant does not count.
        others: Whether a sample may not be its own partner.

    Returns:
        int32 `(B,)`: the partners, some of which may occur several times.

    Reference:
        H. Yao et al., "C-Mixup: Improving Generalization in Regression", NeurIPS 2022,
        https://arxiv.org/abs/2210.05775
    """
    n = xp.size(labels, 0)
    y = xp.reshape(xp.cast(labels, "float32"), (n, -1))
    deviation = y - xp.sum(y, 0) / xp.cast(n, "float32")
    variance = xp.sum(xp.math.square(deviation), 0) / xp.cast(n, "float32")
    scaled = deviation / xp.math.sqrt(xp.where(variance > 0, variance, 1.0)) / bandwidth
    # Differences, not a product of matrices, which may have lower precision on an accelerator.
    distance = xp.sum(xp.math.square(scaled[:, None] - scaled[None]), -1)
    words = random.bits(xp, random.key(xp, seed, step), streams.PAIRING, 1, n * n, replica)
    # The largest sum of a log-probability and a Gumbel number.
    gumbel = -xp.math.log(-xp.math.log(xp.reshape(random.uniform(xp, words), (n, n))))
    score = gumbel - 0.5 * distance
    if others:
        own = xp.arange(n)
        score = xp.where(own[:, None] == own, float("-inf"), score)
    return xp.argmax(score)
