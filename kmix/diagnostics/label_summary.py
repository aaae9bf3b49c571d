"""What labels show of how they were mixed."""

from typing import Any, NamedTuple

import numpy as np

from kmix.label_forms import LabelForm

# Shares that differ by less are equal.
CLOSE = 1e-5


class LabelSummary(NamedTuple):
    """What the labels of one target show over some batches.

    Attributes:
        form: `"ids"`; `"pairs"`, `(B, 3)`; `"shares"` of classes that exclude one another; `"tags"`, which do not;
            `"binary"`, a column of probabilities; `"numbers"`, values to regress; or `"other"`.
        batches: The labels, batch by batch.
        share: `(n,)`: the larger share of the two samples that were mixed, 1 where no mixing shows; for a label of
            more than two classes the largest. None for labels that cannot show mixing.
        mixed: bool `(n,)`: whether mixing shows. Partners of one class do not show it.
        two: bool `(n,)`: whether `share` is that of one of two samples.
        entropy: `(n,)` in nats.
        mass: `(n,)`: the sum of each label.
    """

    form: str
    batches: list[np.ndarray]
    share: Any = None
    mixed: Any = None
    two: Any = None
    entropy: Any = None
    mass: Any = None

    def shown(self) -> list[tuple[bool, np.ndarray]]:
        """For each batch whether it shows mixing, and its shares, NaN where they are not those of two samples."""
        if self.share is None:
            return [(False, np.full(len(batch), np.nan)) for batch in self.batches]
        ends = np.cumsum([len(batch) for batch in self.batches])[:-1]
        shares, mixed = np.split(np.where(self.two, self.share, np.nan), ends), np.split(self.mixed, ends)
        return [(bool(one.any()), share) for one, share in zip(mixed, shares, strict=True)]


def label_summary(batches: list[np.ndarray]) -> LabelSummary:
    """The `LabelSummary` of one target. Its form is decided by all batches together.

    Args:
        batches: The labels as NumPy arrays, one for each batch.

    Example:
        >>> from kmix.diagnostics.label_summary import label_summary
        >>> found = label_summary([np.array([[0.75, 0.25], [1.0, 0.0]])])
        >>> found.form, found.mixed.tolist(), found.share.tolist()
        ('shares', [True, False], [0.75, 1.0])
    """
    numeric = all(batch.ndim in (1, 2) and batch.dtype.kind in "iuf" and batch.size for batch in batches)
    if not batches or not numeric or len({batch.shape[1:] for batch in batches}) > 1:
        return LabelSummary("numbers" if batches and numeric else "other", batches)
    labels = LabelForm.from_values(np.concatenate(batches))
    y = labels.shares.astype("float64")
    form = labels.kind if labels.kind in ("ids", "pairs") else _form(y)
    if form in ("ids", "numbers"):
        return LabelSummary(form, batches)
    mass = None if form == "binary" else y.sum(axis=1)
    if form == "binary":
        y = np.concatenate([y, 1 - y], axis=1)
    entropy = _entropy(y)
    if form == "tags":
        # A tag of both partners keeps 1, that of one alone gets its share.
        inside = (y > CLOSE) & (y < 1 - CLOSE)
        if not inside.any():
            return LabelSummary(form, batches, entropy=entropy, mass=mass)
        share, mixed = np.where(inside, np.maximum(y, 1 - y), 0.0).max(axis=1), inside.any(axis=1)
        return LabelSummary(form, batches, np.where(mixed, share, 1.0), mixed, mixed, entropy, mass)
    # Label smoothing raises the share of every class alike.
    floor = y.min() if np.mean(y < y.min() + CLOSE) >= 0.05 else 0.0
    shares = (y - floor) / np.maximum(y.sum(axis=1, keepdims=True) - floor * y.shape[1], 1e-12)
    count = (shares > CLOSE).sum(axis=1)
    return LabelSummary(form, batches, shares.max(axis=1), count > 1, count == 2, entropy, mass)


def _form(y):
    """What labels `(n, C)` that are no ids and no pairs are, for all their values together."""
    # NaN is not inside.
    if not ((y >= 0) & (y <= 1 + CLOSE)).all():
        return "numbers"
    # Labels of classes hold 0 and 1 where samples agree. Values to regress, if they lie in [0, 1], rarely do.
    exact = np.mean((y == 0) | (y == 1)) >= 0.05
    if y.shape[1] == 1:
        return "binary" if exact else "numbers"
    mass = y.sum(axis=1)
    whole = np.abs(mass - 1) < 1e-3
    if whole.mean() < 0.5 and not exact:
        return "numbers"
    several = (mass > 1.5) | ((mass > 1.02) & (y.max(axis=1) >= 1 - CLOSE)) | (mass < CLOSE)
    return "tags" if several.any() and not whole.all() else "shares"


def _entropy(shares):
    shares = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
    return -np.sum(shares * np.log(np.where(shares > 0, shares, 1.0)), axis=1)
