"""Faults that data sets have in silence, each in plain words."""

import numpy as np

from kmix.diagnostics.seen import CLOSE

# So few false alarms that a hundred thousand data sets without a fault give none.
SIGNIFICANT = 1e-6


def find(first, second, headline, ks=None, raw=None):
    """The faults of a data set.

    Args:
        first: The `Seen` batches of an epoch.
        second: Those of the next epoch, or an empty list.
        headline: Name of the labels.
        ks: The p-value of lam against its Beta distribution, or None.
        raw: The smallest and the largest value of the inputs before mixing, or None.

    Returns:
        The number of batches that repeat, and a list of sentences.
    """
    repeats, sentences = _repeats(first, second, headline)
    names = list(first[0].rows)
    sentences += _plan_faults(first, ks)
    if first[0].drawn is None:
        sentences += _unmixed(first, names, headline)
    for name in names:
        sentences += _label_faults(name, [batch.rows[name] for batch in first])
    # Each once, in order.
    sentences += dict.fromkeys(fault for batch in first for fault in batch.faults)
    sentences += _weight_faults(first, headline) + _input_faults(first, raw)
    return repeats, sentences


def _percent(share):
    return f"{100 * share:.2g} %" if share < 0.995 else "100 %"


def _join(arrays):
    return np.concatenate(list(arrays))


def _same_plan(one, other, headline):
    """Whether two batches were mixed with one plan, as far as shares of their labels can tell."""
    one, other = one.rows[headline], other.rows[headline]
    if one.share is None or other.share is None or len(one.share) != len(other.share):
        return False
    both = one.two & other.two
    # Fewer different shares may be equal by chance: boxes in small images have few areas.
    return len(np.unique(one.share[both])) >= 5 and np.allclose(one.share[both], other.share[both], rtol=0, atol=CLOSE)


def _repeats(first, second, headline):
    def shows_mixing(batch):
        mixed = batch.rows[headline].mixed
        return mixed is not None and mixed.any()

    def repeat(batch, other):
        equal = batch.digest == other.digest and shows_mixing(batch)
        return equal or _same_plan(batch, other, headline)

    within = [any(repeat(batch, other) for other in first[:i]) for i, batch in enumerate(first)]
    across = [any(repeat(batch, other) for other in first) for batch in second]
    sentences = []
    if any(within):
        sentences.append(
            f"{sum(within)} of {len(first)} batches repeat the plan of an earlier batch of the same epoch: give each "
            "its own number, `ds.enumerate().map(layer.at_step)`"
        )
    # Labels that were soft before may repeat now and then, unmixed: `rate` leaves some batches as they are.
    if np.sum(across) > 0.9 * sum(map(shows_mixing, second)) and any(across) and not any(within):
        places = np.flatnonzero(across)
        span = f"batches {places[0]} to {places[-1]}" if len(places) > 1 else f"batch {places[0]}"
        sentences.append(
            f"{span} of the second epoch repeat{'s' * (len(places) == 1)} those of the first: number them on with "
            "kmix.data.Numbering, and cache before you mix"
        )
    return sum(within) + sum(across), sentences


def _plan_faults(batches, ks):
    if batches[0].drawn is None:
        return []
    lam, found = _join(batch.drawn.lam for batch in batches), []
    if (lam == 1).all():
        found.append("lam is 1 throughout: alpha is 0, or `rate` is")
    elif ks is not None and ks < SIGNIFICANT:
        found.append(f"lam does not follow its Beta distribution (Kolmogorov-Smirnov, p = {ks:.1g})")
    if all(batch.size == 1 for batch in batches):
        found.append("each batch holds one sample, which is its own partner: batch the data before you mix it")
    return found


def _unmixed(batches, names, headline):
    """Targets that show no mixing where it would show."""
    rows = {name: [batch.rows[name] for batch in batches] for name in names}
    shows = {name: any(r.mixed is not None and r.mixed.any() for r in each) for name, each in rows.items()}
    kinds = {name: each[0].kind for name, each in rows.items()}
    if not any(shows.values()):
        if kinds[headline] == "ids" and len(names) == 1:
            return [
                "the labels are class ids, so nothing is mixed here: if a trainer or a layer mixes later, inspect with "
                "`mixer=`"
            ]
        if kinds[headline] in ("soft", "pairs") and not _is_multi_hot(rows[headline]):
            return ["no label is mixed: lam is 1 throughout (alpha is 0), or the data is not mixed yet"]
        return []
    return [
        f'the labels "{name}" are not mixed, and others are: mix all targets in one call'
        for name in names
        if kinds[name] == "soft" and not shows[name] and not _is_multi_hot(rows[name])
    ]


def _is_multi_hot(rows):
    mass = _join(r.mass for r in rows)
    share = _join(r.share for r in rows)
    return bool((mass > 1.5).any() or ((mass > 1 + CLOSE) & (share >= 1 - CLOSE)).any())


def _label_faults(name, rows):
    if all(r.kind == "soft" for r in rows):
        return _mass_faults(name, rows) + _half_faults(name, rows)
    numbers = [r.values for r in rows if r.kind == "numbers"]
    return _number_faults(name, numbers) if numbers else []


def _mass_faults(name, rows):
    off = np.abs(_join(r.mass for r in rows) - 1) > 1e-3
    # Where most rows differ, the labels are tags, which do not exclude one another.
    if off.any() and off.mean() < 0.5 and not _is_multi_hot(rows):
        return [f"the {_labels(name)} of {_percent(off.mean())} of the rows do not sum to 1"]
    return []


def _half_faults(name, rows):
    share, two = _join(r.share for r in rows), _join(r.two for r in rows)
    half = two & (np.abs(share - 0.5) < 1e-6)
    # Boxes in short sequences have few lengths, one of them half.
    continuous = len(np.unique(share[two])) > 64
    if two.sum() >= 50 and half.sum() > (0.1 if continuous else 0.9) * two.sum():
        return [
            f"lam is exactly 0.5 in {_percent(half.sum() / two.sum())} of the mixed {_labels(name)}: the sampler fails "
            "for this alpha"
        ]
    return []


def _number_faults(name, arrays):
    if arrays[0].shape[1] > 1:
        values = _join(array.ravel() for array in arrays)
        if all(len(array) == array.shape[1] for array in arrays) and np.mean(values == np.floor(values)) >= 0.05:
            return [f"the {_labels(name)} are (B, B): class ids of shape (B,) were broadcast"]
        return []
    values = _join(array.ravel() for array in arrays)
    values = values[np.isfinite(values)]
    whole = values == np.floor(values)
    # Values to regress are rarely whole and rarely equal.
    if len(values) and 0.05 <= whole.mean() < 1 and values.min() >= 0:
        return [
            f"the {_labels(name)} are numbers such as {values[~whole][0]:.2f} between whole ones: if they were class "
            "ids, pass integers and `num_classes=`"
        ]
    return []


def _labels(name):
    return "labels" if name == "labels" else f'labels "{name}"'


def _weight_faults(batches, headline):
    given = [batch for batch in batches if batch.weights is not None and batch.rows[headline].mixed is not None]
    if not given:
        return []
    mixed = _join(batch.rows[headline].mixed & (len(batch.weights) == batch.size) for batch in given)
    weights = _join(batch.weights for batch in given)[mixed]
    shares = _join(batch.rows[headline].share for batch in given)[mixed]
    values, counts = np.unique(weights, return_counts=True)
    atoms = counts[counts >= 0.02 * len(weights)] if len(weights) else counts
    # Mixed in proportion, many weights would lie between those of the samples.
    expected = len(weights) * (1 - np.sum((atoms / max(len(weights), 1)) ** 2))
    few = len(atoms) >= 2 and atoms.sum() == len(weights) and len(values) <= 10
    if few and expected >= 20 and len(np.unique(shares)) > 20:
        return ["the sample weights are not mixed, and the labels are: pass them through the layer with the batch"]
    return []


def _input_faults(batches, raw):
    found = []
    if not all(batch.finite for batch in batches):
        found.append("the inputs or labels hold NaN or infinite values")
    low, high = min(batch.low for batch in batches), max(batch.high for batch in batches)
    if raw is not None:
        slack = 1e-3 * max(raw[1] - raw[0], 1e-12)
        if low < raw[0] - slack or high > raw[1] + slack:
            found.append(f"mixed inputs lie in [{low:g}, {high:g}], beyond the [{raw[0]:g}, {raw[1]:g}] of the data")
    return found
