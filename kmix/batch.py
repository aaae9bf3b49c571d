"""A batch as a value: read from a tuple or a dictionary, checked, encoded, mixed, and written in the same form.

The way of a batch: `Batch.read` names its parts and checks what is static; `check_values` looks at values; `encode`
prepares targets and sample weights; `mix` mixes every part with one plan; `write` gives them their form again.
"""

import copy
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import keras

from kmix import _backend, _checks
from kmix.plan import MixPlan, PlanKey
from kmix.targets.base import BatchInfo, Keep, Target
from kmix.targets.instance_masks import InstanceMasks
from kmix.targets.labels import Labels
from kmix.targets.sample_weights import check_weights, mix_weight
from kmix.targets.segmentation_masks import SegmentationMasks

tree = keras.tree

INPUTS, LABELS, WEIGHTS = "images", "labels", "sample_weight"
# A batch without groups.
_WHOLE = PlanKey(0)


class Reading(NamedTuple):
    """What a layer or a trainer knows of the batches that it mixes.

    Attributes:
        target: A `Target`, or a structure of targets.
        num_classes: Number of classes of the labels that a dictionary of targets does not describe.
        inputs_key: The key of the inputs in a dictionary batch, or a tuple of keys.
        input_mixing: The `InputMixing` of the mixer; None if the inputs are mixed inside a model.
        partners: How many partners a sample may have.
    """

    target: Any = Labels()
    num_classes: int | None = None
    inputs_key: Any = INPUTS
    input_mixing: Any = None
    partners: int = 1

    def targets_by_key(self) -> dict[Any, Any]:
        """What each key of a dictionary batch is, besides the inputs and the sample weights."""
        known: dict = {LABELS: Labels(self.num_classes), "segmentation_masks": SegmentationMasks()}
        known |= {"bounding_boxes": None, "instances": InstanceMasks()}
        return known | (self.target if isinstance(self.target, dict) else {LABELS: self.target})

    def input_keys(self) -> tuple[Any, ...]:
        """The keys of the inputs in a dictionary batch."""
        return self.inputs_key if isinstance(self.inputs_key, tuple) else (self.inputs_key,)

    def is_batch(self, batch: dict[Any, Any]) -> bool:
        """Whether a dictionary holds inputs and a target."""
        names = [name for name in self.targets_by_key() if batch.get(name) is not None]
        return bool(names) and all(batch.get(name) is not None for name in self.input_keys())


class Entry(NamedTuple):
    """One target of a batch: what it is, what is known of the batch, its key for pairing, and its sample weights.

    `weight` is an index into the sample weights, or None.
    """

    target: Target
    info: BatchInfo
    key: Any
    weight: int | None


class Batch(NamedTuple):
    """The parts of one batch.

    Attributes:
        inputs: The inputs, a structure of arrays.
        targets: The value of each entry: an array, or what its target takes.
        weights: The arrays of sample weights.
        entries: For each target an `Entry`.
        kept: What stays as it came, by key.
        input_mixing: The `InputMixing` of the mixer that read the batch, see `Reading`.
        xp: The array namespace of the batch.
        uniform: Whether types and shapes tell that all arrays belong to it, and that batch sizes are equal.
        weights_by_entry: Whether each entry has its own sample weights, because a target created some.
        second: Whether the second half of the batch holds the partners of the first.
        assemble: Gives the parts the form in which they were read: a function of the mixed batch.
    """

    inputs: Any
    targets: list[Any]
    weights: list[Any]
    entries: list[Entry]
    kept: dict[Any, Any]
    input_mixing: Any
    xp: Any
    uniform: bool
    weights_by_entry: bool
    second: bool
    assemble: Callable[[Any], Any]

    @classmethod
    def read(cls, batch: Any, reading: Reading) -> Self:
        """Name the parts of a batch, and check what is static: `(x, y)`, `(x, y, sample_weight)` or a dictionary."""
        if not isinstance(batch, dict):
            if reading.num_classes is not None and isinstance(reading.target, (dict, list)):
                _checks.fail(
                    "`num_classes` describes the labels of a dictionary batch.",
                    f"num_classes={reading.num_classes} and a structure `target` for a tuple",
                    "Write `Labels(num_classes)` in `target`.",
                )
            x, y, sample_weight = (*batch, None, None)[:3]
            return cls._read(x, y, sample_weight, reading.target, reading, _tuple_writer(batch))
        x, targets, sample_weight = _split(batch, reading)
        by_key = reading.targets_by_key()
        by_name = list(targets) != [LABELS]
        y = targets if by_name else targets[LABELS]
        target = {name: by_key[name] for name in targets} if by_name else by_key[LABELS]
        return cls._read(x, y, sample_weight, target, reading, _dictionary_writer(batch, reading, by_name))

    @classmethod
    def _read(cls, x, y, sample_weight, target, reading, write):
        found: list[tuple] = []
        kept: dict[Any, Any] = {}
        template = _flatten(target, y, (), found, kept)
        flat_weights = [] if sample_weight is None else _leaves(sample_weight)
        weights = [leaf for leaf in flat_weights if leaf is not None] if flat_weights else []
        if sample_weight is not None:
            check_weights(flat_weights, weights)
        mixing = reading.input_mixing
        x = () if mixing is None else x
        inputs = _leaves(x)
        arrays = inputs + weights
        for _, value, _ in found:
            arrays += _leaves(value)
        xp, uniform = _check_arrays(arrays, x)
        if mixing is None:
            info = BatchInfo(partners=reading.partners)
        else:
            if not inputs:
                _checks.fail("A batch needs inputs.", f"x={x!r}, which holds no arrays")
            mixing.check(x)
            sizes = mixing.spatial_shape(x) if mixing.pastes else None
            form = mixing.shapes(x), sizes, mixing.data_format, mixing.pastes, mixing.blends
            info = BatchInfo(*form, partners=reading.partners, cut_axes=mixing.cut_axes())
        indices, kept_indices = [None] * len(found), {}
        if weights:
            indices, kept_indices = _match_weights(template, sample_weight, flat_weights, found)
        entries = []
        for (own, value, path), index in zip(found, indices, strict=True):
            known = info._replace(path=path) if path else info
            own.check(value, known)
            if index is not None:
                _check_weight_shape(_backend.static_shape(weights[index]), own._weight_shape(value, known))
            entries.append(Entry(own, known, _key(path), index))
        structure = sample_weight if tree.is_nested(sample_weight) else None

        def assemble(batch):
            y = _fill(template, batch.targets, batch.kept)
            if batch.weights_by_entry:
                of_kept = {key: _weights_of_kept(batch, key, kept_indices.get(key)) for key in batch.kept}
                w = _fill(template, batch.weights, of_kept)
            elif structure is None:
                w = batch.weights[0] if batch.weights else None
            else:
                given = iter(batch.weights)
                w = tree.pack_sequence_as(structure, [None if leaf is None else next(given) for leaf in flat_weights])
            return write(batch.inputs, y, w)

        values = [value for _, value, _ in found]
        return cls(x, values, weights, entries, kept, mixing, xp, uniform, False, False, assemble)

    @property
    def arrays(self) -> tuple[Any, list[Any], list[Any]]:
        """The parts that are mixed, to pass to a compiled program and back."""
        return self.inputs, self.targets, self.weights

    def with_arrays(self, arrays: Any) -> Self:
        """The batch with other arrays in the structure of `arrays`."""
        inputs, targets, weights = arrays
        return self._replace(inputs=inputs, targets=targets, weights=weights)

    def with_mixed(self, mixed: dict[str, Any]) -> Self:
        """The batch with mixed arrays, `{"by entry" or "as given": arrays}`, see `weights_by_entry`."""
        ((name, (inputs, targets, weights)),) = mixed.items()
        return self._replace(inputs=inputs, targets=targets, weights=weights, weights_by_entry=name == "by entry")

    def leaves(self) -> list[Any]:
        """All arrays in a list."""
        return [leaf for value in (self.inputs, *self.targets) for leaf in _leaves(value)] + self.weights

    def leaf(self) -> Any:
        """An array of the batch."""
        return self.inputs if hasattr(self.inputs, "dtype") else self.leaves()[0]

    def size(self) -> Any:
        """The number of rows."""
        return self.xp.size(self.leaf(), 0)

    def by_key(self) -> dict[Any, Any]:
        """The targets by key, with what is kept, for rules of pairing."""
        return {entry.key: value for entry, value in zip(self.entries, self.targets, strict=True)} | self.kept

    def join(self, partner: Self) -> Self:
        """The batch and a second one like it, which holds the partners, as one."""
        forms = [
            ([(entry.target, entry.key, entry.weight) for entry in batch.entries], len(batch.weights))
            for batch in (self, partner)
        ]
        if forms[0] != forms[1]:
            _checks.fail(_ALIKE, "a batch with other targets or sample weights")
        xp = _backend.namespace(*self.leaves(), *partner.leaves())

        def joined(leaf, other):
            shapes = [_backend.static_shape(array) for array in (leaf, other)]
            known = None not in shapes and len(shapes[0]) == len(shapes[1])
            alike = known and all(a == b or None in (a, b) for a, b in zip(*shapes, strict=True))
            if not (alike or shapes == [None, None]) or _backend.dtype(leaf) != _backend.dtype(other):
                received, expected = (
                    f"{_backend.dtype(array)} of shape {_backend.static_shape(array)}" for array in (other, leaf)
                )
                _checks.fail(_ALIKE, f"{received} for {expected}")
            leaf, other = xp.asarray(leaf), xp.asarray(other)
            xp.require_equal_sizes([(leaf, 0), (other, 0)], _ALIKE)
            # Else another operation might fail first.
            with _backend.after_checks():
                return xp.concat([leaf, other])

        try:
            tree.assert_same_structure(self.arrays, partner.arrays)
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{_ALIKE} Received: another structure.") from error
        arrays = tree.map_structure(joined, self.arrays, partner.arrays)
        return self.with_arrays(arrays)._replace(xp=xp, second=True)

    def check_values(self) -> Self:
        """The batch as arrays of its namespace, with each part checked as far as its values can be read."""
        batch = self
        if not self.uniform:
            batch = self.with_arrays(tree.map_structure(self.xp.asarray, self.arrays))
            batch.xp.require_equal_sizes([(leaf, 0) for leaf in batch.leaves()], _BATCH_SIZES)
        sizes = None
        if self.input_mixing is not None and self.input_mixing.pastes:
            sizes = self.input_mixing.sizes(batch.xp, batch.inputs)
        for entry, value in zip(batch.entries, batch.targets, strict=True):
            info = entry.info if sizes is None else entry.info._replace(spatial_shape=sizes)
            entry.target.check_values(batch.xp, value, info)
        return batch

    def padded(self) -> tuple[Self, list[Any]]:
        """The batch with targets padded for a compiled program, and the arrays that were padded."""
        targets = [entry.target._pad(self.xp, value) for entry, value in zip(self.entries, self.targets, strict=True)]
        before = {id(leaf) for leaf in self.leaves()}
        added = [leaf for value in targets for leaf in _leaves(value) if id(leaf) not in before]
        return self._replace(targets=targets), added

    def cropped(self, before: Self) -> Self:
        """The mixed batch without what `padded` added to the batch `before`."""
        triples = zip(self.entries, self.targets, before.targets, strict=True)
        return self._replace(targets=[entry.target._crop(self.xp, mixed, y, entry.info) for entry, mixed, y in triples])

    def encode(self) -> Self:
        """The batch with targets and sample weights encoded for mixing."""
        targets, encoded, created = [], [], False
        for entry, value in zip(self.entries, self.targets, strict=True):
            weight = None if entry.weight is None else self.weights[entry.weight]
            value, new = entry.target.encode(self.xp, value, weight, entry.info)
            created = created or new is not weight
            targets.append(value)
            encoded.append(new)
        if not created:
            return self._replace(targets=targets)
        ones = self.xp.cast(self.xp.arange(self.size()) * 0 + 1, "float32")
        weights = self._one_for_each(encoded, ones)
        entries = [entry._replace(weight=index) for index, entry in enumerate(self.entries)]
        return self._replace(targets=targets, weights=weights, entries=entries, weights_by_entry=True)

    def _one_for_each(self, weights, ones):
        """Sample weights for each entry, and behind them, where something is kept, ones and all that were given.

        Keras refuses gaps: where nothing was given, every sample counts. `_weights_of_kept` looks up the rest.
        """
        each = [ones if weight is None else weight for weight in weights]
        return [*each, ones, *self.weights] if self.kept else each

    def mix(self, plan: MixPlan, input_mixing: Any = None, include_clean: bool = False, key: PlanKey = _WHOLE) -> Self:
        """The encoded batch, mixed with a plan: each part by its own rule.

        Args:
            plan: The `MixPlan`, in the framework in which it was drawn.
            input_mixing: How the inputs follow it; None if they are mixed inside a model.
            include_clean: Whether to return the clean samples, encoded like the mixed ones, before these.
            key: The `PlanKey` of the plan: within each of its groups, clean samples come before mixed ones.
        """
        xp, drawn, plan = self.xp, plan, plan.without_own_partners()
        # Both batches are whole until the rows of the second one are taken out.
        groups = _WHOLE if self.second else key
        converted: list[Any] = []

        def plan_for(part):
            if part._takes_numpy_plan:
                return plan
            if not converted:
                converted.append(plan.as_arrays(xp))
            return converted[0]

        inputs, sizes = self.inputs, None
        if input_mixing is not None:
            sizes, followed = input_mixing.sizes(xp, inputs), plan_for(input_mixing)
            if hasattr(inputs, "dtype"):
                inputs = input_mixing.mix(xp, inputs, followed)
            else:
                inputs = tree.map_structure(lambda leaf: input_mixing.mix(xp, leaf, followed), inputs)
            if include_clean:
                clean = _map(lambda leaf: xp.cast(leaf, input_mixing.dtype(leaf)), self.inputs)
                inputs = tree.map_structure(functools.partial(groups.join, xp), clean, inputs)
        targets, weights = self.targets, self.weights
        if include_clean:
            targets, weights = (_map(lambda leaf: groups.join(xp, leaf, leaf), each) for each in (targets, weights))
            drawn, plan, converted = drawn.with_clean(groups), plan.with_clean(groups), []
        mixed, mixed_weights = [], {}
        for entry, value in zip(self.entries, targets, strict=True):
            info = entry.info if sizes is None else entry.info._replace(spatial_shape=sizes)
            weight = None if entry.weight is None else weights[entry.weight]
            followed = drawn if entry.target._shows_own_partner else plan_for(entry.target)
            new, new_weight = entry.target.mix(xp, value, weight, followed, info)
            mixed.append(new)
            if new_weight is not weight:
                mixed_weights[entry.weight] = new_weight
        for index, weight in enumerate(weights):
            if index not in mixed_weights:
                mixed_weights[index] = mix_weight(xp, weight, plan)
        batch = self._replace(inputs=inputs, targets=mixed, weights=[mixed_weights[i] for i in range(len(weights))])
        if not self.second:
            return batch
        n = self.size() // 2

        def own(leaf):
            """The rows of the batch without those of the second one, clean and mixed."""
            return key.join(xp, leaf[:n], leaf[2 * n : 3 * n]) if include_clean else leaf[:n]

        return batch.with_arrays(tree.map_structure(own, batch.arrays))

    def write(self, include_clean: bool = False, key: PlanKey = _WHOLE) -> Any:
        """The batch in the form in which it was read. With `include_clean`, what is kept is doubled."""
        if not include_clean or not self.kept:
            return self.assemble(self)
        kept = {name: _doubled(name, value, key) for name, value in self.kept.items()}
        return self.assemble(self._replace(kept=kept))

    def spec(self, input_mixing: Any, include_clean: bool = False) -> Any:
        """The mixed batch as `KerasTensor`s."""

        def tensor(leaf, dtype):
            return keras.KerasTensor(leaf.shape, dtype=dtype)

        given = [None if entry.weight is None else self.weights[entry.weight] for entry in self.entries]
        specs = [
            entry.target.spec(value, weight, entry.info)
            for entry, value, weight in zip(self.entries, self.targets, given, strict=True)
        ]
        created = any(weight is not old for (_, weight), old in zip(specs, given, strict=True))
        weights = self.weights
        if created:
            ones = keras.KerasTensor((self.leaf().shape[0],), dtype="float32")
            weights = self._one_for_each([weight for _, weight in specs], ones)
        weights = [tensor(weight, "float32") for weight in weights]
        inputs = tree.map_structure(lambda leaf: tensor(leaf, input_mixing.dtype(leaf)), self.inputs)
        kept = tree.map_structure(lambda leaf: tensor(leaf, leaf.dtype), self.kept)
        spec = self._replace(
            inputs=inputs, targets=[value for value, _ in specs], weights=weights, kept=kept, weights_by_entry=created
        )
        return double_spec(spec.assemble(spec)) if include_clean else spec.assemble(spec)


def double_spec(structure: Any) -> Any:
    """`KerasTensor`s for a batch of twice the size."""

    def doubled(leaf):
        if leaf is None:
            return None
        size, *shape = leaf.shape
        return keras.KerasTensor((None if size is None else 2 * size, *shape), dtype=leaf.dtype)

    return tree.map_structure(doubled, structure)


def targets_of(target: Any, y: Any) -> Any:
    """The target of each array of `y`, in the structure of `y`."""
    found: list[tuple] = []
    kept: dict[Any, Any] = {}
    template = _flatten(target, y, (), found, kept)
    values = [_map(lambda _, own=own: own, value) for own, value, _ in found]
    return _fill(template, values, {key: _map(lambda _: Keep(), value) for key, value in kept.items()})


# Reading.


def _split(batch, reading):
    """The inputs, the targets by key, and the sample weights of a dictionary batch, or raise."""
    keys, known = reading.input_keys(), reading.targets_by_key()
    found = f"keys {sorted(map(str, batch))}"
    lacking = [name for name in keys if batch.get(name) is None]
    targets = {name: value for name, value in batch.items() if name in known and value is not None}
    if lacking or not targets:
        without = " and ".join(map(repr, lacking or [LABELS]))
        _checks.fail(
            f"A dictionary batch holds the inputs under {' and '.join(map(repr, keys))}, and a target: "
            f"{', '.join(map(repr, known))}.",
            f"{found}, without {without}",
            "If the inputs have another key, write `inputs_key=`; `target={key: ...}` says what other keys are. Or "
            "pass x and y, where x may be a dictionary with any keys.",
        )
    unknown = [key for key in batch if key not in (*keys, *known, WEIGHTS)]
    if unknown:
        _checks.fail(
            f"Only these keys of a dictionary are known: {[*keys, *known, WEIGHTS]}.",
            found,
            f'Say what the others are: `target={{{", ".join(f"{key!r}: ..." for key in unknown)}}}`; `"keep"` leaves '
            "them unmixed.",
        )
    if "bounding_boxes" in targets and known["bounding_boxes"] is None:
        _checks.fail(
            "To mix bounding boxes, their format must be known.",
            found,
            'For example, write `target={"bounding_boxes": kmix.targets.BoundingBoxes("xyxy")}`.',
        )
    x = batch[keys[0]] if not isinstance(reading.inputs_key, tuple) else {name: batch[name] for name in keys}
    return x, targets, batch.get(WEIGHTS)


def _tuple_writer(batch):
    """A function that gives mixed parts the form of a tuple batch."""

    def write(x, y, sample_weight):
        parts = (x, y, sample_weight)
        length = len(batch) if sample_weight is None else 3
        if len(batch) < length:
            # Sample weights were created, and a named tuple may have no field for them.
            return parts
        return getattr(type(batch), "_make", type(batch))(parts[:length])

    return write


def _dictionary_writer(batch, reading, by_name):
    """A function that gives mixed parts the form of a dictionary batch; `by_name`: whether targets come by key."""

    def write(x, y, sample_weight):
        parts = dict(x) if isinstance(reading.inputs_key, tuple) else {reading.inputs_key: x}
        parts |= y if by_name else {LABELS: y}
        if sample_weight is not None:
            parts[WEIGHTS] = sample_weight
        return _like(batch, parts)

    return write


def _like(dictionary, items):
    """A dictionary of the type and order of another, with these items."""
    new = copy.copy(dictionary)
    new.update(items)
    return new


def _like_sequence(sequence, items):
    """A list, tuple or named tuple of the type of another, with these items."""
    return getattr(type(sequence), "_make", type(sequence))(items)


def _flatten(target, y, path, found, kept):
    """Append `(target, value, path)` to `found` for each value of `y`, and what is kept to `kept`.

    Returns:
        The structure of `y` with an index into `found`, or a key of `kept`, in place of each value.
    """
    if isinstance(target, (dict, list)):
        _check_match(target, y, path)
    elif target._is_kept:
        key = _key(path)
        kept[key] = y
        return _Kept(key)
    elif hasattr(y, "dtype") or target.takes(y):
        found.append((target, y, path))
        return len(found) - 1
    elif not y:
        _checks.fail("A batch must hold labels.", f"an empty {type(y).__name__}", "Leave it out.")
    elif isinstance(target, Labels) and isinstance(y, dict) and "boxes" in y:
        _checks.fail(
            "To mix bounding boxes, their format must be known.",
            f"labels with keys {sorted(map(str, y))}",
            'For example, write `target=kmix.targets.BoundingBoxes("xyxy")`. To blend numbers of that name, name every '
            'key: `target={"boxes": kmix.targets.Labels(), ...}`.',
        )

    def part(key):
        return _flatten(target[key] if isinstance(target, (dict, list)) else target, y[key], (*path, key), found, kept)

    if isinstance(y, dict):
        return _like(y, {key: part(key) for key in y})
    return _like_sequence(y, [part(index) for index in range(len(y))])


class _Kept(NamedTuple):
    """The place of something that is kept, by its key."""

    key: Any


def _fill(template, values, kept):
    """The structure that `_flatten` returned, filled with values."""
    if isinstance(template, int):
        return values[template]
    if isinstance(template, _Kept):
        return kept[template.key]
    if isinstance(template, dict):
        return _like(template, {key: _fill(part, values, kept) for key, part in template.items()})
    return _like_sequence(template, [_fill(part, values, kept) for part in template])


def _key(path):
    """The key by which a rule of pairing knows a target."""
    path = path[1:] if path[:1] == (LABELS,) else path
    return LABELS if not path else path[0] if len(path) == 1 else "/".join(map(str, path))


def _check_match(target, y, path):
    """Raise unless the first level of a structure of targets matches `y`."""
    if isinstance(target, dict):
        matches = isinstance(y, dict) and set(target) == set(y)
        keys = f"keys {sorted(map(str, y))}" if isinstance(y, dict) else f"a {type(y).__name__}"
        expected = f"keys {sorted(map(str, target))}"
    else:
        matches = isinstance(y, (list, tuple)) and len(target) == len(y)
        keys = f"{len(y)} parts" if isinstance(y, (list, tuple)) else f"a {type(y).__name__}"
        expected = f"{len(target)} parts"
    if not matches:
        place = "".join(f"[{key!r}]" for key in path)
        _checks.fail(
            f"A structure `target` must match the labels{place and f' at {place}'}.",
            f"a target with {expected} for labels with {keys}",
            'Name every part: `"keep"` leaves one unmixed.',
        )


def _match_weights(template, sample_weight, flat, found):
    """For each entry, the index of its sample weights among those given, or None; and the same for what is kept."""
    order = {position: index for index, position in enumerate(i for i, leaf in enumerate(flat) if leaf is not None)}
    nested = tree.is_nested(sample_weight)
    numbered = tree.pack_sequence_as(sample_weight, list(range(len(flat)))) if nested else 0
    indices: list[int | None] = [None] * len(found)
    kept_indices: dict[Any, Any] = {}
    for part, number in _pairs_of(template, numbered, found):
        if part is None:
            _checks.fail(
                "Sample weights must be one tensor, or one for each tensor of the labels in the same structure.",
                f"{_outline(sample_weight)} for labels {_outline(template)}",
            )
        elif isinstance(part, _Kept):
            kept_indices[part.key] = tree.map_structure(order.get, number)
        else:
            indices[part] = order.get(number)
    return indices, kept_indices


def _pairs_of(template, numbered, found):
    """Each place of a target with the number of its sample weights; None in place of one that has no match."""
    if numbered is None:
        return
    if isinstance(template, _Kept) or (isinstance(template, int) and isinstance(numbered, int)):
        yield template, numbered
    elif isinstance(numbered, int):
        for part in template.values() if isinstance(template, dict) else template:
            yield from _pairs_of(part, numbered, found)
    elif isinstance(template, int):
        # A callable took several arrays at once: their sample weights follow the labels.
        if not isinstance(found[template][1], (dict, list, tuple)):
            yield None, numbered
    elif isinstance(template, dict) and isinstance(numbered, dict) and set(numbered) <= set(template):
        for key, part in numbered.items():
            yield from _pairs_of(template[key], part, found)
    elif not isinstance(template, dict) and not isinstance(numbered, dict) and len(template) == len(numbered):
        for pair in zip(template, numbered, strict=True):
            yield from _pairs_of(*pair, found)
    else:
        yield None, numbered


def _check_weight_shape(weight, label):
    """Raise unless sample weights of static shape `weight` match labels of static shape `label`."""
    if weight is None or label is None:
        _checks.fail(
            "With sample weights, their rank and that of the labels must be known.",
            "sample weights or labels of unknown rank",
            "First call `set_shape` on them.",
        )
    column = len(weight) == len(label) + 1 and weight[-1] == 1
    pairs = zip(weight, label, strict=False)
    if not column and (
        len(weight) > len(label) or any(w not in (1, None) and size not in (w, None) for w, size in pairs)
    ):
        _checks.fail(
            "Sample weights must have the shape (B,), or the leading axes of the labels.",
            f"sample_weight of shape {tuple(weight)} with labels of shape {tuple(label)}",
        )


def _outline(structure):
    """A structure in words, with dots for its arrays."""
    return str(tree.map_structure(lambda _: ..., structure)).replace("Ellipsis", "...")


def _leaves(value):
    return [value] if hasattr(value, "dtype") else tree.flatten(value) if value != () else []


def _map(function, structure):
    return function(structure) if hasattr(structure, "dtype") else tree.map_structure(function, structure)


def _weights_of_kept(batch, key, indices):
    """The sample weights of what is kept: ones, unless some were given. See `Batch._one_for_each`."""
    ones, *given = batch.weights[len(batch.entries) :]

    def weight(index):
        return ones if index is None else given[index]

    if tree.is_nested(indices):
        return tree.map_structure(weight, indices)
    return tree.map_structure(lambda _: weight(indices), batch.kept[key])


def _doubled(name, value, key):
    """What is kept, for the clean and for the mixed samples."""

    def doubled(leaf):
        if not getattr(leaf, "shape", ()) or _backend.irregular(leaf):
            _checks.fail(
                "With `include_clean=True`, what is kept must be arrays with a batch axis, which are doubled.",
                f"{name!r}: a {type(leaf).__name__}",
                "Take it out of the batch.",
            )
        return key.join(_backend.namespace(leaf), leaf, leaf)

    return tree.map_structure(doubled, value)


def _check_arrays(arrays, x):
    """The array namespace of dense arrays with one batch axis, and whether it serves all of them; or raise."""
    found, sizes, has_axis, foreign = set(), set(), True, False
    for leaf in arrays:
        framework, _, xp = _backend.kind(leaf)
        if framework is None or (framework != "numpy" and _backend.irregular(leaf)) or leaf.dtype == "object":
            _fail_leaf(leaf)
        shape = _backend.static_shape(leaf)
        if shape is not None:
            has_axis = has_axis and len(shape) > 0
        sizes.add(shape[0] if shape else None)
        found.add(xp)
        # NumPy serves tensors of other frameworks as well.
        foreign = foreign or (xp is _backend.NUMPY and framework != "numpy")
    if not has_axis or len(sizes - {None}) > 1:
        shapes = [shape for shape in map(_backend.static_shape, arrays) if shape is not None]
        received = f"tensors of shapes {', '.join(map(str, shapes[:8]))}" + (", ..." if len(shapes) > 8 else "")
        if not has_axis:
            expected = "Mixing pairs the examples of a batch, so every tensor needs a batch axis."
            _checks.fail(expected, received, _BATCH_FIRST)
        own = {shape[0] for shape in map(_backend.static_shape, tree.flatten(x)) if shape}
        several = isinstance(x, (list, tuple)) and len(own) > 1
        _checks.fail(_BATCH_SIZES, received, _UNEQUAL if several else _BATCH_FIRST)
    uniform = len(found) == 1 and None not in sizes and not foreign
    return (found.pop() if uniform else _backend.namespace(*arrays)), uniform


def _fail_leaf(leaf):
    name, irregularity = type(leaf).__name__, _backend.irregular(leaf)
    if irregularity:
        hint = "Make it dense first."
        if irregularity == "ragged":
            hint = (
                "Pad it first, e.g. `x.to_tensor()`; bounding boxes with `boxes.to_tensor(-1)`, or with "
                "`keras.layers.MaxNumBoundingBoxes`."
            )
        _checks.fail("A batch must hold dense tensors.", f"a {irregularity} tensor ({name})", hint)
    if hasattr(leaf, "dtype") and hasattr(leaf, "shape"):
        _checks.fail("A batch must hold arrays of numbers.", f"an array of {leaf.dtype}", _UNEQUAL)
    _checks.fail("A batch must hold arrays or tensors.", f"a {name}", "Wrap it with `np.asarray(...)`.", TypeError)


_ALIKE = "The batch of the partners must have the structure, dtypes, shapes and batch size of the batch."
_BATCH_SIZES = "All tensors of a batch must have the same batch size."
_BATCH_FIRST = "Was the data set batched? Write `ds.batch(32).map(layer)`, not `ds.map(layer).batch(32)`."
_UNEQUAL = (
    "A list stands for several inputs, one tensor for each. To mix examples of unequal length, pad them to one array "
    "(B, T)."
)
