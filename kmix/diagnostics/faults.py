"""Faults that data sets have in silence, each in plain words."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kmix.diagnostics.label_summary import CLOSE, LabelSummary, label_summary
from kmix.diagnostics.plan_replay import share_without_candidate

# So few false alarms that a hundred thousand data sets without a fault give none.
SIGNIFICANT = 1e-6


def find(
    first: Sequence[Any],
    second: Sequence[Any],
    labels: dict[str, LabelSummary],
    headline: str | None,
    p_value: float | None = None,
    raw: Any = None,
) -> tuple[int, list[str]]:
    """The faults of a data set.

    Args:
        first: The `BatchSummary` of each batch of an epoch, see `kmix.diagnostics.inspection`.
        second: Those of the next epoch, or an empty list.
        labels: The `LabelSummary` of each target of the first epoch.
        headline: Name of the main target; None if there are no labels.
        p_value: That of lam against its Beta distribution, or None.
        raw: The smallest and the largest value of the inputs before mixing, or None.

    Returns:
        The number of batches that repeat, and a list of sentences.
    """
    main = None if headline is None else labels[headline]
    again = [batch.labels[headline] for batch in second] if main else []
    repeats, sentences = _repeats(first, second, main, label_summary(again)) if main else (0, [])
    if first[0].plan is not None:
        sentences += _of_plans(first, p_value)
    elif main is not None:
        sentences += _unmixed(labels, main, alone=len(first[0].targets) == 1)
    for name, summary in labels.items():
        of_form = {"shares": _of_shares, "numbers": _of_numbers}.get(summary.form, lambda *_: ())
        sentences += of_form("labels" if name == "labels" else f'labels "{name}"', summary)
    # Each once, in order.
    sentences += dict.fromkeys(fault for batch in first for fault in batch.faults)
    if main is not None and main.mixed is not None:
        sentences += _of_weights([batch.weights for batch in first], main)
    return repeats, [*sentences, *_of_inputs(first, raw)]


def _percent(share):
    return f"{100 * share:.2g} %" if share < 0.995 else "100 %"


def _same_plan(one, other):
    """Whether two batches were mixed with one plan, as far as shares of their labels can tell."""
    if len(one) != len(other):
        return False
    both = ~np.isnan(one) & ~np.isnan(other)
    # Fewer different shares may be equal by chance: boxes in small images have few areas.
    return len(np.unique(one[both])) >= 5 and np.allclose(one[both], other[both], rtol=0, atol=CLOSE)


def _repeats(first, second, labels, again):
    epoch = [(batch.digest, *shown) for batch, shown in zip(first, labels.shown(), strict=True)]
    following = [(batch.digest, *shown) for batch, shown in zip(second, again.shown(), strict=True)]

    def repeats(batch, earlier):
        digest, mixed, share = batch
        return any((digest == other and mixed) or _same_plan(share, plan) for other, _, plan in earlier)

    within = [repeats(batch, epoch[:i]) for i, batch in enumerate(epoch)]
    across = [repeats(batch, epoch) for batch in following]
    sentences = []
    if any(within):
        sentences.append(
            f"{sum(within)} of {len(first)} batches repeat the plan of an earlier batch of the same epoch: give each "
            "its own number, `ds.enumerate().map(layer.at_step)`"
        )
    # Labels that were soft before may repeat now and then, unmixed: `rate` leaves some batches as they are.
    elif any(across) and sum(across) > 0.9 * sum(mixed for _, mixed, _ in following):
        places = np.flatnonzero(across)
        span = f"batches {places[0]} to {places[-1]}" if len(places) > 1 else f"batch {places[0]}"
        sentences.append(
            f"{span} of the second epoch repeat{'s' * (len(places) == 1)} those of the first: number them on with "
            "kmix.data.Numbering, and cache before you mix"
        )
    return sum(within) + sum(across), sentences


def _of_plans(batches, p_value) -> Iterator[str]:
    if all((batch.plan.lam == 1).all() for batch in batches):
        yield "lam is 1 throughout: alpha is 0, or `rate` is"
    elif p_value is not None and p_value < SIGNIFICANT:
        yield f"lam does not follow its Beta distribution (Kolmogorov-Smirnov, p = {p_value:.1g})"
    alone = share_without_candidate([batch.plan for batch in batches])
    if all(batch.size == 1 for batch in batches):
        yield "each batch holds one sample, which is its own partner: batch the data before you mix it"
    elif alone is not None and alone > 0.5:
        yield (
            f"{_percent(alone)} of the samples have no partner by the rule of pairing, so they are not mixed: draw "
            "larger batches, or batches of fewer classes"
        )


def _unmixed(labels, main, alone) -> Iterator[str]:
    """Targets that show no mixing where it would show."""
    shows = {name: one.mixed is not None and bool(one.mixed.any()) for name, one in labels.items()}
    if any(shows.values()):
        for name, one in labels.items():
            if one.form == "shares" and not shows[name]:
                yield f'the labels "{name}" are not mixed, and others are: mix all targets in one call'
    elif main.form == "ids" and alone:
        yield "the labels are class ids, so they are not mixed: if a trainer or a layer mixes later, pass it, `mixer=`"
    elif main.mixed is not None:
        counts = np.unique(np.concatenate(main.batches), axis=0, return_counts=True)[1]
        # Partners of one class would not show it.
        if counts.sum() - (counts**2).sum() / counts.sum() >= 5:
            yield "no label is mixed: alpha is 0, the data is not mixed yet, or its labels are kept"


def _of_shares(name, labels) -> Iterator[str]:
    off, share, two = np.abs(labels.mass - 1) > 1e-3, labels.share, labels.two
    if off.any():
        mean = labels.mass[off].mean()
        yield f"the {name} of {_percent(off.mean())} of the rows do not sum to 1, but to {mean:.2g} on average"
    half = two & (np.abs(share - 0.5) < 1e-6)
    # Boxes in short sequences have few lengths, one of them half.
    most = 0.1 if len(np.unique(share[two])) > 64 else 0.9
    if two.sum() >= 50 and half.sum() > most * two.sum():
        part = _percent(half.sum() / two.sum())
        yield f"lam is exactly 0.5 in {part} of the mixed {name}: the sampler fails for this alpha"


def _of_numbers(name, labels) -> Iterator[str]:
    values = np.concatenate([batch.ravel() for batch in labels.batches]).astype("float64")
    values = values[np.isfinite(values)]
    whole = values == np.floor(values)
    # Values to regress are rarely whole and rarely equal.
    if not len(values) or whole.mean() < 0.05:
        return
    if all(batch.ndim == 2 and batch.shape[1] > 1 for batch in labels.batches):
        if all(batch.shape[0] == batch.shape[1] for batch in labels.batches):
            yield f"the {name} are (B, B): class ids of shape (B,) were broadcast"
    elif not whole.all() and values.min() >= 0:
        number = f"{values[~whole][0]:.2f}"
        yield (
            f"the {name} are numbers such as {number} between whole ones: if they were class ids, pass integers and "
            "`num_classes=`"
        )


def _of_weights(given, labels) -> Iterator[str]:
    if any(weights is None or len(weights) != len(y) for weights, y in zip(given, labels.batches, strict=True)):
        return
    weights, shares = np.concatenate(given)[labels.mixed], labels.share[labels.mixed]
    values, counts = np.unique(weights, return_counts=True)
    atoms = counts[counts >= 0.02 * len(weights)]
    # Mixed in proportion, many weights would lie between those of the samples.
    expected = len(weights) * (1 - np.sum((atoms / max(len(weights), 1)) ** 2))
    few = len(atoms) >= 2 and atoms.sum() == len(weights) and len(values) <= 10
    if few and expected >= 20 and len(np.unique(shares)) > 20:
        yield "the sample weights are not mixed, and the labels are: pass them through the layer with the batch"


def _of_inputs(batches, raw) -> Iterator[str]:
    if not all(batch.finite for batch in batches):
        yield "the inputs or labels hold NaN or infinite values"
    if raw is not None:
        low, high = min(batch.low for batch in batches), max(batch.high for batch in batches)
        slack = 1e-3 * max(raw[1] - raw[0], 1e-12)
        if low < raw[0] - slack or high > raw[1] + slack:
            yield f"mixed inputs lie in [{low:g}, {high:g}], beyond the [{raw[0]:g}, {raw[1]:g}] of the data"


def of_masks_and_boxes(targets: dict[str, np.ndarray]) -> Iterator[str]:
    """The faults that the masks and boxes of one batch show alone."""
    for name, array in targets.items():
        ids = "mask" in name and (array.ndim == 3 or (array.ndim == 4 and array.shape[-1] == 1))
        if ids and array.dtype.kind == "f" and array.size and array.max() > 1 and (array != np.floor(array)).any():
            yield (
                f'the masks "{name}" hold numbers between class ids: ids were blended; tell the layer their number of '
                "classes"
            )
        group, _, key = name.rpartition("/")
        for other in ("labels", "classes") if key == "boxes" and group else ():
            labels = targets.get(f"{group}/{other}")
            if labels is not None and labels.shape != array.shape[:2]:
                yield f"boxes of shape {array.shape} have labels of shape {labels.shape}: they no longer match"
