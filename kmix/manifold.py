"""Manifold Mixup: places between the layers of a model, one of which mixes in each training step."""

import difflib
import functools
import operator

import keras

from kmix import _backend, _checks, mixing
from kmix.layers.base import map_arrays
from kmix.layers.step import running

tree = keras.tree

INPUT = "input"


class Place(keras.layers.Layer):
    """Mixes with the plan of the training step if that drew one of these `places`; else the identity."""

    def __init__(self, places, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.places = tuple(places)
        self.supports_masking = True
        self.built = True

    def call(self, x, training=None):
        step = running() if training else None
        return x if step is None or step.plan is None else map_arrays(lambda leaf: self._mixed(leaf, step), x)

    def _mixed(self, leaf, step):
        plan = step.plan
        _checks.batch_of_plan(_backend.static_shape(leaf), _backend.static_shape(plan.lam))
        drawn = functools.reduce(operator.or_, [plan.place == place for place in self.places])
        if _backend.dtype(leaf) != "bool":
            for place in self.places:
                step.note(place)
        mix = mixing.mix_masks if _backend.dtype(leaf) == "bool" else mixing.mix_inputs
        return _backend.namespace(leaf).apply_if(drawn, lambda leaf: mix(leaf, plan), leaf)

    def compute_mask(self, inputs, previous_mask):
        # By a layer of its own: Keras takes the first call of a layer for the one that its outputs come from.
        return map_arrays(Place(self.places), previous_mask)

    def compute_output_spec(self, x, training=None):
        return tree.map_structure(lambda leaf: keras.KerasTensor(leaf.shape, dtype=leaf.dtype), x)


def with_places(model, names):
    """The graph of a model, around the same layers, with a `Place` behind each of the named ones.

    Args:
        model: A functional or Sequential model.
        names: Names of layers; `"input"` stands for all inputs, `"backbone/conv2"` for a layer of a nested
            model. Place `i` is that of `names[i]`.

    Returns:
        A functional model that shares all its weights with `model`.

    Raises:
        ValueError: if the model is not a built graph of layers, or a name is not in it or cannot be a place.
    """
    known = list(_names(model))
    if INPUT in names and known.count(INPUT) > 1 and not _is_input(_graph(model).get_layer(INPUT)):
        _checks.fail(
            f"In `at` {INPUT!r} stands for the inputs of the model.",
            "a layer of that name, too",
            "Give the layer another name.",
        )
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=5, cutoff=0.4) or known[:20]
            _checks.fail("`at` must name layers of the model.", f"{name!r}", f"Near matches: {', '.join(near)}.")
    places = dict(zip(names, range(len(names)), strict=True))
    graph, met = _rebuilt(model, places, INPUT)
    passed_by = [name for name, index in places.items() if index not in met]
    if passed_by:
        _checks.warn_of_other_ways(passed_by)
    return graph


def _names(model, prefix=""):
    """The names that `at` can hold, in the order of the layers."""
    if not prefix:
        yield INPUT
    for layer in _graph(model).layers:
        if not (_is_input(layer) and prefix):
            yield prefix + layer.name
        if isinstance(layer, keras.Model) and functional(layer) is not None:
            yield from _names(layer, f"{prefix}{layer.name}/")


def _is_input(layer):
    return isinstance(layer, keras.layers.InputLayer)


def functional(model):
    """The plain functional model around the layers of a functional or Sequential model, None for others."""
    if isinstance(model, keras.Sequential):
        plain = hasattr(model, "inputs") and type(model).call is keras.Sequential.call
        return keras.Model(model.inputs[0], model.outputs[0]) if plain else None
    if not hasattr(model, "operations"):
        return None
    graph = keras.Model(model.input, model.output)
    return graph if type(model).call is type(graph).call else None


def walk(model, call, inputs=None):
    """The graph of a model around the same layers, each called by `call(layer, *args, **kwargs)`."""
    return keras.models.clone_model(
        functional(model), input_tensors=inputs, clone_function=lambda layer: layer, call_function=call
    )


def _graph(model):
    """The functional model of `model`, or an error that says what to do."""
    graph = functional(model)
    if graph is None and isinstance(model, keras.Sequential) and not model.built:
        _checks.fail(
            "`at` needs a model that is built.",
            "a Sequential model without an input shape",
            "Begin it with `keras.Input(shape)`.",
        )
    if graph is None:
        _checks.fail(
            "`at` needs a functional or Sequential model, whose layers have outputs that can be named.",
            f"a sub-classed model, {type(model).__name__}",
            "Call a `kmix.EmbeddingMixup(...)` between the layers in its `call`, and write `MixTrainer(model)`.",
        )
    return graph


def inputs_of(args, kwargs):
    """The arguments of a layer that are no masks."""
    return args, {name: value for name, value in kwargs.items() if not name.endswith("mask")}


def passed_by_all(passed, structure, everything):
    """What all tensors of a structure have passed. Boolean ones are masks, and carry nothing that could be mixed."""
    tensors = [leaf for leaf in tree.flatten(structure) if keras.backend.is_keras_tensor(leaf) and leaf.dtype != "bool"]
    return frozenset.intersection(*(passed.get(id(leaf), frozenset()) for leaf in tensors)) if tensors else everything


def _rebuilt(model, places, all_inputs=None):
    """`model` with places: `{name: index}`, names with a slash within nested models; and what all its outputs passed.

    The name `all_inputs` is not that of a layer.
    """
    graph = _graph(model)
    nested: dict[str, dict[str, int]] = {}
    for name, index in places.items():
        outer, slash, inner = name.partition("/")
        if slash:
            nested.setdefault(outer, {})[inner] = index
    rebuilt = {name: _rebuilt(graph.get_layer(name), inner) for name, inner in nested.items()}
    inputs = tree.map_structure(lambda t: keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name), graph.input)
    everything = frozenset(places.values())
    # For each tensor of the new graph: what takes its place; the places on some way to it, and those on every way.
    instead: dict[int, keras.KerasTensor] = {}
    some: dict[int, frozenset[int]] = {}
    every: dict[int, frozenset[int]] = {}

    def put(tensors, name):
        before = [instead.get(id(tensor), tensor) for tensor in tree.flatten(tensors)]
        for tensor in before:
            _checks.place(name, tensor.dtype)
        mixed = Place([places[name]])(tree.pack_sequence_as(tensors, before))
        for tensor, old, new in zip(tree.flatten(tensors), before, tree.flatten(mixed), strict=True):
            instead[id(tensor)] = new
            for passed in (some, every):
                passed[id(new)] = passed.get(id(old), frozenset()) | {places[name]}
        return mixed

    if all_inputs in places:
        put(inputs, all_inputs)
    for tensor, reference in zip(tree.flatten(inputs), graph.inputs, strict=True):
        if reference.name in places and reference.name != all_inputs:
            put(tensor, reference.name)

    def passed_by_some(structure):
        return frozenset().union(*(some.get(id(leaf), frozenset()) for leaf in tree.flatten(structure)))

    def call(layer, *args, **kwargs):
        args, kwargs = tree.map_structure(lambda leaf: instead.get(id(leaf), leaf), (args, kwargs))
        inputs = inputs_of(args, kwargs)
        through = passed_by_some(inputs)

        def united(leaf, name=None):
            """A mask that Keras, or the user, took from before the places that its tensor has passed."""
            if not keras.backend.is_keras_tensor(leaf) or (name is None and leaf.dtype != "bool"):
                return leaf
            missing = through - passed_by_some(leaf)
            if missing and "int" in leaf.dtype:
                _checks.integer_mask(layer.name, name, leaf.dtype)
            return Place(sorted(missing))(leaf) if missing else leaf

        args = tree.map_structure(united, args)
        for name, value in kwargs.items():
            kwargs[name] = map_arrays(
                lambda leaf, name=name: united(leaf, name if name.endswith("mask") else None), value
            )
        network, met = rebuilt.get(layer.name, (layer, frozenset()))
        within = frozenset(nested.get(layer.name, {}).values())
        is_place = layer.name in places and layer.name != all_inputs
        if through & (within | ({places[layer.name]} if is_place else set())):
            _checks.fail(
                "A place that is passed twice would mix twice, and the labels only once.",
                f"{layer.name!r}, a layer that the model calls on what it has called it on before",
                "Name a layer that is called once.",
            )
        outputs = network(*args, **kwargs)
        for leaf in tree.flatten(outputs):
            some[id(leaf)] = through | passed_by_some(kwargs) | within
            every[id(leaf)] = passed_by_all(every, inputs, everything) | met
        return put(outputs, layer.name) if is_place else outputs

    mixed = walk(model, call, inputs)
    return mixed, passed_by_all(every, mixed.outputs, everything)
