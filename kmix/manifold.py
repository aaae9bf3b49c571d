"""Manifold Mixup: places between the layers of a model, one of which mixes in each training step."""

import difflib
import functools
import operator

import keras

from kmix import _backend, _checks, mixing
from kmix.layers.base import current_plan, map_arrays

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
        plan = current_plan()
        if not training or plan is None:
            return x
        return map_arrays(lambda leaf: self._mixed(leaf, plan), x)

    def _mixed(self, leaf, plan):
        _checks.batch_of_plan(_backend.static_shape(leaf), _backend.static_shape(plan.lam))
        drawn = functools.reduce(operator.or_, [plan.place == place for place in self.places])
        mix = mixing.mix_masks if _backend.dtype(leaf) == "bool" else mixing.mix_inputs
        return _backend.namespace(leaf).apply_if(drawn, lambda leaf: mix(leaf, plan), leaf)

    def compute_mask(self, inputs, previous_mask):
        return map_arrays(self, previous_mask)

    def compute_output_spec(self, x, training=None):
        for leaf in tree.flatten(x):
            if _backend.dtype(leaf) != "bool":
                _checks.embedding(_backend.dtype(leaf))
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
        ValueError: if the model is not a built graph of layers, or a name is not in it.
    """
    known = list(_names(model))
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=5, cutoff=0.4) or known[:20]
            _checks.fail("`at` must name layers of the model.", f"{name!r}", f"Near matches: {', '.join(near)}.")
    return _rebuilt(model, dict(zip(names, range(len(names)), strict=True)))


def _names(model, prefix=""):
    """The names that `at` can hold, in the order of the layers."""
    if not prefix:
        yield INPUT
    for layer in _graph(model).layers:
        if not (isinstance(layer, keras.layers.InputLayer) and prefix):
            yield prefix + layer.name
        if isinstance(layer, keras.Model) and functional(layer) is not None:
            yield from _names(layer, f"{prefix}{layer.name}/")


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


def _rebuilt(model, places):
    """`model` with places: `{name: index}`, names with a slash within nested models."""
    graph = _graph(model)
    nested: dict[str, dict[str, int]] = {}
    for name, index in places.items():
        outer, slash, inner = name.partition("/")
        if slash:
            nested.setdefault(outer, {})[inner] = index
    rebuilt = {name: _rebuilt(graph.get_layer(name), inner) for name, inner in nested.items()}
    inputs = tree.map_structure(lambda t: keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name), graph.input)
    # For each tensor of the new graph: what takes its place, and the places that it has passed.
    instead: dict[int, keras.KerasTensor] = {}
    passed: dict[int, frozenset[int]] = {}

    def put(tensors, index):
        before = [instead.get(id(tensor), tensor) for tensor in tree.flatten(tensors)]
        mixed = Place([index])(tree.pack_sequence_as(tensors, before))
        for tensor, old, new in zip(tree.flatten(tensors), before, tree.flatten(mixed), strict=True):
            instead[id(tensor)] = new
            passed[id(new)] = passed.get(id(old), frozenset()) | {index}
        return mixed

    if INPUT in places:
        put(inputs, places[INPUT])
    for tensor, reference in zip(tree.flatten(inputs), graph.inputs, strict=True):
        if reference.name in places and reference.name != INPUT:
            put(tensor, places[reference.name])

    def places_of(structure):
        return frozenset().union(*(passed.get(id(leaf), frozenset()) for leaf in tree.flatten(structure)))

    def call(layer, *args, **kwargs):
        args, kwargs = tree.map_structure(lambda leaf: instead.get(id(leaf), leaf), (args, kwargs))
        through = places_of(args)
        for name, mask in kwargs.items():
            # A mask that Keras, or the user, took from before the places that its tensor has passed.
            missing = through - places_of(mask)
            if name.endswith("mask") and missing:
                kwargs[name] = map_arrays(Place(sorted(missing)), mask)
        outputs = rebuilt.get(layer.name, layer)(*args, **kwargs)
        for leaf in tree.flatten(outputs):
            passed[id(leaf)] = through | places_of(kwargs)
        return put(outputs, places[layer.name]) if layer.name in places else outputs

    return walk(model, call, inputs)
