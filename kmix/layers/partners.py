"""Where the partners of a batch come from, and the clean samples beside the mixed ones."""

import keras
import numpy as np

from kmix import _backend, _checks
from kmix.batch import LABELS, Batch
from kmix.plan.pairing import by_label, derange
from kmix.targets.inputs import Inputs
from kmix.targets.spread import outline

tree = keras.tree

# The settings that a trainer may replace.
PAIRING = ("pairing", "bandwidth", "pairing_by")


def check_pairing(pairing, bandwidth, pairing_by, options=("batch", "label"), optional=False):
    """Return the arguments of these names by name, or raise. If they are `optional`, None stands for one not given."""
    if pairing is not None or not optional:
        _checks.one_of(pairing, "pairing", options)
    if bandwidth is not None or not optional:
        bandwidth = _checks.real(bandwidth, "bandwidth")
        if bandwidth == 0:
            _checks.fail(
                "`bandwidth` must be a number > 0, in standard deviations of the label.",
                "bandwidth=0.0",
                'A small one prefers partners with the same label; `pairing="batch"` takes any.',
            )
    if pairing_by is not None and not isinstance(pairing_by, str):
        pairing_by = _checks.integer(pairing_by, "pairing_by")
    return {"pairing": pairing, "bandwidth": bandwidth, "pairing_by": pairing_by}


def check_layer(layer, given):
    """Raise if a layer that has no `pairing` is to choose partners by label, as `given` by a trainer."""
    if (given or {}).get("pairing") == "label":
        _checks.fail(
            "This layer cannot choose partners by label.",
            f'`pairing="label"` for {type(layer).__name__}',
            "Leave it out, or mix with `MixUp` or `CutMix`.",
        )


def label_of(labels, pairing_by):
    """The label whose distances count, `(B,)` or `(B, C)`, or raise.

    Args:
        labels: An array of labels, or a structure of them.
        pairing_by: Key or index of the label in the structure; None for a single array.
    """
    if tree.is_nested(labels):
        keys = list(labels) if isinstance(labels, dict) else list(range(len(labels)))
        if pairing_by not in keys:
            _checks.fail(
                '`pairing="label"` needs one label to compare.',
                f"pairing_by={pairing_by!r} for labels {outline(labels)}",
                f"`pairing_by` must be one of {keys}.",
            )
        labels = labels[pairing_by]
    elif pairing_by is not None:
        _checks.fail("`pairing_by` is for several labels.", f"{pairing_by!r} for a single array", "Leave it out.")
    nested = tree.is_nested(labels)
    shape, dtype = (None, "") if nested else (_backend.static_shape(labels), _backend.dtype(labels))
    if shape is None or len(shape) not in (1, 2) or "float" not in dtype:
        _checks.fail(
            '`pairing="label"` compares float labels (B,) or (B, C).',
            f"labels {outline(labels)}" if nested else f"labels of dtype {dtype} and shape {shape}",
            "Class ids have no distances: one-hot encode them, or leave out `pairing`. Cast integers to regress to "
            "float.",
        )
    return labels


def labels_for_plan(labels, batch_size):
    """The labels of a batch for the targets of a `StepKey`, as NumPy arrays; nothing if there are none."""
    if labels is None:
        return {}
    labels = tree.map_structure(
        lambda leaf: _backend.values(leaf) if hasattr(leaf, "dtype") else np.asarray(leaf), labels
    )
    if any(np.shape(leaf)[:1] != (batch_size,) for leaf in tree.flatten(labels)):
        shapes = [np.shape(leaf) for leaf in tree.flatten(labels)]
        _checks.fail("`labels` must have one row for each sample.", f"shapes {shapes} for {batch_size} samples")
    return {LABELS: labels}


def check_label(xp, label):
    """Raise if a label to compare holds NaN or infinities, as far as its values can be read."""
    label = xp.asarray(label)
    xp.require(label - label == 0, '`pairing="label"` needs finite labels. Received: NaN or infinities.')


def pairing_of(layer, given):
    """The settings `PAIRING` of a layer by name, replaced by those in `given` that are not None."""
    return {name: getattr(layer, name) if given.get(name) is None else given[name] for name in PAIRING}


def pair(xp, key, plan, layer):
    """The plan of a layer, with the partners that its settings ask for.

    Args:
        xp: The array namespace of the plan.
        key: The `StepKey`.
        plan: The `MixPlan` with partners from the whole batch.
        layer: The `MixLayer`.
    """
    setting = pairing_of(layer, key.pairing)
    if key.clean or (setting["pairing"] != "label" and not layer.derange):
        return plan
    if setting["pairing"] != "label":
        return plan._replace(permutation=derange(xp, plan.permutation))
    if LABELS not in key.targets:
        _checks.fail(
            'With `pairing="label"`, a plan depends on the labels.',
            "a plan without labels",
            "Write `layer.plan(step, batch_size, labels=y)`.",
        )
    label = label_of(key.targets[LABELS], setting["pairing_by"])
    if xp is _backend.NUMPY and _backend.on_host(label):
        label = _backend.values(label)
    else:
        # Beside the label: the host would have to wait for it.
        xp = _backend.namespace(label, key.step)
        label = xp.asarray(label)
    seed = key.seed_of(layer)
    drawn = by_label(xp, seed, key.step, label, setting["bandwidth"], replica=key.replica, others=layer.derange)
    return plan._replace(permutation=drawn, bijective=False)


class Kept(Inputs):
    """The inputs of a mixer as they come out if nothing is mixed.

    Args:
        inputs: The `Inputs` of the mixer.
    """

    takes_drawn_plan = True

    def __init__(self, inputs):
        self.inputs = inputs

    def mix(self, leaf, plan):
        return _backend.namespace(leaf).cast(leaf, self.inputs.dtype(leaf))


def draw(layer, xp, key, values, batch_size, spatial_shape):
    """The plan of a step for the encoded `Values` of a batch, in the array namespace `xp`."""
    key = key._replace(targets=values.targets)
    if not key.joined:
        return layer.sample_plan(xp, key, batch_size, spatial_shape)
    n = batch_size // 2
    plan = layer.sample_plan(xp, key, n, spatial_shape)
    if hasattr(plan.region, "views"):
        _checks.fail(
            "`partner=` brings one partner for each sample.",
            f"{layer.name}, which mixes each sample with several",
            "Use `MixUp` or `CutMix`, or leave out `partner`.",
        )

    def repeated(leaf):
        return xp.concat([leaf, leaf]) if len(getattr(leaf, "shape", ())) else leaf

    first = xp.arange(n)
    return plan._replace(
        lam=xp.concat([plan.lam, xp.cast(first * 0 + 1, "float32")]),
        # Still a permutation if it was one. The second half of the batch is not mixed.
        permutation=xp.concat([plan.permutation + n, first]),
        box=None if plan.box is None else repeated(plan.box),
        region=tree.map_structure(repeated, plan.region),
    )


def mix(layer, xp, key, batch, values, keep_clean):
    """Mix the encoded values of a `Batch` with a layer.

    Args:
        layer: A `BatchLayer`.
        xp: The array namespace of the batch.
        key: The `StepKey`. If it says `joined`, the second half of the batch holds the partners, and only the first
            half is returned.
        batch: The `Batch`.
        values: Its encoded values.
        keep_clean: Whether to put the clean samples, encoded like the mixed ones, before them.
    """
    keys = [key._replace(clean=True), key] if keep_clean else [key]
    parts = [layer.mix_values(xp, each, batch, values) for each in keys]
    if key.joined:
        n = xp.size(tree.flatten(values.inputs)[0], 0) // 2
        parts = tree.map_structure(lambda leaf: None if leaf is None else leaf[:n], parts)
    if not keep_clean:
        return parts[0]
    clean, mixed = parts
    return both(xp, clean, mixed, key.shards)


def both(xp, clean, mixed, shards=1):
    """The arrays of two batches one after the other; with shards, within each of them, so that none moves."""

    def joined(first, second):
        if first is None or shards == 1:
            return None if first is None else xp.concat([first, second])
        rows = [xp.reshape(array, (shards, -1, *array.shape[1:])) for array in (first, second)]
        return xp.reshape(xp.concat(rows, 1), (-1, *first.shape[1:]))

    return tree.map_structure(joined, clean, mixed)


def with_clean(plan):
    """The plan of a batch of twice the size, which keeps its first half (of each shard) and mixes its second."""
    xp = _backend.namespace(plan.lam, plan.permutation)
    kept, size = xp.cast(plan.lam * 0 + 1, "float32"), xp.size(plan.permutation, -1)
    own = xp.cast(xp.arange(size), _backend.dtype(plan.permutation)) + plan.permutation * 0
    shards = 1 if len(plan.permutation.shape) == 1 else xp.size(plan.permutation, 0)
    permutation = xp.concat([own, plan.permutation + size], -1)
    return plan._replace(lam=both(xp, kept, plan.lam, shards), permutation=permutation)


def double_passed(batch, passthrough):
    """A dictionary batch with the values of the keys in `passthrough` twice: for the clean and the mixed samples."""

    def doubled(name, leaf):
        if not getattr(leaf, "shape", ()) or _backend.irregular(leaf):
            _checks.fail(
                "With `keep_clean=True`, keys in `passthrough` hold arrays with a batch axis, which are doubled.",
                f"{name!r}: a {type(leaf).__name__}",
                "Take that key out of the batch.",
            )
        return _backend.namespace(leaf).concat([leaf, leaf])

    passed = {
        name: tree.map_structure(lambda leaf, name=name: doubled(name, leaf), value)
        for name, value in batch.items()
        if name in passthrough
    }
    return type(batch)({**batch, **passed})


def double_spec(structure):
    """`KerasTensor`s for a batch of twice the size."""

    def doubled(leaf):
        size, *shape = leaf.shape
        return keras.KerasTensor((None if size is None else 2 * size, *shape), dtype=leaf.dtype)

    return tree.map_structure(lambda leaf: None if leaf is None else doubled(leaf), structure)


def join(batch, partner, settings, inputs):
    """A batch and the batch of its partners as one, or raise if they differ.

    Args:
        batch, partner: Labelled batches.
        settings, inputs: As for `Batch`.
    """
    first, second = (Batch.read(each, settings, inputs) for each in (batch, partner))
    ours, theirs = first.values, second.values
    forms = [_form(each, values) for each, values in ((batch, ours), (partner, theirs))]
    if forms[0] != forms[1]:
        _fail(forms[1], forms[0])
    xp = _backend.namespace(*ours.arrays(), *theirs.arrays())

    def joined(leaf, other):
        if leaf is None:
            return None
        shapes = [_backend.static_shape(array) for array in (leaf, other)]
        known = None not in shapes and len(shapes[0]) == len(shapes[1])
        alike = known and all(a == b or None in (a, b) for a, b in zip(*shapes, strict=True))
        if not (alike or shapes == [None, None]) or _backend.dtype(leaf) != _backend.dtype(other):
            _fail(*(f"{_backend.dtype(array)} of shape {_backend.static_shape(array)}" for array in (other, leaf)))
        leaf, other = xp.asarray(leaf), xp.asarray(other)
        xp.require_equal_sizes([(leaf, 0), (other, 0)], _ALIKE)
        # Else another operation might fail first.
        with _backend.after_checks():
            return xp.concat([leaf, other])

    return first.write(tree.map_structure(joined, ours, theirs))


def _form(batch, values):
    parts = tree.map_structure(lambda leaf: None if leaf is None else ..., tuple(values))
    return f"a {'dictionary' if isinstance(batch, dict) else 'tuple'} with {parts}".replace("Ellipsis", "...")


_ALIKE = "The batch of the partners must have the structure, dtypes, shapes and batch size of the batch."


def _fail(received, expected):
    _checks.fail(_ALIKE, f"{received} for {expected}")
