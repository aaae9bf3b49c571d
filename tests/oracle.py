"""What mixing must give, in plain NumPy from the formulas of the papers. It does not use kmix."""

import numpy as np


def one_hot(ids, classes):
    return np.eye(classes)[np.asarray(ids).reshape(-1)]


def rows(coefficients, like):
    """Coefficients `(B,)` shaped to multiply `(B, ...)`."""
    return np.asarray(coefficients, "float64").reshape((-1,) + (1,) * (np.ndim(like) - 1))


def mixup(x, lam, permutation):
    """Zhang et al. 2018, section 2: lam * x_i + (1 - lam) * x_j."""
    x = np.asarray(x, "float64")
    return rows(lam, x) * x + (1 - rows(lam, x)) * x[permutation]


def cutmix(x, box, permutation, data_format="channels_last"):
    """Yun et al. 2019, equation 1: the partner where the mask is 0, that is inside the box."""
    out = np.array(x)
    axes = box.shape[1] // 2
    for i, j in enumerate(permutation):
        window = tuple(slice(start, stop) for start, stop in zip(box[i, :axes], box[i, axes:], strict=True))
        region = (slice(None), *window) if data_format == "channels_first" else window
        out[i][region] = np.asarray(x)[j][region]
    return out


def kept_share(box, spatial_shape):
    """The share of the pixels outside each box."""
    axes = len(spatial_shape)
    return 1 - np.prod((box[:, axes:] - box[:, :axes]) / np.asarray(spatial_shape, "float64"), axis=1)


def weighted(y, w, lam, permutation):
    """The pair of losses `lam * w_i * L(y_i) + (1 - lam) * w_j * L(y_j)` as one label and one weight."""
    y, w = np.asarray(y, "float64"), np.asarray(w, "float64")
    share = rows(pair_share(lam, permutation, w), y)
    return share * y + (1 - share) * y[permutation], lam * w + (1 - lam) * w[permutation]


def pair_share(lam, permutation, w):
    """The share of the sample in a pair with sample weights; lam, if float32 cannot hold the sum of the weights."""
    a, b = lam * w, (1 - lam) * w[permutation]
    lost = np.abs(a + b) < np.finfo("float32").smallest_normal
    return np.where(lost, lam, a / np.where(lost, 1, a + b))


def dense(pairs, classes):
    """Pairs (class of a sample, class of its partner, share of the first) as soft labels."""
    pairs = np.asarray(pairs, "float64")
    return pairs[:, 2:] * one_hot(pairs[:, 0].astype(int), classes) + (1 - pairs[:, 2:]) * one_hot(
        pairs[:, 1].astype(int), classes
    )


def crossentropy(y, p):
    return -np.sum(np.where(y == 0, 0, y * np.log(p)), axis=-1)


def binary_crossentropy(y, p):
    return -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p), axis=-1)


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def calibration_error(y, p, bins, weights=None):
    """Guo et al. 2017, equation 3: the weighted mean of |accuracy - confidence| over the bins (lo, hi]."""
    weights = np.ones(len(p)) if weights is None else np.asarray(weights, "float64")
    confidence, predicted = p.max(axis=-1), p.argmax(axis=-1)
    accuracy = y[np.arange(len(p)), predicted]
    error = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if weights[inside].sum() > 0:
            gap = np.average(accuracy[inside], weights=weights[inside]) - np.average(
                confidence[inside], weights=weights[inside]
            )
            error += weights[inside].sum() / weights.sum() * abs(gap)
    return error


def levels(x):
    """The root mean square of each wave over time and channels, without values that are exactly 0; 0 for silence."""
    rows = np.asarray(x, "float64").reshape(len(x), -1)
    return np.array([np.sqrt(np.mean(row[row != 0] ** 2)) if (row != 0).any() else 0.0 for row in rows])


def audio_mix(x, shares, partners, snr=False, equal_levels=False, constant_power=None):
    """Waves added: the sum of `g x` over the sources, divided by a norm; and the shares of the sources.

    Args:
        x: Waves `(B, ...)`.
        shares: `(k + 1, B)`, that of the wave itself first.
        partners: `(k, B)`.

    `g` of a wave is its share; of a partner, too, times `rms / rms_partner` with `snr` or `equal_levels`. The norm is
    `sqrt(sum g^2)` with constant power (by default, without snr), else the share of the wave with snr, else 1.
    """
    x, mixed, found = np.asarray(x, "float64"), [], []
    level = levels(x)
    for i in range(len(x)):
        s, sources = np.array(shares[:, i], "float64"), [i, *partners[:, i]]
        ratio = np.ones(len(s))
        if snr or equal_levels:
            for m in range(1, len(s)):
                # Silence gives its share to the wave; a silent wave stays alone.
                if 0 in (level[i], level[sources[m]]):
                    s[0], s[m] = s[0] + s[m], 0
                else:
                    ratio[m] = level[i] / level[sources[m]]
        g = s * ratio
        power = (not snr) if constant_power is None else constant_power
        norm = np.sqrt(np.sum(g[s > 0] ** 2)) if power else s[0] if snr else 1.0
        mixed.append(sum(g[m] / norm * x[source] for m, source in enumerate(sources) if s[m] > 0))
        found.append(s)
    return np.stack(mixed), np.stack(found, axis=1)


def between_class(first, second, r):
    """Tokozume et al. 2018, equations 2 and 3: `(p x1 + (1 - p) x2) / sqrt(p^2 + (1 - p)^2)`, p by pressures in dB.

    The paper takes the loudest part of an A-weighted sound for its pressure; here it is the root mean square of all.
    """
    gap = 20 * np.log10(levels(first[None])[0]) - 20 * np.log10(levels(second[None])[0])
    p = 1 / (1 + 10 ** (gap / 20) * (1 - r) / r)
    return (p * first + (1 - p) * second) / np.sqrt(p**2 + (1 - p) ** 2)


def torch_audiomentations_mix(wave, other, snr):
    """`Mix` of torch-audiomentations for one channel: the other, normalised, so many dB below the wave."""
    rms = lambda x: np.sqrt(np.mean(np.square(x, dtype="float64")))
    return wave + rms(wave) / 10 ** (snr / 20) * other / rms(other)
