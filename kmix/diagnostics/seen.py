"""What a batch shows of how it was mixed: in its labels, its weights and its bytes."""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np

from kmix import _backend, _checks
from kmix.batch import INPUTS, LABELS, WEIGHTS, is_labelled

tree = keras.tree

# Shares that differ by less are equal.
CLOSE = 1e-5


class Rows(NamedTuple):
    """What the rows of an array of labels show.

    Attributes:
        kind: `"ids"`, `"pairs"`, `"soft"`, `"numbers"` (values to regress), or `"other"`.
        share: `(B,)`: the share of the class with the largest one, in a pair that of the sample; None for labels that
            show none.
        mixed: bool `(B,)`: whether a label has a share of more than one class.
        two: bool `(B,)`: whether it has a share of exactly two.
        entropy: `(B,)` in nats.
        mass: `(B,)`: the sum of the shares.
        values: The values themselves of numbers.
    """

    kind: str
    share: Any = None
    mixed: Any = None
    two: Any = None
    entropy: Any = None
    mass: Any = None
    values: Any = None


class Seen(NamedTuple):
    """One batch.

    Attributes:
        size: Number of samples.
        digest: Hash of all bytes of inputs and targets.
        rows: What the rows of each target show, by name.
        faults: Sentences on masks and boxes that are wrong.
        weights: Sample weights `(B,)`, or None.
        low, high: Smallest and largest value of the inputs.
        finite: Whether all inputs and targets are finite.
        drawn: What was `Drawn` for it, or None if that is not known.
    """

    size: int
    digest: bytes
    rows: Mapping[str, Rows]
    faults: list[str]
    weights: Any
    low: float
    high: float
    finite: bool
    drawn: Any = None


def look_at(batch, drawn=None):
    """A labelled batch of any framework as `Seen`.

    Raises:
        ValueError: if it has no labels.
    """
    x, targets, weights = parts(batch)
    arrays = [np.asarray(leaf) for leaf in (*tree.flatten(x), *targets.values())]
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(array.tobytes() if array.dtype.kind != "O" else repr(array).encode())
    numbers = [leaf for leaf in map(np.asarray, tree.flatten(x)) if leaf.dtype.kind in "fiu" and leaf.size]
    finite = all(np.isfinite(array).all() for array in arrays if array.dtype.kind == "f")
    return Seen(
        size=len(arrays[0]),
        digest=digest.digest(),
        rows={name: read(array) for name, array in targets.items() if not _belongs_to_boxes(name, targets)},
        faults=_mask_faults(targets) + _box_faults(targets),
        weights=None if weights is None or np.ndim(weights) != 1 else np.asarray(weights, "float64"),
        low=min((float(np.min(array)) for array in numbers), default=np.nan),
        high=max((float(np.max(array)) for array in numbers), default=np.nan),
        finite=finite,
        drawn=drawn,
    )


def parts(batch):
    """Inputs, targets by name, and sample weights of a batch, as NumPy arrays."""
    batch = tuple(batch) if isinstance(batch, list) else batch
    if isinstance(batch, Mapping) and INPUTS in batch:
        x, weights = batch[INPUTS], batch.get(WEIGHTS)
        y = {name: value for name, value in batch.items() if name not in (INPUTS, WEIGHTS) and value is not None}
    elif not isinstance(batch, Mapping) and is_labelled(batch):
        x, y, weights = (*batch, None)[:3]
        y = y if isinstance(y, Mapping) else {LABELS: y}
    else:
        y = {}
    if not tree.flatten(y):
        _checks.fail(
            'The data must give labelled batches: (x, y), (x, y, sample_weight), or a dictionary with "images".',
            f"a batch of type {type(batch).__name__}",
            "Without labels, nothing shows how a sample was mixed.",
        )
    values = lambda leaf: None if leaf is None else _backend.values(leaf)  # noqa: E731
    named = {"/".join(map(str, path)): values(leaf) for path, leaf in tree.flatten_with_path(y)}
    weights = weights if weights is None or not tree.is_nested(weights) else None
    return tree.map_structure(values, x), named, values(weights)


def read(y):
    """What an array of labels shows, a `Rows`."""
    y = np.asarray(y)
    column = y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1)
    if column and y.dtype.kind in "iu":
        return Rows("ids")
    if y.ndim > 2 or y.dtype.kind not in "iuf" or not y.size:
        return Rows("other")
    y = y.astype("float64")
    if column:
        return Rows("numbers", values=y.reshape(-1, 1))
    if _are_pairs(y):
        own = np.where(y[:, 0] == y[:, 1], 1.0, y[:, 2])
        mixed = (own > CLOSE) & (own < 1 - CLOSE)
        return Rows("pairs", own, mixed, mixed, _entropy(np.stack([own, 1 - own], axis=1)), np.ones(len(y)))
    if np.isnan(y).any() or y.min() < 0 or y.max() > 1 + CLOSE:
        return Rows("numbers", values=y)
    mass = y.sum(axis=1)
    # Label smoothing raises the share of every class alike.
    floor = y.min(axis=1, keepdims=True)
    rest = np.maximum(mass - floor[:, 0] * y.shape[1], 1e-12)
    shares = (y - floor) / rest[:, None]
    present = shares > CLOSE
    count, share = present.sum(axis=1), shares.max(axis=1)
    # Several tags of one sample are equal, and their sum is not 1.
    tags = (np.where(present, shares, share[:, None]).min(axis=1) > share - CLOSE) & (mass > 1.02)
    mixed = (count > 1) & ~tags
    return Rows("soft", share, mixed, mixed & (count == 2), _entropy(y), mass)


def _are_pairs(y):
    if y.shape[1] != 3 or np.isnan(y).any():
        return False
    ids, share = y[:, :2], y[:, 2]
    are_ids = (ids >= 0).all() and (ids == np.floor(ids)).all() and (ids > 1).any()
    return bool(are_ids and ((share >= 0) & (share <= 1)).all())


def _entropy(shares):
    shares = shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
    return -np.sum(shares * np.log(np.where(shares > 0, shares, 1.0)), axis=1)


def _belongs_to_boxes(name, targets):
    group = name.rpartition("/")[0]
    return bool(group) and f"{group}/boxes" in targets


def _mask_faults(targets):
    for name, array in targets.items():
        single = array.ndim == 3 or (array.ndim == 4 and array.shape[-1] == 1)
        ids = "mask" in name and single and array.dtype.kind == "f" and array.size and array.max() > 1
        if ids and (array != np.floor(array)).any():
            return [f'the masks "{name}" hold numbers between class ids: ids were blended; pass `num_mask_classes=`']
    return []


def _box_faults(targets):
    for name, boxes in targets.items():
        group, _, key = name.rpartition("/")
        for other in ("labels", "classes") if key == "boxes" and group else ():
            labels = targets.get(f"{group}/{other}")
            if labels is not None and labels.shape != boxes.shape[:2]:
                return [f"boxes of shape {boxes.shape} have labels of shape {labels.shape}: they no longer match"]
    return []
