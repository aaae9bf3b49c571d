"""Plans for whole batches: lam, permutation and box, drawn together."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from kmix import _backend, _checks, prng
from kmix.plan import streams
from kmix.plan.plan import REPLICAS, Instances, MixPlan, Tiles, check_number

# Rows of the streams of a mixer with lam: four for lam, one for `rate`, one for the partners, then its own.
_RATE, _PARTNERS, _OWN = 4, 5, 6
# The number of streams of a CopyPaste, and the first of those of its objects, one for each.
_PASTE_STREAMS, _OBJECTS = 512, 16
# As many objects as that leaves can be told apart.
MOST_INSTANCES = _PASTE_STREAMS - _OBJECTS


def sample_mixup(
    seed: int,
    step: Any,
    alpha: Any,
    batch_size: Any,
    *,
    per: Literal["sample", "batch"] = "sample",
    rate: Any = 1.0,
    replica: Any = 0,
    first_row: Any = 0,
    lam_at_least_half: bool = False,
    pair: Callable[[Any], Any] | None = None,
    stream: int = streams.MIXUP,
    xp: _backend.Namespace = _backend.NUMPY,
) -> MixPlan:
    """Draw the plan of one Mixup batch: `lam ~ Beta(alpha, alpha)` and a permutation.

    Args:
        seed: Python int in `[0, 2**32)`.
        step: Number of the batch: int >= 0 or integer scalar tensor. Taken modulo `2**32`.
        alpha: Parameter of the symmetric Beta distribution: float or float32 scalar tensor. 0 gives
            `lam = 1` exactly, the identity.
        batch_size: Number of samples `B`: int or integer scalar tensor.
        per: `"sample"` draws one lam for each sample, `"batch"` one for all of them.
        rate: Probability that a sample (or the batch) is mixed at all, in [0, 1]: float or float32 scalar tensor.
        replica: Index of the replica under data parallelism, in [0, 65536): int or integer scalar tensor. Replicas
            draw different plans.
        first_row: Number of the first row in the global batch, of which these are `batch_size` rows: int or integer
            scalar tensor, taken modulo `2**32`. Each row draws by its number, so that the parts of a batch have the
            plan of the whole.
        lam_at_least_half: Whether to take `max(lam, 1 - lam)` for lam.
        pair: A function from random words `(B,)` to partners, int `(B,)`. By default, the permutation that sorts them.
        stream: First of the streams of bits to draw from; `kmix.plan.reserve` returns it.
        xp: Array namespace of the result, from `kmix._backend`.

    Returns:
        A `MixPlan` with `lam` and `permutation`.

    Raises:
        ValueError: if an argument is out of range, or `pair` does not return one partner for each sample.
        TypeError: if an argument has a wrong type.

    Reference:
        H. Zhang et al., "mixup: Beyond Empirical Risk Minimization", https://arxiv.org/abs/1710.09412

    Example:
        >>> from kmix.plan import sample_mixup
        >>> plan = sample_mixup(seed=1, step=0, alpha=0.4, batch_size=4)
        >>> plan.permutation
        array([2, 0, 3, 1], dtype=int32)
    """
    rows = batch_size, replica, first_row
    lam, words, _ = _sample_lam(seed, step, alpha, rows, per, rate, lam_at_least_half, stream, xp)
    return MixPlan(lam, _partners(xp, words, pair), bijective=pair is None)


def sample_cutmix(
    seed: int,
    step: Any,
    alpha: Any,
    batch_size: Any,
    spatial_shape: Sequence[Any],
    *,
    per: Literal["sample", "batch"] = "sample",
    rate: Any = 1.0,
    replica: Any = 0,
    first_row: Any = 0,
    lam_at_least_half: bool = False,
    pair: Callable[[Any], Any] | None = None,
    cut: Sequence[int] | None = None,
    stream: int = streams.CUTMIX,
    xp: _backend.Namespace = _backend.NUMPY,
) -> MixPlan:
    """Draw the plan of one CutMix batch: a box for each sample, and the share of the pixels it keeps.

    The box has `(1 - lam)` of the area for `lam ~ Beta(alpha, alpha)` and a uniform centre, and is
    clipped at the borders. The `lam` of the plan is the share of the pixels kept after clipping.

    Args:
        spatial_shape: Sizes of one to three spatial axes, `(H, W)` for images.
        cut: Indices of the spatial axes to cut, such as `(0,)` for the height; a box spans the others. None for all.
        seed, step, alpha, batch_size, per, rate, replica, first_row, lam_at_least_half, pair, stream, xp: As in
            `sample_mixup`.

    Returns:
        A `MixPlan` with `lam`, `permutation` and `box`.

    Raises:
        ValueError: if an argument is out of range.
        TypeError: if one of them has a wrong type.

    Reference:
        S. Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
        Features", https://arxiv.org/abs/1905.04899

    Example:
        >>> from kmix.plan import sample_cutmix
        >>> plan = sample_cutmix(seed=1, step=0, alpha=1.0, batch_size=2, spatial_shape=(8, 8))
        >>> plan.box.shape
        (2, 4)
    """
    spatial_shape = check_spatial_shape(spatial_shape)
    if cut is not None:
        cut = [_checks.integer(axis, "cut", 0, len(spatial_shape)) for axis in _checks.sequence(cut, "cut")]
        if not cut or len(set(cut)) < len(cut):
            _checks.fail("`cut` must name spatial axes, each once.", f"cut={cut}", "For example `cut=(0,)`.")
    rows = batch_size, replica, first_row
    given = (seed, step, alpha, rows, per, rate, lam_at_least_half, stream, xp)
    lam, words, centres = _sample_lam(*given, own=len(spatial_shape))
    box, kept = _boxes(xp, lam, centres, spatial_shape, cut)
    return MixPlan(kept, _partners(xp, words, pair), box, bijective=pair is None)


def sample_mosaic(
    seed: int,
    step: Any,
    batch_size: Any,
    spatial_shape: Sequence[Any],
    *,
    rate: Any = 1.0,
    replica: Any = 0,
    first_row: Any = 0,
    pair: Callable[[Any], Any] | None = None,
    stream: int = streams.MOSAIC,
    xp: _backend.Namespace = _backend.NUMPY,
) -> MixPlan:
    """Draw the plan of one Mosaic batch: a centre and three partners for each sample.

    Args:
        seed, step, batch_size, rate, replica, first_row, pair, stream, xp: As in `sample_mixup`.
        spatial_shape: Height and width.

    Returns:
        A `MixPlan`. Its `region` are the `Tiles`: the sample at the top left, then its partners at the top right, the
        bottom left and the bottom right. The window of the sample is the whole image where `rate` leaves it unmixed.

    Raises:
        ValueError: if an argument is out of range.
        TypeError: if one of them has a wrong type.

    Reference:
        A. Bochkovskiy, C.-Y. Wang, H.-Y. M. Liao, "YOLOv4: Optimal Speed and Accuracy of Object Detection",
        https://arxiv.org/abs/2004.10934

    Example:
        >>> from kmix.plan import sample_mosaic
        >>> plan = sample_mosaic(seed=1, step=0, batch_size=2, spatial_shape=(8, 8))
        >>> plan.partners.shape, plan.shares.shape
        ((3, 2), (4, 2))
    """
    _ROWS, _COLUMNS, _MIXED, _WORDS = 0, 1, 2, range(3, 6)
    spatial_shape = check_spatial_shape(spatial_shape)
    if len(spatial_shape) != 2:
        _checks.fail("A Mosaic puts images (B, H, W, C) together.", f"spatial_shape={spatial_shape}")
    rate = _check_real(rate, "rate", 1.0)
    words, u = _draw(xp, seed, step, stream, _WORDS.stop, batch_size, replica, first_row)
    u = xp.unstack(u)
    height, width = (xp.cast(size, "int32") for size in spatial_shape)
    # In the middle half of each axis.
    row, column = (
        xp.cast(xp.math.floor((0.25 + 0.5 * u[axis]) * xp.cast(size, "float32") + 0.5), "int32")
        for axis, size in ((_ROWS, height), (_COLUMNS, width))
    )
    known, area = isinstance(rate, float), xp.cast(height * width, "float32")
    if not known:
        # So that all shares are NaN.
        area = _if_rate(xp, rate, area)
    if not known or rate < 1.0:
        # A rate of NaN leaves none as it is.
        row, column = (xp.where(u[_MIXED] >= rate, *each) for each in ((height, row), (width, column)))
    drawn = [_partners(xp, words[i], pair) for i in _WORDS]
    partners = list(map(xp.rows, drawn))
    # Each half of an axis: how far its image is moved, where it begins, where it ends, and its length.
    top, bottom = (row - height, 0 * row, row, row), (row, row, 0 * row + height, height - row)
    left, right = (column - width, 0 * column, column, column), (column, column, 0 * column + width, width - column)
    tiles = [(top, left), (top, right), (bottom, left), (bottom, right)]
    shares = [_portion(xp, xp.cast(rows[3] * columns[3], "float32"), area) for rows, columns in tiles]
    shift = [xp.stack([rows[0], columns[0]], axis=1) for rows, columns in tiles]
    window = [xp.stack([rows[1], columns[1], rows[2], columns[2]], axis=1) for rows, columns in tiles]
    region = Tiles(xp.stack(shift, axis=1), xp.stack(window, axis=1))
    return MixPlan(shares[0], drawn[0], region=region, partners=xp.stack(partners), shares=xp.stack(shares))


def sample_copy_paste(
    seed: int,
    step: Any,
    batch_size: Any,
    *,
    rate: Any = 1.0,
    instance_rate: float = 0.5,
    replica: Any = 0,
    first_row: Any = 0,
    pair: Callable[[Any], Any] | None = None,
    stream: int = streams.COPY_PASTE,
    xp: _backend.Namespace = _backend.NUMPY,
) -> MixPlan:
    """Draw the plan of one Copy-Paste batch: for each sample a partner, and which of its objects to paste.

    Args:
        seed, step, batch_size, rate, replica, first_row, pair, stream, xp: As in `sample_mixup`.
        instance_rate: Probability in [0, 1] that an object of the partner is pasted.

    Returns:
        A `MixPlan`. Its `region` are the `Instances`. Its `lam` is 1 where `rate` leaves a sample unmixed and 0
        elsewhere: what is left of a sample depends on the objects.

    Raises:
        ValueError: if an argument is out of range.
        TypeError: if one of them has a wrong type.

    Reference:
        G. Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation",
        CVPR 2021, https://arxiv.org/abs/2012.07177

    Example:
        >>> from kmix.plan import sample_copy_paste
        >>> sample_copy_paste(seed=5, step=0, batch_size=4, rate=0.5).lam
        array([1., 0., 0., 1.], dtype=float32)
    """
    _MIXED, _WORDS = 0, 1
    rate, instance_rate = _check_real(rate, "rate", 1.0), _checks.real(instance_rate, "instance_rate", 0.0, 1.0)
    words, u = _draw(xp, seed, step, stream, _PASTE_STREAMS, batch_size, replica, first_row)
    lam = xp.cast(xp.unstack(u)[_MIXED] >= rate, "float32")
    lam = lam if isinstance(rate, float) else _if_rate(xp, rate, lam)
    chosen = xp.transpose(u[_OBJECTS:] < instance_rate)
    return MixPlan(lam, _partners(xp, words[_WORDS], pair), region=Instances(chosen), bijective=pair is None)


def sample_choice(
    seed: int,
    step: Any,
    probabilities: Sequence[Any],
    *,
    depth: int = 1,
    stream: int = streams.CHOICE,
    xp: _backend.Namespace = _backend.NUMPY,
) -> Any:
    """Draw the index of one of `len(probabilities)` branches, with probabilities in this proportion.

    Args:
        seed, step, stream, xp: As in `sample_mixup`.
        probabilities: Numbers >= 0 with a positive sum; or some of them float32 scalar tensors.
        depth: Level of nested choices, an int >= 1. Each level draws from its own stream.

    Returns:
        int32 scalar.

    Raises:
        ValueError: if the probabilities are negative or all 0.

    Example:
        >>> from kmix.plan import sample_choice
        >>> int(sample_choice(seed=1, step=0, probabilities=[0, 1]))
        1
    """
    given = [_check_real(value, "probabilities") for value in _checks.sequence(probabilities, "probabilities")]
    numbers = all(isinstance(value, float) for value in given)
    probabilities = _checks.probabilities(given) if numbers else [xp.cast(value, "float32") for value in given]
    stream = _checks.integer(stream, "stream") + _checks.integer(depth, "depth", 1) - 1
    u = _draw(xp, seed, step, stream, 1, 1)[1][0, 0]
    total, below, index = sum(probabilities), 0.0, xp.cast(0, "int32")
    for probability in probabilities[:-1]:
        below = below + probability
        # Exactly 1 where only branches of probability 0 follow, which must not be drawn.
        share = below / total if numbers else _portion(xp, below, total)
        index = index + xp.cast(u > share, "int32")
    return index


def check_spatial_shape(sizes: Any) -> tuple[Any, ...]:
    """Return the spatial sizes to draw a box for, or raise."""
    if not isinstance(sizes, (tuple, list)) or not 1 <= len(sizes) <= 3:
        _checks.fail(
            "To draw a box, a mixer needs the sizes of one to three spatial axes.",
            f"spatial_shape={sizes!r}",
            "Write `layer.plan(step, batch_size, spatial_shape=(height, width))`.",
        )
    return tuple(check_number(size, "spatial_shape", 1) for size in sizes)


def _draw(xp, seed, step, stream, streams_used, batch_size, replica=0, first_row=0, per="sample"):
    """Random words and uniforms, each `(streams_used, B)`, for checked arguments."""
    if not isinstance(xp, _backend.Namespace):
        _checks.fail("`xp` must be an array namespace of kmix.", f"xp={xp!r}", "Leave it out for NumPy.", TypeError)
    streams.check(stream, streams_used)
    key = prng.key(xp, check_number(seed, "seed", 0, 2**32), check_number(step, "step"))
    replica, batch_size = check_number(replica, "replica", 0, REPLICAS), check_number(batch_size, "batch_size")
    position = 0 if type(first_row) is int and first_row == 0 else check_number(first_row, "first_row")
    words = prng.bits(xp, key, stream, streams_used, batch_size, replica, position)
    u = prng.uniform(xp, words)
    if per == "batch":
        # The draw of the first row of the global batch applies to all.
        if not isinstance(first_row, int) or first_row:
            _, u = _draw(xp, seed, step, stream, streams_used, 1, replica)
        u = u[:, :1] + xp.cast(xp.words(batch_size) * 0, "float32")
    return words, u


def _partners(xp, words, pair):
    """The partner of each sample, by random words `(B,)`."""
    if pair is None:
        return xp.argsort(words)
    if not callable(pair):
        _checks.fail("`pair` must be a function from random words to partners.", f"pair={pair!r}", error=TypeError)
    partners = pair(words)
    if not hasattr(partners, "shape"):
        partners = xp.asarray(partners)
    if partners.shape != words.shape:
        shape, (samples,) = _backend.static_shape(partners), _backend.static_shape(words)
        if None not in (shape, samples) and None not in shape and math.prod(shape) != samples:
            _checks.fail("`pair` must return one partner for each sample.", f"shape {shape} for {samples} samples")
    return partners


def _check_real(value, name, high=math.inf):
    """Return a float, or a scalar array, or raise. An array may have no value yet: where that is wrong, lam is NaN."""
    # A small batch is a matter of calls.
    if isinstance(value, (float, np.float32)) and 0.0 <= value <= high and value < math.inf:
        return float(value)
    if isinstance(value, np.generic) or not hasattr(value, "dtype"):
        return _checks.real(value, name, 0.0, high)
    shape, dtype = _backend.static_shape(value), _backend.dtype(value)
    if shape not in ((), None) or "float" not in dtype:
        _checks.fail(f"`{name}` must be a float scalar.", f"dtype {dtype}, shape {shape}")
    return value


def _if_rate(xp, rate, values):
    """Values, NaN if an array is no rate."""
    return xp.where((rate >= 0.0) & (rate <= 1.0), values, xp.cast(math.nan, "float32"))


def _sample_lam(seed, step, alpha, rows, per, rate, lam_at_least_half, stream, xp, own=0):
    """Lam, float32 `(B,)`; the words `(B,)` for the partners; and `own` further uniforms, each float32 `(B,)`.

    `rows` are the batch size, the replica and the first row.
    """
    _checks.one_of(per, "per", ("sample", "batch"))
    _checks.boolean(lam_at_least_half, "lam_at_least_half")
    rate, alpha = _check_real(rate, "rate", 1.0), _check_real(alpha, "alpha")
    batch_size, replica, first_row = rows
    words, u = _draw(xp, seed, step, stream, _OWN + own, batch_size, replica, first_row, per)
    u = xp.unstack(u)
    lam = prng.symmetric_beta(xp, u[:_RATE], alpha)
    lam = xp.math.maximum(lam, 1.0 - lam) if lam_at_least_half else lam
    known = isinstance(rate, float)
    lam = lam if known and rate == 1.0 else xp.where(u[_RATE] < rate, lam, xp.cast(1.0, "float32"))
    return lam if known else _if_rate(xp, rate, lam), words[_PARTNERS], u[_OWN:]


def _boxes(xp, lam, centres, spatial_shape, cut=None):
    """Boxes with `1 - lam` of the area around uniform centres, clipped at the borders.

    Args:
        xp: Array namespace.
        lam: float32 `(B,)`.
        centres: Uniforms `(B,)` for each spatial axis.
        spatial_shape: Sizes of the spatial axes.
        cut: Indices of the spatial axes to cut; a box spans the others. None for all.

    Returns:
        The boxes, int32 `(B, 2 * k)`, and the share of the pixels outside each, float32 `(B,)`: NaN where lam is.
    """
    cut = range(len(spatial_shape)) if cut is None else cut
    # Slightly larger, so that lam = 0 up to rounding cuts the whole image on every framework.
    edge = xp.power(1.0 - lam, 1.0 / len(cut)) * (1.0 + 1e-6)
    starts, stops, removed = [], [], 1.0
    for axis, size in enumerate(spatial_shape):
        if axis not in cut:
            starts.append(xp.cast(0 * lam, "int32"))
            stops.append(starts[-1] + xp.cast(size, "int32"))
            continue
        length = xp.cast(size, "float32")
        centre = xp.cast(xp.math.floor(centres[axis] * length), "int32")
        half = xp.cast(xp.math.floor(edge * length), "int32") // 2
        starts.append(xp.math.maximum(centre - half, 0))
        stops.append(xp.math.minimum(centre + half, xp.cast(size, "int32")))
        removed = removed * _portion(xp, xp.cast(stops[-1] - starts[-1], "float32"), length)
    return xp.stack(starts + stops, axis=1), xp.where(lam == lam, 1.0 - removed, lam)


def _portion(xp, part, whole):
    """`part / whole`, exactly 1 if they are equal: XLA multiplies by the reciprocal of a constant `whole`."""
    return xp.where(part == whole, xp.cast(1.0, "float32"), part / whole)
