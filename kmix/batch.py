"""A batch as a value: its named parts, read from a tuple or a dictionary, mixed, and written back in the same form.

`Batch` does it all: `read` recognises the parts, `check` and `encode` prepare each part, `mix` mixes each part with a
plan, and `write` puts them back.
"""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras

from kmix import _backend, _checks
from kmix.targets import missing, sample_weights
from kmix.targets import target as kinds
from kmix.targets.assign import assign, map_targets
from kmix.targets.inputs import BATCH_SIZES, check_arrays, check_batch_sizes
from kmix.targets.spread import outline

tree = keras.tree

INPUTS, LABELS, WEIGHTS = "images", "labels", "sample_weight"


class Values(NamedTuple):
    """The arrays of a batch by part. `targets` are by name; a tuple has only `"labels"`."""

    inputs: Any
    targets: dict[str, Any]
    sample_weight: Any

    def arrays(self):
        """All arrays in a list."""
        return [leaf for leaf in tree.flatten(tuple(self)) if leaf is not None]


class Settings(NamedTuple):
    """What a layer or a trainer knows about the batches it mixes: its arguments of the same names."""

    target: Any = None
    num_classes: Any = None
    labels: str = "dense"
    class_weight: dict[int, float] | None = None
    passthrough: tuple[str, ...] = ()
    # Those that kinds of targets add, by name.
    arguments: Mapping[str, Any] = {}


def is_labelled(batch):
    """Whether a batch has targets: `(x, y)`, `(x, y, sample_weight)`, or a dictionary with labels."""
    if isinstance(batch, dict):
        return INPUTS in batch and any(batch.get(name) is not None for name in kinds.dictionary_keys())
    return isinstance(batch, tuple) and len(batch) in (2, 3) and batch[1] is not None


class Batch:
    """The parts of one batch, recognised, with static shapes and dtypes checked.

    Args:
        values: The `Values` of the batch.
        settings: The `Settings` of the layer or trainer that mixes it.
        inputs: The `kmix.targets.Inputs` of the mixer; None if the inputs are mixed inside a model.
        write: A function that gives mixed `Values` the form of the batch.

    Raises:
        ValueError: if a part cannot be mixed, or the parts do not match.
        TypeError: if a leaf is not an array.
    """

    def __init__(self, values, settings, inputs=None, write=tuple):
        self.values, self.write, self._class_weight = values, write, settings.class_weight
        x = values.inputs if inputs is not None else ()
        targets, sample_weight = values.targets, values.sample_weight
        check_arrays((x, targets, [leaf for leaf in tree.flatten(sample_weight) if leaf is not None]))
        check_batch_sizes(x, Values((), targets, sample_weight).arrays())
        given = {**kinds.arguments(), **settings.arguments, **settings._asdict()}
        given |= {"blended": True, "inputs": [], "data_format": None, "images_shown": 2}
        given["num_classes"] = {LABELS: settings.num_classes} if LABELS in targets else None
        pasted = None
        if inputs is not None:
            inputs.check(x)
            pasted = inputs.pasted(x)
            given |= {"blended": inputs.blends(x), "data_format": inputs.data_format}
            given["images_shown"] = inputs.images_shown
            given["inputs"] = inputs.shapes(x)
        # In a dictionary, the keys say what the parts are; `target=` describes only its labels.
        by_key = {name: settings.target if name == LABELS else name for name in targets}
        self._targets = assign(by_key, targets, given, pasted)
        if inputs is not None and inputs.images_shown > 2:
            map_targets(_require_views, self._targets, targets)
        self._weights = self._given_weights = self._match_weights(targets, sample_weight)
        self._fills = given["missing"] is not None
        if self._fills:
            self._weights = missing.check(targets, settings)

    @classmethod
    def read(cls, batch, settings, inputs=None):
        """Read a labelled batch: `(x, y)`, `(x, y, sample_weight)`, or a dictionary."""
        if not isinstance(batch, dict):
            x, y, sample_weight = (*batch, None, None)[:3]
            return cls(Values(x, {LABELS: y}, sample_weight), settings, inputs, lambda mixed: _like(batch, mixed))
        targets = {name: batch[name] for name in kinds.dictionary_keys() if batch.get(name) is not None}

        def write(mixed):
            parts = {INPUTS: mixed.inputs, **mixed.targets, WEIGHTS: mixed.sample_weight}
            added = {WEIGHTS: mixed.sample_weight} if WEIGHTS not in batch and mixed.sample_weight is not None else {}
            return type(batch)({name: parts.get(name, value) for name, value in {**batch, **added}.items()})

        return cls(Values(batch[INPUTS], targets, batch.get(WEIGHTS)), settings, inputs, write)

    def _match_weights(self, targets, sample_weight):
        """The index of the sample weights of each array of the targets, or None, in the structure of the targets."""
        alone = list(targets) == [LABELS]
        flat, found = (
            tree.flatten(sample_weight),
            sample_weights.match(targets[LABELS] if alone else targets, sample_weight),
        )
        found = tree.map_structure(lambda index: None if index is None or flat[index] is None else index, found)
        indices = {LABELS: found} if alone else found

        def check(target, part, indices):
            for shape, index in zip(target.shapes(part), tree.flatten(indices), strict=True):
                if index is not None:
                    sample_weights.check_shape(_backend.static_shape(flat[index]), shape)

        map_targets(check, self._targets, targets, indices)
        if self._class_weight is None:
            return indices
        if len(tree.flatten(targets)) > 1 or tree.is_nested(targets.get(LABELS)):
            _checks.fail(
                "`class_weight` weighs the classes of a single array of labels.",
                f"labels {outline(targets)}",
                "Leave it out, and pass sample weights for each of them.",
            )
        return {LABELS: 0}

    def check(self, xp):
        """The values as tensors, with each part checked as far as its values can be read."""

        def as_tensors(part):
            return tree.map_structure(lambda leaf: None if leaf is None else xp.asarray(leaf), part)

        targets = map_targets(lambda target, part: target.check(xp, part), self._targets, self.values.targets)
        checked = Values(as_tensors(self.values.inputs), targets, as_tensors(self.values.sample_weight))
        xp.require_equal_sizes([(leaf, 0) for leaf in checked.arrays()], BATCH_SIZES)
        return checked

    def pad(self, xp, values):
        """The checked values with targets padded for a compiled program, and the arrays that were padded."""
        targets = map_targets(lambda target, part: target.pad(xp, part), self._targets, values.targets)
        before = {id(leaf) for leaf in tree.flatten(values.targets)}
        return values._replace(targets=targets), [leaf for leaf in tree.flatten(targets) if id(leaf) not in before]

    def crop(self, xp, values):
        """The mixed values without what `pad` added."""
        targets = map_targets(lambda target, part: target.crop(xp, part), self._targets, values.targets)
        return values._replace(targets=targets)

    def encode(self, xp, values):
        """The checked values, encoded for mixing."""
        targets = map_targets(lambda target, part: target.encode(xp, part), self._targets, values.targets)
        sample_weight = values.sample_weight
        if self._class_weight is not None:
            factor = self._targets[LABELS].weigh_classes(xp, targets[LABELS], self._class_weight)
            sample_weight = sample_weights.multiply(xp, sample_weight, factor)
        if self._fills:
            flat = tree.flatten(sample_weight)
            own = [None if index is None else flat[index] for index in tree.flatten(self._given_weights)]
            targets, sample_weight = missing.weigh(xp, targets, own)
        return Values(values.inputs, targets, sample_weight)

    def mix(self, xp, values, plan, inputs=None, spatial_shape=None):
        """The encoded values, mixed with a plan: each part by its own rules.

        `inputs` says how the inputs follow the plan, and `spatial_shape` what their spatial sizes are if it pastes.
        """
        flat = tree.flatten(values.sample_weight)
        mixed_weights: dict[int, Any] = {}

        @functools.cache
        def converted():
            """The plan, in the framework of the batch."""
            drawn = {name: getattr(plan, name) for name in ("lam", "permutation", "box", "region")}
            given = {name: array for name, array in drawn.items() if array is not None}
            return plan._replace(**{name: tree.map_structure(xp.asarray, array) for name, array in given.items()})

        def plan_for(part):
            return plan if part.takes_drawn_plan else converted()

        def mix_target(target, part, indices):
            indices = tree.flatten(indices)
            for index in indices:
                if index is not None and index not in mixed_weights:
                    mixed_weights[index] = target.mix_weights(xp, flat[index], plan_for(target))
            target.spatial_shape = spatial_shape
            return target.mix(xp, part, plan_for(target), [None if i is None else flat[i] for i in indices])

        x = values.inputs
        if inputs is not None:
            own = plan_for(inputs)
            x = tree.map_structure(lambda leaf: inputs.mix(leaf, own), x)
        targets = map_targets(mix_target, self._targets, values.targets, self._weights)
        sample_weight = values.sample_weight
        if sample_weight is not None:
            sample_weight = tree.pack_sequence_as(sample_weight, [mixed_weights.get(i) for i in range(len(flat))])
        return Values(x, targets, sample_weight)

    def spec(self, inputs):
        """The mixed `Values` as `KerasTensor`s."""
        x, targets, sample_weight = self.values
        x = tree.map_structure(lambda leaf: keras.KerasTensor(leaf.shape, dtype=inputs.dtype(leaf)), x)
        if self._fills:
            sample_weight = missing.spec(targets[LABELS])
        elif self._class_weight is not None and sample_weight is None:
            sample_weight = keras.KerasTensor(tree.flatten(targets)[0].shape[:1], dtype="float32")
        return Values(
            x,
            map_targets(lambda target, part: target.spec(part), self._targets, targets),
            sample_weights.spec(sample_weight),
        )


def _require_views(target, part):
    if not target.mixes_views:
        _checks.fail(
            "This mixer mixes each sample with several partners.",
            f"a target {type(target).__name__}, which mixes with one",
            "Use `CutMix` or `MixUp`, or let its `mix` follow the `views` of the plan: `mixes_views = True`.",
        )
    return part


def _like(batch, mixed):
    """Mixed values in the form of the tuple that they were read from."""
    parts = (mixed.inputs, mixed.targets[LABELS], mixed.sample_weight)
    length = len(batch) if mixed.sample_weight is None else 3
    if len(batch) < length:
        # Class weights created sample weights, and a named tuple may have no field for them.
        return parts
    return getattr(type(batch), "_make", type(batch))(parts[:length])


def inputs_of(batch):
    """The inputs of a labelled batch."""
    return batch[INPUTS] if isinstance(batch, dict) else batch[0]


def with_inputs(batch, x):
    """A labelled batch in the same form with other inputs."""
    if isinstance(batch, dict):
        return type(batch)({**batch, INPUTS: x})
    return getattr(type(batch), "_make", type(batch))((x, *batch[1:]))


def known_keys():
    """The keys of a dictionary batch that kmix reads."""
    return [INPUTS, *kinds.dictionary_keys(), WEIGHTS]


def check_keys(batch, passthrough):
    """Raise unless a dictionary is a labelled batch and all its keys are known or in `passthrough`."""
    known = known_keys()
    found = f"keys {sorted(map(str, batch))}"
    lacking = [name for name in (INPUTS, LABELS) if batch.get(name) is None]
    if any(batch.get(name) is not None for name in kinds.dictionary_keys()):
        lacking = lacking[: INPUTS in lacking]
    if lacking:
        _checks.fail(
            f'A labelled batch in a dictionary must hold the inputs under "{INPUTS}" and the labels under "{LABELS}".',
            f"{found}, without {' and '.join(lacking)}",
            f"Known keys: {known}; keys named in `passthrough=` stay unmixed. Rename yours, or pass a tuple (x, y), "
            "where x may be a dictionary with any keys.",
        )
    unknown = [key for key in batch if key not in (*known, *passthrough)]
    if unknown:
        _checks.fail(
            f"Only these keys of a dictionary are mixed: {known}.",
            found,
            f"Name the others to pass them through unmixed: `passthrough={unknown!r}`.",
        )


def check_inputs_alone(batch):
    """Raise if inputs without labels look like a batch in a form that kmix does not read."""
    if isinstance(batch, tuple) and len(batch) > 3:
        _checks.fail("A batch is (x, y) or (x, y, sample_weight).", f"a tuple of {len(batch)}")
    if isinstance(batch, list) and any("int" in str(getattr(leaf, "dtype", "")) for leaf in batch):
        _checks.fail(
            "A list stands for several inputs without labels.",
            "a list with an integer tensor",
            "For a batch of inputs and labels, write `layer(*batch)`.",
        )
