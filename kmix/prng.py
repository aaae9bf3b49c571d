"""Counter-based randomness: the same numbers on every framework, as a pure function of (seed, step).

Nothing here has state. `key` turns a seed and a step into two 32-bit words; `bits` hashes positions and
stream numbers with them. Equal arguments give equal integers on TensorFlow, JAX, PyTorch and NumPy.
The first argument of each function is the array namespace `xp` of `kmix._backend`.
"""

import math
from typing import Any

import numpy as np

from kmix._backend import NUMPY, SMALLEST_NORMAL, Namespace

_GOLDEN = 0x9E3779B9
_REPLICA = 0x10000
_WORD = 0xFFFFFFFF


def key(xp: Namespace, seed: Any, step: Any) -> tuple[Any, Any]:
    """Two words, a bijection of (seed, step), so that no two of the 2**64 pairs share a key.

    They are `k0 = hash(step ^ hash(seed))` and `k1 = hash(seed ^ hash(k0 + c))`.

    Args:
        seed: Python int in `[0, 2**32)`.
        step: Number of the batch, an int or an integer tensor, taken modulo `2**32`.

    Returns:
        The two words: Python ints if the step is a number, else tensors of its shape.
    """
    if isinstance(step, int) or (xp is NUMPY and np.ndim(step) == 0):
        _, k0, _, k1 = _key_of_numbers(seed, int(step) & _WORD)
        return k0, k1
    hashed_seed, *_ = _key_of_numbers(seed, 0)
    k0 = xp.hash(xp.word(step) ^ xp.word(hashed_seed))
    return k0, xp.hash(xp.word(seed) ^ xp.hash(k0 + xp.word(_GOLDEN)))


def _key_of_numbers(seed, step):
    """The four hashes of `key` in the order in which they follow from each other, in Python numbers: one call."""
    word, hashes = seed, []
    for summand, mask in ((0, step), (_GOLDEN, 0), (0, seed), (0, 0)):
        # The hash that namespaces have for arrays.
        word = (word ^ word >> 16) * 0x7FEB352D & _WORD
        word = (word ^ word >> 15) * 0x846CA68B & _WORD
        word ^= word >> 16
        hashes.append(word)
        word = (word + summand & _WORD) ^ mask
    return hashes


def bits(
    xp: Namespace, key: tuple[Any, Any], first: int, streams: int, n: Any, replica: Any = 0, position: Any = 0
) -> Any:
    """Random 32-bit words of shape `(streams, n)`: row `s` is stream `first + s`, from `position` on.

    Within a stream, all words differ (position -> word is a bijection), so sorting them never ties.
    """
    k0, k1 = xp.word(key[0]), xp.word(key[1])
    stream = xp.words(streams) + (xp.word(first) + xp.word(replica) * xp.word(_REPLICA))
    salt = xp.hash(stream * xp.word(_GOLDEN) + k1)
    positions = xp.words(n) + k0
    if not isinstance(position, int) or position:
        positions = positions + xp.word(position & _WORD if isinstance(position, int) else position)
    return xp.hash(xp.reshape(salt, (-1, 1)) ^ xp.hash(positions))


def uniform(xp: Namespace, bits: Any) -> Any:
    """Words to float32 strictly inside (0, 1): the midpoints of 2**23 equal cells, all exact."""
    return (xp.cast(xp.shift(bits, 9), "float32") + 0.5) * 2.0**-23


def symmetric_beta(xp: Namespace, u: Any, alpha: Any, logits: Any = False) -> Any:
    """Beta(alpha, alpha) draws from four uniforms each, without rejection, for any alpha > 0.

    Ulrich's polar method gives `r` with `(1 + r) / 2 ~ Beta(alpha + 1, alpha + 1)`. The boost
    `Gamma(alpha) = Gamma(alpha + 1) * U**(1 / alpha)` then leads to alpha. It is applied to the logit,
    so that nothing underflows.

    Args:
        u: Uniforms of shape `(4, ...)`.
        alpha: Python float or float32 scalar.
        logits: Whether to return the logits, which are finite; 1 stands for an alpha that is not positive.

    Returns:
        float32 of shape `(...)`, in [0, 1]: exactly 1 if `alpha` is 0; NaN if it is negative or NaN. Numbers below
        the normal range of float32 count as 0.

    Reference:
        L. Devroye, Non-Uniform Random Variate Generation (1986), chapter IX, sections 3 and 4.
    """
    one, given = xp.cast(1.0, "float32"), xp.cast(alpha, "float32")
    positive = given >= SMALLEST_NORMAL
    # The lower limit only keeps the division below from overflowing.
    alpha = xp.where(positive, xp.math.maximum(given, xp.cast(1e-30, "float32")), one)
    log_radius = 2.0 / (2.0 * alpha + 1.0) * xp.math.log(u[0])
    radius = xp.math.sqrt(-xp.math.expm1(log_radius))
    half_angle = (0.5 * math.pi) * u[1]
    # 1 + r and 1 - r for r = radius * cos(2 * half_angle), without cancellation and never 0.
    rest = xp.math.exp(log_radius) / (1.0 + radius)
    above = rest + 2.0 * radius * xp.math.square(xp.math.cos(half_angle))
    below = rest + 2.0 * radius * xp.math.square(xp.math.sin(half_angle))
    logit = xp.math.log(above / below) + xp.math.log(u[2] / u[3]) / alpha
    if logits:
        return logit
    lam = xp.sigmoid(logit)
    lam = xp.where(lam < SMALLEST_NORMAL, 0.0, lam)
    return xp.where(positive, lam, xp.where(given >= 0, one, math.nan * one))


def log_dirichlet(xp: Namespace, u: Any, alpha: Any, levels: int) -> Any:
    """The logarithms of `2**levels` parts of a symmetric Dirichlet(alpha) draw, without rejection.

    A whole is split in two, and each part again, by symmetric Betas. The first `n` parts, made to sum to 1, are a
    Dirichlet draw of `n` parts. Logarithms, since parts below the range of float32 decide these sums at a small alpha.

    Args:
        u: Uniforms of shape `(4 * (2**levels - 1), n)`.
        alpha: Python float or float32 scalar; 1 stands for one that is not positive.

    Returns:
        float32 of shape `(2**levels, n)`, finite.
    """
    logs, first = 0.0 * u[:1], 0
    for level in range(levels):
        halves = 2**level
        own = xp.reshape(u[first : first + 4 * halves], (4, halves, -1))
        first += 4 * halves
        logit = symmetric_beta(xp, own, alpha * 2.0 ** (levels - 1 - level), logits=True)
        # The logarithms of lam and of 1 - lam.
        tail = xp.math.log(1.0 + xp.math.exp(-xp.math.maximum(logit, -logit)))
        parts = [logs + xp.math.minimum(logit, 0.0) - tail, logs - xp.math.maximum(logit, 0.0) - tail]
        logs = xp.reshape(xp.stack(parts, axis=1), (2 * halves, -1))
    return logs
