"""The lam of a plan, and all random numbers of a plan."""

from typing import Any, NamedTuple

from kmix import _checks, prng
from kmix.plan import streams

_BETA, _RATE, _PAIRING, _OTHERS = range(4), 4, 5, 6


class Numbers(NamedTuple):
    """The random numbers of one plan.

    Attributes:
        lam: float32 `(B,)`, Beta distributed; 1 where a sample is not mixed.
        pairing: Words `(B,)`; sorting them gives the permutation.
        uniforms: The other uniforms requested, each float32 `(B,)`.
    """

    lam: Any
    pairing: Any
    uniforms: Any


def sample_numbers(seed, step, alpha, batch_size, *, per, rate, replica, stream, xp, dominant=False, others=0):
    """Draw all numbers of a plan together: lam, as the settings say, words for the permutation, uniforms."""
    count = _OTHERS + others
    streams.check(stream, count)
    seed = _checks.seed(seed)
    words = prng.bits(xp, prng.key(xp, seed, step), stream, count, batch_size, replica)
    u = prng.uniform(xp, words)
    if per == "batch":
        # The draw of the first sample applies to all.
        u = u[:, :1] + xp.cast(xp.words(batch_size) * 0, "float32")
    u = xp.unstack(u)
    lam = prng.symmetric_beta(xp, u[: len(_BETA)], alpha)
    lam = xp.math.maximum(lam, 1.0 - lam) if dominant else lam
    lam = lam if rate == 1.0 else xp.where(u[_RATE] < rate, lam, xp.cast(1.0, "float32"))
    return Numbers(lam, words[_PAIRING], u[_OTHERS:])
