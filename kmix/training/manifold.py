"""Manifold Mixup: places between the layers of a model. In each training step, one of them mixes."""

import difflib
import functools
import operator

import keras

from kmix import _backend, _checks
from kmix.layers.input_mixing import check_batch_of_plan
from kmix.layers.training_step import current_step
from kmix.mixing import mix_inputs
from kmix.mixing.padding_masks import mix_masks
from kmix.training import graph as graphs

tree = keras.tree

# The place of mixing layers inside a model, which mix in every step.
LAYER = None


class Place(keras.layers.Layer):
    """Mixes with the plan of the training step if the plan drew one of these `places`; else the identity."""

    def __init__(self, places, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.places = tuple(places)
        self.supports_masking = True
        self.built = True

    def call(self, x, training=None):
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

    def compute_mask(self, inputs, previous_mask):
        # A separate layer: Keras assumes that the outputs of a layer come from its first call.
        place = Place(self.places)
        return tree.map_structure(lambda mask: None if mask is None else place(mask), previous_mask)

    def compute_output_spec(self, x, training=None):
        return tree.map_structure(lambda leaf: keras.KerasTensor(leaf.shape, dtype=leaf.dtype), x)


class MaskPlace(Place):
    """Unites a mask of any dtype with the masks of the partners where a `Place` would mix."""

    def _is_mask(self, leaf):
        return True


def with_places(model, names):
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
    known = list(graphs.names(model))
    if graphs.INPUT in names and known.count(graphs.INPUT) > 1:
        _check_input(model)
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


def _check_input(model):
    if not graphs.is_input(graphs.graph_of(model).get_layer(graphs.INPUT)):
        _checks.fail(
            f"In `places`, {graphs.INPUT!r} stands for the inputs of the model.",
            "a layer with the same name",
            "Give the layer another name.",
        )


def _check_place(name, dtype):
    """Raise unless an output of the layer `name`, of dtype `dtype`, can be mixed."""
    if "float" not in dtype and dtype != "bool":
        _checks.fail(
            "`places` mixes float tensors.",
            f"{name!r} of dtype {dtype}",
            "Token ids cannot be interpolated: name the Embedding layer, or a layer after it. Cast images to float32.",
        )


class Rebuilt:
    """A model rebuilt with the same layers and with places, where each mask is united when its tensor is mixed.

    Args:
        model: A functional or Sequential model.
        places: `{name: index}`. A slash separates the name of a nested model from the name of its layer.
        passed: A `Passed` of places, shared with nested models.
        given: For each input of a nested model, the tensors of the outer model that it gets.
        inputs: The name in `places` that stands for all inputs, not for a layer.

    Attributes:
        network: The functional model.
        changed: Whether it computes anything that `model` does not.
    """

    def __init__(self, model, places, passed, *, given=None, inputs=None):
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

    def every(self):
        """What all outputs have passed on every path."""
        return self.passed.every(self.network.outputs)

    def _begin(self, graph, given, index, name):
        """New inputs, mixed where the inputs are places."""
        inputs = graphs.new_inputs(graph)
        leaves = tree.flatten(inputs)
        for leaf, outer in zip(leaves, given or [], strict=given is not None):
            self.passed.put(leaf, self.passed.some(outer), self.passed.every(outer))
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
            _check_place(name, tensor.dtype)
        mixed = Place([index])(tensors)
        for old, new in zip(tree.flatten(tensors), tree.flatten(mixed), strict=True):
            self.passed.put(new, self.passed.some(old) | {index}, self.passed.every(old) | {index})
        self.changed = True
        return mixed

    def _call(self, layer, *args, **kwargs):
        """A layer of the model, called in the new graph."""
        args, kwargs = tree.map_structure(lambda leaf: self._instead.get(id(leaf), leaf), (args, kwargs))
        self._check_once(layer, args, kwargs)
        args, kwargs = self._with_united_masks((args, kwargs))
        inner = self._inner(layer, args, kwargs)
        outputs = (inner.network if inner and inner.changed else layer)(*args, **kwargs)
        self._follow(outputs, layer, (args, kwargs), inner)
        return self._put(outputs, layer.name, self._places[layer.name]) if layer.name in self._places else outputs

    def _follow(self, outputs, layer, arguments, inner):
        """Record what the outputs of a layer have passed; for a nested model, output by output."""
        if inner:
            self.changed = self.changed or inner.changed
            ways = [(self.passed.some(leaf), self.passed.every(leaf)) for leaf in inner.network.outputs]
        else:
            some, every = self._added_by(layer)
            some, every = self.passed.some(arguments) | some, self.passed.every(graphs.inputs_of(arguments)) | every
            ways = [(some, every)] * len(tree.flatten(outputs))
        of_masks = graphs.made_of_masks(arguments, self._made)
        for index, (leaf, way) in enumerate(zip(tree.flatten(outputs), ways, strict=True)):
            self.passed.put(leaf, *way)
            if of_masks and not graphs.is_mask(leaf):
                self._made[id(leaf)] = layer, arguments, index

    def _inner(self, layer, args, kwargs):
        """A nested model, rebuilt with what its inputs have passed; None if nothing in it can change."""
        graph = graphs.functional(layer) if isinstance(layer, keras.Model) else None
        if graph is None or not (self.passed.some((args, kwargs)) or self._mixes_within(layer)):
            return None
        given = graphs.given_to(graph, args[0] if args else kwargs["inputs"])
        return type(self)(layer, self._nested.get(layer.name, {}), self.passed, given=given)

    def _with_united_masks(self, arguments):
        """The arguments of a layer, with masks united that lack places which the tensors have passed."""
        inputs = graphs.inputs_of(arguments)
        through = self.passed.some(inputs)
        # A mask without a batch axis, such as a causal mask, has another first size.
        batches = {(None,)} | {leaf.shape[:1] for leaf in inputs if self.passed.some(leaf)}
        return graphs.map_masks(lambda mask: self._unite(mask, through, batches), arguments, self._made)

    def _unite(self, mask, through, batches):
        missing = self._missing(through, mask)
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

    # What mixes. Here these are places; `placement.Placed` overrides this for mixing layers.

    def _mixes_within(self, layer):
        return layer.name in self._nested

    def _added_by(self, layer):
        """What the outputs of a layer have passed because the layer mixes, on some path and on every path."""
        return frozenset(), frozenset()

    def _missing(self, through, mask):
        """The places that must unite a mask whose tensors have passed `through`."""
        return tuple(sorted(through - self.passed.some(mask)))

    def _check_once(self, layer, args, kwargs):
        """Raise if a layer mixes what is already mixed."""
        own = {index for name, index in self._places.items() if name == layer.name}
        own.update(self._nested.get(layer.name, {}).values())
        if own & self.passed.some(graphs.inputs_of((args, kwargs))):
            _checks.fail(
                "A place that is passed twice would mix twice, but the labels are mixed only once.",
                f"{layer.name!r}, which the model calls on tensors that have already passed it",
                "Name a layer that the model calls only once.",
            )
