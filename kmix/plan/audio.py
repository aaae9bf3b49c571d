"""Plans for waves that are added: how many sources a sample has, and their shares."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from kmix import _backend, _checks, prng
from kmix.plan import streams
from kmix.plan.plan import MixPlan
from kmix.plan.samplers import _check_real, _draw, _if_rate, _partners

# The most sources of a sample.
_MOST = 8
# Rows of the streams: `rate`, the partners, how many sources, and then the shares.
_RATE, _PARTNERS, _COUNT, _OWN = 0, 1, 2, 3


def sample_audio_mix(
    seed: int,
    step: Any,
    alpha: Any,
    batch_size: Any,
    *,
    snr: Sequence[float] | None = None,
    num_sources: int | Sequence[int] = 2,
    per: Literal["sample", "batch"] = "sample",
    rate: Any = 1.0,
    replica: Any = 0,
    first_row: Any = 0,
    lam_at_least_half: bool = False,
    pair: Callable[[Any], Any] | None = None,
    stream: int = streams.AUDIO,
    xp: _backend.Namespace = _backend.NUMPY,
) -> MixPlan:
    """Draw the plan of one batch of waves: the partners of each sample, and the share of each.

    The shares are a symmetric Dirichlet draw, or follow from signal-to-noise ratios. The partners of a sample are the
    next ones in a cycle through all samples, so no source comes twice.

    Args:
        seed, step, batch_size, per, rate, replica, first_row, stream, xp: As in `sample_mixup`.
        alpha: Parameter of the Dirichlet distribution, as in `sample_mixup`. Not read with `snr`.
        snr: None, or the lowest and the highest level of the sample above that of a partner, in dB. It is uniform for
            each partner, and the shares are those of the amplitudes.
        num_sources: How many sources a mixed sample has, itself among them: an int from 2 to 8, or the fewest and the
            most, drawn uniformly. A sample that draws 1 is not mixed.
        lam_at_least_half: Whether to take `max(lam, 1 - lam)` for lam, the share of the sample. The partners divide the
            rest in the proportion that was drawn.
        pair: A function from random words `(B,)` to the next sample in the cycle, int `(B,)`. With two sources, any
            partner.

    Returns:
        A `MixPlan`: of up to two sources with `lam` and `permutation`; of more with `partners` and `shares`, too.

    Raises:
        ValueError: if an argument is out of range, or `pair` does not return one partner for each sample.
        TypeError: if one of them has a wrong type.

    Reference:
        B. van Merriënboer et al., "Perch 2.0: The Bittern Lesson for Bioacoustics", https://arxiv.org/abs/2508.04665

    Example:
        >>> from kmix.plan import sample_audio_mix
        >>> plan = sample_audio_mix(seed=1, step=0, alpha=1.0, batch_size=4, num_sources=(1, 3))
        >>> plan.partners.shape, plan.shares.shape
        ((2, 4), (3, 4))
    """
    _checks.one_of(per, "per", ("sample", "batch"))
    _checks.boolean(lam_at_least_half, "lam_at_least_half")
    rate, snr, (low, high) = _check_real(rate, "rate", 1.0), check_snr(snr), check_sources(num_sources)
    levels = math.ceil(math.log2(high))
    own = high - 1 if snr else 4 * (2**levels - 1)
    words, u = _draw(xp, seed, step, stream, _OWN + own, batch_size, replica, first_row, per)
    if snr:
        decibels = snr[0] + (snr[1] - snr[0]) * u[_OWN:]
        logs = xp.concat([0.0 * u[:1], -math.log(10) / 20 * decibels])
    else:
        logs = prng.log_dirichlet(xp, u[_OWN:], _check_real(alpha, "alpha"), levels)
    logs, u = xp.unstack(logs), xp.unstack(u)
    count = low + xp.math.floor(u[_COUNT] * (high - low + 1.0))
    # The next one in the cycle, the one after it, and so on.
    permutation = _cycle(xp, words[_PARTNERS]) if pair is None else _partners(xp, words[_PARTNERS], pair)
    partners, taken = [xp.rows(permutation)], [count > source for source in range(high)]
    for _ in range(2, high):
        partners.append(xp.take(partners[0], partners[-1]))
    if high > 2:
        # A shorter cycle has fewer sources. With one partner, it may be that of a second batch, so its number says
        # nothing.
        own = xp.arange(xp.size(partners[0], 0))
        for source, partner in enumerate(partners, 1):
            taken[source] = taken[source] & taken[source - 1] & (partner != own)
    shares = _softmax(xp, [xp.where(*each, -math.inf) for each in zip(taken, logs[:high], strict=True)])
    shares = _dominant(xp, shares) if lam_at_least_half else shares
    shares = [xp.where(share < _backend.SMALLEST_NORMAL, 0.0, share) for share in shares]
    shares = _mixed(xp, shares, u[_RATE], rate, None if snr else alpha)
    if high == 2:
        return MixPlan(shares[0], permutation, bijective=pair is None)
    return MixPlan(shares[0], partners[0], partners=xp.stack(partners), shares=xp.stack(shares), bijective=pair is None)


def check_sources(given: Any) -> tuple[int, int]:
    """Return the fewest and the most sources, or raise."""
    if not isinstance(given, (list, tuple)):
        number = _checks.integer(given, "num_sources", 2, _MOST + 1)
        return number, number
    numbers = [_checks.integer(number, "num_sources", 1, _MOST + 1) for number in given]
    if len(numbers) != 2 or numbers[0] > numbers[1] or numbers[1] < 2:
        _checks.fail(
            "`num_sources` must be an int >= 2, or the fewest and the most.",
            f"num_sources={given!r}",
            "For example `num_sources=(1, 3)`.",
        )
    return tuple(numbers)


def check_snr(given: Any) -> tuple[float, float] | None:
    """Return the lowest and the highest signal-to-noise ratio in dB, or None, or raise."""
    if given is None:
        return None
    ratios = [_checks.real(ratio, "snr", -100.0, 100.0) for ratio in _checks.sequence(given, "snr")]
    if len(ratios) != 2:
        _checks.fail("`snr` must be the lowest and the highest ratio in dB.", f"snr={given!r}", _SNR)
    low, high = ratios
    if low > high:
        _checks.fail("`snr` must not begin with the higher ratio.", f"snr={given!r}", _SNR)
    return low, high


def _cycle(xp, words):
    """The next sample of each in a random cycle through all."""
    permutation = xp.argsort(words)
    return xp.pick(permutation, (xp.argsort(permutation) + 1) % xp.size(permutation, -1))


def _softmax(xp, logs):
    """Shares in proportion to the exponentials of arrays, of which the first is finite."""
    largest = functools.reduce(xp.math.maximum, logs)
    parts = [xp.math.exp(each - largest) for each in logs]
    total = sum(parts)
    return [part / total for part in parts]


def _dominant(xp, shares):
    """Shares of which the first is `max(lam, 1 - lam)`; the others keep their proportion."""
    lam, rest = shares[0], sum(shares[1:])
    smaller = lam < 0.5
    partners = [xp.where(smaller, share / xp.where(smaller, rest, 1.0) * lam, share) for share in shares[1:]]
    return [xp.where(smaller, rest, lam), *partners]


def _mixed(xp, shares, u, rate, alpha):
    """Shares of samples that `rate` leaves as they are, or alpha 0, and NaN where one of them is no number for it."""
    mixed, one = u < rate, xp.cast(1.0, "float32")
    if alpha is not None:
        alpha = xp.cast(alpha, "float32")
        mixed = mixed & (alpha >= _backend.SMALLEST_NORMAL)
    shares = [xp.where(mixed, share, float(i == 0) * one) for i, share in enumerate(shares)]
    if alpha is not None:
        shares = [xp.where(alpha >= 0, share, math.nan * one) for share in shares]
    return shares if isinstance(rate, float) else [_if_rate(xp, rate, share) for share in shares]


_SNR = "For example `snr=(0, 20)`."
