"""Who mixes with whom: rules that choose the partner of each sample."""

from collections.abc import Mapping
from typing import Any, Literal

import keras

from kmix import _backend, _checks, prng
from kmix._settings import Settings
from kmix.plan import PlanKey, streams

__all__ = ["DifferentLabels", "Pairing", "RandomPairs", "SameLabels", "SimilarLabels"]

tree = keras.tree


class Pairing(Settings):
    """A rule that chooses the partner of each sample. Override `partners` or `score` to write one.

    A rule is never changed: `rule.replace(within="shard")` makes a changed copy. Rules with equal settings are equal.

    Args:
        within: `"batch"` draws partners from the whole batch. An int, at least 2: from groups of so many consecutive
            rows. Then a part of the batch that begins with a group is mixed like the whole, see `first_row` of
            `at_step`, and if the number divides the rows of each device, mixing moves nothing between devices.
            `"shard"`: from the rows on the same device in a `MixTrainer` under `keras.distribution` (elsewhere a batch
            is one shard); plans then depend on the number of devices.
        allow_self: Whether a sample may be its own partner. Such a sample is not mixed.

    Attributes:
        bijective: Whether each sample is the partner of exactly one other.

    Raises:
        ValueError: if `within` is neither `"batch"`, `"shard"` nor an int >= 2.
        TypeError: if `allow_self` is not a boolean.

    Example:
        Each sample mixes with the next one.

        >>> @keras.saving.register_keras_serializable(package="example")
        ... class NextSample(kmix.pairing.Pairing):
        ...     def partners(self, xp, words, key, targets):
        ...         return (xp.arange(xp.size(words, 0)) + 1) % xp.size(words, 0)
        >>> kmix.MixUp(0.2, pairing=NextSample(), seed=1).plan(step=0, batch_size=4).permutation
        array([1, 2, 3, 0], dtype=int32)
    """

    bijective: bool = False

    def __init__(self, *, within: Literal["batch", "shard"] | int = "batch", allow_self: bool = True) -> None:
        self.within: Literal["batch", "shard"] | int = to_within(within)
        if within == "shard":
            self.check_shards()
        self.allow_self: bool = _checks.boolean(allow_self, "allow_self")

    @property
    def needs_targets(self) -> bool:
        """Whether the rule reads the targets. Set it to True in a rule whose `partners` does; one with a score does."""
        return type(self).partners is Pairing.partners

    def _draw_in_groups(self, xp, words, key, targets):
        """The partner of each sample in a batch with groups: what `partners` returns, group by group.

        Args:
            xp, words, key, targets: As in `partners`.
        """
        rows, group = xp.size(words, 0), key.group
        if not isinstance(rows, int):
            _checks.fail(
                f"`{type(self).__name__}(within={group})` needs to know the size of the batch.",
                "a batch of unknown size",
                "Write `ds.batch(n, drop_remainder=True)`.",
            )
        begin = 0 if key.first_row is None else key.first_row

        def partners(first):
            def part(array):
                return array[first : min(first + group, rows)] if getattr(array, "shape", ()) else array

            own = key._replace(first_row=begin + first, shards=1)
            return self.partners(xp, part(words), own, tree.map_structure(part, targets))

        drawn = list(map(partners, range(0, rows, group)))
        xp = _backend.namespace(*drawn)
        if key.shards > 1:
            return xp.stack(drawn)
        return xp.concat([each + first for each, first in zip(drawn, range(0, rows, group), strict=True)])

    def partners(self, xp: _backend.Namespace, words: Any, key: PlanKey, targets: Mapping[Any, Any]) -> Any:
        """The partner of each sample, in the batch or in one group of its rows. By default drawn by `score`.

        Args:
            xp: Array namespace of `words`.
            words: Random 32-bit words `(B,)`, one for each sample, which never tie.
            key: The `kmix.plan.PlanKey` of the batch, with its seed.
            targets: The encoded targets of the batch by key, and what is kept; a single array is `"labels"`.

        Returns:
            int `(B,)`, or if the key has shards `(shards, B / shards)`, counted within each.
        """
        if not targets:
            _checks.fail(
                f"With `pairing={type(self).__name__}(...)`, a plan depends on the targets of the batch.",
                "a plan without targets",
                "Write `layer.plan(step, batch_size, targets=y)`.",
            )
        targets = self._read(targets)
        arrays = [leaf for leaf in tree.flatten(targets) if hasattr(leaf, "dtype")]
        if xp is _backend.NUMPY and all(map(_backend.on_host, arrays)):
            targets = tree.map_structure(
                lambda leaf: _backend.values(leaf) if hasattr(leaf, "dtype") else leaf, targets
            )
        else:
            # On the device of the targets: the host would have to wait for them.
            xp = _backend.namespace(*arrays, key.step)
            targets = tree.map_structure(lambda leaf: xp.asarray(leaf) if hasattr(leaf, "dtype") else leaf, targets)
        score = xp.cast(self.score(xp, targets), "float32")
        n = xp.size(score, 0)
        # Candidate j of row r has the word r * width + j.
        width = key.group or n
        position = 0 if key.first_row is None else key.first_row * width
        drawn = prng.bits(xp, prng.key(xp, key.seed, key.step), streams.PAIRING, 1, n * width, key.replica, position)
        drawn = xp.reshape(drawn, (n, width))[:, :n]
        own = xp.arange(n)
        if not self.allow_self:
            score = xp.where(own[:, None] == own, float("-inf"), score)
        # The largest sum of a log-probability and a Gumbel number. Without a candidate, a sample is its own partner.
        gumbel = -xp.math.log(-xp.math.log(prng.uniform(xp, drawn)))
        best = xp.argmax(gumbel + score)
        return xp.where(xp.pick(score, best[:, None])[:, 0] == float("-inf"), own, best)

    def score(self, xp: _backend.Namespace, targets: Mapping[Any, Any]) -> Any:
        """The logarithm of the probability, up to a constant, that sample j is the partner of sample i.

        Args:
            xp: Array namespace of the targets.
            targets: As in `partners`.

        Returns:
            Float `(B, B)`. `-inf` is no candidate. A sample without a candidate is its own partner, so it is not mixed.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement `partners` or `score`.")

    def check_shards(self) -> None:
        """Raise unless the rule can draw partners from a part of the batch."""
        if self.needs_targets:
            _checks.fail(
                "A rule with a score draws partners from the whole batch, or from groups of a number of rows.",
                f'`within="shard"` for {type(self).__name__}',
                'Write `within="batch"`, or for example `within=16`.',
            )

    def check_targets(self, targets: Mapping[Any, Any]) -> None:
        """Raise unless the rule can read the targets, from their static shapes and dtypes, and values on the host."""

    def _read(self, targets):
        """The targets by key that `score` looks at. A rule of a user gets all."""
        return targets


@keras.saving.register_keras_serializable(package="kmix")
class RandomPairs(Pairing):
    """Partners at random: a permutation of the batch.

    Args:
        within, allow_self: See `Pairing`. With `allow_self=False`, no sample of a batch of two or more is its own
            partner.

    Raises:
        ValueError: if `within` is neither `"batch"`, `"shard"` nor an int >= 2.
        TypeError: if `allow_self` is not a boolean.

    Example:
        >>> layer = kmix.MixUp(0.2, pairing=kmix.pairing.RandomPairs(allow_self=False), seed=1)
        >>> bool(np.any(layer.plan(step=0, batch_size=8).permutation == np.arange(8)))
        False
    """

    bijective = True

    def _draw_in_groups(self, xp, words, key, targets):
        if key.shards > 1:
            return self.partners(xp, words, key, targets)
        # All full groups at once, and what is left.
        full = xp.size(words, 0) // key.group * key.group
        groups = self.partners(xp, xp.reshape(words[:full], (-1, key.group)), key, targets)
        return xp.concat([xp.rows(groups), self.partners(xp, words[full:], key, targets) + full])

    def partners(self, xp: _backend.Namespace, words: Any, key: PlanKey, targets: Mapping[Any, Any]) -> Any:
        permutation = xp.argsort(words if key.shards == 1 else xp.reshape(words, (key.shards, -1)))
        if self.allow_self:
            return permutation
        # The cycle through all its entries.
        following = (xp.argsort(permutation) + 1) % xp.size(permutation, -1)
        return xp.pick(permutation, following)


@keras.saving.register_keras_serializable(package="kmix")
class SimilarLabels(Pairing):
    """Partners with similar labels, for regression (C-Mixup).

    Sample `j` is the partner of sample `i` with a probability proportional to `exp(-|y_i - y_j|**2 / (2 *
    bandwidth**2))`. Takes time and memory for `B * B` distances.

    Args:
        bandwidth: How similar, in standard deviations of the label within the batch (of each column), a number > 0.
            A column that is constant does not count.
        label: With several labels, the key (or index) of the label to compare.
        within, allow_self: See `Pairing`.

    Raises:
        ValueError: if `bandwidth` is not positive; in a batch, if the label is not float `(B,)` or `(B, C)`, or not
            finite.
        TypeError: if an argument has a wrong type.

    Reference:
        H. Yao et al., "C-Mixup: Improving Generalization in Regression", NeurIPS 2022,
        https://arxiv.org/abs/2210.05775

    Example:
        >>> layer = kmix.MixUp(2.0, pairing=kmix.pairing.SimilarLabels(0.1), seed=1)
        >>> y = np.array([0.0, 10.0, 0.1, 10.1], "float32")
        >>> layer.plan(step=0, batch_size=4, targets=y).permutation
        array([2, 3, 2, 1], dtype=int32)
    """

    def __init__(
        self,
        bandwidth: float = 0.5,
        *,
        label: str | int | None = None,
        within: Literal["batch", "shard"] | int = "batch",
        allow_self: bool = True,
    ) -> None:
        super().__init__(within=within, allow_self=allow_self)
        hint = 'A small one prefers partners with the same label; `pairing="random"` takes any.'
        self.bandwidth: float = _checks.real(bandwidth, "bandwidth", positive=True, hint=hint)
        self.label: str | int | None = (
            label if label is None or isinstance(label, str) else _checks.integer(label, "label")
        )

    def score(self, xp: _backend.Namespace, targets: Mapping[Any, Any]) -> Any:
        label = self._label(targets)
        n = xp.size(label, 0)
        y = xp.reshape(xp.cast(label, "float32"), (n, -1))
        deviation = y - xp.sum(y, 0) / xp.cast(n, "float32")
        # Float32 loses the squares of very small and of very large labels. A power of two rounds nothing.
        size = xp.sum(abs(deviation), 0)
        scale = xp.where(size < 2.0**-40, 2.0**80, xp.where(size > 2.0**40, 2.0**-80, 1.0))
        deviation = deviation * xp.cast(scale, "float32")
        variance = xp.sum(xp.math.square(deviation), 0) / xp.cast(n, "float32")
        scaled = deviation / xp.math.sqrt(xp.where(variance > 0, variance, 1.0)) / self.bandwidth
        # Differences, not a product of matrices, which may have lower precision on an accelerator.
        return -0.5 * xp.sum(xp.math.square(scaled[:, None] - scaled[None]), -1)

    def check_targets(self, targets: Mapping[Any, Any]) -> None:
        label = self._label(targets)
        shape, dtype = _backend.static_shape(label), _backend.dtype(label)
        if shape is None or len(shape) not in (1, 2) or "float" not in dtype:
            _checks.fail(
                "`SimilarLabels` compares float labels (B,) or (B, C).",
                f"labels of dtype {dtype} and shape {shape}",
                "Class ids have no distances: one-hot encode them, or leave out `pairing`. Cast integers to regress to "
                "float.",
            )
        if not _backend.is_symbolic(label) or _backend.is_tensorflow(label):
            xp = _backend.namespace(label)
            xp.require(label - label == 0, "`SimilarLabels` needs finite labels. Received: NaN or infinities.")

    def _read(self, targets):
        return {key: targets[key] for key in [_label_key(self, targets)]}

    def _label(self, targets):
        return targets[_label_key(self, targets)]


class _ByClass(Pairing):
    """A rule that compares classes: of the labels, and of a group that is one more entry of the batch.

    No sample is a candidate for itself: it would mix with itself, which is not to mix, while others are there.

    Args:
        group_name, group: The argument that names the group, and the key (or index) of the group, or None.
        label, within: See `DifferentLabels`.
    """

    def __init__(
        self, group_name: str, group: str | int | None, label: str | int | None, within: Literal["batch"] | int
    ) -> None:
        super().__init__(within=within, allow_self=False)
        for name, key in ((group_name, group), ("label", label)):
            setattr(self, name, key if key is None or isinstance(key, str) else _checks.integer(key, name))
        if group is not None and group == label:
            _checks.fail(
                f"The `{group_name}` of `{type(self).__name__}` is another entry than its `label`.",
                f"{group_name}={group!r} and label={label!r}",
                f"Leave out `{group_name}`.",
            )
        self._group_name, self._group = group_name, group

    def _read(self, targets):
        keys = [_label_key(self, targets, self._group), *([] if self._group is None else [self._group])]
        return {key: targets[key] for key in keys}

    def _same(self, xp, targets):
        """Whether each two samples share a class, and whether they share the group, as bool `(B, B)`, or None."""
        label, *group = self._read(targets).values()
        return _share_a_class(xp, label), _share_a_class(xp, group[0]) if group else None

    def check_targets(self, targets: Mapping[Any, Any]) -> None:
        name = type(self).__name__
        if self._group is not None and not hasattr(targets.get(self._group), "dtype"):
            _checks.fail(
                f"`{name}({self._group_name}={self._group!r})` compares an entry of the batch by that key.",
                f"targets {list(targets)}",
                f'Pass it in a dictionary batch, with `target={{{self._group!r}: "keep", ...}}`. A MixTrainer gets '
                "inputs and labels alone: mix in the data set, `ds.map(layer)`, and fit the model itself.",
            )
        sizes = set()
        for key, value in self._read(targets).items():
            shape, dtype = _backend.static_shape(value), _backend.dtype(value)
            numbers = "int" in dtype or dtype == "bool"
            flat = shape is not None and not _backend.irregular(value) and len(shape) in (1, 2)
            if not flat or not (numbers or ("float" in dtype and shape[1:] not in ((), (1,)))):
                _checks.fail(
                    f"`{name}` compares classes: integers (B,) or (B, 1), or labels (B, C) of a column for each class.",
                    f"{key!r} of dtype {dtype} and shape {shape}",
                    'Numbers to regress have no classes: leave out `pairing`, or write `"similar_labels"`. Number '
                    "groups that have names. Pass binary labels as integers, with `num_classes=2`.",
                )
            sizes |= {shape[0]} - {None}
        if len(sizes) > 1:
            _checks.fail(f"`{name}` compares one class and one group of each sample.", f"{sorted(sizes)} rows")


@keras.saving.register_keras_serializable(package="kmix")
class DifferentLabels(_ByClass):
    """Partners with another label: every mixed label has two classes.

    All samples with another label are equally likely. Two labels are the same if their largest entries are in one
    column, the first of several that tie. Labels of zeros and ones, such as multi-hot ones, are the same if they have a
    class in common. A sample without a candidate in its batch is its own partner, so it is not mixed.

    Args:
        same: Key of an entry of the batch in which the partners agree, such as the hospital or the camera: integers
            `(B,)`, in a dictionary batch with `target={key: "keep"}`. By default, partners may come from anywhere.
        label: With several labels, the key (or index) of the label to compare.
        within: See `Pairing`: `"batch"`, or an int for groups of so many rows.

    Raises:
        ValueError: if `same` and `label` are one key; in a batch, if the labels have no classes (floats of one column),
            or more than two axes, or if there is no entry `same`, as in a `MixTrainer`, which gets inputs and labels
            alone.
        TypeError: if an argument has a wrong type.

    Reference:
        H. Yao et al., "Improving Out-of-Distribution Robustness via Selective Augmentation", ICML 2022,
        https://arxiv.org/abs/2201.00299

    Example:
        >>> layer = kmix.MixUp(2.0, num_classes=3, pairing=kmix.pairing.DifferentLabels(), seed=1)
        >>> y = np.array([0, 0, 1, 1, 2])
        >>> bool(np.any(y[layer.plan(step=0, batch_size=5, targets=y).permutation] == y))
        False
    """

    def __init__(
        self, *, same: str | int | None = None, label: str | int | None = None, within: Literal["batch"] | int = "batch"
    ) -> None:
        super().__init__("same", same, label, within)

    def score(self, xp: _backend.Namespace, targets: Mapping[Any, Any]) -> Any:
        same, of_group = self._same(xp, targets)
        candidates = ~same if of_group is None else ~same & of_group
        return xp.where(candidates, 0.0, float("-inf"))


@keras.saving.register_keras_serializable(package="kmix")
class SameLabels(_ByClass):
    """Partners with the same label, which stays as it is while the inputs mix.

    All other samples with that label are equally likely; `DifferentLabels` says when two labels are the same. A sample
    is never drawn as its own partner: one that is alone in its batch is not mixed. In small batches of many classes,
    these are most.

    Args:
        other: Key of an entry of the batch in which the partners differ, such as the hospital or the camera: integers
            `(B,)`, in a dictionary batch with `target={key: "keep"}`. By default, partners may come from anywhere.
        label, within: See `DifferentLabels`.

    Raises:
        ValueError: as for `DifferentLabels`.
        TypeError: if an argument has a wrong type.

    Reference:
        H. Yao et al., "Improving Out-of-Distribution Robustness via Selective Augmentation", ICML 2022,
        https://arxiv.org/abs/2201.00299

    Example:
        LISA: partners of one class and two hospitals, or of two classes and one hospital.

        >>> target = {"labels": kmix.targets.Labels(2), "hospital": "keep"}
        >>> rules = kmix.pairing.SameLabels(other="hospital"), kmix.pairing.DifferentLabels(same="hospital")
        >>> lisa = kmix.RandomChoice([kmix.MixUp(2.0, target=target, pairing=rule, seed=1) for rule in rules], seed=1)
        >>> x, y = np.ones((4, 3), "float32"), np.array([0, 0, 1, 1])
        >>> mixed = lisa.at_step(0, {"images": x, "labels": y, "hospital": np.array([0, 1, 0, 1])})
        >>> mixed["labels"].shape
        (4, 2)
    """

    def __init__(
        self,
        *,
        other: str | int | None = None,
        label: str | int | None = None,
        within: Literal["batch"] | int = "batch",
    ) -> None:
        super().__init__("other", other, label, within)

    def score(self, xp: _backend.Namespace, targets: Mapping[Any, Any]) -> Any:
        same, of_group = self._same(xp, targets)
        candidates = same if of_group is None else same & ~of_group
        return xp.where(candidates, 0.0, float("-inf"))


def _label_key(rule, targets, group=None):
    """The key of the label that a rule with a setting `label` compares, which is not `group`; or raise."""
    keys, name = [key for key in targets if group is None or key != group], type(rule).__name__
    label = rule.label if rule.label is not None else keys[0] if len(keys) == 1 else None
    if label is None and "labels" in keys:
        label = "labels"
    if label not in keys or not hasattr(targets[label], "dtype"):
        _checks.fail(
            f"`{name}` needs one label to compare.",
            f"label={rule.label!r} for targets {keys}",
            f"Write `{name}(label=...)` with one of {keys}." if len(keys) > 1 else "Leave out `label`.",
        )
    return label


def _share_a_class(xp, y):
    """Whether each two rows of class ids `(B,)` or `(B, 1)`, or of encoded labels `(B, C)`, share a class: `(B, B)`."""
    if len(y.shape) == 1 or y.shape[1] == 1:
        ids = xp.cast(xp.reshape(y, (-1,)), xp.integer)
        return ids[:, None] == ids
    y = xp.cast(y, "float32")
    y = xp.where(abs(y) < _backend.SMALLEST_NORMAL, 0.0, y)
    largest = xp.cast(xp.argmax(y)[:, None] == xp.arange(xp.size(y, 1)), "float32")
    others = xp.sum(xp.cast((y != 0) & (y != 1), "float32"), -1)
    # Products of zeros and ones are exact in any precision.
    return xp.gram(xp.where(others[:, None] == 0, y, largest)) > 0


def to_within(given: Any) -> Literal["batch", "shard"] | int:
    """Return where partners come from, or raise."""
    if isinstance(given, int) and not isinstance(given, bool):
        return _checks.integer(given, "within", 2)
    if isinstance(given, str):
        return _checks.one_of(given, "within", ("batch", "shard"))
    return _checks.fail(
        "`within` must be 'batch', 'shard', or a number of rows.", f"within={given!r}", "For example `within=16`."
    )


def to_pairing(given: Any) -> Pairing:
    """The `Pairing` that an argument `pairing` stands for, or raise."""
    named: dict[str, type[Pairing]] = {
        "random": RandomPairs,
        "similar_labels": SimilarLabels,
        "different_labels": DifferentLabels,
        "same_labels": SameLabels,
    }
    if isinstance(given, Pairing):
        return given
    if isinstance(given, str) and given in named:
        return named[given]()
    is_class = isinstance(given, type) and issubclass(given, Pairing)
    return _checks.fail(
        f"`pairing` must be {' or '.join(map(repr, named))}, or an object of `kmix.pairing`.",
        f"the class {given.__name__}" if is_class else f"pairing={given!r}",
        f"Write `{given.__name__}()`." if is_class else "For example `kmix.pairing.RandomPairs(allow_self=False)`.",
        ValueError if isinstance(given, str) else TypeError,
    )
