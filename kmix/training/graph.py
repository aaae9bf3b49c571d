"""Walks over the graphs of functional models, and what the tensors of a graph have passed."""

import keras

from kmix import _checks

tree = keras.tree

INPUT = "input"


def functional(model):
    """The plain functional model around the layers of a functional or Sequential model, None for others."""
    if isinstance(model, keras.Sequential):
        plain = hasattr(model, "inputs") and type(model).call is keras.Sequential.call
        return _plain(model.inputs[0], model.outputs[0]) if plain else None
    if not hasattr(model, "operations"):
        return None
    graph = _plain(model.input, model.output)
    return graph if type(model).call is type(graph).call else None


def _plain(inputs, outputs):
    # Keras numbers models without a name: this one must not take a number of the user's.
    return keras.Model(inputs, outputs, name=f"kmix_graph_{keras.backend.get_uid('kmix_graph')}")


def graph_of(model):
    """The functional model of `model`, or an error that says what to write."""
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


def names(model, prefix=""):
    """The names that `at` can hold, in the order of the layers."""
    if not prefix:
        yield INPUT
    for layer in graph_of(model).layers:
        if not (is_input(layer) and prefix):
            yield prefix + layer.name
        if isinstance(layer, keras.Model) and functional(layer) is not None:
            yield from names(layer, f"{prefix}{layer.name}/")


def is_input(layer):
    """Whether a layer is an input of its model."""
    return isinstance(layer, keras.layers.InputLayer)


def walk(model, call, inputs):
    """The graph of a functional model around the same layers, each called by `call(layer, *args, **kwargs)`."""
    return keras.models.clone_model(model, input_tensors=inputs, clone_function=lambda layer: layer, call_function=call)


def is_tensor(leaf):
    """Whether a leaf of the arguments of a layer comes from the inputs of the graph, and is no constant."""
    return keras.backend.is_keras_tensor(leaf)


def _called_mask(path, dtype):
    # The arguments of a layer are (args, kwargs). Floats in a dictionary may be data, whatever their key.
    names = [key for key in path if isinstance(key, str) and key.endswith("mask")]
    return bool(names) and ("float" not in dtype or path[:2] == (1, names[0]))


def map_masks(function, structure, others=()):
    """The arguments of a layer, with `function` of each mask.

    Masks are boolean tensors, those that are called a mask, and `others`, known by their identities.
    """
    leaves = [
        function(leaf) if is_tensor(leaf) and (is_mask(leaf, others) or _called_mask(path, leaf.dtype)) else leaf
        for path, leaf in tree.flatten_with_path(structure)
    ]
    return tree.pack_sequence_as(structure, leaves)


def is_mask(tensor, others=()):
    """Whether a tensor is boolean, or one of `others`, known by their identities."""
    return tensor.dtype == "bool" or id(tensor) in others


def made_of_masks(structure, others=()):
    """Whether the tensors among the arguments of a layer are masks alone."""
    tensors = [leaf for leaf in tree.flatten(structure) if is_tensor(leaf)]
    return bool(tensors) and all(is_mask(tensor, others) for tensor in tensors)


def inputs_of(structure):
    """The tensors among the arguments of a layer that are not called a mask."""
    tensors = [(path, leaf) for path, leaf in tree.flatten_with_path(structure) if is_tensor(leaf)]
    return [leaf for path, leaf in tensors if not _called_mask(path, leaf.dtype)]


def given_to(graph, inputs):
    """For each input of a functional model that is called on `inputs` what it is given.

    Keras passes a dictionary by name, everything else in order.
    """
    leaves = tree.flatten(inputs)
    if isinstance(inputs, dict):
        named = isinstance(graph.input, dict)
        leaves = [inputs.get(name) for name in (sorted(graph.input) if named else [t.name for t in graph.inputs])]
    # Where Keras drops or adds inputs nobody can tell which is which: each may be any of them.
    return leaves if len(leaves) == len(graph.inputs) else [inputs] * len(graph.inputs)


class Passed:
    """What the tensors of a graph have passed: on some way that leads to them, and on every way.

    Args:
        everything: All that there is to pass.
    """

    def __init__(self, everything):
        self.everything = frozenset(everything)
        # By the identity of the tensor, which stays in the value so that no other tensor takes its identity.
        self._ways: dict[int, tuple] = {}

    def put(self, tensor, some, every):
        """Say what a tensor has passed."""
        self._ways[id(tensor)] = tensor, frozenset(some), frozenset(every)

    def some(self, structure):
        """What has been passed on some way to one of the tensors of a structure."""
        return frozenset().union(*(self._ways[id(leaf)][1] for leaf in self._known(structure)))

    def every(self, structure):
        """What has been passed on every way to all tensors of a structure.

        Boolean tensors are masks, and carry nothing that could be mixed.
        """
        tensors = [leaf for leaf in tree.flatten(structure) if is_tensor(leaf) and leaf.dtype != "bool"]
        known = self._known(tensors)
        if len(known) < len(tensors):
            return frozenset()
        return self.everything.intersection(*(self._ways[id(leaf)][2] for leaf in known))

    def _known(self, structure):
        return [leaf for leaf in tree.flatten(structure) if id(leaf) in self._ways]


def warn_of_other_ways(layers):
    """Warn that some of what the outputs of a model are computed from does not pass the named layers."""
    _checks.warn(
        f"Not every way through the model passes {' and '.join(map(repr, layers))}: what takes another way is not "
        "mixed, but all labels are. Mix where the ways have met, such as behind the addition that ends a residual "
        "block, or on each of the ways."
    )
