"""A function as one compiled program inside a TensorFlow graph."""

import keras

from kmix._backend import kinds


def fused(tf, function, *structures):
    """`function(*structures)` as one XLA program in a graph if the shapes allow it, else the plain call.

    XLA compiles once for each size of the batch, so all other sizes must be known. It drops assertions.
    """
    leaves = {id(leaf): leaf for leaf in keras.tree.flatten(structures) if kinds.is_tensorflow(leaf)}
    if tf.executing_eagerly() or not tf.test.is_built_with_xla() or not all(map(_compiles, leaves.values())):
        return function(*structures)
    results: list = []

    def on_leaves(*arrays):
        array = dict(zip(leaves, arrays, strict=True))
        mixed = function(*keras.tree.map_structure(lambda leaf: array.get(id(leaf), leaf), structures))
        results[:] = [mixed, *map(_before_reshape, keras.tree.flatten(mixed))]
        return [leaf for leaf, _ in results[1:]]

    flat = tf.function(on_leaves, jit_compile=True, autograph=False)(*leaves.values())
    # Packed by the structure that was flattened: TensorFlow, and Keras on PyTorch, order dictionaries differently.
    shapes = [shape for _, shape in results[1:]]
    shaped = [
        leaf if shape is None else tf.reshape(leaf, (-1, *shape)) for leaf, shape in zip(flat, shapes, strict=True)
    ]
    return keras.tree.pack_sequence_as(results[0], shaped)


def compiled(tf, function):
    """`function(*arrays)` for eager tensors, as one XLA program if possible."""
    return tf.function(lambda *arrays: fused(tf, function, *arrays), autograph=False)


def _before_reshape(leaf):
    """The tensor before a final reshape, and its shape: XLA may copy the batch for an axis, which is free outside."""
    if leaf is None or leaf.op.type != "Reshape" or not {0, None}.isdisjoint(leaf.shape[1:]):
        return leaf, None
    return leaf.op.inputs[0], leaf.shape[1:]


def _compiles(x):
    """Whether XLA accepts the TensorFlow tensor `x`, and compiles again only if the first size changes."""
    known = x.dtype.is_floating or x.dtype.is_integer or x.dtype.is_bool or x.dtype.is_complex
    return known and x.shape.rank is not None and None not in x.shape[1:]
