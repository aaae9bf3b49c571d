"""The mix plan: everything random about one batch, as a small value, and what it depends on."""

from typing import Any, NamedTuple, Self

import keras

from kmix import _backend, _checks

tree = keras.tree

# A larger number of a replica would draw from the streams of another.
REPLICAS = 2**16


class PlanKey(NamedTuple):
    """What the plan of one batch depends on, besides the settings of the layer that draws it.

    Attributes:
        step: Number of the batch, an int or an integer scalar tensor.
        replica: Index of the replica under data parallelism.
        shards: Number of equal parts of the batch in which partners stay, if they are counted within these.
        seed: Seed of the plan; None for that of the layer.
        group: Number of consecutive rows of the global batch in which partners stay; None for all.
        first_row: Number of the first row of the batch in the global batch, a multiple of `group`; None for 0.

    Example:
        >>> kmix.plan.PlanKey(step=3).replica
        0
    """

    step: Any
    replica: Any = 0
    shards: int = 1
    seed: int | None = None
    group: int | None = None
    first_row: Any = None

    def join(self, xp: _backend.Namespace, first: Any, second: Any) -> Any:
        """The rows of two equal batches as one: the first before the second, within each group or shard."""
        if self.shards > 1:
            return _joined(xp, first, second, (self.shards, -1))
        if self.group is None:
            return xp.concat([first, second])
        first, second = xp.asarray(first), xp.asarray(second)
        full = xp.size(first, 0) // self.group * self.group
        groups = _joined(xp, first[:full], second[:full], (-1, self.group))
        return xp.concat([groups, first[full:], second[full:]])


class Part(NamedTuple):
    """What one sample of the batch contributes to each mixed sample.

    Attributes:
        source: int `(B,)`: the index of the contributing sample.
        share: float32 `(B,)`: its share.
        shift: int `(B, 2)`: for the tiles of a Mosaic, how far the image is moved, in pixels. Else None.
        window: int `(B, 4)`: for the tiles of a Mosaic, the part of the image that it covers, half open: all starts,
            then all stops. Else None.

    Example:
        >>> plan = kmix.MixPlan(lam=np.array([0.75, 1.0], "float32"), permutation=np.array([1, 0]))
        >>> [part.share.tolist() for part in plan.parts()]
        [[0.75, 1.0], [0.25, 0.0]]
    """

    source: Any
    share: Any
    shift: Any = None
    window: Any = None


class Tiles(NamedTuple):
    """The region of a plan that puts whole windows of several images together.

    Attributes:
        shift: int32 `(B, k + 1, 2)`: how far each of the `k + 1` images is moved, in pixels.
        window: int32 `(B, k + 1, 4)`: the part of the mixed image that shows it, half open: all starts, then all stops.

    Example:
        The centre of a Mosaic is where the window of the sample itself ends.

        >>> plan = kmix.Mosaic(seed=1).plan(step=0, batch_size=2, spatial_shape=(8, 8))
        >>> plan.region.window[:, 0, 2:]
        array([[2, 3],
               [4, 2]], dtype=int32)
    """

    shift: Any
    window: Any


class Instances(NamedTuple):
    """The region of a plan that pastes objects: which of those of the partner to paste.

    How many objects there are, and where, says the batch, so that a plan chooses among as many as there may be.

    Attributes:
        chosen: bool `(B, 496)`: whether to paste an object of the partner, if it can be pasted.

    Example:
        >>> plan = kmix.CopyPaste(instance_rate=0.4, seed=2).plan(step=0, batch_size=2)
        >>> plan.region.chosen[:, :4]
        array([[False, False, False,  True],
               [False, False,  True, False]])
    """

    chosen: Any


class MixPlan(NamedTuple):
    """What happens to the `B` samples of one batch.

    A plan is a pure function of (seed, step, alpha, batch size), the same on every framework. It also depends on the
    settings of the layer, such as `per` and `rate`, and on the labels with `pairing="similar_labels"`.

    A row whose `lam` is exactly 1 is taken as it came, without reading box or region.

    Attributes:
        lam: float32 `(B,)` in [0, 1]: the share of the sample itself. With a box, the exact share of the pixels kept.
            A sample that is its own partner is not mixed, whatever its lam.
            Exactly 1 if nothing of the partner enters; exactly 0 if only the partner enters.
        permutation: int32 `(B,)`: the index of each sample's partner. In a step of a `MixTrainer` with
            `within="shard"`, or a number of rows, `(shards, B / shards)`, counted within the shard.
        box: int32 `(B, 2 * k)` for the `k` spatial axes, CutMix only. Half open: all starts, then all stops,
            `(y0, x0, y1, x1)` for images.
        region: What to paste, where a box does not say it: `Tiles`, `Instances`, or a value with a method
            `paste(xp, x, permutation, axes)`, which returns `x` with parts of the partners pasted in. `axes` are the
            spatial axes of `x`, and `xp` is the array namespace of `x`. Its arrays have one row for each sample.
        choice: int32 scalar: index of the layer that `RandomChoice` drew.
        place: int32 scalar: index of the place that Manifold Mixup drew.
        partners: int32 `(k, B)`: for mixers of several partners, the index of each; `permutation` is the first.
        shares: float32 `(k + 1, B)`: with `partners`, the shares of the sample and of its partners; `lam` is the first.
        gains: float32 `(k + 1, B)`: by what waves are multiplied before they are added, where that is not the share.
            They may depend on the waves, so a drawn plan has none.
        bijective: Whether `permutation` is known to hold each index once. The gradient of a blend can then gather
            instead of scatter.

    Example:
        Repeat by hand what a step does to a batch.

        >>> plan = kmix.MixUp(0.2, seed=1).plan(step=0, batch_size=4)
        >>> x = np.arange(4.0)
        >>> mixed = plan.lam * x + (1 - plan.lam) * x[plan.permutation]
    """

    lam: Any
    permutation: Any
    box: Any = None
    region: Any = None
    choice: Any = None
    place: Any = None
    partners: Any = None
    shares: Any = None
    gains: Any = None
    bijective: bool = False

    @property
    def pastes(self) -> bool:
        """Whether the plan pastes parts of the partners, instead of blending whole samples."""
        return self.box is not None or self.region is not None

    def parts(self) -> list[Part]:
        """What mixes, sample by sample.

        Returns:
            A list of `Part`s, `(source, share, shift, window)`: the sample itself first, then its partners.

        Example:
            >>> plan = kmix.MixUp(0.2, seed=1).plan(step=0, batch_size=4)
            >>> y = np.eye(4)
            >>> mixed = sum(part.share[:, None] * y[part.source] for part in plan.parts())
        """
        xp = _backend.namespace(self.lam)
        own = xp.rows(self._own(xp))
        if self.partners is None:
            return [Part(own, self.lam), Part(xp.rows(self.permutation), 1.0 - self.lam)]
        sources, shares = [own, *xp.unstack(self.partners)], xp.unstack(self.shares)
        if not isinstance(self.region, Tiles):
            return [Part(*each) for each in zip(sources, shares, strict=True)]
        shift, window = self.region
        return [Part(sources[i], shares[i], shift[:, i], window[:, i]) for i in range(len(sources))]

    def _sources(self):
        """The `source` of each part in the form of `permutation`: counted within its groups, if it has groups."""
        sources, shape = [part.source for part in self.parts()], self.permutation.shape
        if len(shape) == 1:
            return sources
        xp = _backend.namespace(*sources)
        return [xp.reshape(source % shape[-1], shape) for source in sources]

    def as_arrays(self, xp: _backend.Namespace) -> Self:
        """The plan with its arrays in the framework of the namespace `xp`."""
        names = ("lam", "permutation", "box", "partners", "shares", "gains")
        given = {name: getattr(self, name) for name in names}
        arrays = {name: xp.asarray(array) for name, array in given.items() if array is not None}
        region = None if self.region is None else tree.map_structure(xp.asarray, self.region)
        return self._replace(**arrays, region=region)

    def without_own_partners(self) -> Self:
        """The plan in which a sample that is its own partner is not mixed, whatever its lam says, unless it is NaN.

        With several partners, all that a plan draws is shown.
        """
        if self.partners is not None:
            return self
        xp = _backend.namespace(self.lam, self.permutation)
        own = self.permutation == self._index(xp)
        own = own if len(own.shape) == 1 else xp.reshape(own, (-1,))
        own = own & xp.asarray(self.lam == self.lam)
        return self._replace(lam=xp.where(own, xp.cast(1.0, "float32"), self.lam))

    def with_clean(self, key: PlanKey) -> Self:
        """The plan of a batch of twice the size, which keeps its first half (of each group) and mixes its second.

        `key` is the `PlanKey` of the plan, which knows the groups.
        """
        xp = _backend.namespace(self.lam, self.permutation)
        size = xp.size(self.permutation, -1)

        def doubled(kept, mixed):
            return key.join(xp, kept, mixed)

        identity, own = xp.cast(self.lam * 0 + 1, "float32"), self._own(xp)
        if len(self.permutation.shape) > 1:
            first, permutation = xp.rows(own) // size * size, xp.concat([own, self.permutation + size], -1)
        else:
            # The rows of a group are behind both copies of the groups before it.
            first = 0 if key.group is None else own // key.group * key.group
            size = size if key.group is None else xp.math.minimum(size - first, key.group)
            permutation = doubled(own + first, self.permutation + first + size)
        plan = self._replace(
            lam=doubled(identity, self.lam),
            permutation=permutation,
            box=_repeated(doubled, self.box),
            region=_repeated(doubled, self.region),
        )
        if self.partners is None:
            return plan
        own, shares = xp.rows(own), xp.unstack(self.shares)
        return plan._replace(
            partners=xp.stack([doubled(own + first, each + first + size) for each in xp.unstack(self.partners)]),
            shares=xp.stack([plan.lam, *(doubled(0.0 * identity, share) for share in shares[1:])]),
        )

    def with_second_batch(self) -> Self:
        """The plan of the batch and a second one behind it, from which all partners come and which is not mixed."""
        xp = _backend.namespace(self.lam, self.permutation)
        own = self._own(xp)

        def both(first, second):
            return xp.concat([first, second])

        return self._replace(
            lam=both(self.lam, xp.cast(self.lam * 0 + 1, "float32")),
            # Still a permutation if it was one.
            permutation=both(self.permutation + xp.size(own, 0), own),
            box=_repeated(both, self.box),
            region=_repeated(both, self.region),
        )

    def _index(self, xp):
        """The numbers 0, 1, ... along the last axis of the permutation, in its dtype."""
        index = xp.arange(xp.size(self.permutation, -1))
        dtype = _backend.dtype(self.permutation)
        return index if dtype == "int32" else xp.cast(index, dtype)

    def _own(self, xp):
        """The index of each sample, in the shape and dtype of the permutation."""
        return self._index(xp) + 0 * self.permutation


def check_number(value: Any, name: str, low: int = 0, high: int | None = None, hint: str = "") -> Any:
    """Return an integer within `[low, high)`, or an integer scalar tensor without a value yet, or raise."""
    if type(value) is int and low <= value < (2**63 if high is None else high):
        return value
    if hasattr(value, "dtype"):
        shape, dtype = _backend.static_shape(value), _backend.dtype(value)
        if "int" not in dtype or shape not in ((), None):
            _checks.fail(f"`{name}` must be an integer scalar.", f"dtype {dtype}, shape {shape}", hint)
        if _backend.is_symbolic(value):
            return value
        value = int(value)
    return _checks.integer(value, name, low, high)


def check_key(step: Any, replica: Any, within: Any, first_row: Any) -> PlanKey:
    """The `PlanKey` of a checked step, for partners from where `within` says, or raise."""
    replica = check_number(replica, "replica", 0, REPLICAS)
    group = within if isinstance(within, int) else None
    if first_row is None:
        return PlanKey(step, replica, group=group)
    if group is None:
        _checks.fail(
            "`first_row` numbers the rows of a global batch, which is mixed group by group.",
            f"first_row={first_row!r} for partners within {within!r}",
            "Write `pairing=kmix.pairing.RandomPairs(within=16)`.",
        )
    if not isinstance(replica, int) or replica:
        _checks.fail("With `first_row`, all processes share one plan.", f"replica={replica!r}", "Leave out `replica`.")
    first_row, message = check_number(first_row, "first_row"), f"`first_row` must be a multiple of `within={group}`."
    if not isinstance(first_row, int):
        _backend.namespace(first_row).require(first_row % group == 0, message)
    elif first_row % group:
        _checks.fail(message, f"first_row={first_row}", "Let each process hold a multiple of so many rows.")
    return PlanKey(step, group=group, first_row=first_row)


def _joined(xp, first, second, parts):
    """The rows of two arrays as one, part by part: neither moves to another device."""
    rest = [xp.size(first, axis) for axis in range(1, len(first.shape))]
    rows = [xp.reshape(array, (*parts, *rest)) for array in (first, second)]
    return xp.reshape(xp.concat(rows, 1), (-1, *rest))


def _repeated(join, structure):
    """The rows of the arrays of a box or region twice; numbers and None stay."""

    def twice(leaf):
        return join(leaf, leaf) if len(getattr(leaf, "shape", ())) else leaf

    return None if structure is None else tree.map_structure(twice, structure)
