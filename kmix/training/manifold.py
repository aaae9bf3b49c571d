"""Graphs of models in which mixing reaches every mask, and Manifold Mixup: places between the layers, one a step."""

import difflib
import functools
import operator
from collections.abc import Sequence
from typing import Any

import keras

from kmix import _backend, _checks
from kmix.layers import MixLayer
from kmix.layers.input_mixing import check_batch_of_plan
from kmix.layers.keras_masks import MixMask
from kmix.layers.training_step import current_step
from kmix.mixing import mix_inputs
from kmix.mixing.padding_masks import mix_masks
from kmix.training import graph as graphs

tree = keras.tree

# The place of mixing layers inside a model, which mix in every step.
LAYER = None


class Place(keras.layers.Layer):
    """Mixes with the plan of the training step if the plan drew one of these `places`; else the identity."""

    def __init__(self, places: Any, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.places = tuple(places)
        self.supports_masking = True
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        step = current_step() if training else None
        return x if step is None or step.plan is None else tree.map_structure(lambda leaf: self._mixed(leaf, step), x)

    def _mixed(self, leaf, step):
        plan, is_mask = step.plan, self._is_mask(leaf)
        check_batch_of_plan(leaf, plan)
        mix = mix_masks if is_mask else mix_inputs
        if self.places == (LAYER,):
            return mix(leaf, plan)
        for place in () if is_mask else self.places:
            step.record(place)
        here = functools.reduce(operator.or_, [plan.place == place for place in self.places])
        return _backend.namespace(leaf).apply_if(here, lambda leaf: mix(leaf, plan), leaf)

    def _is_mask(self, leaf):
        return _backend.dtype(leaf) == "bool"

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        # A separate layer: Keras assumes that the outputs of a layer come from its first call.
        place = Place(self.places)
        return tree.map_structure(lambda mask: None if mask is None else place(mask), previous_mask)

    def compute_output_spec(self, x: Any, training: bool | None = None) -> Any:
        return tree.map_structure(lambda leaf: keras.KerasTensor(leaf.shape, dtype=leaf.dtype), x)


class MaskPlace(Place):
    """Unites a mask of any dtype with the masks of the partners where a `Place` would mix."""

    def _is_mask(self, leaf):
        return True


def with_places(model: keras.Model, names: Sequence[str]) -> keras.Model:
    """The graph of a model with the same layers, and a `Place` after each named layer.

    Args:
        model: A functional or Sequential model.
        names: Names of layers; `"input"` stands for all inputs, `"backbone/conv2"` for a layer of a nested
            model. Place `i` is after the layer `names[i]`.

    Returns:
        A functional model that shares all its weights with `model`.

    Raises:
        ValueError: if the model is not a built graph of layers; if a name is not in the model, or not a possible place.
    """
    known = [graphs.INPUT, *(name for name, _ in graphs.named_layers(model))]
    if graphs.INPUT in names and known.count(graphs.INPUT) > 1:
        layer = graphs.graph_of(model).get_layer(graphs.INPUT)
        if not graphs.is_input(layer):
            _checks.fail(
                f"In `places`, {graphs.INPUT!r} stands for the inputs of the model.",
                "a layer with the same name",
                "Give the layer another name.",
            )
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=5, cutoff=0.4) or known[:20]
            _checks.fail("`places` must name layers of the model.", f"{name!r}", f"Near matches: {', '.join(near)}.")
    places = {name: index for index, name in enumerate(names)}
    rebuilt = Rebuilt(model, places, graphs.Passed(places.values()), inputs=graphs.INPUT)
    passed_by = [name for name, index in places.items() if index not in rebuilt.every()]
    if passed_by:
        graphs.warn_of_other_ways(passed_by)
    return rebuilt.network


def check_sequence(model: keras.Model, placed: Sequence[MixLayer]) -> keras.Model | None:
    """Check whether mixing layers follow each other, as far as the graph of the model shows.

    Args:
        model: The model.
        placed: `placed_layers(model)`.

    Returns:
        The functional model to train, if masks from before a mixing layer must be united after it. None if the
        model itself can be trained.

    Raises:
        ValueError: if one mixing layer follows another.

    Warns:
        UserWarning: if the outputs also depend on tensors that pass no mixing layer.
    """
    if not placed or graphs.functional(model) is None:
        return None
    rebuilt = Rebuilt(model, {}, graphs.Passed([LAYER]))
    if not rebuilt.every():
        graphs.warn_of_other_ways([layer.name for layer in placed])
    return rebuilt.network if rebuilt.changed else None


def placed_layers(model: Any) -> list[MixLayer]:
    """The mixing layers inside a model, in the order of its layers, each once."""
    return list(dict.fromkeys(found for layer in getattr(model, "layers", ()) for found in mixing_layers(layer)))


def mixing_layers(layer: keras.layers.Layer) -> list[MixLayer]:
    """The mixing layers of a layer: the layer itself, or those inside it."""
    return [layer] if isinstance(layer, MixLayer) else placed_layers(layer)


class Rebuilt:
    """A model rebuilt with the same layers and with places, where each mask is united when its tensor is mixed.

    Without `places`, its own mixing layers mix. Of what a tensor has passed, `some` then holds their names, for
    errors, and `every` just `LAYER`.

    Args:
        model: A functional or Sequential model.
        places: `{name: index}`. A slash separates the name of a nested model from the name of its layer.
        passed: A `Passed` of places or of `LAYER`, shared with nested models.
        given: For each input of a nested model, the tensors of the outer model that it gets.
        inputs: The name in `places` that stands for all inputs, not for a layer.

    Attributes:
        network: The functional model.
        changed: Whether it computes anything that `model` does not.
    """

    def __init__(
        self, model: keras.Model, places: Any, passed: graphs.Passed, *, given: Any = None, inputs: Any = None
    ) -> None:
        self.passed, self.changed = passed, False
        self._places = {name: index for name, index in places.items() if name != inputs and "/" not in name}
        self._nested: dict[str, dict[str, int]] = {}
        for name, index in places.items():
            outer, slash, inner = name.partition("/")
            if slash:
                self._nested.setdefault(outer, {})[inner] = index
        # For each input, its replacement; for each mask and the places it lacks, the united mask; for each tensor
        # computed only from masks, such as a count, the call that computed it.
        self._instead: dict[int, keras.KerasTensor] = {}
        self._united: dict[tuple, keras.KerasTensor] = {}
        self._made: dict[int, tuple] = {}
        graph = graphs.graph_of(model)
        self.network = graphs.walk(graph, self._call, self._begin(graph, given, places.get(inputs), inputs))

    def every(self) -> frozenset[Any]:
        """What all outputs have passed on every path."""
        return self.passed.every(self.network.outputs)

    def _begin(self, graph, given, index, name):
        """New inputs, mixed where the inputs are places."""
        inputs = tree.map_structure(lambda t: keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name), graph.input)
        leaves = tree.flatten(inputs)
        for leaf, outer in zip(leaves, given or [], strict=given is not None):
            self.passed.put(leaf, self.passed.some(outer), self.passed.every(outer), self.passed.raw(outer))
        if index is not None:
            self._replace(leaves, self._put(inputs, name, index))
        for leaf, reference in zip(leaves, graph.inputs, strict=True):
            if reference.name in self._places:
                before = self._instead.get(id(leaf), leaf)
                self._replace([leaf], self._put(before, reference.name, self._places[reference.name]))
        return inputs

    def _replace(self, leaves, instead):
        self._instead.update(zip(map(id, leaves), tree.flatten(instead), strict=True))

    def _put(self, tensors, name, index):
        """The tensors after a place."""
        for tensor in tree.flatten(tensors):
            if "float" not in tensor.dtype and tensor.dtype != "bool":
                _checks.fail(
                    "Only float tensors can be blended.",
                    f"{name!r} of dtype {tensor.dtype}",
                    f"{_AFTER_EMBEDDING} Cast images to float32, or write `keras.Input(shape)`.",
                )
        mixed = Place([index])(tensors)
        for old, new in zip(tree.flatten(tensors), tree.flatten(mixed), strict=True):
            self.passed.put(new, self.passed.some(old) | {index}, self.passed.every(old) | {index}, raw=True)
        self.changed = True
        return mixed

    def _call(self, layer, *args, **kwargs):
        """A layer of the model, called in the new graph."""
        args, kwargs = tree.map_structure(lambda leaf: self._instead.get(id(leaf), leaf), (args, kwargs))
        self._check(layer, args, kwargs)
        args, kwargs = self._with_united_masks((args, kwargs))
        inner = self._inner(layer, args, kwargs)
        outputs = (inner.network if inner and inner.changed else layer)(*args, **kwargs)
        self._follow(outputs, layer, (args, kwargs), inner)
        return self._put(outputs, layer.name, self._places[layer.name]) if layer.name in self._places else outputs

    def _check(self, layer, args, kwargs):
        """Raise if a layer mixes what is already mixed, or reads it as ids."""
        inputs, inside = graphs.inputs_of((args, kwargs)), mixing_layers(layer)
        own = {index for name, index in self._places.items() if name == layer.name}
        own.update(self._nested.get(layer.name, {}).values())
        if own & self.passed.some(inputs):
            _checks.fail(
                "A place that is passed twice would mix twice, but the labels are mixed only once.",
                f"{layer.name!r}, which the model calls on tensors that have already passed it",
                "Name a layer that the model calls only once.",
            )
        earlier = sorted(map(str, self.passed.some((args, kwargs))))
        # A nested model that can be rebuilt checks by itself which of its inputs reach its mixing layers.
        if earlier and inside and graphs.functional(layer) is None:
            _checks.fail(
                "Two mixing layers in one branch would mix twice, but the labels are mixed only once.",
                f"{inside[0].name} after {earlier[0]}",
                "Remove one of them. To mix at one of several places, drawn for each step, write "
                '`MixTrainer(model, kmix.EmbeddingMixup(2.0), places=["layer1", "layer2"])`.',
            )
        if _reads_ids(layer) and self.passed.raw(inputs):
            _checks.fail("Ids cannot be blended.", f"inputs of the layer {layer.name!r}", _AFTER_EMBEDDING)

    def _follow(self, outputs, layer, arguments, inner):
        """Record what the outputs of a layer have passed; for a nested model, output by output."""
        passed = self.passed
        if inner:
            self.changed = self.changed or inner.changed
            ways = [(passed.some(leaf), passed.every(leaf), passed.raw(leaf)) for leaf in inner.network.outputs]
        else:
            inside = [layer] if isinstance(layer, MixMask) else mixing_layers(layer)
            inputs = graphs.inputs_of(arguments)
            some = passed.some(arguments) | {mixing.name for mixing in inside}
            raw = bool(inside) or (passed.raw(inputs) and not getattr(layer, "weights", ()))
            ways = [(some, passed.every(inputs) | ({LAYER} if inside else set()), raw)] * len(tree.flatten(outputs))
        of_masks = graphs.made_of_masks(arguments, self._made)
        for index, (leaf, way) in enumerate(zip(tree.flatten(outputs), ways, strict=True)):
            passed.put(leaf, *way)
            if of_masks and not graphs.is_mask(leaf):
                self._made[id(leaf)] = layer, arguments, index

    def _inner(self, layer, args, kwargs):
        """A nested model, rebuilt with what its inputs have passed; None if nothing in it can change."""
        graph = graphs.functional(layer) if isinstance(layer, keras.Model) else None
        mixes = layer.name in self._nested or mixing_layers(layer)
        if graph is None or not (mixes or self.passed.some((args, kwargs))):
            return None
        given = graphs.given_to(graph, args[0] if args else kwargs["inputs"])
        return Rebuilt(layer, self._nested.get(layer.name, {}), self.passed, given=given)

    def _with_united_masks(self, arguments):
        """The arguments of a layer, with masks united that lack what the tensors have passed."""
        inputs = graphs.inputs_of(arguments)
        through = self.passed.some(inputs)
        # A mask without a batch axis, such as a causal mask, has another first size.
        batches = {(None,)} | {leaf.shape[:1] for leaf in inputs if self.passed.some(leaf)}
        return graphs.map_masks(lambda mask: self._unite(mask, through, batches), arguments, self._made)

    def _unite(self, mask, through, batches):
        missing = tuple(sorted(through - self.passed.some(mask)))
        if LAYER in self.passed.everything:
            missing = (LAYER,) if through and not self.passed.some(mask) else ()
        if not missing or mask.shape[:1] not in batches:
            return mask
        if (id(mask), missing) not in self._united:
            if id(mask) in self._made:
                layer, arguments, index = self._made[id(mask)]
                args, kwargs = graphs.map_masks(lambda m: self._unite(m, through, batches), arguments, self._made)
                united = tree.flatten(layer(*args, **kwargs))[index]
            else:
                united = MaskPlace(missing)(mask)
            self.passed.put(united, self.passed.some(mask) | through, self.passed.every(mask) | set(missing))
            self._united[id(mask), missing] = united
            self.changed = True
        return self._united[id(mask), missing]


_AFTER_EMBEDDING = (
    'Mix after the Embedding layer: `places=["its name"]`, or place a `kmix.EmbeddingMixup` in the model.'
)


def _reads_ids(layer):
    """Whether a layer, or one that it wraps, reads its inputs as ids."""
    if isinstance(layer, keras.layers.Wrapper):
        return _reads_ids(layer.layer)
    # A look-up or a hash of numbers comes out as other ids.
    return isinstance(layer, (keras.layers.Embedding, keras.layers.CategoryEncoding, keras.layers.IntegerLookup))


def check_reads_no_ids(model: keras.Model) -> None:
    """Raise if a model reads its inputs, which are blended, as ids: an average of two is the id of something else."""
    graph = graphs.functional(model)
    if graph is None:
        # A Sequential model that is not built begins with its first layer.
        if isinstance(model, keras.Sequential) and any(map(_reads_ids, model.layers[:1])):
            _checks.fail("Ids cannot be blended.", "a model that begins with a layer for ids", _AFTER_EMBEDDING)
    elif any(_reads_ids(layer) for _, layer in graphs.named_layers(model)) or any(
        "int" in t.dtype for t in graph.inputs
    ):
        Rebuilt(model, {graphs.INPUT: 0}, graphs.Passed([0]), inputs=graphs.INPUT)
