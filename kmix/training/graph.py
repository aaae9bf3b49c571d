"""Walks over the graphs of functional models, and tracks what the tensors of a graph have passed."""

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import keras

from kmix import _checks

tree = keras.tree

INPUT = "input"


def functional(model: keras.Model) -> keras.Model | None:
    """The plain functional model around the layers of a functional or Sequential model; None for other models."""
    if isinstance(model, keras.Sequential):
        plain = hasattr(model, "inputs") and type(model).call is keras.Sequential.call
        return _plain(model.inputs[0], model.outputs[0]) if plain else None
    if not hasattr(model, "operations"):
        return None
    graph = _plain(model.input, model.output)
    return graph if type(model).call is type(graph).call else None


def _plain(inputs, outputs):
    # Keras numbers models without a name: this one must not use up a number.
    return keras.Model(inputs, outputs, name=f"kmix_graph_{keras.backend.get_uid('kmix_graph')}")


def graph_of(model: keras.Model) -> keras.Model:
    """The functional model of `model`. Raises for other models."""
    graph = functional(model)
    if graph is None and isinstance(model, keras.Sequential) and not model.built:
        _checks.fail(
            "`places` needs a built model.",
            "a Sequential model without an input shape",
            "Begin it with `keras.Input(shape)`.",
        )
    if graph is None:
        _checks.fail(
            "`places` needs a functional or Sequential model, where it can find the output of each layer.",
            f"a sub-classed model, {type(model).__name__}",
            "In its `call`, call a `kmix.EmbeddingMixup(...)` between the layers, and write `MixTrainer(model)`.",
        )
    return graph


def named_layers(model: keras.Model, prefix: str = "") -> Iterator[tuple[str, keras.layers.Layer]]:
    """The layers of a functional or Sequential model, and of models within, by the names that `places` accepts."""
    for layer in graph_of(model).layers:
        if not (is_input(layer) and prefix):
            yield prefix + layer.name, layer
        if isinstance(layer, keras.Model) and functional(layer) is not None:
            yield from named_layers(layer, f"{prefix}{layer.name}/")


def is_input(layer: keras.layers.Layer) -> bool:
    """Whether a layer is an input of its model."""
    return isinstance(layer, keras.layers.InputLayer)


def walk(model: keras.Model, call: Callable[..., Any], inputs: Any) -> Any:
    """Rebuild the graph of a functional model with the same layers; `call(layer, *args, **kwargs)` calls each."""
    return keras.models.clone_model(model, input_tensors=inputs, clone_function=lambda layer: layer, call_function=call)


def is_tensor(leaf: Any) -> bool:
    """Whether a leaf of the arguments of a layer comes from the inputs of the graph and is not a constant."""
    return keras.backend.is_keras_tensor(leaf)


def _called_mask(path, dtype):
    # The arguments of a layer are (args, kwargs). A float tensor in a dictionary may be data, whatever its key.
    names = [key for key in path if isinstance(key, str) and key.endswith("mask")]
    return bool(names) and ("float" not in dtype or path[:2] == (1, names[0]))


def map_masks(function: Callable[..., Any], structure: Any, others: Collection[int] = ()) -> Any:
    """The arguments of a layer, with `function` applied to each mask.

    Masks are boolean tensors, tensors that an argument names a mask, and `others`, known by their identities.
    """
    leaves = [
        function(leaf) if is_tensor(leaf) and (is_mask(leaf, others) or _called_mask(path, leaf.dtype)) else leaf
        for path, leaf in tree.flatten_with_path(structure)
    ]
    return tree.pack_sequence_as(structure, leaves)


def is_mask(tensor: Any, others: Collection[int] = ()) -> bool:
    """Whether a tensor is boolean, or one of `others`, known by their identities."""
    return tensor.dtype == "bool" or id(tensor) in others


def made_of_masks(structure: Any, others: Collection[int] = ()) -> bool:
    """Whether all tensors among the arguments of a layer are masks."""
    tensors = [leaf for leaf in tree.flatten(structure) if is_tensor(leaf)]
    return bool(tensors) and all(is_mask(tensor, others) for tensor in tensors)


def inputs_of(structure: Any) -> list[Any]:
    """The tensors among the arguments of a layer that no argument names a mask."""
    tensors = [(path, leaf) for path, leaf in tree.flatten_with_path(structure) if is_tensor(leaf)]
    return [leaf for path, leaf in tensors if not _called_mask(path, leaf.dtype)]


def given_to(graph: keras.Model, inputs: Any) -> list[Any]:
    """What each input of a functional model gets when the model is called on `inputs`.

    Keras passes a dictionary by name and everything else in order.
    """
    leaves = tree.flatten(inputs)
    if isinstance(inputs, dict):
        named = isinstance(graph.input, dict)
        leaves = [inputs.get(name) for name in (sorted(graph.input) if named else [t.name for t in graph.inputs])]
    # If Keras drops or adds inputs, the match is unknown: each may be any of them.
    return leaves if len(leaves) == len(graph.inputs) else [inputs] * len(graph.inputs)


class Passed:
    """What the tensors of a graph have passed on some path that leads to them, and on every path.

    And whether a tensor is mixed as it was before: nothing with weights has made something else of it since.

    Args:
        everything: Everything that a tensor can pass.
    """

    def __init__(self, everything: Iterable[Any]) -> None:
        self.everything = frozenset(everything)
        # Keyed by the identity of the tensor. The value holds the tensor, so that no other tensor gets its identity.
        self._ways: dict[int, tuple] = {}

    def put(self, tensor: Any, some: Any, every: Any, raw: bool = False) -> None:
        """Record what a tensor has passed, and whether it is `raw`: mixed, and nothing else."""
        self._ways[id(tensor)] = tensor, frozenset(some), frozenset(every), raw

    def some(self, structure: Any) -> frozenset[Any]:
        """What has been passed on some path to one of the tensors of a structure."""
        return frozenset().union(*(self._ways[id(leaf)][1] for leaf in self._known(structure)))

    def raw(self, structure: Any) -> bool:
        """Whether a tensor of a structure is mixed as it was."""
        return any(self._ways[id(leaf)][3] for leaf in self._known(structure))

    def every(self, structure: Any) -> frozenset[Any]:
        """What has been passed on every path to all tensors of a structure.

        Boolean tensors are masks and hold nothing to mix.
        """
        tensors = [leaf for leaf in tree.flatten(structure) if is_tensor(leaf) and leaf.dtype != "bool"]
        known = self._known(tensors)
        if len(known) < len(tensors):
            return frozenset()
        return self.everything.intersection(*(self._ways[id(leaf)][2] for leaf in known))

    def _known(self, structure):
        return [leaf for leaf in tree.flatten(structure) if id(leaf) in self._ways]


def warn_of_other_ways(layers: Any) -> None:
    """Warn that the outputs of a model also depend on tensors that bypass the named layers."""
    _checks.warn(
        f"Not every path through the model passes {' and '.join(map(repr, layers))}: what takes another path is not "
        "mixed, but all labels are. Mix where the paths have joined, such as after the addition that ends a residual "
        "block, or on each of the paths."
    )
