"""A function as one compiled program inside a TensorFlow graph."""

import functools

import keras

from kmix._backend.arrays import is_tensorflow
from kmix._backend.execution import PROGRAMS


class _Program:
    """A function of structures as one XLA program of their tensors."""

    def __init__(self, tf, function, structures, leaves):
        def on_leaves(*arrays):
            array = dict(zip(leaves, arrays, strict=True))
            mixed = function(*keras.tree.map_structure(lambda leaf: array.get(id(leaf), leaf), structures))
            parts = list(map(_before_reshape, keras.tree.flatten(mixed)))
            self.structure = keras.tree.map_structure(lambda _: None, mixed)
            self.shapes = [shape for _, shape in parts]
            return [leaf for leaf, _ in parts]

        function_of_leaves = tf.function(on_leaves, jit_compile=True, autograph=False)
        # Not the function itself, which would hold the graph of the first data set.
        self.run = function_of_leaves.get_concrete_function(*leaves.values())


def fused(tf, function, *structures, key=None, padded=()):
    """`function(*structures)` as one XLA program in a graph if the shapes allow it, else the plain call.

    XLA compiles once for each size of the batch, so all other sizes must be known, or take few values. It drops
    assertions.

    Args:
        tf: TensorFlow.
        function: A function of structures of tensors.
        structures: Its arguments.
        key: Gives what else the function depends on: later calls with an equal key share the program.
            Gives None if that is not known. Only called in a graph.
        padded: The tensors among them that were padded so that their sizes take few values.
    """
    leaves = {id(leaf): leaf for leaf in keras.tree.flatten(structures) if is_tensorflow(leaf)}
    if (
        tf.executing_eagerly()
        or not tf.test.is_built_with_xla()
        or not all(_compiles(leaf, any(leaf is other for other in padded)) for leaf in leaves.values())
    ):
        return function(*structures)
    make = functools.partial(_Program, tf, function, structures, leaves)
    constants = None if key is None else key()
    signature = (constants, *_signature(structures, leaves))
    # A program stays compiled across data sets, unless it holds a tensor of this graph, which no other has.
    program = make() if constants is None else PROGRAMS.find(signature, make)
    if program.run.captured_inputs:
        PROGRAMS.drop(signature)
    flat = program.run(*leaves.values())
    # Packed by the structure that was flattened: TensorFlow, and Keras on PyTorch, order dictionaries differently.
    shaped = [
        leaf if shape is None else tf.reshape(leaf, (-1, *shape))
        for leaf, shape in zip(flat, program.shapes, strict=True)
    ]
    return keras.tree.pack_sequence_as(program.structure, shaped)


def _signature(structures, leaves):
    """What tells one structure of tensors from another: names, shapes, dtypes, and tensors that occur twice."""
    order = list(leaves)
    for path, leaf in keras.tree.flatten_with_path(structures):
        if is_tensorflow(leaf):
            yield path, order.index(id(leaf)), tuple(leaf.shape), leaf.dtype
        else:
            yield path, repr(leaf)


def compiled(tf, function):
    """`function(*arrays)` for eager tensors, as one XLA program if possible."""
    return tf.function(lambda *arrays: fused(tf, function, *arrays), autograph=False)


def _before_reshape(leaf):
    """The tensor before a final reshape, and its shape: XLA may copy the batch for an axis, which is free outside."""
    if leaf is None or leaf.op.type != "Reshape" or not {0, None}.isdisjoint(leaf.shape[1:]):
        return leaf, None
    return leaf.op.inputs[0], leaf.shape[1:]


def _compiles(x, padded):
    """Whether XLA accepts the TensorFlow tensor `x`, and compiles it for few sizes other than that of the batch."""
    known = x.dtype.is_floating or x.dtype.is_integer or x.dtype.is_bool or x.dtype.is_complex
    return known and x.shape.rank is not None and (padded or None not in x.shape[1:])
